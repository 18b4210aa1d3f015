"""Shifted views of a map, and what every search along rays needs around them: numbers written into last bits, strips
that stay in a processor's cache, linear maps whose transpose is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eclipsjax._linear import with_transpose
from eclipsjax._types import Map

# Pixels of one strip of rows: what all steps of a ray read and write for a strip stays in a processor's cache. A map of
# 4096 x 4096 pixels worked on as a whole takes 1.7 times as long a pixel as one of 1024 x 1024.
_STRIP_PX = 1 << 19


class Strip(NamedTuple):
    """Some neighbouring rows of the map."""

    first: Any
    rows: int

    def of(self, array: Array) -> Array:
        """This strip's part of a map."""
        return lax.dynamic_slice_in_dim(array, self.first, self.rows)


def strip_by_strip(work: Callable[[Strip], Array], shape: tuple[int, int]) -> Map:
    """The map of `shape` whose strips `work` makes, one after the other; the last two may overlap."""
    rows, columns = shape
    count = -(-rows * columns // _STRIP_PX)
    height = -(-rows // count)
    if count == 1:
        return work(Strip(0, rows))
    starts = jnp.minimum(jnp.arange(count, dtype=jnp.int32) * height, rows - height)
    made = jax.eval_shape(lambda first: work(Strip(first, height)), starts[0])

    def body(whole, first):
        return lax.dynamic_update_slice_in_dim(whole, work(Strip(first, height)), first, 0), None

    return lax.scan(body, jnp.zeros(shape, made.dtype), starts)[0]


def padded_view(array: Array, reach: int, fill: float) -> Callable[[Array, Strip], Array]:
    """A function from an offset (row, column) to a strip of the map seen from its pixels plus that offset, `fill`
    outside the map."""
    rows, columns = array.shape
    around = jnp.full((rows + 2 * reach, columns + 2 * reach), fill, array.dtype)
    padded = lax.dynamic_update_slice(around, array, (reach, reach))

    def view(offset, strip):
        corner = (strip.first + offset[0] + reach, offset[1] + reach)
        return lax.dynamic_slice(padded, corner, (strip.rows, columns))

    return view


def tag(values: Array, number: Array, largest: int) -> Array:
    """`values` with the integer `number` (0 to `largest`) written over the last bits of the mantissa."""
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    mask = (1 << largest.bit_length()) - 1
    kept = lax.bitcast_convert_type(values, whole) & whole(~mask)
    return lax.bitcast_convert_type(kept | jnp.asarray(number).astype(whole), values.dtype)


def tag_of(values: Array, largest: int) -> Array:
    """The integer that `tag` wrote."""
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    mask = (1 << largest.bit_length()) - 1
    return (lax.bitcast_convert_type(values, whole) & whole(mask)).astype(jnp.int32)


def slope_with_transpose(push: Callable, pull: Callable, d_height: Map, d_slope: Map) -> Map:
    """The linear map `push(d_height, d_slope)`, with `pull(cotangent)` of both as its transpose."""

    def pushed(inputs):
        slope = push(inputs[0], inputs[1])
        return jnp.stack([slope, jnp.zeros_like(slope)])

    return with_transpose(pushed, lambda outputs: jnp.stack(pull(outputs[0])), jnp.stack([d_height, d_slope]))[0]
