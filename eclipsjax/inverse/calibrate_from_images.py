"""The instrument's numbers from images of an unknown relief, where nothing else is at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eclipsjax.imaging.bsesm import flat_signal
from eclipsjax.imaging.sensitivity import stem
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.measurement import check_images, level_gains, typical_counts
from eclipsjax.inverse.method import Progress
from eclipsjax.inverse.pipeline import reconstruct
from eclipsjax.inverse.reconstruction import Reconstruction
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.uncertain import AZIMUTH, GAIN, PEDESTAL
from eclipsjax.specimen.emission import EmissionLaw

# What is believed beforehand: shares of the gain and of the flat signal, deg.
_LIKELY_GAIN, _LIKELY_PEDESTAL, _LIKELY_AZIMUTH_DEG = 0.05, 0.2, 5.0


def calibrate_from_images(
    images: Any,
    pixel_size_nm: Any,
    scope: Microscope,
    uncertain: Mapping[str, float] | None = None,
    emission: EmissionLaw | None = None,
    grey_range: tuple[float | None, float | None] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Reconstruction:
    """Numbers of the microscope from images of an unknown relief, jointly with its heights.

    - `images`, `pixel_size_nm`, `scope`, `emission`, `grey_range`, `report`: as in `reconstruct`. Gains come out in
      grey levels per signal of this specimen's material, whatever those of `scope` are in.
    - `uncertain`: numbers to solve for, dotted name -> standard deviation beforehand, in the number's unit. Gains,
      pedestals (20 % of the flat signal) and azimuths (5 deg) are always among them, unless given here. Gains start
      from a specimen that is level on average, known within 5 % besides the pedestals; where they are given here, from
      how those of `scope` compare.

    Returns a `Reconstruction`: its `calibration` holds the numbers; heights come without standard deviations.
    Gradient: none (a search).
    """
    given = dict(uncertain or {})
    stems = {stem(name) for name in given}
    segments, flat = scope.detector.segments, flat_signal(acceptance(scope), emission)
    if GAIN in stems:
        gain = segments.gain * typical_counts(images, scope, emission).astype(segments.gain.dtype)
    else:
        gain = level_gains(check_images(images, scope), flat, segments.pedestal, "the pedestals given")
    scope = eqx.tree_at(lambda s: s.detector.segments.gain, scope, gain)
    # The images' means are what is known within 5 %: gains follow the pedestals.
    of_pedestal = _LIKELY_PEDESTAL * float(jnp.mean(flat / (flat - segments.pedestal.astype(flat.dtype))))
    believed = {
        GAIN: float(np.hypot(_LIKELY_GAIN, of_pedestal) * jnp.mean(gain)),
        PEDESTAL: _LIKELY_PEDESTAL * float(jnp.mean(flat)),
        AZIMUTH: _LIKELY_AZIMUTH_DEG,
    }
    believed = {name: std for name, std in believed.items() if name not in stems}
    method = Refined(draws=0, uncertain=believed | given)
    return reconstruct(images, pixel_size_nm, scope, method, None, emission, grey_range, report)
