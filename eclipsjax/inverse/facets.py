"""Which slopes an image has most of: facets and terraces share a few slopes, and the whole image votes for them.

Slopes are counted in the plane (slope_x, slope_y); every slope then climbs to the nearest summit of that density (mean
shift, Fukunaga and Hostetler 1975). Noise of one pixel averages out over all pixels of equal slope, wherever they lie.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map, Scalar

Slopes = Float[Array, "y x 2"]

# Cells along each side of the counted plane: odd, so that slope 0 is a cell's centre and turns map cells to cells.
_CELLS = 129
_CLIMBS = 5


def summits(counted: Slopes, looked_up: tuple[Slopes, ...], width: Scalar) -> tuple[list[Slopes], list[Map]]:
    """For each of `looked_up` slopes the summit it climbs to, and the share of `counted` slopes within `width` of it.

    `width` is the standard deviation of the smoothing kernel, in slopes; at least one cell. Gradient: none.
    """
    counted, looked_up, width = lax.stop_gradient((counted, looked_up, width))
    half = jnp.max(jnp.abs(counted)) * 1.02 + 1e-9
    cell = 2 * half / (_CELLS - 1)
    density = _count(counted, half)
    window = jnp.exp(-0.5 * (jnp.asarray(np.arange(-_CELLS + 1, _CELLS), width.dtype) * cell / width) ** 2)
    smooth = _both_ways(density, window)
    axis = jnp.asarray(np.linspace(-1, 1, _CELLS), width.dtype) * half
    here = jnp.stack(jnp.meshgrid(axis, axis), axis=-1)
    weighed = [_both_ways(density * here[..., k], window) / (smooth + 1e-12) for k in range(2)]
    # Far from all slopes there is nothing to climb to.
    climb = jnp.where((smooth > 1e-9)[..., None], jnp.stack(weighed, axis=-1), here)
    for _ in range(_CLIMBS):
        climb = _look_up(climb, climb, half)
    share = smooth / counted[..., 0].size
    tops = [_look_up(climb, slopes, half) for slopes in looked_up]
    return tops, [_look_up(share[..., None], top, half)[..., 0] for top in tops]


def _both_ways(density: Array, window: Array) -> Array:
    """Convolution with `window` along rows and columns."""
    offsets = np.arange(_CELLS)[:, None] - np.arange(_CELLS)[None, :] + _CELLS - 1
    matrix = window[offsets]
    return matrix @ density @ matrix


def _count(slopes: Slopes, half: Scalar) -> Float[Array, "cell cell"]:
    """How many slopes fall to each cell `[slope_y, slope_x]`, shared linearly among the nearest four."""
    corner, fraction = _place(slopes, half)
    density = jnp.zeros((_CELLS, _CELLS), slopes.dtype)
    for j in (0, 1):
        for i in (0, 1):
            weight = jnp.abs(1 - i - fraction[..., 0]) * jnp.abs(1 - j - fraction[..., 1])
            density = density.at[corner[..., 1] + j, corner[..., 0] + i].add(weight)
    return density


def _look_up(values: Float[Array, "cell cell v"], slopes: Slopes, half: Scalar) -> Array:
    """Bilinear interpolation of `values` at `slopes`; the plane's edge serves those beyond."""
    corner, fraction = _place(slopes, half)
    total = jnp.zeros((*slopes.shape[:-1], values.shape[-1]), slopes.dtype)
    for j in (0, 1):
        for i in (0, 1):
            weight = jnp.abs(1 - i - fraction[..., 0]) * jnp.abs(1 - j - fraction[..., 1])
            total = total + weight[..., None] * values[corner[..., 1] + j, corner[..., 0] + i]
    return total


def _place(slopes: Slopes, half: Scalar) -> tuple[Array, Array]:
    place = jnp.clip((slopes / half + 1.0) * (0.5 * (_CELLS - 1)), 0.0, _CELLS - 1.001)
    corner = jnp.floor(place)
    return corner.astype(jnp.int32), place - corner
