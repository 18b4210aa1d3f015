"""Which pixels stand alone: sizes of misfits against their neighbourhood and against the whole image."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from eclipsjax._types import Map, Scalar

_SAMPLE = 20_000
# Median over standard deviation of |v|: v a Gaussian number, or a vector of two.
ONE, TWO = 0.6745, 1.1774


def typical(sizes: Map, inside: Bool[Array, "y x"] | None = None) -> Scalar:
    """Median of `sizes` inside, from a regular sample of some 20,000 pixels. Gradient: none."""
    stride = max(1, math.isqrt(sizes.size // _SAMPLE))
    inside = jnp.ones(sizes.shape, bool) if inside is None else inside
    sample, counted = (a[::stride, ::stride].ravel() for a in (sizes, inside))
    count = jnp.sum(counted, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(counted, lax.stop_gradient(sample), jnp.inf))
    return jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0) // 2], 0.0)


def median_of_nine(values: Map, spacing: int = 1) -> Map:
    """Median along x of medians along y, each of three values `spacing` apart, mirrored at the border."""
    for axis in (0, 1):
        apart = min(spacing, values.shape[axis] - 1)
        if apart > 0:
            wide = jnp.pad(values, [(apart, apart) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
            low, high = (lax.slice_in_dim(wide, s, s + values.shape[axis], axis=axis) for s in (0, 2 * apart))
            pair = jnp.minimum(low, high), jnp.maximum(low, high)
            values = jnp.maximum(pair[0], jnp.minimum(pair[1], values))
    return values


def standing_out(miss: Map, threshold: float, inside: Bool[Array, "y x"] | None = None) -> Bool[Array, "y x"]:
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
