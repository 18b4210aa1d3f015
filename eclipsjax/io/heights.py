"""Height maps in and out of files, and the folder that results go to.

- `.npz`: arrays `height_nm` and, for the pixel size, `pixel_size_nm` (and `pixel_size_y_nm`).
- `.npy`: a 2D array.
- `.tif`, `.tiff`: one page; pixel size inside if `write_height` wrote it, or in the file's resolution tags (ImageJ's
  unit, or dots per cm or inch where that makes less than 21 um: coarser is a printer's resolution).
- `.txt`, `.csv`: a matrix; blanks, tabs, commas or semicolons between; lines that start with `#` are skipped.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError, concrete
from eclipsjax._whole_file import whole_file
from eclipsjax.io.text_matrix import read_text_matrix
from eclipsjax.io.tiff import read_tiff, write_tiff
from eclipsjax.specimen.surface import Surface

SQUARE_TOLERANCE = 1e-3
# What single precision may lose of a height, in pixels, before an offset is subtracted: far below any signal's noise.
_FINEST = 1e-5
_LARGEST_NM = 1e12
_READABLE = ".npz, .npy, .tif, .tiff, .txt, .csv"
_WRITABLE = ".npz, .tif, .tiff"


def read_height(
    path: str | os.PathLike, pixel_size_nm: float | None = None, height_scale_nm: float | None = None
) -> Surface:
    """The surface in the file `path`; see the module for what each kind of file holds.

    - `pixel_size_nm`: nanometres per pixel, where the file does not say.
    - `height_scale_nm`: nanometres per stored unit, where that is not 1; whole numbers need it.

    Nothing is resampled, cropped or filled: pixels that are not square within 0.1 % and heights that are not
    finite end in an `InputError`. Gradient: none, a file holds numbers.
    """
    height, pixel = _read_samples(Path(path), pixel_size_nm, height_scale_nm)
    return _surface(path, height, pixel)


def read_level_height(
    path: str | os.PathLike, pixel_size_nm: float | None = None, height_scale_nm: float | None = None
) -> tuple[Surface, float]:
    """As `read_height`, and what was subtracted from all heights, nm.

    That is 0 unless the heights lie so far from 0 that single precision would lose `_FINEST` of a pixel; then it is
    the middle of their range, subtracted in double precision. Only differences of heights matter to any signal.
    Gradient: none.
    """
    height, pixel = _read_samples(Path(path), pixel_size_nm, height_scale_nm)
    if height.size == 0 or not np.isfinite(height).all():
        return _surface(path, height, pixel), 0.0
    low, high = float(height.min()), float(height.max())
    lost, least = (float(np.spacing(np.float32(v))) for v in (max(abs(low), abs(high)), 0.5 * (high - low)))
    if lost <= _FINEST * pixel or lost < 4 * least:
        return _surface(path, height, pixel), 0.0
    middle = 0.5 * (low + high)
    return _surface(path, height.astype(np.float64) - middle, pixel), middle


def _surface(path: str | os.PathLike, height: np.ndarray, pixel: float) -> Surface:
    try:
        return Surface(height, pixel)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_samples(path: Path, pixel_size_nm: float | None, height_scale_nm: float | None) -> tuple[np.ndarray, float]:
    """Heights in nm in the file's own precision, and the pixel size in nm."""
    readers = {".npz": _read_npz, ".npy": _read_npy, ".tif": read_tiff, ".tiff": read_tiff}
    readers |= {".txt": _read_text, ".csv": _read_text}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is of an unknown kind ({path.suffix or 'no ending'}): heights are read from {_READABLE}."
        )
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the name.")
    try:
        height, sizes = reader(path)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path} cannot be read ({reason}): heights are read from {_READABLE}.") from None
    height = _in_nanometres(path, height, height_scale_nm)
    return height, one_pixel_size(path, sizes, pixel_size_nm)


def _in_nanometres(path: Path, height: np.ndarray, scale: float | None) -> np.ndarray:
    if height.dtype.kind not in "fiu":
        raise InputError(f"{path} holds values of type {height.dtype}: heights are real numbers.")
    if height.ndim != 2:
        raise InputError(f"{path}: height_nm has shape {height.shape}: give a 2D array (y, x), one number per pixel.")
    if scale is None:
        if height.dtype.kind != "f":
            raise InputError(
                f"{path} holds whole numbers ({height.dtype}): give height_scale_nm, the nanometres that one "
                "of them stands for."
            )
        return _plausible(path, height)
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"height_scale_nm is {scale}: give a positive number of nanometres per stored unit.")
    with np.errstate(over="ignore"):
        return _plausible(path, height * np.float64(scale))


def _plausible(path: Path, height: np.ndarray) -> np.ndarray:
    far = np.abs(height[np.isfinite(height)]).max(initial=0.0)
    if far > _LARGEST_NM:
        raise InputError(f"{path} holds heights of {far:g} nm: no specimen is so large, so check height_scale_nm.")
    return height


def one_pixel_size(path: Path, sizes: tuple[float, float] | None, given: float | None) -> float:
    """The side of a pixel in nm from the file's (x, y) sizes and from what the caller says; `InputError` if unclear."""
    if sizes is None:
        if given is None:
            raise InputError(f"{path} does not say how large a pixel is: give pixel_size_nm.")
        if not 0 < given < _LARGEST_NM:
            raise InputError(f"pixel_size_nm is {given}: give one positive number of nanometres per pixel.")
        return given
    size_x, size_y = sizes
    if not abs(size_y - size_x) <= SQUARE_TOLERANCE * abs(size_x):
        raise InputError(
            f"{path} has pixels of {size_x:g} x {size_y:g} nm: only square ones (within 0.1 %) are read, so "
            "resample first."
        )
    if given is not None and not abs(given - size_x) <= SQUARE_TOLERANCE * abs(size_x):
        raise InputError(
            f"{path} says its pixels measure {size_x:g} nm but pixel_size_nm = {given:g} was given: "
            "leave it out, or correct the file."
        )
    return size_x


def _read_npz(path: Path):
    with np.load(path, allow_pickle=False) as file:
        if "height_nm" not in file.files:
            raise InputError(f"{path} has no array height_nm, only {', '.join(file.files) or 'nothing'}: name it so.")
        height = file["height_nm"]
        if "pixel_size_nm" not in file.files:
            return height, None
        size_x = float(file["pixel_size_nm"])
        return height, (size_x, float(file["pixel_size_y_nm"]) if "pixel_size_y_nm" in file.files else size_x)


def _read_npy(path: Path):
    with open(path, "rb") as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("several arrays in one file end in .npz")
    return array, None


def _read_text(path: Path):
    return read_text_matrix(path), None


def write_height(surface: Surface, path: str | os.PathLike, force: bool = False) -> None:
    """Write `surface` as `.npz` (its own precision) or `.tif`/`.tiff` (32-bit floating point, nm, pixel size
    inside).

    An existing file is replaced only with `force`, and only by a whole one. Gradient: none.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".npz", ".tif", ".tiff"):
        raise InputError(f"{path} is of an unknown kind ({kind or 'no ending'}): heights are written to {_WRITABLE}.")
    height, pixel = concrete(surface.height_nm), concrete(surface.pixel_size_nm)
    if height is None or pixel is None:
        raise InputError("a surface cannot be written while JAX traces it: its heights are not known yet.")
    with whole_file(path, force) as file:
        if kind == ".npz":
            write_npz(file, height, pixel)
        else:
            write_tiff(file, height, float(pixel))


def write_npz(
    path: Path,
    height_nm: np.ndarray,
    pixel_size_nm: np.ndarray | float,
    height_std_nm: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """The arrays that `read_height` reads, in their own precision, and `notes` as JSON. Gradient: none."""
    arrays = {"height_nm": height_nm, "pixel_size_nm": pixel_size_nm, "pixel_size_y_nm": pixel_size_nm}
    if height_std_nm is not None:
        arrays["height_std_nm"] = height_std_nm
    if notes is not None:
        arrays["notes"] = np.array(json.dumps(notes))
    # An open file, because NumPy adds its ending to any other name.
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def prepare_folder(path: str | os.PathLike, force: bool = False) -> Path:
    """The folder `path`, made where it is missing, into which results can be written.

    `InputError` where it cannot be made or written to, or where it holds files already and `force` is not
    set. With `force` nothing is deleted: files of the same name will be replaced.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except FileExistsError:
        raise InputError(f"{path} is a file: results need a folder.") from None
    except OSError as error:
        raise InputError(f"the folder {path} cannot be made or read: {error.strerror or error}.") from None
    if held and not force:
        raise InputError(f"the folder {path} already holds {held[0]}: choose another or allow overwriting with force.")
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"the folder {path} cannot be written to: {error.strerror or error}.") from None
    return path
