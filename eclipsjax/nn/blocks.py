"""Maps as means of blocks of pixels and back: networks that mix finer maps work on a coarser one."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map

# Pixels along a side that share a mixture.
BLOCK = 4


def of_blocks(values: Map, multiple: int) -> Array:
    """Means of blocks of pixels, the border repeated until the sides are multiples of `multiple`."""
    values = jnp.pad(values, [(0, -n % multiple) for n in values.shape], mode="edge")
    rows, columns = (n // BLOCK for n in values.shape)
    return values.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))


def over_blocks(values: Array, shape: tuple[int, int]) -> Map:
    """Every block's value for all of its pixels."""
    return jnp.repeat(jnp.repeat(values, BLOCK, axis=0), BLOCK, axis=1)[: shape[0], : shape[1]]


def within_noise(off: Float[Array, "3 y x"], noise: Map) -> Float[Array, "3 y x"]:
    """How far off something is in units of twice the noise where that is little, of length 1 at most."""
    return off * lax.rsqrt(4.0 * noise**2 + sum(part**2 for part in off))[None]


def shown_maps(scalars: list[Map], vectors: list[Float[Array, "_ y x"]], multiple: int) -> tuple[Array, Array]:
    """Scalars `(y, x, s)` and the vectors' x and y `(y, x, v, 2)` for an equivariant network, means of blocks."""
    of_scalars = [of_blocks(m, multiple) for m in scalars]
    of_vectors = [jnp.stack([of_blocks(m, multiple) for m in vector[:2]], axis=-1) for vector in vectors]
    return jnp.stack(of_scalars, axis=-1), jnp.stack(of_vectors, axis=-2)
