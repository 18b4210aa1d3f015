"""Images of a scanning electron microscope out of the files that it writes.

- TIFF with the tags of Thermo Fisher / FEI, Zeiss or TESCAN, or of eclipsjax itself; several pages are several images.
- TIFF, PNG, BMP or JPEG with a side-car beside it: TESCAN's NAME.hdr or NAME-tif.hdr, JEOL's or Hitachi's NAME.txt.
- Plain TIFF, with a pixel size in its resolution tags (ImageJ's unit, or dots per cm or inch finer than 21 um).
- `.npy` (y, x) or (segment, y, x); `.npz` with `images` or `image` (`signal` in what `eclipsjax simulate` wrote),
  `pixel_size_nm` and, optionally, `segment_names`.

What a maker's notes say in numbers is read, and nothing is guessed from grey values: a data bar of which the notes
tell is cut off (with a line in the log `eclipsjax.io`), one that is painted over the image stays.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eclipsjax._types import InputError, at_pixels, shown, whole_number
from eclipsjax.instrument.microscope import LEAST_SEGMENTS
from eclipsjax.io.heights import SQUARE_TOLERANCE, one_pixel_size
from eclipsjax.io.vendors.arrays import npy_pages, npz_pages
from eclipsjax.io.vendors.containers import Page, picture_pages, tiff_pages
from eclipsjax.io.vendors.record import ImageRecord as ImageRecord

_OPENERS: dict[str, Callable[[Path], AbstractContextManager[list[Page]]]] = {
    **dict.fromkeys((".tif", ".tiff"), tiff_pages),
    **dict.fromkeys((".png", ".bmp", ".jpg", ".jpeg"), picture_pages),
    ".npy": npy_pages,
    ".npz": npz_pages,
}
_READABLE = ", ".join(_OPENERS)
# A common divisor of so many different grey levels is the digitiser's and no accident; of fewer, only these are.
_ENOUGH_LEVELS, _USUAL_STEPS = 16, (16, 64, 256, 257)
# Within one scan these are equal; read-outs of images taken one after the other may jitter by so much.
_SAME_ROTATION_DEG, _SAME_ENERGY, _SAME_PLACE = 0.1, 0.01, 0.1


@dataclass(frozen=True)
class SemImage:
    """One image as it is stored, without its data bar.

    - `image`: (y, x), uint8, uint16 or floating point, and `record`, what the file says of it.
    - `lowest`, `highest`: grey levels at which the digitiser clips; None for floating point.
    - `step`: between neighbouring grey levels (256 where 8 bits were stored as 16); 0 for floating point.
    """

    image: np.ndarray
    record: ImageRecord
    lowest: float | None
    highest: float | None
    step: float


def read_sem(path: str | os.PathLike, page: int | None = None) -> SemImage:
    """The image in the file `path`; see the module for what each kind of file holds.

    - `page`: which one, from 0, of a file with several.

    Nothing is rescaled, inverted or resampled: what is not one grey image ends in an `InputError`. Gradient: none
    (files hold numbers).
    """
    path = Path(path)
    with opened(path) as pages:
        if page is None and len(pages) > 1:
            raise InputError(f"{path} holds {len(pages)} images ({_listed(pages)}): give page = 0 to {len(pages) - 1}.")
        chosen = 0 if page is None else whole_number("page", page, 0)
        if chosen >= len(pages):
            raise InputError(f"{path} has no page {chosen}: it holds {len(pages)} ({_listed(pages)}), counted from 0.")
        return decoded(path, pages[chosen])


@contextmanager
def opened(path: Path) -> Iterator[list[Page]]:
    """The images of the file `path`, none of them decoded yet; `InputError` for what is not a file of a known kind."""
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        kind = path.suffix or "no ending"
        raise InputError(f"{path} is of an unknown kind ({kind}): images are read from {_READABLE}.")
    if not path.is_file():
        raise InputError(f"{path} is not a file: check the name.")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: copy or export it again.")
    with opener(path) as pages:
        if not pages:
            raise InputError(f"{path} holds no image: export it again.")
        yield pages


def decoded(path: Path, page: Page) -> SemImage:
    """The image of a page, its data bar cut off."""
    image = page.load()
    _refuse_values(path, image)
    rows = image.shape[0] - _databar_rows(path, image.shape, page)
    bar = image.shape[0] - rows
    if bar:
        logging.getLogger("eclipsjax.io").info("%s: data bar of %d rows below row %d cut off.", path, bar, rows)
        image = image[:rows]
    if not np.isfinite(image).all():
        raise InputError(f"{path} has values that are not finite {at_pixels(~np.isfinite(image))}: fill them first.")
    # In the machine's byte order, and no view of a larger array.
    image = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))
    record = ImageRecord.of(page.facts, path, (rows, image.shape[1]), image.dtype.name, bar)
    return SemImage(image, record, *_grey_levels(image))


def _refuse_values(path: Path, image: np.ndarray) -> None:
    if image.ndim != 2 or image.size == 0:
        raise InputError(f"{path} holds an image of shape {image.shape}: give a 2D one (y, x) with pixels in it.")
    if image.dtype.kind != "f" and image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise InputError(
            f"{path} holds values of type {image.dtype}: save grey levels as 8 or 16 bits without sign, or as floating "
            "point."
        )


def _databar_rows(path: Path, shape: tuple[int, ...], page: Page) -> int:
    """Rows below the image that the notes speak of; `InputError` where they do not fit the array."""
    rows, columns, declared = page.frame.rows, page.frame.columns, page.frame.databar_rows
    said = f"{columns or shape[1]} x {rows} pixels" if rows else f"{columns} columns"
    if (columns and columns != shape[1]) or (rows and rows > shape[0]):
        raise InputError(
            f"{path} holds {shape[1]} x {shape[0]} pixels but its notes describe {said}: it was cropped or resized "
            "after recording, so give the original file."
        )
    bar = shape[0] - rows if rows else declared or 0
    if rows and declared and bar not in (0, declared):
        raise InputError(
            f"{path} has {bar} rows below the {rows} of the image, but its notes give the data bar {declared}: give "
            "the original file."
        )
    if bar >= shape[0]:
        raise InputError(f"{path} has {shape[0]} rows but its notes give the data bar {bar}: give the original file.")
    return bar


def _grey_levels(image: np.ndarray) -> tuple[float | None, float | None, float]:
    """Lowest and highest level of the digitiser, and the step between levels."""
    if image.dtype.kind == "f":
        return None, None, 0.0
    if image.dtype == np.uint8:
        return 0.0, 255.0, 1.0
    levels = np.flatnonzero(np.bincount(image.ravel(), minlength=65536))
    divisor = int(np.gcd.reduce(levels)) if len(levels) > 1 else 1
    step = divisor if len(levels) >= _ENOUGH_LEVELS or divisor in _USUAL_STEPS else 1
    return 0.0, float(65535 // step * step), float(step)


def _listed(pages: list[Page]) -> str:
    """Segments or detectors of the pages, as far as the file names them."""
    names = [page.facts.segment or page.facts.detector or "unnamed" for page in pages]
    return ", ".join(f"{k}: {name}" for k, name in enumerate(names[:8])) + (", ..." if len(names) > 8 else "")


@dataclass(frozen=True)
class SegmentImages:
    """The images of one scan, one per detector segment.

    - `images`: (segment, y, x) float32, grey levels as stored; `names`: of the segments.
    - `pixel_size_nm`: side of a (square) pixel.
    - `records`: what each file says.
    - `lowest`, `highest`, `step`: as of `SemImage`, for all images together.
    - `scan_rotation_deg`: as the files say, 0 where they do not.
    """

    images: np.ndarray
    pixel_size_nm: float
    records: tuple[ImageRecord, ...]
    names: tuple[str, ...]
    lowest: float | None
    highest: float | None
    step: float
    scan_rotation_deg: float


def read_segments(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    pixel_size_nm: float | None = None,
    names: Sequence[str] | None = None,
) -> SegmentImages:
    """The segment images of one scan: from one file that holds them all, or from one file per segment, in that order.

    - `pixel_size_nm`: nanometres per pixel, where the files do not say.
    - `names`: of the segments; by default the files' own, or else what tells the file names apart.

    Images of different size, type, pixel size, scan rotation, energy or place end in an `InputError`, as do fewer
    than three. Gradient: none (files hold numbers).
    """
    found = _all_images(paths)
    records = tuple(image.record for image in found)
    for record in records[1:]:
        _refuse_difference(records[0], record)
    pixel = _common_pixel_size(records, pixel_size_nm)
    rotations = [r.scan_rotation_deg for r in records if r.scan_rotation_deg is not None]
    with np.errstate(over="ignore"):
        images = np.stack([image.image for image in found]).astype(np.float32)
    if not np.isfinite(images).all():
        raise InputError(f"{records[0].path} holds values beyond single precision (3e38): scale them down first.")
    return SegmentImages(
        images,
        pixel,
        records,
        _segment_names(records, names),
        found[0].lowest,
        # A finer step lets the digitiser go higher: the highest of all belongs to the finest.
        max((image.highest for image in found if image.highest is not None), default=None),
        float(np.gcd.reduce([int(image.step) for image in found])),
        (rotations or [0.0])[0],
    )


def _all_images(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[SemImage]:
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    if not files:
        raise InputError("no file is given: give one file per segment, or one file that holds all segments.")
    if len(files) == 1:
        with opened(files[0]) as pages:
            if len(pages) < LEAST_SEGMENTS:
                raise InputError(
                    f"{files[0]} holds {len(pages)} image{'s' * (len(pages) > 1)}, and heights need at least "
                    f"{LEAST_SEGMENTS} segments: give one file per segment."
                )
            return [decoded(files[0], page) for page in pages]
    known: dict[Path, Path] = {}
    for path in files:
        if path.resolve() in known:
            raise InputError(f"{path} is given twice: give each segment's file once.")
        known[path.resolve()] = path
    if len(files) < LEAST_SEGMENTS:
        raise InputError(
            f"{len(files)} files are given, and heights need at least {LEAST_SEGMENTS} segments: add them."
        )
    return [_only_image(path) for path in files]


def _only_image(path: Path) -> SemImage:
    with opened(path) as pages:
        if len(pages) != 1:
            raise InputError(
                f"{path} holds {len(pages)} images ({_listed(pages)}): give one such file alone, or files of one image."
            )
        return decoded(path, pages[0])


def _refuse_difference(first: ImageRecord, other: ImageRecord) -> None:
    """`InputError` where two records cannot be of one scan."""
    told = [("pixels (rows, columns)", first.shape, other.shape), ("values of type", first.dtype, other.dtype)]
    for what, a, b in told:
        if a != b:
            _refuse(other, first, what, str(b), str(a))
    sides = [(r.pixel_size_nm, r.pixel_size_y_nm) for r in (first, other)]
    for a, b in zip(*sides, strict=True):
        if a and b and abs(a - b) > SQUARE_TOLERANCE * a:
            _refuse(other, first, "a pixel size in nm of", f"{b:.6g}", f"{a:.6g}")
    a, b = first.scan_rotation_deg, other.scan_rotation_deg
    if a is not None and b is not None and abs((a - b + 180) % 360 - 180) > _SAME_ROTATION_DEG:
        _refuse(other, first, "a scan rotation in degrees of", f"{b:.6g}", f"{a:.6g}")
    a, b = first.energy_kev, other.energy_kev
    if a and b and abs(a - b) > _SAME_ENERGY * a:
        _refuse(other, first, "an energy in keV of", f"{b:.6g}", f"{a:.6g}")
    if first.stage_mm and other.stage_mm and first.pixel_size_nm:
        field_mm = min(first.shape) * first.pixel_size_nm * 1e-6
        moved_mm = max(abs(a - b) for a, b in zip(first.stage_mm[:2], other.stage_mm[:2], strict=True))
        if moved_mm > _SAME_PLACE * field_mm:
            places = (" and ".join(f"{v:.6g}" for v in r.stage_mm[:2]) for r in (other, first))
            _refuse(other, first, "a stage position in mm of", *places)


def _refuse(other: ImageRecord, first: ImageRecord, what: str, found: str, expected: str) -> None:
    raise InputError(
        f"{other.path} has {what} {found}, but {first.path} has {expected}: give images of one scan of one place."
    )


def _common_pixel_size(records: tuple[ImageRecord, ...], given: float | None) -> float:
    """The side of a pixel in nm: what every file says, or what the caller says of files that do not."""
    silent = [record for record in records if record.pixel_size_nm is None]
    for record in silent if given is None else []:
        told = next((r for r in records if r.pixel_size_nm is not None), None)
        other = f", though {told.path} says {told.pixel_size_nm:.6g} nm" if told else ""
        raise InputError(
            f"{record.path} does not say how large a pixel is{other} (it holds {_keys(record)}): give pixel_size_nm."
        )
    sizes = [one_pixel_size(r.path, _sides(r), given) for r in records]
    return float(next((s for s, r in zip(sizes, records, strict=True) if r.pixel_size_nm is not None), sizes[0]))


def _sides(record: ImageRecord) -> tuple[float, float] | None:
    if record.pixel_size_nm is None:
        return None
    return record.pixel_size_nm, record.pixel_size_y_nm or record.pixel_size_nm


def _keys(record: ImageRecord) -> str:
    """Names of the notes in a file, those first that speak of a size."""
    keys: list[str] = []
    for name, value in record.raw.items():
        inner = [f"[{name}] {key}" if name else str(key) for key in value] if isinstance(value, Mapping) else [name]
        keys += [str(key) for key in inner if key]
    keys.sort(key=lambda key: not re.search(r"pixel|scale|resol|micron|width|mag|unit", key, re.IGNORECASE))
    listed = ", ".join(" ".join(key.split())[:40] for key in keys[:6])
    return f"{listed}, ..." if len(keys) > 6 else listed or "no notes at all"


def _segment_names(records: tuple[ImageRecord, ...], given: Sequence[str] | None) -> tuple[str, ...]:
    """The caller's names, or the files', or what distinguishes the file names."""
    count = len(records)
    if given is not None:
        names = tuple(given)
        if len(names) != count or len(set(names)) != count:
            raise InputError(f"names are {shown(names)} for {count} images: give every segment a name of its own.")
        return names
    segments = [record.segment for record in records]
    for k, name in enumerate(segments):
        if name is not None and name in segments[:k]:
            first = records[segments.index(name)].path
            raise InputError(
                f"{records[k].path} says that it is segment {name}, as {first} does: give another file, or give names."
            )
    stems = [record.path.stem for record in records]
    for told in (segments, [record.detector for record in records], _distinct_parts(stems)):
        if None not in told and len(set(told)) == count:
            return tuple(str(name) for name in told)
    return tuple(str(k + 1) for k in range(count))


def _distinct_parts(stems: list[str]) -> list[str | None]:
    """What is left of file names without the words at their beginnings and ends that all have in common."""
    parts = [re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^A-Za-z\d]+", stem) for stem in stems]
    for end in (0, -1):
        while all(parts) and len({part[end] for part in parts}) == 1:
            for part in parts:
                part.pop(end)
    joined = ["".join(part).strip(" _-.()") for part in parts]
    return list(joined) if all(joined) and len(set(joined)) == len(joined) else list(stems)
