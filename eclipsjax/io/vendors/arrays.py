"""NumPy files: one image or a stack in .npy, or images with their pixel size in .npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError
from eclipsjax.io.vendors import plain
from eclipsjax.io.vendors.containers import Page, decoding, refuse_size

IMAGES = ("images", "image", "signal")
_NOTE_BYTES = 1 << 16


@contextmanager
def npy_pages(path: Path) -> Iterator[list[Page]]:
    """The images of a .npy: one array (y, x) or a stack (segment, y, x)."""
    with decoding(path, "NumPy array"), open(path, "rb") as file:
        stack = _array(path, file, path.stat().st_size)
    yield _pages(path, stack, {}, None)


@contextmanager
def npz_pages(path: Path) -> Iterator[list[Page]]:
    """The images of a .npz, in its array `images`, `image` or `signal`, and what stands beside them."""
    with decoding(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        name = next((key for key in IMAGES if key in members), None)
        if name is None:
            raise InputError(
                f"{path} has no array images, only {', '.join(members)[:200] or 'nothing'}: name the images' stack so."
            )
        small = {key: info for key, info in members.items() if key != name and info.file_size <= _NOTE_BYTES}
        beside = {key: _member(path, archive, info) for key, info in small.items()}
        stack = _member(path, archive, members[name])
    raw = {key: value.item() if value.ndim == 0 else value for key, value in beside.items()}
    names = raw.pop("segment_names", None)
    yield _pages(path, stack, raw, None if names is None else [str(v) for v in np.atleast_1d(names)])


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    refuse_size(path, info.file_size, info.compress_size)
    with archive.open(info) as file:
        return _array(path, file, info.file_size)


def _array(path: Path, file: Any, size: int) -> np.ndarray:
    """One array; its header is read first, because memory is taken by what it declares."""
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError(f"version {version} of the format")
    shape, turned, dtype = header(file)
    if dtype.hasobject:
        raise InputError(f"{path} holds Python objects, which are not read: save an array of numbers.")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > size:
        raise InputError(f"{path} is cut short: its header declares an array of shape {shape}, so save it again.")
    count = math.prod(shape)
    refuse_size(path, count * dtype.itemsize, size)
    flat = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype, count=count)
    return flat.reshape(shape, order="F" if turned else "C")


def _pages(path: Path, stack: np.ndarray, raw: Mapping[str, Any], names: list[str] | None) -> list[Page]:
    if stack.ndim not in (2, 3):
        raise InputError(
            f"{path} holds an array of shape {stack.shape}: give images (segment, y, x), or one image (y, x)."
        )
    images = stack if stack.ndim == 3 else stack[None]
    if names is not None and len(names) != len(images):
        raise InputError(f"{path} names {len(names)} segments but holds {len(images)} images: give each one name.")
    told = names or [None] * len(images)
    try:
        return [
            Page(lambda image=image: image, plain.archived(raw, name)) for image, name in zip(images, told, strict=True)
        ]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
