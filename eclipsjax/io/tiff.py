"""Height maps as TIFF: one page of numbers, its pixel size in our own notes or in the file's resolution tags."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError
from eclipsjax.io.vendors.units import LENGTH

FORMAT, IMAGE_FORMAT = "height 1", "image 1"
# 1200 dots per inch and coarser (72, 96, 300 ...) is how programs ask to be printed, not how large a pixel was.
PRINTED_NM = 21000.0


def read_tiff(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    """The array of a TIFF's only page and its pixels' sizes (x, y) in nm, None where the file does not say."""
    import tifffile

    with silent(), tifffile.TiffFile(path) as file:
        count = len(file.pages)
        if count == 0:
            raise ValueError("no page in it")
        if count != 1:
            raise InputError(f"{path} holds {count} pages: a height map is a single one.")
        page = file.pages[0]
        notes = notes_of(page.description)
        if notes.get("eclipsjax") == IMAGE_FORMAT:
            raise InputError(f"{path} is an image that eclipsjax simulated, not a height map: give the heights' file.")
        height, sizes = page.asarray(), tagged_sizes(page)
    if notes.get("eclipsjax") == FORMAT:
        size = float(notes["pixel_size_nm"])
        return height, (size, size)
    return height, sizes


def write_tiff(path: Path, height: np.ndarray, pixel: float, notes: Mapping[str, Any] | None = None) -> None:
    """32-bit floating point, nm; the pixel size in a description that `read_tiff` knows and in the resolution tags."""
    import tifffile

    description = {"eclipsjax": FORMAT, "height_unit": "nm", "pixel_size_nm": pixel}
    if notes is not None:
        description["notes"] = notes
    tifffile.imwrite(
        path,
        height.astype(np.float32),
        photometric="minisblack",
        description=json.dumps(description),
        software="eclipsjax",
        metadata=None,
        **resolution(pixel),
    )


def resolution(pixel_size_nm: float) -> dict[str, Any]:
    """The resolution tags as tifffile takes them; none where pixels are too small for their 32-bit fractions."""
    per_cm = 1e7 / pixel_size_nm
    return {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"} if per_cm < 2**32 - 1 else {}


def notes_of(description: str) -> dict:
    """What eclipsjax wrote into a TIFF's description; empty for other descriptions."""
    try:
        notes = json.loads(description)
    except (ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def tagged_sizes(page) -> tuple[float, float] | None:
    """Pixel sizes (x, y) in nm from the resolution tags; ImageJ names its unit in the description."""
    unit = re.search(r"^unit=(.*)$", page.description, re.MULTILINE) if page.description.startswith("ImageJ") else None
    tags = {
        name: page.tags[name].value for name in ("XResolution", "YResolution", "ResolutionUnit") if name in page.tags
    }
    if unit:
        name = re.sub(r"\\u00[bB]5", "µ", unit[1].strip())
        scale = LENGTH.get(name)
    else:
        scale = {2: LENGTH["inch"], 3: LENGTH["cm"]}.get(int(tags.get("ResolutionUnit", 1)))
    if scale is None or not {"XResolution", "YResolution"} <= set(tags):
        return None
    (nx, dx), (ny, dy) = tags["XResolution"], tags["YResolution"]
    if not (nx > 0 and dx > 0 and ny > 0 and dy > 0):
        return None
    sizes = (scale * dx / nx, scale * dy / ny)
    return sizes if unit or max(sizes) < PRINTED_NM else None


@contextmanager
def silent():
    """tifffile logs what is wrong with a file; the caller says it in its own sentence."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
