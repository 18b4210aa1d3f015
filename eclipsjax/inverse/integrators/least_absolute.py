"""Least absolute deviations: a link that disagrees by much pulls no harder than one that disagrees by little."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.links import Links, differences, divergence, poisson, trapezoid, weighted_trapezoid
from eclipsjax.inverse.integrators.outlying import ONE, typical


class LeastAbsolute(eqx.Module):
    """Height with the least sum of absolute differences from the links, by the alternating direction method (ADMM).

    Outlying pixels and unseen steps cost their size once instead of squared and stay where they are. Behind `Wiener` on
    white noise.

    - `iterations`: of the method, one Poisson solve each (static).
    - `threshold`: what each iteration lets pass, in robust standard deviations of the least-squares residual.

    Weights multiply a link's cost. Gradient: exact for the iterations as run.
    """

    iterations: int = eqx.field(static=True, default=60)
    threshold: float = eqx.field(static=True, default=1.0)

    def height_px(self, slope_x: Map, slope_y: Map, weights: Map | None, mask: Array | None) -> Map:
        """Height in pixels, up to a constant."""
        if weights is None:
            steps, share = trapezoid(slope_x, slope_y), None
        else:
            steps, share = weighted_trapezoid(slope_x, slope_y, weights, mask)
        height = poisson(divergence(steps))
        pass_by = self.threshold * link_spread(differences(height) - steps)
        limits = jax.tree.map(lambda s: pass_by * jnp.ones_like(s), steps)
        if share is not None:
            limits = share * limits

        def iterate(state, _):
            height, spare, price = state
            miss = differences(height) - steps + price
            spare = jax.tree.map(_shrink, miss, limits)
            price = miss - spare
            return (poisson(divergence(steps + spare - price)), spare, price), None

        nothing = jax.tree.map(jnp.zeros_like, steps)
        return lax.scan(iterate, (height, nothing, nothing), None, length=self.iterations)[0][0]


def _shrink(value: Array, limit: Array) -> Array:
    return jnp.sign(value) * jnp.maximum(jnp.abs(value) - limit, 0.0)


def link_spread(links: Links) -> Scalar:
    """Standard deviation of the links if they were Gaussian, from the medians of their sizes. Gradient: none."""
    medians = [typical(jnp.abs(a)) for a in (links.x, links.y) if a.size]
    return sum(medians, jnp.zeros((), links.x.dtype)) / max(len(medians), 1) / ONE + 1e-6
