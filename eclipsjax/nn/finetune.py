"""What the physics misses, as a factor on every segment's signal: a small network that cannot draw a relief.

factor_k = 1 + law(n_z, n . d_k, how dark) + gain_k(x, y). The law is one for all segments and all pixels, sees a normal
only as it lies to the segment, and is 0 in the mean over segments: it can be a lobe, another distance, another energy.
Where the yield varies from pixel to pixel, brightness does not tell how steep a slope is, and a law that grows as
slopes do could not be told from a relief that is taller or lower: there it may grow as their squares only. Gains are a
few cosine waves each, slow across the field. Both are nothing at the start and are held near it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eclipsjax._types import Scalar, SignalStack
from eclipsjax.nn.network_parameters import NetworkConfig
from eclipsjax.nn.place import Place

# Standard deviations that are expected, relative: of gains as a whole, of one wave across the field, of the law.
_GAIN, _DRIFT, _LAW = 0.05, 0.02, 0.05


@dataclass(frozen=True)
class FinetuneConfig(NetworkConfig):
    """`segments` of the detector; `waves` of the gains along either axis, the constant included; `hidden` units;
    with which power of slopes the law begins to grow (`law_order`, 1 or 2)."""

    segments: int = 4
    waves: int = 3
    hidden: int = 8
    law_order: int = 1

    def network(self, rngs: nnx.Rngs) -> Finetune:
        """A network of this shape."""
        return Finetune(self, rngs=rngs)


class Finetune(nnx.Module):
    """`finetune(normals, signal, flat, lean)`: factors less 1, `(segment, y, x)`."""

    def __init__(self, config: FinetuneConfig, *, rngs: nnx.Rngs):
        self.law_order = config.law_order
        self.gains = nnx.Param(jnp.zeros((config.segments, config.waves, config.waves), jnp.float32))
        self.hidden = nnx.Linear(3, config.hidden, rngs=rngs)
        self.law = nnx.Param(jnp.zeros(config.hidden, jnp.float32))

    def __call__(
        self,
        normals: Float[Array, "3 y x"],
        signal: SignalStack,
        flat: Float[Array, "segment"],
        lean: Float[Array, "segment 2"],
        place: Place,
    ) -> SignalStack:
        """`normals` along (dz/dx, dz/dy, 1), of unit length; `flat`, `lean`: a level pixel's signals and their
        relative change with its slopes. Gradient: exact."""
        toward = jnp.einsum("ki,iyx->kyx", lean, normals[:2])
        low = jnp.broadcast_to(1.0 - normals[2][None], toward.shape)
        dark = signal / flat[:, None, None] - 1.0
        shown = jnp.stack([low, toward, dark], axis=-1)
        # A level pixel is left alone: its brightness is the gains' and the yield's affair.
        found = jnp.tanh(self.hidden(shown)) - jnp.tanh(self.hidden.bias[...])[None, None, None]
        if self.law_order > 1:
            found = found - self._growths()[None, None, None] * toward[..., None]
        law = jnp.einsum("kyxh,h->kyx", found, self.law[...])
        # How bright a leaning pixel is in all segments together is what tells how steep it is: that stays.
        return _LAW * (law - jnp.mean(law, axis=0, keepdims=True)) + self.drift(place)

    def growth(self) -> Scalar:
        """What the law adds to a segment's relative change with small slopes, as a share of it. Gradient: exact."""
        return _LAW * jnp.sum(self._growths() * self.law[...]) * float(self.law_order == 1)

    def _growths(self) -> Float[Array, "hidden"]:
        """Of every hidden unit: a little slope is seen in `toward` and, as much, in `dark`."""
        kernel = self.hidden.kernel[...]
        return (1.0 - jnp.tanh(self.hidden.bias[...]) ** 2) * (kernel[1] + kernel[2])

    def drift(self, place: Place) -> SignalStack:
        """Gains less 1 across a part of the field."""
        waves, dtype = self.gains[...].shape[1], self.gains[...].dtype
        (rows, columns), (height, width) = place.shape, place.whole
        down = _waves(place.top.astype(dtype), rows, height, waves, dtype)
        across = _waves(place.left.astype(dtype), columns, width, waves, dtype)
        scale = jnp.full((waves, waves), _DRIFT, down.dtype).at[0, 0].set(_GAIN)
        return jnp.einsum("kij,ij,iy,jx->kyx", self.gains[...], scale, down, across)

    def unlikely(self) -> Scalar:
        """Half the sum of squares of what is 1 where expectations are just met."""
        return 0.5 * (jnp.sum(self.gains[...] ** 2) + jnp.sum(self.law[...] ** 2))


@partial(jax.jit, static_argnums=0)
def factors(
    config: FinetuneConfig,
    parameters: Any,
    normals: Float[Array, "3 y x"],
    signal: SignalStack,
    flat: Float[Array, "segment"],
    lean: Float[Array, "segment 2"],
    place: Place | None = None,
) -> tuple[SignalStack, Scalar]:
    """Factors `(segment, y, x)`, never below a half, and how unlikely they are; of a part of the field, where it lies.
    Gradient: exact."""
    network = config.filled(parameters, normals.dtype)
    place = Place.all_of(normals.shape[1:]) if place is None else place
    less_one = network(normals, signal, flat, lean, place)
    return 1.0 + jnp.maximum(less_one, -0.5), network.unlikely()


@partial(jax.jit, static_argnums=0)
def law_growth(config: FinetuneConfig, parameters: Any) -> Scalar:
    """`Finetune.growth`: about by how much taller or lower relief becomes. Gradient: exact."""
    return config.filled(parameters).growth()


def _waves(start: Any, count: int, total: int, waves: int, dtype: Any) -> Float[Array, "wave n"]:
    """cos(pi j (i + 1/2) / total), of amplitude 1, for `count` pixels i from `start` on."""
    along = (start + jnp.arange(count, dtype=dtype) + 0.5) / total
    return jnp.cos(jnp.pi * jnp.arange(waves, dtype=dtype)[:, None] * along[None, :])


def starting_parameters(config: FinetuneConfig) -> Any:
    """Parameters of factors that are all 1."""
    return config.initial_parameters(jax.random.key(0))


def of_law(parameters: Any) -> Any:
    """1 for the law, 0 for the rest."""
    return jax.tree.map(jnp.ones_like, parameters) | {"gains": jnp.zeros_like(parameters["gains"])}


def of_gains(parameters: Any) -> Any:
    """1 for every gain as a whole, 0 for the rest."""
    return _gains(parameters, lambda gains: jnp.zeros_like(gains).at[:, 0, 0].set(1.0))


def of_drift(parameters: Any) -> Any:
    """1 for the gains' waves across the field, 0 for the rest."""
    return _gains(parameters, lambda gains: jnp.ones_like(gains).at[:, 0, 0].set(0.0))


def _gains(parameters: Any, of: Callable[[Array], Array]) -> Any:
    return jax.tree.map(jnp.zeros_like, parameters) | {"gains": of(parameters["gains"])}
