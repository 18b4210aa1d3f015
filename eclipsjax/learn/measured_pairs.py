"""Lessons out of measurements: segment images of one microscope, with heights that another instrument found there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.scope_file import load_microscope
from eclipsjax.inverse.measurement import check_images, measure
from eclipsjax.learn.image_lessons import ImageLesson
from eclipsjax.learn.npz_folder import npz_files, read_arrays
from eclipsjax.learn.relief_scenes import generator_of
from eclipsjax.specimen.surface import Surface

MICROSCOPE = "scope.yaml"
_HOLDS = "images (segment, y, x), height_nm (y, x) and pixel_size_nm"


@dataclass(frozen=True)
class MeasuredPairs:
    """Registered pairs: `images`, each `(segment, y, x)` as recorded by `scope`; `heights`, each `(y, x)`, pixels."""

    scope: Microscope
    images: tuple[np.ndarray, ...]
    heights: tuple[np.ndarray, ...]

    @property
    def named(self) -> str:
        """How many and which, in a few letters, for a training's recipe."""
        digest = hashlib.sha256()
        for array in (*self.images, *self.heights):
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"{len(self.images)}, {digest.hexdigest()[:12]}"

    def lessons(self, size: int, batch: int, key: Array) -> ImageLesson:
        """Crops of so many pixels, anywhere. Gradient: none."""
        rng = generator_of(key)
        crops: Sequence[tuple[np.ndarray, np.ndarray]] = []
        for _ in range(batch):
            which = rng.integers(len(self.images))
            images, height = self.images[which], self.heights[which]
            top, left = (rng.integers(n - size + 1) for n in height.shape)
            window = slice(top, top + size), slice(left, left + size)
            crops.append((images[:, *window], height[window]))
        images, heights = (jnp.asarray(np.stack(part), jnp.float32) for part in zip(*crops, strict=True))
        return _lessons(images, heights, self.scope)


@jax.jit
def _lessons(images: Array, heights: Array, scope: Microscope) -> ImageLesson:
    return jax.vmap(partial(_lesson, scope=scope))(images, heights)


def _lesson(images: Array, height: Array, scope: Microscope) -> ImageLesson:
    surface = Surface(height, jnp.ones((), height.dtype))
    return ImageLesson(measure(images, scope), acceptance(scope), *surface.slopes())


def pairs_of_folder(folder: Path, size: int) -> MeasuredPairs:
    """Every `.npz` file of a folder, with the microscope of its `scope.yaml`.

    Files hold `images`, `height_nm` and `pixel_size_nm`, registered to each other: the same pixels show the same place.
    The microscope's gains hold the grey levels. Refused are a folder without any of these, a file that cannot be read,
    images that are not of the microscope's segments, and pairs smaller than `size`. Gradient: none.
    """
    files = npz_files(folder, "pairs", _HOLDS)
    if not (folder / MICROSCOPE).is_file():
        raise InputError(f"{folder} holds no {MICROSCOPE}: put the file of the microscope that took the images there.")
    scope = load_microscope(folder / MICROSCOPE)
    pairs = [_pair_of_file(file, scope, size) for file in files]
    return MeasuredPairs(scope, *(tuple(part) for part in zip(*pairs, strict=True)))


def _pair_of_file(file: Path, scope: Microscope, size: int) -> tuple[np.ndarray, np.ndarray]:
    (images, height), pixel = read_arrays(file, "pair", "images", "height_nm")
    images = images.astype(np.float32)
    try:
        check_images(images, scope)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if images.shape[1:] != height.shape or min(height.shape) < size or not np.isfinite(height).all():
        raise InputError(
            f"{file} has images of shape {images.shape} and heights of {height.shape}: give registered, finite ones of "
            f"the same pixels, at least {size} x {size}, or take it away."
        )
    return images, (height - height.mean()) / pixel
