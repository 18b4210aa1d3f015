"""Segments whose fitted rims run into each other, told apart again: a plate holds none on top of another."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import concrete
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.plausible import overlaps


def parted(scope: Microscope) -> tuple[Microscope, list[str]]:
    """`scope` with every two rims that overlap moved to the middle of the overlap, and a sentence on each.

    Azimuths that are fitted segment by segment overlap by about their standard deviations where segments touch.
    Gradient: none (while it is traced nothing is moved).
    """
    segments = scope.detector.segments
    if any(concrete(leaf) is None for leaf in jax.tree.leaves(segments)):
        return scope, []
    start, stop = (np.array(rim, np.float64) for rim in (segments.start_deg, segments.stop_deg))
    said = []
    for first, second, overlap in overlaps(segments):
        stop[first] -= 0.5 * overlap
        start[second] += 0.5 * overlap
        said.append(
            f"segments {segments.names[first]} and {segments.names[second]} were fitted {overlap:.3g} deg into each "
            "other: their rims meet halfway."
        )
    if not said:
        return scope, said
    rims = tuple(jnp.asarray(rim, segments.start_deg.dtype) for rim in (start, stop))
    moved = eqx.tree_at(lambda s: (s.detector.segments.start_deg, s.detector.segments.stop_deg), scope, rims)
    return moved, said
