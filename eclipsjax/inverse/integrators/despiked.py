"""Outlying pixels found and replaced before any other method integrates."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from eclipsjax._types import Map
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute
from eclipsjax.inverse.integrators.links import loop_noise
from eclipsjax.inverse.integrators.outlying import alone, standing_out, without_spikes
from eclipsjax.inverse.integrators.robust import gradient


class Despiked(eqx.Module):
    """`method`, after pixels whose slopes stand out alone have got their neighbourhood's median.

    A pixel is replaced where its slopes lie farther out than its neighbours' by `threshold` standard deviations of the
    noise and by as much as these differ among each other, and where few pixels around do likewise: edges come in
    lines. With weights or a mask, pixels that stand out from a first height of least absolute deviations weigh 0.

    - `method`: any other; it must take weights if weights are given. `threshold`: standard deviations (static).

    Gradient: that of the method, which pixels are replaced held fixed.
    """

    method: Any
    threshold: float = eqx.field(static=True, default=4.0)

    def height_px(self, slope_x: Map, slope_y: Map, weights: Map | None, mask: Array | None) -> Map:
        """Height in pixels, up to a constant."""
        if weights is None:
            noise = loop_noise(slope_x, slope_y)
            return self.method.height_px(*without_spikes(slope_x, slope_y, noise, self.threshold), None, mask)
        spikes = weighted_spikes(slope_x, slope_y, weights, mask, self.threshold)
        return self.method.height_px(slope_x, slope_y, jnp.where(spikes, 0.0, weights), mask)


def weighted_spikes(
    slope_x: Map, slope_y: Map, weights: Map, mask: Array | None, threshold: float
) -> Bool[Array, "y x"]:
    """True where slopes stand out, alone, from those of a first height of least absolute deviations. Gradient: none."""
    slope_x, slope_y, weights = lax.stop_gradient((slope_x, slope_y, weights))
    first_x, first_y = gradient(LeastAbsolute(iterations=20).height_px(slope_x, slope_y, weights, mask))
    inside = weights > 0
    miss = jnp.where(inside, jnp.hypot(slope_x - first_x, slope_y - first_y), 0.0)
    own, fitted = jnp.hypot(slope_x, slope_y), jnp.hypot(first_x, first_y)
    aligned = slope_x * first_x + slope_y * first_y > 0.9 * own * fitted
    steeper = aligned & (own > fitted) & (fitted > 0.3 * miss)
    return standing_out(miss, threshold, inside) & alone(miss) & ~steeper
