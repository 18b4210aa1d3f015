"""The depth network: from slopes and what is known about their noise to better slopes, with doubts.

A U-Net of equivariant convolutions. It starts at half resolution and knows nothing of pixel size or height: slopes in,
slopes out. A second, small one sees spectra, ring by ring, and says how much of each wavelength to believe. The
integration between the two is the caller's (`inverse/belief.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eclipsjax.nn.equivariant import Between, Lift, Lower, Norm


@dataclass(frozen=True)
class DepthConfig:
    """Shape of the network: maps that go in and come out, fields (of 8 channels) per level, each at half the size of
    the one before, the first at half the image's; numbers per ring of wavelengths that go in, gates that come out."""

    scalars_in: int = 4
    vectors_in: int = 9
    fields: tuple[int, ...] = (4, 8, 12, 16, 16)
    scalars_out: int = 11
    vectors_out: int = 1
    ring_clues: int = 8
    ring_channels: int = 16
    gates: int = 2

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this."""
        return 2 ** len(self.fields)

    def as_json(self) -> dict:
        """The numbers as JSON holds them."""
        return asdict(self) | {"fields": list(self.fields)}

    @classmethod
    def from_json(cls, numbers: dict) -> DepthConfig:
        """The inverse of `as_json`."""
        return cls(**(numbers | {"fields": tuple(numbers["fields"])}))


class Residual(nnx.Module):
    """x + convolution of activated, normalised x, twice."""

    def __init__(self, fields: int, *, rngs: nnx.Rngs):
        self.norm = Norm(fields, rngs=rngs)
        self.first = Between(fields, fields, rngs=rngs)
        self.second = Between(fields, fields, rngs=rngs)
        self.second.kernel[...] = 0.2 * self.second.kernel[...]

    def __call__(self, x: Array) -> Array:
        return x + self.second(nnx.silu(self.first(nnx.silu(self.norm(x)))))


class RingGates(nnx.Module):
    """Numbers per ring `(b, ring, n)` in, gates from 0 to 2 out, all 1 to begin with: convolutions along the rings."""

    def __init__(self, config: DepthConfig, *, rngs: nnx.Rngs):
        width = config.ring_channels
        self.first = nnx.Conv(config.ring_clues, width, (5,), rngs=rngs)
        self.second = nnx.Conv(width, width, (5,), rngs=rngs)
        self.last = nnx.Conv(width, config.gates, (3,), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, clues: Array) -> Array:
        return 1.0 + jnp.tanh(self.last(nnx.silu(self.second(nnx.silu(self.first(clues))))))


class DepthNetwork(nnx.Module):
    """U-Net: scalar maps `(b, y, x, s)` and vector maps `(b, y, x, v, 2)` in, the same kinds out; and `ring_gates`."""

    def __init__(self, config: DepthConfig, *, rngs: nnx.Rngs):
        fields = config.fields
        self.stem = Lift(config.scalars_in, config.vectors_in, fields[0], 4, 2, rngs=rngs)
        self.down = nnx.List([Residual(f, rngs=rngs) for f in fields])
        self.shrink = nnx.List([Between(a, b, 2, 2, rngs=rngs) for a, b in pairwise(fields)])
        self.grow = nnx.List([Between(b, a, 2, up=True, rngs=rngs) for a, b in pairwise(fields)])
        self.up = nnx.List([Residual(f, rngs=rngs) for f in fields[:-1]])
        self.norm = Norm(fields[0], rngs=rngs)
        self.head = Lower(fields[0], config.scalars_out, config.vectors_out, rngs=rngs)
        self.ring_gates = RingGates(config, rngs=rngs)

    def __call__(self, scalars: Array, vectors: Array) -> tuple[Array, Array]:
        x, kept = self.stem(scalars, vectors), []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](kept[level] + self.grow[level](x))
        return self.head(nnx.silu(self.norm(x)))


def initial_parameters(config: DepthConfig, key: Array) -> Any:
    """Fresh parameters: a nested dictionary of arrays."""
    return nnx.to_pure_dict(nnx.state(_network(config, key), nnx.Param))


def parameter_shapes(config: DepthConfig) -> Any:
    """The shapes of `initial_parameters`, without computing them."""
    shapes = jax.eval_shape(lambda: initial_parameters(config, jax.random.key(0)))
    return jax.tree.map(lambda leaf: leaf.shape, shapes)


def apply_depth(
    config: DepthConfig, parameters: Any, scalars: Float[Array, "b y x s"], vectors: Float[Array, "b y x v 2"]
) -> tuple[Array, Array]:
    """The network's `(scalars, vectors)`: `(b, y, x, s')` and `(b, y, x, v', 2)`. Gradient: exact in all arrays."""
    return _with_parameters(config, parameters)(scalars, vectors)


def apply_ring_gates(config: DepthConfig, parameters: Any, clues: Float[Array, "ring n"]) -> Float[Array, "ring g"]:
    """How much of what to believe in every ring of wavelengths, from 0 to 2. Gradient: exact in all arrays."""
    return _with_parameters(config, parameters).ring_gates(clues[None])[0]


def _with_parameters(config: DepthConfig, parameters: Any) -> DepthNetwork:
    graph, state = nnx.split(nnx.eval_shape(lambda: _network(config, jax.random.key(0))))
    nnx.replace_by_pure_dict(state, parameters)
    return nnx.merge(graph, state)


def _network(config: DepthConfig, key: Array) -> DepthNetwork:
    return DepthNetwork(config, rngs=nnx.Rngs(params=key))
