"""Walls steeper than pixels resolve, made as steep as closed loops require.

A pixel that a wall crosses shows a mean normal: how much of its area the wall covers, not how steep the wall is. But
where terraces lead around the wall's end (growth spirals), a walk up the terraces and back across the wall must close.
One number does it for the whole image: the tangent of the walls' angle.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from eclipsjax._cosine import cosine_modes_2d
from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.links import (
    differences,
    divergence,
    laplacian_of_modes,
    loop_noise,
    poisson,
    trapezoid,
)
from eclipsjax.inverse.integrators.outlying import excess_over_surroundings, without_spikes

# Loops are closed only by walls steeper than this, and only if walls explain this much (correlation) of what is open.
_STEEP, _ALIKE = 4.0, 0.7


class ClosedWalls(eqx.Module):
    """`method`, after walls that no pixel resolves have been made as steep as closing loops requires.

    Nothing is changed where loops close as measured, where the walls found would not be steep (slope 4) or do not
    explain what is left open. Spikes are taken out first, as in `Despiked`.

    - `method`: any other; weights and masks are not taken.

    Gradient: that of the method, the walls' places and steepness held fixed.
    """

    method: Any

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        mended = Mended.of(slope_x, slope_y)
        return self.method.height_px(mended.slope_x, mended.slope_y, None, None)


class Mended(eqx.Module):
    """Slopes without spikes and with walls closed: what every look at larger things starts from.

    - `slope_x`, `slope_y`: `(y, x)`, dimensionless. `noise`: standard deviation of a slope as given.
    - `spikes`, `walls`: `(y, x)`, true where slopes were changed for the one or the other reason.
    """

    slope_x: Map
    slope_y: Map
    noise: Scalar
    spikes: Bool[Array, "y x"]
    walls: Bool[Array, "y x"]

    @classmethod
    def of(cls, slope_x: Map, slope_y: Map) -> Mended:
        """Gradient: exact off the walls that are changed, zero on them, spikes held fixed."""
        noise = loop_noise(slope_x, slope_y)
        calm = without_spikes(slope_x, slope_y, noise)
        closed = closed_walls(*calm, noise)
        spikes = (calm[0] != slope_x) | (calm[1] != slope_y)
        return cls(*closed, noise, spikes, (closed[0] != calm[0]) | (closed[1] != calm[1]))

    def less(self, slope_x: Map, slope_y: Map) -> Mended:
        """What is left when these slopes are taken off. Gradient: exact."""
        return Mended(self.slope_x - slope_x, self.slope_y - slope_y, self.noise, self.spikes, self.walls)


def closed_walls(slope_x: Map, slope_y: Map, noise: Scalar) -> tuple[Map, Map]:
    """Slopes with walls as steep as closed loops require; as given where that says nothing.

    Gradient: exact off the walls, zero on them where they are changed.
    """
    if min(slope_x.shape) < 2:
        return slope_x, slope_y
    fixed = lax.stop_gradient((slope_x, slope_y))
    around, excess, size, wall = excess_over_surroundings(*fixed, noise)
    # The mean normal of a pixel of which a vertical wall covers the share f has the slope f / (1 - f).
    covered = [jnp.where(wall, e / (1.0 + size), 0.0) for e in excess]
    bare = [jnp.where(wall, a, s) for a, s in zip(around, fixed, strict=True)]
    open_, closing = _open_loops(*bare), _open_loops(*covered)
    both, own = -jnp.sum(open_ * closing), jnp.sum(closing**2)
    steepness = both / jnp.where(own > 0, own, 1.0)
    alike = both / jnp.sqrt(jnp.maximum(own * jnp.sum(open_**2), 1e-30))
    believed = wall & (steepness > _STEEP) & (alike > _ALIKE)
    return tuple(
        jnp.where(believed, a + steepness * c, s) for a, c, s in zip(around, covered, (slope_x, slope_y), strict=True)
    )


def _open_loops(slope_x: Map, slope_y: Map) -> Float[Array, "mode"]:
    """Modes of what no height explains of the slopes, long waves weighing most: there ends of walls show, while the
    pixels along a wall, which see more or less of it, do not."""
    links = trapezoid(slope_x, slope_y)
    fitted = differences(poisson(divergence(links)))
    return jnp.concatenate([_long_waves(links.x - fitted.x), _long_waves(links.y - fitted.y)])


def _long_waves(values: Map) -> Float[Array, "mode"]:
    eigenvalue = laplacian_of_modes(values.shape, values.dtype)
    return (cosine_modes_2d(values) / jnp.sqrt(jnp.where(eigenvalue > 0, eigenvalue, jnp.inf))).ravel()
