"""Synthetic surfaces, each with its analytic truth: `step_bunch()`, `rough(...)`, ... return a
`Scene(surface, truth)`.

Pure functions of numbers; shapes `(rows, columns)`, counts and choices are static; random families take a
`key`. Samples lie at pixel centres, the origin at the image centre, heights in nm, azimuths counter-clockwise
as seen.
"""

from eclipsjax.specimen.synthetic._gratings import grating as grating, sinusoid as sinusoid
from eclipsjax.specimen.synthetic._planar import (
    plane as plane,
    step as step,
    trench as trench,
    v_groove as v_groove,
)
from eclipsjax.specimen.synthetic._rough import rough as rough
from eclipsjax.specimen.synthetic._round import bowl as bowl, sphere as sphere
from eclipsjax.specimen.synthetic._scattered import islands as islands, particles as particles, pits as pits
from eclipsjax.specimen.synthetic._scene import Scene as Scene, Truth as Truth, add as add
from eclipsjax.specimen.synthetic._spiral import spiral as spiral
from eclipsjax.specimen.synthetic._step_bunch import step_bunch as step_bunch
from eclipsjax.specimen.synthetic._vickers import vickers as vickers
