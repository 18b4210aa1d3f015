"""Integration along paths: what line-by-line software does, kept as the yardstick for drift."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from eclipsjax._types import Map
from eclipsjax.inverse.integrators.links import trapezoid


class PathIntegration(eqx.Module):
    """Sum of the slopes along rows and columns (trapezoid rule), from the top left corner.

    - `both_ways`: the mean of "down the first column, then along rows" and the reverse (static); one way by default.

    Every error is carried on to the end of its path: stripes. Gradient: exact (linear).
    """

    both_ways: bool = eqx.field(static=True, default=False)

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        steps = trapezoid(slope_x, slope_y)
        along = jnp.pad(jnp.cumsum(steps.x, axis=1), ((0, 0), (1, 0)))
        down = jnp.pad(jnp.cumsum(steps.y, axis=0), ((1, 0), (0, 0)))
        first = down[:, :1] + along
        return 0.5 * (first + along[:1] + down) if self.both_ways else first
