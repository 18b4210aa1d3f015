"""Huber's loss on the links, then Wiener's shrinkage: noise as in least squares, edges and outliers as in least
absolute deviations.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eclipsjax._cosine import cosine_modes_2d, from_cosine_modes_2d
from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.least_absolute import link_spread
from eclipsjax.inverse.integrators.links import Links, cubic, differences, divergence, poisson
from eclipsjax.inverse.integrators.wiener import Rings, believed_share, ring_spectra


class Robust(eqx.Module):
    """Height with the least sum of Huber's losses of the links, each mode then shrunk as in `Wiener`.

    Links that miss by less than `cutoff` standard deviations count squared, those that miss by more count by their
    size. The standard deviation is the noise's, read off the residuals themselves: where nothing is noisy this is
    `LeastAbsolute`, where all is noise it is `Wiener`.

    - `cutoff`: standard deviations. `iterations`: of the alternating direction method, a Poisson solve each (static).
    - `rings`: of the spectra, as in `Wiener`; 0 for no shrinkage (static).

    Gradient: exact for the iterations as run, the standard deviation held fixed.
    """

    cutoff: float = eqx.field(static=True, default=2.5)
    iterations: int = eqx.field(static=True, default=40)
    rings: int = eqx.field(static=True, default=48)

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        if not self.rings:
            return huber_fit(slope_x, slope_y, self.cutoff, self.iterations)[0]
        modes, *spectra = robust_modes(slope_x, slope_y, self.cutoff, self.iterations, self.rings)
        return from_cosine_modes_2d(modes * believed_share(*spectra, slope_x.shape))


def robust_modes(slope_x: Map, slope_y: Map, cutoff: float, iterations: int, rings: int) -> tuple[Map, Rings, Rings]:
    """Cosine modes of the height of least Huber loss (px), and the spectra (`ring_spectra`) of the slopes without what
    lies beyond the cutoff. Gradient: as `Robust`'s."""
    height, steps, limit = huber_fit(slope_x, slope_y, cutoff, iterations)
    excess = jax.tree.map(lambda m: m - jnp.clip(m, -limit, limit), steps - differences(height))
    spare_x, spare_y = _on_pixels(excess)
    return cosine_modes_2d(height), *ring_spectra(slope_x - spare_x, slope_y - spare_y, rings)


def huber_fit(slope_x: Map, slope_y: Map, cutoff: float, iterations: int) -> tuple[Map, Links, Scalar]:
    """The height of least Huber loss (px), the links' differences that it fits, and the size where squares end.

    Alternating direction method of multipliers. After a quarter of the iterations the standard deviation is read off
    anew, when outliers and edges no longer spoil their neighbours' residuals.
    """
    steps = cubic(slope_x, slope_y)
    height = poisson(divergence(steps))
    price = jax.tree.map(jnp.zeros_like, steps)
    spread = link_spread(differences(height) - steps)
    for rounds in (iterations // 4, iterations - iterations // 4):
        through = 3.0 * spread
        reach = cutoff * spread + through

        def iterate(state, _, through=through, reach=reach):
            height, price = state
            miss = differences(height) - steps + price
            price = jax.tree.map(lambda m: through * jnp.clip(m / reach, -1.0, 1.0), miss)
            return (poisson(divergence(steps + miss - price - price)), price), None

        (height, price), _ = lax.scan(iterate, (height, price), None, length=rounds)
        before, spread = spread, link_spread(differences(height) - steps)
        price = jax.tree.map(lambda p: p * (spread / before), price)  # noqa: B023
    return height, steps, cutoff * spread


def gradient(height: Map) -> tuple[Map, Map]:
    """Slopes of a height in pixels: central differences inside, one-sided at the border. Gradient: exact."""
    return _on_pixels(differences(height))


def _on_pixels(links: Links) -> tuple[Map, Map]:
    """Mean of each pixel's links, along x and along y."""

    def mean(values: Array, axis: int) -> Array:
        sides = [(1, 0) if a == axis else (0, 0) for a in (0, 1)], [(0, 1) if a == axis else (0, 0) for a in (0, 1)]
        count = sum(jnp.pad(jnp.ones_like(values), s) for s in sides)
        return sum(jnp.pad(values, s) for s in sides) / jnp.maximum(count, 1.0)

    return mean(links.x, 1), mean(links.y, 0)
