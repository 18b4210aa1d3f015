"""Means over neighbouring pixels, quick in both directions on a CPU too."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._linear import with_transpose


def mean_along(maps: Float[Array, "*n"], weights: dict[int, float], axis: int) -> Float[Array, "*n"]:
    """Mean of the maps as seen from several offsets along `axis`, weighted; what lies beyond the border has no weight.

    Gradient: exact, as sums of shifted maps like the mean itself: XLA would add up padded ones, several times slower.
    """
    backward = {-offset: weight for offset, weight in weights.items()}
    total = _summed(jnp.ones(maps.shape[axis], maps.dtype), weights, 0)
    summed = with_transpose(lambda x: _summed(x, weights, axis), lambda x: _summed(x, backward, axis), maps)
    return summed / total.reshape([-1 if k == axis else 1 for k in range(maps.ndim)])


def held(values: Array) -> Array:
    """The same values, kept in memory: XLA on a CPU would work them out anew for each of their readers, and again for
    each reader of those, and passes over optimisation barriers.
    """
    return in_one_loop(lambda: values, values)


def in_one_loop(work: Callable[[], Array], like: Array) -> Array:
    """What `work` makes, of the shape of `like`, in a region of its own, where XLA on a CPU makes one loop of it: next
    to others it would keep in memory all that they share. No compiler knows which way a condition will go.
    """
    return lax.cond(like.reshape(-1)[0] == jnp.inf, lambda: jnp.full_like(like, jnp.nan), work)


def _summed(maps: Array, weights: dict[int, float], axis: int) -> Array:
    before, after = max(0, -min(weights)), max(0, *weights)
    width = [(before, after) if k == axis else (0, 0) for k in range(maps.ndim)]
    around, count = jnp.pad(maps, width), maps.shape[axis]
    return sum(
        weight * lax.slice_in_dim(around, before + offset, before + offset + count, axis=axis)
        for offset, weight in weights.items()
    )
