"""The rim of each segment as a closed chain of points, and where those points are in the chamber."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import image_direction
from eclipsjax.instrument.microscope import Detector
from eclipsjax.instrument.tilt import tilted_axes

# Points on each arc and on each of the two straight sides. Chords between points are straight in (theta, phi), so arcs
# about the optical axis and radial sides are exact at any count; these numbers keep decentred ones within 1e-4 (half a
# millimetre off axis; 1e-5 at a tenth).
_ARC, _SIDE = 97, 33

Outline = Float[Array, "segment vertex 3"]


def segment_outlines(detector: Detector) -> Outline:
    """Rim of every segment, mm: `(segment, vertex, 3)` in image axes with z up from the specimen; first point repeated
    last.

    Counter-clockwise as seen in the image: outer arc, straight side inward, inner arc back, straight side outward.
    Sides run parallel to the boundary azimuths at half a gap's distance. Gradient: exact in all numbers of the
    detector.
    """
    s = detector.segments
    return jax.vmap(lambda *one: _place(detector, _rim(*one)))(
        s.inner_radius_mm, s.outer_radius_mm, jnp.radians(s.start_deg), jnp.radians(s.stop_deg), s.gap_mm
    )


def arc_of_edge() -> np.ndarray:
    """For each edge of an outline: 1 on the outer arc, -1 on the inner arc, 0 on the sides."""
    return np.repeat([1, 0, -1, 0], [_ARC - 1, _SIDE - 1, _ARC - 1, _SIDE - 1])


def _rim(inner: Array, outer: Array, start: Array, stop: Array, gap: Array) -> Float[Array, "vertex 2"]:
    """Rim of one segment in the plate's own plane, mm, image axes, with azimuths in radians."""

    def corner(radius):
        inset = jnp.arcsin(gap / (2.0 * radius))
        return start + inset, stop - inset

    def arc(radius, t):
        first, last = corner(radius)
        along_x, along_y = image_direction(first + (last - first) * t)
        return radius * jnp.stack([along_x, along_y], axis=-1)

    t = jnp.linspace(0.0, 1.0, _ARC, dtype=outer.dtype)
    outside, inside = arc(outer, t), arc(inner, t[::-1])
    # Closer points near the hole, where the gap takes the larger share of the azimuth.
    u = (inner / outer) ** jnp.linspace(0.0, 1.0, _SIDE, dtype=outer.dtype)
    u = ((u - u[-1]) / (u[0] - u[-1]))[1:-1, None]
    inward = u * outside[-1:] + (1.0 - u) * inside[:1]
    outward = u[::-1] * outside[:1] + (1.0 - u[::-1]) * inside[-1:]
    return jnp.concatenate([outside, inward, inside, outward, outside[:1]], axis=0)


def _place(detector: Detector, rim: Float[Array, "vertex 2"]) -> Float[Array, "vertex 3"]:
    """Points of the plate's plane in the chamber."""
    centre = jnp.stack([detector.offset_x_mm, detector.offset_y_mm, detector.distance_mm])
    return centre[None, :] + rim @ tilted_axes(detector.tilt_x_deg, detector.tilt_y_deg)[:2]
