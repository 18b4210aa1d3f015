"""Folders of `.npz` files that somebody else wrote: read whole, or refused in a sentence that names the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from eclipsjax._types import InputError


def npz_files(folder: Path, what: str, holds: str) -> list[Path]:
    """Every `.npz` file of a folder of `what`; others are passed over. Refused: no folder, and one without any."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give one with {what} (.npz with {holds}).")
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise InputError(f"{folder} holds no .npz file: give a folder of {what} ({holds}).")
    return files


def read_arrays(file: Path, what: str, *names: str) -> tuple[list[np.ndarray], float]:
    """The arrays of these names out of one `what`, in double precision, and `pixel_size_nm`."""
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} cannot be read as a {what} (no .npz archive): repair it or take it away.")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = [np.asarray(stored[name], np.float64) for name in names]
            pixel = float(stored["pixel_size_nm"])
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{file} cannot be read as a {what} ({reason}): repair it or take it away.") from None
    if not 0 < pixel < np.inf:
        raise InputError(f"{file} has pixel_size_nm = {pixel:g}: give the nanometres per pixel, or take it away.")
    return arrays, pixel
