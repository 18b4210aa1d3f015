"""What to believe of every normal: attention of a pixel over smoothed normals around it, weighed by a U-Net.

The keys are the given normals themselves, three smoothings of them, and means of the four quadrants about the pixel at
two scales, which stop at an edge where a round smoothing would run over it. What noise there is shows in the curl,
which central differences of a surface do not have: where there is none nothing is moved, so that exact slopes stay
exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map
from eclipsjax.nn.equivariant import ORIENTATIONS, Between, Lift, act_on_vector
from eclipsjax.nn.field_unet import FieldUNet
from eclipsjax.nn.neighbours import held, mean_along
from eclipsjax.nn.network_parameters import NetworkConfig, filled, fresh_parameters, shapes_of_parameters

_ROUND_SCALES, _QUADRANT_SCALES = 3, 2
_QUADRANTS = 4
# One direction's smoothing, and the mean of one side with the pixel itself.
_SMOOTH = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_ONE_SIDED = (0.4, 0.4, 0.2)
# Pixels over which the curl is averaged, on either side.
_NOISE_REACH = 4
_LEAST_NOISE = 1e-5
# (n_z)^2 of the steepest normal that cleaning makes.
_LEAST_UPRIGHT = 0.0025
# Pixels along a side that share their attention.
_BLOCK = 4
# What goes into the U-Net: of slopes the pixel's own and every round smoothing; of numbers the noise and the curl.
_VECTORS, _SCALARS = 1 + _ROUND_SCALES, 3


@dataclass(frozen=True)
class VisionFieldConfig(NetworkConfig):
    """`fields` (of 8 channels) per level of the U-Net, the first at a quarter of the image's size; `octaves` of the
    horizon beyond 8 px, `azimuths` of the rays."""

    fields: tuple[int, ...] = (2, 3, 4)
    octaves: int = 3
    azimuths: int = 48

    @property
    def multiple(self) -> int:
        """Image sides are brought to a multiple of this."""
        return _BLOCK * 2 ** (len(self.fields) - 1)


class Believed(NamedTuple):
    """Cleaned slopes, `(y, x)`; the restraint of the relief's shortest waves and the gain of its peaks, scalars."""

    slope_x: Map
    slope_y: Map
    restraint: Float[Array, ""]
    gain: Float[Array, ""]


class VisionFieldNetwork(FieldUNet):
    """Clues of blocks of pixels in, attention over the keys out: `(b, y, x, key)`, summing to 1."""

    def __init__(self, config: VisionFieldConfig, *, rngs: nnx.Rngs):
        fields = config.fields
        super().__init__(fields, rngs=rngs)
        self.stem = Lift(_SCALARS, _VECTORS, fields[0], 3, 1, rngs=rngs)
        self.head = Between(fields[0], 1 + _ROUND_SCALES + _QUADRANT_SCALES, 1, rngs=rngs)
        self.head.kernel[...] = 0.1 * self.head.kernel[...]
        # Begin by believing what is given.
        self.head.bias[...] = self.head.bias[...].at[0].set(2.0)
        # How many times the noise a slope may be moved (logarithm), log of the restraint over the noise's variance,
        # and the gain.
        self.reach = nnx.Param(jnp.log(jnp.float32(3.0)))
        self.restraint = nnx.Param(jnp.log(jnp.float32(20.0)))
        self.gain = nnx.Param(jnp.float32(0.5))

    def __call__(self, scalars: Array, vectors: Array) -> Array:
        logits = self.head(self.through(self.stem(scalars, vectors)))
        *size, _ = logits.shape
        fields = logits.reshape(*size, -1, ORIENTATIONS)
        round_keys = jnp.mean(fields[..., : 1 + _ROUND_SCALES, :], axis=-1)
        quadrants = fields[..., 1 + _ROUND_SCALES :, :] @ jnp.asarray(_TO_QUADRANTS, logits.dtype)
        return nnx.softmax(jnp.concatenate([round_keys, quadrants.reshape(*size, -1)], axis=-1), axis=-1)


def believe(config: VisionFieldConfig, parameters: Any, slope_x: Map, slope_y: Map) -> Believed:
    """The slopes of a surface of which these are noisy ones, in their precision. Gradient: exact."""
    network = filled(build(config), parameters, slope_x.dtype)
    slopes = jnp.stack([slope_x, slope_y])
    # Noise turns normals by an angle: the same everywhere in their components, but much in the slope of a wall.
    leans = slopes * lax.rsqrt(1.0 + slopes[0] ** 2 + slopes[1] ** 2)[None]
    noise = held(_noise(slope_x, slope_y))
    keys = _keys(held(leans))
    attention = network(*(clues[None] for clues in _clues(leans, keys, noise, config.multiple)))[0]
    farthest = jnp.exp(network.reach[...]) * noise
    moved, total = jnp.zeros_like(leans), _over_blocks(attention[..., 0], slope_x.shape)
    for k, key in enumerate(keys):
        off = key - leans
        # A key that lies farther off than noise explains is of another facet: every pixel leaves it out by itself.
        alike = farthest**2 / (farthest**2 + off[0] ** 2 + off[1] ** 2)
        share = _over_blocks(attention[..., k + 1], slope_x.shape) * alike**2
        moved, total = moved + share[None] * off, total + share
    moved = moved / total[None]
    believed = _slopes_of_moved(slopes, leans, moved)
    restraint = 1e-6 + jnp.exp(network.restraint[...]) * jnp.mean(noise**2)
    return Believed(believed[0], believed[1], restraint, network.gain[...])


def initial_parameters(config: VisionFieldConfig, key: Array) -> Any:
    """Fresh parameters: a nested dictionary of arrays."""
    return fresh_parameters(build(config), key)


def parameter_shapes(config: VisionFieldConfig) -> Any:
    """The shapes of `initial_parameters`, without computing them."""
    return shapes_of_parameters(build(config))


def build(config: VisionFieldConfig) -> Callable[[nnx.Rngs], VisionFieldNetwork]:
    """How to make the network."""
    return lambda rngs: VisionFieldNetwork(config, rngs=rngs)


def _quadrant_table() -> np.ndarray:
    """`(orientation, quadrant)`: which quadrant (x negative or positive, y negative or positive) each orientation turns
    the first to; two orientations share one."""
    table = np.zeros((ORIENTATIONS, _QUADRANTS))
    for element in range(ORIENTATIONS):
        x, y = act_on_vector(element) @ np.array([-1.0, -1.0])
        table[element, 2 * (x > 0) + (y > 0)] = 0.5
    return table


_TO_QUADRANTS = _quadrant_table()


def _slopes_of_moved(slopes: Array, leans: Array, moved: Array) -> Array:
    """Slopes of leans that were moved, exactly the given ones where they were not; no steeper than 87 deg if moved."""
    least = jnp.minimum(_LEAST_UPRIGHT, 1.0 / (1.0 + slopes[0] ** 2 + slopes[1] ** 2))
    found = leans + moved
    upright = jnp.maximum(1.0 - found[0] ** 2 - found[1] ** 2, least)
    was = 1.0 / (1.0 + slopes[0] ** 2 + slopes[1] ** 2)
    return (slopes * lax.sqrt(was)[None] + moved) * lax.rsqrt(upright)[None]


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


def _keys(leans: Float[Array, "2 y x"]) -> list[Float[Array, "2 y x"]]:
    """What a lean may be replaced by: round smoothings, each twice as wide as the one before, then quadrants."""
    rounds, quadrants = [leans], []
    for scale in range(_ROUND_SCALES):
        smooth = {step * 2**scale: weight for step, weight in zip(range(-2, 3), _SMOOTH, strict=True)}
        if scale < _QUADRANT_SCALES:
            sides = [{side * step * 2**scale: w for step, w in enumerate(_ONE_SIDED)} for side in (-1, 1)]
            for along_x in (held(mean_along(rounds[-1], side, 2)) for side in sides):
                quadrants += [held(mean_along(along_x, side, 1)) for side in sides]
        rounds.append(held(mean_along(held(mean_along(rounds[-1], smooth, 2)), smooth, 1)))
    return rounds[1:] + quadrants


def _clues(leans, keys, noise: Map, multiple: int) -> tuple[Array, Array]:
    """Scalars `(y, x, s)` and vectors `(y, x, v, 2)` for the network, means of blocks, the sides brought to its
    multiple."""
    offs = [key - leans for key in keys[:_ROUND_SCALES]]
    offs = [off * lax.rsqrt(4.0 * noise**2 + off[0] ** 2 + off[1] ** 2)[None] for off in offs]
    far = [off[0] ** 2 + off[1] ** 2 for off in offs[: _SCALARS - 1]]
    scalars = [_of_blocks(m, multiple) for m in (0.3 * jnp.log(noise), *far)]
    vectors = [[_of_blocks(m, multiple) for m in vector] for vector in (leans, *offs)]
    return jnp.stack(scalars, axis=-1), jnp.stack([jnp.stack(v, axis=-1) for v in vectors], axis=-2)


def _of_blocks(values: Map, multiple: int) -> Array:
    """Means of blocks of pixels, the border repeated until the sides are multiples."""
    values = jnp.pad(values, [(0, -n % multiple) for n in values.shape], mode="edge")
    rows, columns = (n // _BLOCK for n in values.shape)
    return values.reshape(rows, _BLOCK, columns, _BLOCK).mean((1, 3))


def _over_blocks(values: Array, shape: tuple[int, int]) -> Map:
    """Every block's value for all of its pixels."""
    return jnp.repeat(jnp.repeat(values, _BLOCK, axis=0), _BLOCK, axis=1)[: shape[0], : shape[1]]
