"""Bilateral normal integration after Cao, Santo, Okura and Matsushita (ECCV 2022): for steps that no pixel resolves.

Each pixel's slope predicts the difference to the neighbour ahead and to the one behind. Where one of the two disagrees
more, that side lies across a step and loses its weight: the surface is taken as continuous on one side at least.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eclipsjax._conjugate_gradients import conjugate_gradients
from eclipsjax._types import Map
from eclipsjax.inverse.integrators.links import Links, differences, divergence, least_squares, poisson


class Bilateral(eqx.Module):
    """Iteratively reweighted least squares, each pixel trusting the side that agrees with its slope.

    - `steepness`: k of the weight 1 / (1 + exp(-k (other side's residual^2 - own residual^2))), residuals in pixels.
    - `rounds`: of new weights; `iterations`: of the conjugate gradients in each (static).

    For single steps in otherwise quiet slopes; noise makes it drop links that it needs.
    Gradient: exact with the final weights held fixed.
    """

    steepness: float = eqx.field(static=True, default=50.0)
    rounds: int = eqx.field(static=True, default=20)
    iterations: int = eqx.field(static=True, default=5)

    def height_px(self, slope_x: Map, slope_y: Map, weights: Map | None, mask: Array | None) -> Map:
        """Height in pixels, up to a constant."""
        own = jnp.ones_like(slope_x) if weights is None else weights
        own = own if mask is None else jnp.where(mask, own, 0.0)
        fixed_x, fixed_y, fixed_own = lax.stop_gradient((slope_x, slope_y, own))

        def reweigh(height, _):
            steps, share = self._links(height, fixed_x, fixed_y, fixed_own, mask)
            scale = (jnp.sum(share.x) + jnp.sum(share.y)) / max(share.x.size + share.y.size, 1)
            rhs = divergence(share * steps)

            def matvec(h):
                return divergence(share * differences(h))

            # The weights move on before the heights have settled: a rough solution is enough.
            better, _ = conjugate_gradients(matvec, rhs, lambda r: poisson(r) / scale, 1e-3, self.iterations, height)
            return better, None

        start = poisson(divergence(self._links(None, fixed_x, fixed_y, fixed_own, mask)[0]))
        height, _ = lax.scan(reweigh, start, None, length=self.rounds)
        return least_squares(*self._links(height, slope_x, slope_y, own, mask))

    def _links(
        self, height: Map | None, slope_x: Map, slope_y: Map, own: Map, mask: Array | None
    ) -> tuple[Links, Links]:
        steps_x, share_x = self._along(height, slope_x, own, mask)
        transposed = None if height is None else height.T
        steps_y, share_y = self._along(transposed, slope_y.T, own.T, None if mask is None else mask.T)
        return Links(steps_x, steps_y.T), Links(share_x, share_y.T)

    def _along(self, height, slope, own, mask):
        """Differences along x and their weights, from both pixels' one-sided predictions."""
        if height is None or slope.shape[1] == 1:
            ahead = behind = 0.5 * jnp.ones_like(slope)
        else:
            step = lax.stop_gradient(height)[:, 1:] - lax.stop_gradient(height)[:, :-1]
            # A pixel at the border has one side only.
            miss_ahead = jnp.pad(step - slope[:, :-1], ((0, 0), (0, 1)), mode="edge") ** 2
            miss_behind = jnp.pad(step - slope[:, 1:], ((0, 0), (1, 0)), mode="edge") ** 2
            ahead = lax.stop_gradient(jax.nn.sigmoid(self.steepness * (miss_behind - miss_ahead)))
            behind = 1.0 - ahead
        low, high = (own * ahead)[:, :-1], (own * behind)[:, 1:]
        total = low + high
        mean = (low * slope[:, :-1] + high * slope[:, 1:]) / jnp.where(total > 0, total, 1.0)
        if mask is not None:
            total = jnp.where(mask[:, 1:] & mask[:, :-1], total, 0.0)
        return mean, total
