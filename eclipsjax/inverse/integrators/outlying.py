"""Which pixels stand alone: their misfits against their neighbourhood's and against the noise of the whole image."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from eclipsjax._types import Map, Scalar

_SAMPLE = 5_000
# A pixel stands off its surroundings by these many times the noise, and by this slope.
_NOISES, _LEAST = 4.0, 0.05
# Median over standard deviation of |v|: v a Gaussian number, or a vector of two.
ONE, TWO = 0.6745, 1.1774


def typical(sizes: Map, inside: Bool[Array, "y x"] | None = None) -> Scalar:
    """Median of `sizes` inside, from a regular sample of some 5,000 pixels. Gradient: none."""
    stride = max(1, round(math.sqrt(sizes.size / _SAMPLE)))
    inside = jnp.ones(sizes.shape, bool) if inside is None else inside
    sample, counted = (a[::stride, ::stride].ravel() for a in (sizes, inside))
    count = jnp.sum(counted, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(counted, lax.stop_gradient(sample), jnp.inf))
    return jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0) // 2], 0.0)


def median_of_nine(values: Map, spacing: int = 1) -> Map:
    """Median of the three by three values that lie `spacing` apart around each, mirrored at the border."""
    low, middle, high = _sorted(*_threes(values, 0, spacing))
    least, greatest = _threes(low, 1, spacing), _threes(high, 1, spacing)
    most_low = jnp.maximum(jnp.maximum(least[0], least[1]), least[2])
    least_high = jnp.minimum(jnp.minimum(greatest[0], greatest[1]), greatest[2])
    return _sorted(most_low, _sorted(*_threes(middle, 1, spacing))[1], least_high)[1]


def surroundings(slope_x: Map, slope_y: Map) -> tuple[Map, Map]:
    """Slopes of the ground around every pixel: medians of medians over nine by nine, which lines do not reach."""
    return tuple(median_of_nine(median_of_nine(s), 3) for s in (slope_x, slope_y))


class Excess(NamedTuple):
    """How slopes differ from the ground around: `around`, `excess` (pairs of maps) and its `size`, dimensionless.

    `stands_off`: true where the size is beyond noise, as on walls and edges.
    """

    around: tuple[Map, Map]
    excess: tuple[Map, Map]
    size: Map
    stands_off: Bool[Array, "y x"]


def excess_over_surroundings(slope_x: Map, slope_y: Map, noise: Scalar) -> Excess:
    """Gradient: exact, but for `stands_off`."""
    around = surroundings(slope_x, slope_y)
    excess = slope_x - around[0], slope_y - around[1]
    # Not quite 0, so that it has a gradient everywhere.
    size = jnp.sqrt(excess[0] ** 2 + excess[1] ** 2 + 1e-12)
    return Excess(around, excess, size, lax.stop_gradient(size) > _NOISES * noise + _LEAST)


def _threes(values: Map, axis: int, spacing: int) -> tuple[Map, Map, Map]:
    """Each value and the two that lie `spacing` before and after it."""
    size = values.shape[axis]
    apart = min(spacing, size - 1)
    wide = jnp.pad(values, [(apart, apart) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
    return tuple(lax.slice_in_dim(wide, s, s + size, axis=axis) for s in (0, apart, 2 * apart))


def _sorted(one: Map, two: Map, three: Map) -> tuple[Map, Map, Map]:
    low, high = jnp.minimum(one, two), jnp.maximum(one, two)
    return jnp.minimum(low, three), jnp.maximum(low, jnp.minimum(high, three)), jnp.maximum(high, three)


def standing_out(miss: Map, threshold: float, inside: Bool[Array, "y x"]) -> Bool[Array, "y x"]:
    """True where `miss`, the length of a vector of two, exceeds `threshold` standard deviations, local and global."""
    local = median_of_nine(median_of_nine(miss), 3)
    return miss > threshold * jnp.maximum(jnp.maximum(local, typical(miss, inside)) / TWO, 1e-6)


def alone(miss: Map, share: float = 0.3, company: int = 3) -> Bool[Array, "y x"]:
    """True where at most `company` of the 24 pixels around miss by more than `share` of this one's.

    Edges come in lines: of a line, four more pixels lie in the same window.
    """
    rows, columns = miss.shape
    around = jnp.pad(miss, 2)
    shifted = (around[i : i + rows, j : j + columns] for i in range(5) for j in range(5) if (i, j) != (2, 2))
    return sum((other > share * miss).astype(jnp.int32) for other in shifted) <= company


def without_spikes(slope_x: Map, slope_y: Map, noise: Scalar, threshold: float = 4.0) -> tuple[Map, Map]:
    """Slopes with lone pixels, far beyond what their neighbours span, replaced by their neighbourhood's median.

    `noise`: standard deviation of the slopes' noise. Gradient: exact, which pixels are replaced held fixed.
    """
    spikes = lone_spikes(slope_x, slope_y, noise, threshold)
    return tuple(jnp.where(spikes, median_of_nine(s), s) for s in (slope_x, slope_y))


def lone_spikes(slope_x: Map, slope_y: Map, noise: Scalar, threshold: float = 4.0) -> Bool[Array, "y x"]:
    """True where a slope lies `threshold` * `noise`, and as much as its neighbours differ among each other, beyond
    all of these but one, and few pixels around differ likewise from their neighbourhood. Gradient: none."""
    slopes = lax.stop_gradient((slope_x, slope_y))
    beyond = jnp.zeros(slope_x.shape, bool)
    for values in slopes:
        low, high = _all_but_one(values)
        limit = threshold * noise + (high - low)
        beyond = beyond | (values > high + limit) | (values < low - limit)
    return beyond & alone(jnp.hypot(*(s - median_of_nine(s) for s in slopes)))


def _all_but_one(values: Map) -> tuple[Map, Map]:
    """Least and greatest of the eight pixels around, without the one that is farthest out on either side."""
    rows, columns = values.shape
    around = jnp.pad(values, 1, mode="edge")
    shifted = (around[i : i + rows, j : j + columns] for i in range(3) for j in range(3) if (i, j) != (1, 1))
    first = next(shifted)
    least, greatest = first, first
    low, high = jnp.full_like(first, jnp.inf), jnp.full_like(first, -jnp.inf)
    for other in shifted:
        low, high = jnp.minimum(low, jnp.maximum(least, other)), jnp.maximum(high, jnp.minimum(greatest, other))
        least, greatest = jnp.minimum(least, other), jnp.maximum(greatest, other)
    return low, high
