"""Normals from what physics makes of segment images: offers that are mixed, block by block, by an equivariant U-Net.

It sees the offers (closed form, what is hidden taken out, cleaned, made a relief's) and, segment by segment, what each
leaves unexplained: one encoder for all, told where a segment looks from, whose answers are averaged, so that any
number of segments in any order will do. It says how much of each offer to take, and how far off it may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array

from eclipsjax._types import Map
from eclipsjax.nn.blocks import BLOCK, over_blocks, shown_maps, within_noise
from eclipsjax.nn.equivariant import ORIENTATIONS, Between, Lift
from eclipsjax.nn.evidence import Answer, Evidence, slopes_along
from eclipsjax.nn.facet_means import mean_within_facet
from eclipsjax.nn.field_unet import FieldUNet
from eclipsjax.nn.neighbours import held
from eclipsjax.nn.network_parameters import NetworkConfig

# How many times the noise neighbours may be off to count a quarter, by scale, before any training.
_ALIKE = (5.0, 2.5, 1.5, 1.0)
# Beside the means: what the simulator believes of the facets and of the relief, the closed form, and the waves.
_GIVEN = 4
_OFFERS = _GIVEN + len(_ALIKE)
# Radians: less noise than float32 makes.
_LEAST_NOISE = 1e-3
_SCALARS, _VECTORS = 2 + _OFFERS, 1 + _OFFERS
_OF_SEGMENT = 3


@dataclass(frozen=True)
class NormalConfig(NetworkConfig):
    """`fields` (of 8 channels) per level of the U-Net, the first at a quarter of the image's size."""

    fields: tuple[int, ...] = (3, 4, 6)

    @property
    def multiple(self) -> int:
        """Image sides are brought to a multiple of this."""
        return BLOCK * 2 ** (len(self.fields) - 1)

    def network(self, rngs: nnx.Rngs) -> NormalNetwork:
        """A network of this shape."""
        return NormalNetwork(self, rngs=rngs)


class NormalNetwork(FieldUNet):
    """Clues of blocks of pixels in, `(b, y, x, offer + 1)` out: the share of every offer, of either sign, and the
    logarithm of the doubt."""

    def __init__(self, config: NormalConfig, *, rngs: nnx.Rngs):
        fields = config.fields
        super().__init__(fields, rngs=rngs)
        self.stem = Lift(_SCALARS, _VECTORS, fields[0], 3, 1, rngs=rngs)
        self.segment = Lift(_OF_SEGMENT, _OF_SEGMENT, fields[0], 3, 1, rngs=rngs)
        self.joined = Between(fields[0], fields[0], 1, rngs=rngs)
        self.head = Between(fields[0], _OFFERS + 1, 1, rngs=rngs)
        self.head.kernel[...] = 0.1 * self.head.kernel[...]
        self.head.bias[...] = self.head.bias[...].at[1].set(0.8)
        self.alike = nnx.Param(jnp.log(jnp.asarray(_ALIKE, jnp.float32)))

    def __call__(self, scalars: Array, vectors: Array, of_segments: tuple[Array, Array]) -> Array:
        of_each = nnx.silu(self.segment(*of_segments))
        x = self.stem(scalars, vectors) + self.joined(jnp.mean(of_each, axis=0, keepdims=True))
        found = self.head(self.through(x))
        return jnp.mean(found.reshape(*found.shape[:-1], -1, ORIENTATIONS), axis=-1)


def answer(config: NormalConfig, parameters: Any, evidence: Evidence) -> Answer:
    """What the network believes. Gradient: exact in parameters; in the evidence of first order."""
    network = config.filled(parameters, evidence.noise.dtype)
    own, shape = evidence.normals, evidence.noise.shape
    noise = held(jnp.maximum(evidence.noise, _LEAST_NOISE))
    given = evidence.facets, evidence.relief, evidence.closed_form, evidence.waves
    offs, mean = [offer - own for offer in given], own
    for scale, far in enumerate(jnp.exp(network.alike[...])):
        mean = held(mean_within_facet(mean, held((far * noise) ** 2), 2**scale))
        offs.append(mean - own)
    found = network(
        *(clues[None] for clues in _clues(own, offs, noise, config.multiple)), _of_segments(evidence, config)
    )[0]
    shares = [over_blocks(found[..., k], shape) for k in range(_OFFERS)]
    moved = own + sum(share[None] * off for share, off in zip(shares, offs, strict=True))
    doubt = noise * jnp.exp(jnp.clip(over_blocks(found[..., -1], shape), -6.0, 6.0))
    return Answer(slopes_along(moved), doubt)


def _clues(own, offs, noise: Map, multiple: int) -> tuple[Array, Array]:
    """Scalars and vectors for the network, means of blocks."""
    shown = [within_noise(off, noise) for off in offs]
    far = [sum(part**2 for part in off) for off in shown]
    return shown_maps([0.3 * jnp.log(noise), own[2], *far], [own, *shown], multiple)


def _of_segments(evidence: Evidence, config: NormalConfig) -> tuple[Array, Array]:
    """For every segment its scalars and vectors, `(segment, y, x, ...)`: what is hidden from it, what is left
    unexplained and what was cut off, alone and in its direction."""
    each = []
    for hidden, left, cut, lean in zip(evidence.hidden, evidence.left, evidence.cut, evidence.lean, strict=True):
        maps = [hidden, left * lax.rsqrt(4.0 + left**2), cut]
        vectors = [lean[:, None, None] * m[None] for m in maps]
        each.append(shown_maps(maps, vectors, config.multiple))
    return tuple(jnp.stack(part) for part in zip(*each, strict=True))
