"""What holds the pixels: TIFF pages, PNG, BMP and JPEG pictures, NumPy arrays. Nothing is decoded before it is asked
for, and nothing of a size that the file cannot hold is allocated."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError, shown
from eclipsjax.io.tiff import FORMAT, IMAGE_FORMAT, notes_of, silent, tagged_sizes
from eclipsjax.io.vendors import plain, tescan, thermo, zeiss
from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.sidecar import read_sidecar
from eclipsjax.io.vendors.text import as_text, sections

_LARGEST, _MOST_PAGES = 1 << 31, 1024
# Deflate packs at most 1032 bytes into one; what claims more is damaged, or made to fill the memory.
_PACKED, _SPARE = 1100, 1 << 16
_MIN_IS_WHITE, _MIN_IS_BLACK, _PALETTE = 0, 1, 3
_COLOUR = "is in colour: convert it to grey (in ImageJ: Image > Type > 8-bit) or export it in grey again"


@dataclass(frozen=True)
class Page:
    """One image of a file: how to decode it, and what is said of it."""

    load: Callable[[], np.ndarray]
    facts: Facts
    frame: Frame = field(default_factory=Frame)


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Around a decoder only: damaged files make decoders raise errors of any class, and say what they log nowhere."""
    try:
        with warnings.catch_warnings(), silent():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise InputError(
            f"{path} cannot be read as {kind} ({reason}): it is damaged, or of a form that is not supported; export "
            "it again, as uncompressed TIFF if you can."
        ) from None


def refuse_size(path: Path, nbytes: int, stored: int) -> None:
    """`InputError` for pixels of `nbytes` that `stored` bytes cannot hold, or that no memory should."""
    if nbytes > _LARGEST:
        raise InputError(f"{path} declares an image of {nbytes:.3g} bytes: more than 2 GiB are not read, so crop it.")
    if nbytes > _PACKED * stored + _SPARE:
        raise InputError(
            f"{path} declares {nbytes} bytes of pixels but stores {stored}: it is damaged, so copy or export it again."
        )


@contextmanager
def tiff_pages(path: Path) -> Iterator[list[Page]]:
    """The full-size pages of a TIFF; thumbnails are passed over."""
    import tifffile

    with decoding(path, "TIFF"):
        file = tifffile.TiffFile(path)
    with file:
        with decoding(path, "TIFF"):
            if len(file.pages) > _MOST_PAGES:
                raise InputError(f"{path} holds {len(file.pages)} pages: at most {_MOST_PAGES} are read, so split it.")
            pages = [page for page in file.pages if not page.is_reduced]
            if not pages:
                raise InputError(f"{path} holds no image: export it again.")
            told = [_tiff_tags(page) for page in pages]
            labels = (file.imagej_metadata or {}).get("Labels") or []
        sidecar = read_sidecar(path)
        makers = [_maker(path, tags, label) for tags, label in zip(told, _padded(labels, len(pages)), strict=True)]
        found: list[Page] = []
        for k, page in enumerate(pages):
            facts, frame = makers[k] if k == 0 else _of_page(makers[k], makers[0])
            facts, frame = _with_sidecar(path, facts, frame, sidecar)
            found.append(Page(_tiff_loader(path, page), facts, frame))
        yield found


def _padded(labels: Any, count: int) -> list[str | None]:
    known = [str(v) for v in labels][:count] if isinstance(labels, list | tuple) else []
    return [*known, *[None] * (count - len(known))]


def _of_page(own: tuple[Facts, Frame], first: tuple[Facts, Frame]) -> tuple[Facts, Frame]:
    """What is said of a later page: tags that only the first page holds speak for all, but not for their detectors."""
    if own[0].vendor != plain.PLAIN:
        return own
    if first[0].vendor != plain.PLAIN:
        facts = replace(first[0], detector=None, segment=None, contrast=None, brightness=None)
        return facts, first[1]
    sizes = own[0] if own[0].pixel_size_nm else first[0]
    return replace(first[0], segment=own[0].segment, **_sizes(sizes)), own[1]


def _sizes(facts: Facts) -> dict[str, float | None]:
    return {"pixel_size_nm": facts.pixel_size_nm, "pixel_size_y_nm": facts.pixel_size_y_nm}


def _tiff_tags(page: Any) -> dict[str, Any]:
    """Everything that a page says of itself, read while the file is open."""
    codes = (*thermo.TAGS, zeiss.TAG, tescan.TAG)
    tags = {code: page.tags.valueof(code) for code in codes if code in page.tags}
    names = (
        "ImageDescription",
        "XResolution",
        "YResolution",
        "ResolutionUnit",
        "DateTime",
        "Software",
        "Make",
        "Model",
    )
    plainly = {name: page.tags[name].value for name in names if name in page.tags}
    try:
        sizes = tagged_sizes(page)
    except (TypeError, ValueError, OverflowError):
        sizes = None
    return {"maker": tags, "sizes": sizes, "description": str(page.description), "plain": plainly}


def _maker(path: Path, told: Mapping[str, Any], label: str | None) -> tuple[Facts, Frame]:
    """Facts from the tags of the maker that wrote them."""
    tags, found = told["maker"], []
    fei = {k: v for code in thermo.TAGS if code in tags for k, v in _parsed(tags[code]).items()}
    notes = notes_of(told["description"])
    if notes.get("eclipsjax") == FORMAT:
        raise InputError(f"{path} is a height map that eclipsjax wrote, not an image: give the images' files.")
    try:
        if fei:
            found.append(thermo.read(fei))
        if isinstance(tags.get(zeiss.TAG), Mapping):
            found.append(zeiss.read(tags[zeiss.TAG]))
        if tescan.TAG in tags:
            found.append(tescan.read(sections(as_text(tags[tescan.TAG]))))
        if notes.get("eclipsjax") == IMAGE_FORMAT:
            found.append((plain.own_image(notes), Frame()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if len(found) > 1:
        names = " and ".join(facts.vendor for facts, _ in found)
        raise InputError(f"{path} holds the tags of {names}: export it again from the software that recorded it.")
    return found[0] if found else (plain.tagged(told["sizes"], label, told["plain"]), Frame())


def _parsed(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else sections(as_text(value))


def _with_sidecar(
    path: Path, facts: Facts, frame: Frame, sidecar: tuple[Path, Facts, Frame] | None
) -> tuple[Facts, Frame]:
    """The side-car's facts where the file has no maker's own; both together must be of one maker."""
    if sidecar is None:
        return facts, frame
    beside, told, its_frame = sidecar
    if facts.vendor == plain.PLAIN:
        return told, its_frame
    if facts.vendor != told.vendor:
        raise InputError(
            f"{path} holds the tags of {facts.vendor}, but {beside.name} beside it is of {told.vendor}: remove the one "
            "that is not its own."
        )
    return facts, frame


def _tiff_loader(path: Path, page: Any) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        with decoding(path, "TIFF"):
            _refuse_page(path, page)
            image = page.asarray(maxworkers=1)
            if int(page.photometric) == _PALETTE:
                _refuse_colours(path, page.colormap, image)
            return image

    return load


def _refuse_page(path: Path, page: Any) -> None:
    """What is no grey image, or declares more than is there, ends here: decoders fill what is missing with zeros."""
    if page.samplesperpixel != 1 or int(page.photometric) not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _PALETTE):
        raise InputError(f"{path} {_COLOUR}.")
    if int(page.photometric) == _MIN_IS_WHITE:
        raise InputError(f"{path} stores white as its lowest value: invert it, so that bright is high, and save again.")
    # A damaged tag of a floating-point type makes such sizes.
    whole = all(isinstance(n, int) and n > 0 for n in (*page.shape, *page.chunks, *page.databytecounts))
    if len(page.shape) != 2 or page.dtype is None or not whole:
        raise InputError(f"{path} holds a page of shape {shown(page.shape)}: an image is 2D (y, x).")
    stored, end = sum(page.databytecounts), page.parent.filehandle.size
    pieces = math.prod(page.chunked)
    inside = all(
        offset > 0 and size > 0 and offset + size <= end
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)
    )
    if not inside or pieces > len(page.dataoffsets) or (int(page.compression) == 1 and stored < page.nbytes):
        raise InputError(f"{path} is cut short: part of its pixels is missing, so copy or export it again.")
    refuse_size(path, page.nbytes, min(stored, end))
    refuse_size(path, math.prod(page.chunks) * page.dtype.itemsize * min(pieces, 2), min(stored, end))


def _refuse_colours(path: Path, colours: Any, image: np.ndarray) -> None:
    """A palette is how some microscopes write grey: every index that occurs must stand for itself."""
    used = np.unique(image)
    if colours is None or colours.ndim != 2 or colours.shape[1] != 256 or image.dtype != np.uint8:
        raise InputError(f"{path} {_COLOUR}.")
    if not (colours[:, used] >> 8 == used).all():
        raise InputError(f"{path} {_COLOUR}.")


@contextmanager
def picture_pages(path: Path) -> Iterator[list[Page]]:
    """A PNG, BMP or JPEG; a JPEG's losses go to the log."""
    from PIL import Image

    with decoding(path, "PNG, BMP or JPEG"):
        picture = Image.open(path, formats=("PNG", "BMP", "JPEG"))

    def load() -> np.ndarray:
        with decoding(path, "PNG, BMP or JPEG"):
            if picture.mode not in ("L", "I;16", "I;16B", "I"):
                raise InputError(f"{path} {_COLOUR}.")
            refuse_size(path, picture.width * picture.height, path.stat().st_size)
            image = np.asarray(picture)
        # Some versions of the decoder widen 16 bits to 32.
        return image.astype(np.uint16) if image.dtype == np.int32 and image.min(initial=0) >= 0 else image

    with picture:
        sidecar = read_sidecar(path)
        facts, frame = sidecar[1:] if sidecar else (plain.tagged(None, None, {}), Frame())
        if picture.format == "JPEG":
            logging.getLogger("eclipsjax.io").warning(
                "%s is a JPEG: its compression changed the grey levels and left edges every 8 pixels.", path
            )
        yield [Page(load, facts, frame)]
