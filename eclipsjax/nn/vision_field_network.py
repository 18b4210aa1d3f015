"""What to believe of every normal: attention of a pixel over its neighbours, four scales of it, mixed by a U-Net.

At every scale a pixel asks the eight around it, each twice as far away as at the scale before, and heeds those whose
normals are like its own within the noise: so a mean stops at an edge and runs along it. What noise there is shows in
the curl, which central differences of a surface do not have: where there is none nothing is moved, so that exact slopes
stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from eclipsjax._types import Map
from eclipsjax.nn.blocks import BLOCK, over_blocks, shown_maps, within_noise
from eclipsjax.nn.equivariant import ORIENTATIONS, Between, Lift
from eclipsjax.nn.evidence import unit_normals
from eclipsjax.nn.facet_means import mean_within_facet
from eclipsjax.nn.field_unet import FieldUNet
from eclipsjax.nn.neighbours import held, mean_along
from eclipsjax.nn.network_parameters import NetworkConfig

# How many times the noise neighbours may be off to count a quarter, by scale, before any training.
_ALIKE = (5.0, 2.5, 1.5, 1.0)
_SCALES = len(_ALIKE)
# Pixels over which the curl is averaged, on either side.
_NOISE_REACH = 4
# Radians: more than float32 makes of exact normals. With this noise half of the change is made, with less hardly any.
_LEAST_NOISE = 1e-4
# n_z of the steepest normal that cleaning makes.
_LEAST_UPRIGHT = 0.05
# What goes into the U-Net: vectors are the pixel's own lean and the ways to the means; numbers are the noise, the
# steepness and how far the first of the means are off.
_SHOWN = 2
_VECTORS, _SCALARS = 1 + _SCALES, 2 + _SHOWN


@dataclass(frozen=True)
class VisionFieldConfig(NetworkConfig):
    """`fields` (of 8 channels) per level of the U-Net, the first at a quarter of the image's size; `octaves` of the
    horizon beyond 8 px, `azimuths` of the rays."""

    fields: tuple[int, ...] = (2, 3, 4)
    octaves: int = 3
    azimuths: int = 32

    @property
    def multiple(self) -> int:
        """Image sides are brought to a multiple of this."""
        return BLOCK * 2 ** (len(self.fields) - 1)

    def network(self, rngs: nnx.Rngs) -> VisionFieldNetwork:
        """A network of this shape."""
        return VisionFieldNetwork(self, rngs=rngs)


class Believed(NamedTuple):
    """Cleaned slopes of the facets and of the relief, both `(2, y, x)`, x and y; the restraint of the relief's shortest
    waves, a scalar."""

    facets: Float[Array, "2 y x"]
    relief: Float[Array, "2 y x"]
    restraint: Float[Array, ""]


class VisionFieldNetwork(FieldUNet):
    """Clues of blocks of pixels in, the share of every mean in the facets and in the relief out: `(b, y, x, 2 * mean)`,
    of either sign."""

    def __init__(self, config: VisionFieldConfig, *, rngs: nnx.Rngs):
        fields = config.fields
        super().__init__(fields, rngs=rngs)
        self.stem = Lift(_SCALARS, _VECTORS, fields[0], 3, 1, rngs=rngs)
        self.head = Between(fields[0], 2 * _SCALES, 1, rngs=rngs)
        self.head.kernel[...] = 0.1 * self.head.kernel[...]
        self.head.bias[...] = self.head.bias[...] + 0.2
        # Logarithms of `_ALIKE` and of the restraint over the noise's variance.
        self.alike = nnx.Param(jnp.log(jnp.asarray(_ALIKE, jnp.float32)))
        self.restraint = nnx.Param(jnp.log(jnp.float32(5.0)))

    def __call__(self, scalars: Array, vectors: Array) -> Array:
        shares = self.head(self.through(self.stem(scalars, vectors)))
        return jnp.mean(shares.reshape(*shares.shape[:-1], -1, ORIENTATIONS), axis=-1)


def believe(config: VisionFieldConfig, parameters: Any, slope_x: Map, slope_y: Map) -> Believed:
    """The slopes of a surface of which these are noisy ones, in their precision. Gradient: exact."""
    network = config.filled(parameters, slope_x.dtype)
    # Noise turns normals by an angle: the same everywhere, while in the slope of a wall it is much.
    normals = held(unit_normals(jnp.stack([slope_x, slope_y])))
    noise = held(_noise(slope_x, slope_y))
    offs, mean = [], normals
    for scale, far in enumerate(jnp.exp(network.alike[...])):
        mean = held(mean_within_facet(mean, held((far * noise) ** 2), 2**scale))
        offs.append(mean - normals)
    shares = network(*(clues[None] for clues in _clues(normals, offs, noise, config.multiple)))[0]
    # On a plane neighbours are alike without any noise: the mean is the pixel's own normal, its derivative is not.
    noisy = 1.0 - (_LEAST_NOISE / noise) ** 2
    shares = jnp.stack([noisy * over_blocks(shares[..., k], slope_x.shape) for k in range(2 * _SCALES)])
    facets, relief = (
        _slopes_of(normals, sum(share[None] * off for share, off in zip(part, offs, strict=True)))
        for part in (shares[:_SCALES], shares[_SCALES:])
    )
    restraint = 1e-6 + jnp.exp(network.restraint[...]) * jnp.mean(noise**2)
    return Believed(facets, relief, restraint)


def _slopes_of(normals: Float[Array, "3 y x"], moved: Float[Array, "3 y x"]) -> Float[Array, "2 y x"]:
    """Slopes of unit vectors along (dz/dx, dz/dy, 1) that were moved: exactly theirs where they were not, none steeper
    than 87 deg that was less steep."""
    upright = jnp.maximum(normals[2] + moved[2], jnp.minimum(normals[2], _LEAST_UPRIGHT))
    return (normals[:2] + moved[:2]) / upright[None]


def _noise(slope_x: Map, slope_y: Map) -> Map:
    """Standard deviation of the normals' angle around every pixel, radians, from the slopes' curl."""
    rows, columns = slope_x.shape
    if min(rows, columns) < 3:
        return jnp.full((rows, columns), _LEAST_NOISE, slope_x.dtype)
    down = 0.5 * (slope_x[2:, 1:-1] - slope_x[:-2, 1:-1])
    across = 0.5 * (slope_y[1:-1, 2:] - slope_y[1:-1, :-2])
    # What an angle of 1 does to the variance of a slope, along it and across it.
    steep = 1.0 + (slope_x**2 + slope_y**2)[1:-1, 1:-1]
    of_angle = 0.5 * (steep**2 + steep)
    box = {offset: 1.0 for offset in range(-_NOISE_REACH, _NOISE_REACH + 1)}
    curl, of_angle = (mean_along(mean_along(held(m), box, 0), box, 1) for m in ((down - across) ** 2, of_angle))
    return jnp.sqrt(jnp.pad(curl / of_angle, 1, mode="edge") + _LEAST_NOISE**2)


def _clues(normals, offs, noise: Map, multiple: int) -> tuple[Array, Array]:
    """Scalars and vectors for the network, means of blocks."""
    offs = [within_noise(off, noise) for off in offs]
    far = [sum(part**2 for part in off) for off in offs[:_SHOWN]]
    return shown_maps([0.3 * jnp.log(noise), normals[2], *far], [normals, *offs], multiple)
