"""Least squares on the links between neighbours: Poisson's equation with a Neumann border."""

from __future__ import annotations

import equinox as eqx
from jaxtyping import Array

from eclipsjax._types import Map
from eclipsjax.inverse.integrators.links import divergence, least_squares, poisson, trapezoid, weighted_trapezoid


class Poisson(eqx.Module):
    """Height whose differences between neighbours fit the mean of the two slopes best, in least squares.

    The optimum of "normals agree, no curl, Neumann border" for white noise of slopes, in one cosine transform each way.
    With weights or a mask: the same least squares by conjugate gradients, each link's ends counting by their weights.
    Second order in the pixel size.

    - `tolerance`: of the conjugate gradients' relative residual (static; 1e-10 in float64, 1e-6 in float32).

    Gradient: exact (linear; the transpose solves the same equation).
    """

    tolerance: float | None = eqx.field(static=True, default=None)

    def height_px(self, slope_x: Map, slope_y: Map, weights: Map | None, mask: Array | None) -> Map:
        """Height in pixels, up to a constant."""
        if weights is None:
            return poisson(divergence(trapezoid(slope_x, slope_y)))
        return least_squares(*weighted_trapezoid(slope_x, slope_y, weights, mask), self.tolerance)
