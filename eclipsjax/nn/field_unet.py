"""The U-Net of equivariant fields that the networks share: blocks on every level, down and up again."""

from __future__ import annotations

from itertools import pairwise

from flax import nnx
from jaxtyping import Array

from eclipsjax.nn.equivariant import Between, Norm


class Residual(nnx.Module):
    """x + convolution of activated, normalised x, twice."""

    def __init__(self, fields: int, *, rngs: nnx.Rngs):
        self.norm = Norm(fields, rngs=rngs)
        self.first = Between(fields, fields, rngs=rngs)
        self.second = Between(fields, fields, rngs=rngs)
        self.second.kernel[...] = 0.2 * self.second.kernel[...]

    def __call__(self, x: Array) -> Array:
        return x + self.second(nnx.silu(self.first(nnx.silu(self.norm(x)))))


class FieldUNet(nnx.Module):
    """`fields` per level, each at half the size of the one before; `through` keeps the first level's size."""

    def __init__(self, fields: tuple[int, ...], *, rngs: nnx.Rngs):
        self.down = nnx.List([Residual(f, rngs=rngs) for f in fields])
        self.shrink = nnx.List([Between(a, b, 2, 2, rngs=rngs) for a, b in pairwise(fields)])
        self.grow = nnx.List([Between(b, a, 2, up=True, rngs=rngs) for a, b in pairwise(fields)])
        self.up = nnx.List([Residual(f, rngs=rngs) for f in fields[:-1]])
        self.norm = Norm(fields[0], rngs=rngs)

    def through(self, x: Array) -> Array:
        """Activated, normalised fields of the first level."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](kept[level] + self.grow[level](x))
        return nnx.silu(self.norm(x))
