"""Height maps in and out of files, and the folder that results go to.

- `.npz`: arrays `height_nm` and, for the pixel size, `pixel_size_nm` (and `pixel_size_y_nm`).
- `.npy`: a 2D array.
- `.tif`, `.tiff`: one page; pixel size inside if `write_height` wrote it.
- `.txt`, `.csv`: a matrix; blanks, tabs, commas or semicolons between; lines that start with `#` are skipped.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.surface import Surface

SQUARE_TOLERANCE = 1e-3
_FORMAT = "height 1"
_READABLE = ".npz, .npy, .tif, .tiff, .txt, .csv"
_WRITABLE = ".npz, .tif, .tiff"


def read_height(
    path: str | os.PathLike, pixel_size_nm: float | None = None, height_scale_nm: float | None = None
) -> Surface:
    """The surface in the file `path`; see the module for what each kind of file holds.

    - `pixel_size_nm`: nanometres per pixel, where the file does not say.
    - `height_scale_nm`: nanometres per stored unit, where that is not 1; whole numbers need it.

    Nothing is resampled, cropped or filled: pixels that are not square within 0.1 % and heights that are not
    finite end in an `InputError`.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".npy": _read_npy, ".tif": _read_tiff, ".tiff": _read_tiff}
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
    pixel = _one_pixel_size(path, sizes, pixel_size_nm)
    try:
        return Surface(height, pixel)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _in_nanometres(path: Path, height: np.ndarray, scale: float | None) -> np.ndarray:
    if height.dtype.kind not in "fiu":
        raise InputError(f"{path} holds values of type {height.dtype}: heights are real numbers.")
    if scale is None:
        if height.dtype.kind != "f":
            raise InputError(
                f"{path} holds whole numbers ({height.dtype}): give height_scale_nm, the nanometres that one "
                "of them stands for."
            )
        return height
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"height_scale_nm is {scale}: give a positive number of nanometres per stored unit.")
    return height * np.float64(scale)


def _one_pixel_size(path: Path, sizes: tuple[float, float] | None, given: float | None) -> float:
    """The side of a pixel in nm from the file's (x, y) sizes and from what the caller says."""
    if sizes is None:
        if given is None:
            raise InputError(f"{path} does not say how large a pixel is: give pixel_size_nm.")
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


def _read_tiff(path: Path):
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise InputError(f"{path} holds {len(file.pages)} pages: a height map is a single one.")
        page = file.pages[0]
        try:
            notes = json.loads(page.description)
        except ValueError:
            notes = None
        height = page.asarray()
    if isinstance(notes, dict) and notes.get("eclipsjax") == _FORMAT:
        size = float(notes["pixel_size_nm"])
        return height, (size, size)
    return height, None


def _read_text(path: Path):
    text = path.read_text(encoding="utf-8-sig")
    rows = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        raise InputError(f"{path} holds no numbers: give one line of heights per image row.")
    delimiter = next((mark for mark in (";", "\t", ",") if mark in rows[0].strip()), None)
    return np.loadtxt(rows, delimiter=delimiter, ndmin=2), None


def write_height(surface: Surface, path: str | os.PathLike, force: bool = False) -> None:
    """Write `surface` as `.npz` (its own precision) or `.tif`/`.tiff` (32-bit floating point, nm, pixel size
    inside).

    An existing file is replaced only with `force`.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".npz", ".tif", ".tiff"):
        raise InputError(f"{path} is of an unknown kind ({kind or 'no ending'}): heights are written to {_WRITABLE}.")
    height, pixel = concrete(surface.height_nm), concrete(surface.pixel_size_nm)
    if height is None or pixel is None:
        raise InputError("a surface cannot be written while JAX traces it: its heights are not known yet.")
    if path.exists() and not force:
        raise InputError(f"{path} already exists: choose another name or allow overwriting with force.")
    try:
        if kind == ".npz":
            np.savez_compressed(path, height_nm=height, pixel_size_nm=pixel, pixel_size_y_nm=pixel)
        else:
            _write_tiff(path, height, float(pixel))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


def _write_tiff(path: Path, height: np.ndarray, pixel: float) -> None:
    import tifffile

    notes = {"eclipsjax": _FORMAT, "height_unit": "nm", "pixel_size_nm": pixel}
    per_cm = (1e7 / pixel, 1e7 / pixel)
    tifffile.imwrite(
        path,
        height.astype(np.float32),
        photometric="minisblack",
        description=json.dumps(notes),
        resolution=per_cm,
        resolutionunit="CENTIMETER",
        software="eclipsjax",
        metadata=None,
    )


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
