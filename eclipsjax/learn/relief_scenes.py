"""Reliefs for teaching simulators: random families made steeper, tilted and roughened, or crops of measured maps.

Data are drawn in the process by a plain generator of keys: making a relief costs less than reading one, so there is
nothing for a data loader's workers to hide. Heights are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map
from eclipsjax.learn.depth_scenes import FAMILIES
from eclipsjax.learn.npz_folder import npz_files, read_arrays
from eclipsjax.specimen import synthetic

# Kept from training for tests: "particles" and "square spiral".
TAUGHT = ("rough", "steps", "decorated", "spiral", "islands", "square islands", "pits", "sinusoid", "walls")
# How much taller a relief may be made than its family draws it, and the most that it is tilted, as slopes.
_TALLER, _TILT = (0.7, 3.5), 0.1
# The farthest a drawn relief may rise, in pixels: beyond nothing but walls is left to see.
_TALLEST_PX = 40.0


@partial(jax.jit, static_argnames=("family", "size", "batch"))
def reliefs(family: str, size: int, batch: int, key: Array) -> Float[Array, "batch {size} {size}"]:
    """Random heights of one of the families `TAUGHT`, or of any of `depth_scenes`."""
    return jax.vmap(partial(_relief, family, size))(jax.random.split(key, batch))


def _relief(family: str, size: int, key: Array) -> Map:
    k = jax.random.split(key, 6)
    draw: Callable = _walls if family == "walls" else FAMILIES[family][0]
    height = draw((size, size), k[0]).surface.height_nm
    taller = jnp.exp(jax.random.uniform(k[1], minval=jnp.log(_TALLER[0]), maxval=jnp.log(_TALLER[1])))
    span = jnp.max(height) - jnp.min(height)
    height = height * jnp.minimum(taller, _TALLEST_PX / jnp.maximum(span, 1e-3))
    upside = jnp.where(jax.random.bernoulli(k[2], 0.3), -1.0, 1.0)
    tilt = jax.random.uniform(k[3], (2,), minval=-_TILT, maxval=_TILT)
    texture = jnp.where(jax.random.bernoulli(k[4], 0.5), _texture((size, size), k[5]), 0.0)
    along = jnp.arange(size) - 0.5 * size
    height = upside * height + tilt[0] * along[None, :] + tilt[1] * along[:, None] + texture
    return height.astype(jnp.float32)


def _texture(shape: tuple[int, int], key: Array) -> Map:
    """Faint roughness, slopes of up to .15 (rms)."""
    one, two = jax.random.split(key)
    slope = 0.15 * jax.random.uniform(one)
    scene = synthetic.rough(shape, 1.0, key=two, hurst=0.7, rms_slope=slope, shortest_nm=3.0)
    return scene.surface.height_nm


def _walls(shape: tuple[int, int], key: Array) -> synthetic.Scene:
    """Mesas with walls of 70 to 85 degrees, up to as tall as they are wide."""
    k = jax.random.split(key, 5)
    radius = 6.0 * 4.0 ** jax.random.uniform(k[1])
    return synthetic.islands(
        shape,
        1.0,
        key=k[0],
        count=12,
        radius_nm=radius,
        height_nm=radius * jax.random.uniform(k[2], minval=0.2, maxval=1.0),
        wall_deg=jax.random.uniform(k[3], minval=70.0, maxval=85.0),
        direction_deg=360.0 * jax.random.uniform(k[4]),
    )


def crops(maps: Sequence[np.ndarray], size: int, batch: int, key: Array) -> Float[Array, "batch {size} {size}"]:
    """Random crops of height maps (in pixels), turned, flipped and made up to 3.5 times as tall."""
    rng = generator_of(key)
    made = []
    for _ in range(batch):
        whole = maps[rng.integers(len(maps))]
        top, left = (rng.integers(n - size + 1) for n in whole.shape)
        crop = np.rot90(whole[top : top + size, left : left + size], rng.integers(4))
        crop = crop[:, ::-1] if rng.integers(2) else crop
        taller = min(_TALLER[1] ** rng.uniform(), _TALLEST_PX / max(float(np.ptp(crop)), 1e-3))
        made.append(taller * (crop - crop.mean()))
    return jnp.asarray(np.stack(made), jnp.float32)


def generator_of(key: Array) -> np.random.Generator:
    """NumPy's generator, for choices that shapes depend on: the same for the same key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32).tolist())


def maps_of_folder(folder: Path, size: int) -> list[np.ndarray]:
    """Heights in pixels of every `.npz` file (`height_nm`, `pixel_size_nm`) of a folder; others are passed over.

    Refused are a folder without such a file, a file that cannot be read, and maps smaller than `size`.
    """
    return [_map_of_file(file, size) for file in npz_files(folder, "height maps", "height_nm and pixel_size_nm")]


def _map_of_file(file: Path, size: int) -> np.ndarray:
    (height,), pixel = read_arrays(file, "height map", "height_nm")
    if height.ndim != 2 or min(height.shape) < size or not np.isfinite(height).all():
        raise InputError(
            f"{file} has a map of shape {height.shape}: give finite maps of at least {size} x {size} pixels, or take "
            "it away."
        )
    return (height - height.mean()) / pixel
