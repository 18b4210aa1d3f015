"""Outlying pixels found and replaced before any other method integrates."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from eclipsjax._types import Map
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute
from eclipsjax.inverse.integrators.outlying import alone, standing_out
from eclipsjax.inverse.integrators.robust import gradient, huber_fit


class Despiked(eqx.Module):
    """`method`, after pixels whose slopes stand out from a robust first height have got that height's slopes.

    A pixel is replaced where its slopes miss the first height's by `threshold` standard deviations, of the image and
    of its neighbourhood, where few pixels around miss likewise (edges come in lines), and unless they are only steeper
    in the same direction (rims and walls that a single pixel catches). With weights or a mask, such pixels weigh 0.

    - `method`: any other; it must take weights if weights are given. `threshold`: standard deviations (static).

    Gradient: that of the method, and exact through the first height, which pixels are replaced held fixed.
    """

    method: Any
    threshold: float = eqx.field(static=True, default=5.0)

    def height_px(self, slope_x: Map, slope_y: Map, weights: Map | None, mask: Array | None) -> Map:
        """Height in pixels, up to a constant."""
        if weights is None:
            first = gradient(huber_fit(slope_x, slope_y, 2.5, 16)[0])
            spikes = find_spikes(slope_x, slope_y, first, self.threshold)
            slope_x, slope_y = jnp.where(spikes, first[0], slope_x), jnp.where(spikes, first[1], slope_y)
            return self.method.height_px(slope_x, slope_y, None, mask)
        first = gradient(LeastAbsolute(iterations=20).height_px(slope_x, slope_y, weights, mask))
        spikes = find_spikes(slope_x, slope_y, first, self.threshold, weights > 0)
        return self.method.height_px(slope_x, slope_y, jnp.where(spikes, 0.0, weights), mask)


def find_spikes(
    slope_x: Map, slope_y: Map, first: tuple[Map, Map], threshold: float, inside: Bool[Array, "y x"] | None = None
) -> Bool[Array, "y x"]:
    """True where slopes stand out, alone, from those of a first height. Gradient: none."""
    slope_x, slope_y, (first_x, first_y) = lax.stop_gradient((slope_x, slope_y, first))
    miss = jnp.hypot(slope_x - first_x, slope_y - first_y)
    miss = miss if inside is None else jnp.where(inside, miss, 0.0)
    own, fitted = jnp.hypot(slope_x, slope_y), jnp.hypot(first_x, first_y)
    aligned = slope_x * first_x + slope_y * first_y > 0.9 * own * fitted
    steeper = aligned & (own > fitted) & (fitted > 0.3 * miss)
    return standing_out(miss, threshold, inside) & alone(miss) & ~steeper
