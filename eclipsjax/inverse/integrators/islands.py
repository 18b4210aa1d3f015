"""Which pixels of a mask hang together: heights of separate islands are not linked by anything."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from eclipsjax._types import Map


def label_islands(mask: Bool[Array, "y x"]) -> Int[Array, "y x"]:
    """One number per 4-connected island, -1 outside: the index (row by row) of its first pixel. Gradient: none.

    Labels sweep along rows and columns both ways until nothing changes: as many rounds as an island has bends.
    """
    size = mask.size
    own = jnp.where(mask, jnp.arange(size, dtype=jnp.int32).reshape(mask.shape), size)

    def lower(labels):
        for axis in (1, 0):
            for reverse in (False, True):
                labels = _least_so_far(labels, mask, axis, reverse)
        return labels

    def unfinished(state):
        before, after = state
        return jnp.any(before != after)

    _, labels = lax.while_loop(unfinished, lambda state: (state[1], lower(state[1])), (own, lower(own)))
    return jnp.where(mask, labels, -1)


def centred(height: Map, labels: Int[Array, "y x"] | None) -> Map:
    """`height` less its mean, island by island; 0 outside. Gradient: exact."""
    if labels is None:
        return height - jnp.mean(height)
    inside = labels >= 0
    index = jnp.where(inside, labels, 0).ravel()
    total = jnp.zeros(height.size, height.dtype).at[index].add(jnp.where(inside, height, 0.0).ravel())
    count = jnp.zeros(height.size, height.dtype).at[index].add(inside.astype(height.dtype).ravel())
    mean = (total / jnp.maximum(count, 1.0))[index].reshape(height.shape)
    return jnp.where(inside, height - mean, 0.0)


def _least_so_far(labels: Array, mask: Array, axis: int, reverse: bool) -> Array:
    """The least label met along an axis since the last pixel outside the mask."""

    def join(first, second):
        (least, whole), (other, linked) = first, second
        return jnp.where(linked, jnp.minimum(least, other), other), whole & linked

    return lax.associative_scan(join, (labels, mask), reverse=reverse, axis=axis)[0]
