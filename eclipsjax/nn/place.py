"""Parts of images, and where they lie."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class Place(eqx.Module):
    """Where a part of the image lies: its first row and column, its size and the whole's (both static)."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    shape: tuple[int, int] = eqx.field(static=True)
    whole: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def all_of(cls, shape: tuple[int, int]) -> Place:
        """The whole image."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), shape, shape)

    @property
    def is_all(self) -> bool:
        """Whether this is the whole image."""
        return self.shape == self.whole

    def of(self, maps: Any) -> Any:
        """This part of every map `(..., y, x)` in a tree; what is no map of the whole's size stays. Gradient: exact."""

        def part(leaf):
            if self.is_all or jnp.shape(leaf)[-2:] != self.whole:
                return leaf
            leaf = jax.lax.dynamic_slice_in_dim(leaf, self.top, self.shape[0], axis=leaf.ndim - 2)
            return jax.lax.dynamic_slice_in_dim(leaf, self.left, self.shape[1], axis=leaf.ndim - 1)

        return jax.tree.map(part, maps)
