"""A coarse look along rays at half the image's size, set right by convolutions that know the instrument.

Sixteen directions are two orbits of the square's symmetries, so horizons by direction are fields of an equivariant
network as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map, image_direction
from eclipsjax.nn.equivariant import ORIENTATIONS, Between, act_on_vector
from eclipsjax.nn.field_unet import Residual
from eclipsjax.nn.network_parameters import NetworkConfig
from eclipsjax.specimen.from_slopes import relief_of_slopes
from eclipsjax.specimen.horizon import PeakHorizon, azimuth_centres, horizon
from eclipsjax.specimen.surface import Surface

AZIMUTHS = 2 * ORIENTATIONS
# Of the relief's alternating pixels: half the size does not show them.
_RESTRAINT = 1e-2
# Numbers of the instrument that the network is told: cosines of the innermost and the outermost rim.
_INSTRUMENT = 2


@dataclass(frozen=True)
class SimulatorConfig(NetworkConfig):
    """`fields` (of 8 channels) and `blocks` of the network, `octaves` of the coarse horizon beyond 16 px."""

    fields: int = 2
    blocks: int = 2
    octaves: int = 2

    def network(self, rngs: nnx.Rngs) -> SimulatorNetwork:
        """A network of this shape."""
        return SimulatorNetwork(self, rngs=rngs)


class SimulatorNetwork(nnx.Module):
    """Cosines of horizons and tangent planes by direction in, corrections of the horizons out, all `(b, y, x, 16)`."""

    def __init__(self, config: SimulatorConfig, *, rngs: nnx.Rngs):
        orbits = AZIMUTHS // ORIENTATIONS
        self.stem = Between(2 * orbits, config.fields, rngs=rngs)
        self.instrument = nnx.Linear(_INSTRUMENT, config.fields, rngs=rngs)
        self.blocks = nnx.List([Residual(config.fields, rngs=rngs) for _ in range(config.blocks)])
        self.head = Between(config.fields, orbits, rngs=rngs)
        self.head.kernel[...] = 0.1 * self.head.kernel[...]

    def __call__(self, horizons: Array, tangents: Array, instrument: Array) -> Array:
        x = self.stem(jnp.concatenate([horizons, tangents], axis=-1))
        x = x + jnp.repeat(self.instrument(instrument), ORIENTATIONS)[None, None, None, :]
        for block in self.blocks:
            x = block(x)
        return self.head(nnx.silu(x))


def exposed(
    config: SimulatorConfig, parameters: Any, slope_x: Map, slope_y: Map, rims_rad: Float[Array, "2"]
) -> Float[Array, "16 y x"]:
    """Horizons at 16 azimuths, `(azimuth, y, x)`, cotangents, for an instrument with these innermost and outermost
    rims. Gradient: exact."""
    network = config.filled(parameters, slope_x.dtype)
    relief = relief_of_slopes(slope_x, slope_y, jnp.asarray(_RESTRAINT, slope_x.dtype))
    coarse = Surface(0.5 * _halved(relief), jnp.ones((), slope_x.dtype))
    cot = horizon(coarse, AZIMUTHS, PeakHorizon(config.octaves))
    slopes = coarse.slopes()
    along = (c.astype(slope_x.dtype) for c in image_direction(jnp.asarray(azimuth_centres(AZIMUTHS))))
    tangent = sum(c[:, None, None] * s[None] for c, s in zip(along, slopes, strict=True))
    fields = [_cosine(jnp.moveaxis(by_azimuth[_OF_CHANNEL], 0, -1)[None]) for by_azimuth in (cot, tangent)]
    found = network(*fields, jnp.cos(rims_rad).astype(slope_x.dtype))[0]
    cot = cot + jnp.moveaxis(found, -1, 0)[_OF_AZIMUTH]
    return _doubled(_doubled(cot, 1), 2)[:, : slope_x.shape[0], : slope_x.shape[1]]


def _azimuth_of_channel() -> np.ndarray:
    """For every channel (orbit by orbit, orientation by orientation) the azimuth whose direction it stands for."""
    centres = azimuth_centres(AZIMUTHS)
    directions = np.stack([np.cos(centres), -np.sin(centres)], axis=-1)
    channels = []
    for first in range(AZIMUTHS // ORIENTATIONS):
        for element in range(ORIENTATIONS):
            turned = act_on_vector(element) @ directions[first]
            channels.append(int(np.argmax(directions @ turned)))
    return np.array(channels)


_OF_CHANNEL = _azimuth_of_channel()
_OF_AZIMUTH = np.argsort(_OF_CHANNEL)


def _cosine(cot: Array) -> Array:
    return cot / jnp.sqrt(1.0 + cot**2)


def _halved(values: Map) -> Array:
    """Means of 2 x 2 pixels, an odd last line repeated."""
    values = jnp.pad(values, [(0, n % 2) for n in values.shape], mode="edge")
    rows, columns = (n // 2 for n in values.shape)
    return values.reshape(rows, 2, columns, 2).mean((1, 3))


def _doubled(maps: Array, axis: int) -> Array:
    """Twice as many pixels along an axis, linear in between."""
    count = maps.shape[axis]
    width = [(1, 1) if k == axis else (0, 0) for k in range(maps.ndim)]
    around = jnp.pad(maps, width, mode="edge")
    before, after = (lax.slice_in_dim(around, k, k + count, axis=axis) for k in (0, 2))
    pairs = jnp.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis + 1)
    return pairs.reshape([2 * n if k == axis else n for k, n in enumerate(maps.shape)])
