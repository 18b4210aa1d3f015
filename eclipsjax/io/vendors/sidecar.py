"""The text file that some microscopes lay beside an image, found by its name and known by what it holds."""

from __future__ import annotations

from pathlib import Path

from eclipsjax._types import InputError
from eclipsjax.io.vendors import hitachi, jeol, tescan
from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.text import as_text, section, sections

_LARGEST = 1 << 20


def read_sidecar(image: Path) -> tuple[Path, Facts, Frame] | None:
    """The side-car of `image` and what it says; None where no file beside it is one.

    `InputError` where files of several makers lie beside the same image.
    """
    found = [(path, *told) for path in _candidates(image) if (told := _understood(path)) is not None]
    makers = {facts.vendor: path for path, facts, _ in reversed(found)}
    if len(makers) > 1:
        named = " and ".join(f"{path.name} ({maker})" for maker, path in makers.items())
        raise InputError(f"{image} has side-cars of several makers, {named}: remove those that are not its own.")
    return found[0] if found else None


def _candidates(image: Path) -> list[Path]:
    """NAME-tif.hdr before NAME.hdr: the first names its image's kind, the second may belong to another."""
    names = [f"{image.stem}-{image.suffix[1:]}.hdr", f"{image.stem}.hdr", f"{image.stem}.txt"]
    both = [name[: -len(end)] + form for name in names for end in (name[-4:],) for form in (end, end.upper())]
    seen: list[Path] = []
    for path in (image.with_name(name) for name in both):
        # On a file system that ignores case, both spellings are one file.
        if path.is_file() and not any(path.samefile(other) for other in seen):
            seen.append(path)
    return seen


def _understood(path: Path) -> tuple[Facts, Frame] | None:
    try:
        with open(path, "rb") as file:
            text = as_text(file.read(_LARGEST))
    except OSError as error:
        raise InputError(f"the side-car {path} cannot be read: {error.strerror or error}.") from None
    readings = []
    if path.suffix.lower() == ".hdr":
        if any(mark in text for mark in tescan.MARKS):
            readings.append((tescan, sections(text)))
    else:
        if jeol.MARK.search(text):
            readings.append((jeol, jeol.parse(text)))
        told = sections(text)
        if section(told, hitachi.SECTION):
            readings.append((hitachi, told))
    if len(readings) > 1:
        raise InputError(f"the side-car {path} holds the words of JEOL and of Hitachi: keep those of its own maker.")
    try:
        return next((maker.read(raw) for maker, raw in readings), None)
    except InputError as error:
        raise InputError(f"the side-car {path}: {error}") from None
