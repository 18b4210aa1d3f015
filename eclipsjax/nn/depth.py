"""The depth network: from slopes and what is known about their noise to better slopes, with doubts.

A U-Net of equivariant convolutions. It starts at half resolution and knows nothing of pixel size or height: slopes in,
slopes out. A second, small one sees spectra, ring by ring, and says how much of each wavelength to believe. The
integration between the two is the caller's (`inverse/belief.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eclipsjax.nn.equivariant import Lift, Lower
from eclipsjax.nn.field_unet import FieldUNet
from eclipsjax.nn.network_parameters import NetworkConfig


@dataclass(frozen=True)
class DepthConfig(NetworkConfig):
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

    def network(self, rngs: nnx.Rngs) -> DepthNetwork:
        """A network of this shape."""
        return DepthNetwork(self, rngs=rngs)


class RingGates(nnx.Module):
    """Numbers per ring `(b, ring, n)` in, gates from 0 to 2 out, all 1 to begin with: convolutions along the rings."""

    def __init__(self, config: DepthConfig, *, rngs: nnx.Rngs):
        width = config.ring_channels
        self.first = nnx.Conv(config.ring_clues, width, (5,), rngs=rngs)
        self.second = nnx.Conv(width, width, (5,), rngs=rngs)
        self.last = nnx.Conv(width, config.gates, (3,), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, clues: Array) -> Array:
        return 1.0 + jnp.tanh(self.last(nnx.silu(self.second(nnx.silu(self.first(clues))))))


class DepthNetwork(FieldUNet):
    """U-Net: scalar maps `(b, y, x, s)` and vector maps `(b, y, x, v, 2)` in, the same kinds out; and `ring_gates`."""

    def __init__(self, config: DepthConfig, *, rngs: nnx.Rngs):
        fields = config.fields
        self.stem = Lift(config.scalars_in, config.vectors_in, fields[0], 4, 2, rngs=rngs)
        super().__init__(fields, rngs=rngs)
        self.head = Lower(fields[0], config.scalars_out, config.vectors_out, rngs=rngs)
        self.ring_gates = RingGates(config, rngs=rngs)

    def __call__(self, scalars: Array, vectors: Array) -> tuple[Array, Array]:
        return self.head(self.through(self.stem(scalars, vectors)))


def apply_depth(
    config: DepthConfig, parameters: Any, scalars: Float[Array, "b y x s"], vectors: Float[Array, "b y x v 2"]
) -> tuple[Array, Array]:
    """The network's `(scalars, vectors)`: `(b, y, x, s')` and `(b, y, x, v', 2)`. Gradient: exact in all arrays."""
    return config.filled(parameters)(scalars, vectors)


def apply_ring_gates(config: DepthConfig, parameters: Any, clues: Float[Array, "ring n"]) -> Float[Array, "ring g"]:
    """How much of what to believe in every ring of wavelengths, from 0 to 2. Gradient: exact in all arrays."""
    return config.filled(parameters).ring_gates(clues[None])[0]
