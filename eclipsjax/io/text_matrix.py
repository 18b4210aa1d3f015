"""A matrix of numbers in a text file, and for what is not one: the line, what stands there, and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eclipsjax._types import InputError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text_matrix(path: Path) -> np.ndarray:
    """Blanks, tabs, commas or semicolons between numbers; empty lines and those that start with `#` are skipped."""
    raw = path.read_bytes()
    if raw.startswith(_UTF16):
        raise InputError(f"{path} is UTF-16 text: save it as UTF-8.")
    # What is not UTF-8 does no harm in a comment; in a number it ends in the sentence for that line.
    lines = raw.decode("utf-8-sig", errors="replace").splitlines()
    rows = [(k, line) for k, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        raise InputError(f"{path} holds no numbers: give one line of heights per image row.")
    delimiter = next((mark for mark in (";", "\t", ",") if mark in rows[0][1].strip()), None)
    try:
        return np.loadtxt([line for _, line in rows], delimiter=delimiter, ndmin=2)
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"{path}{_trouble(rows, delimiter) or f' cannot be read as numbers ({reason})'}.") from None


def _trouble(rows: list[tuple[int, str]], delimiter: str | None) -> str | None:
    """The first line that is not as many numbers as the first, and the way out."""
    width = len(_cells(rows[0][1], delimiter))
    for number, line in rows:
        cells = _cells(line, delimiter)
        wrong = next((cell for cell in cells if not _is_number(cell)), None)
        if wrong is not None:
            return f", line {number}: {_remedy(rows, number, cells, wrong, delimiter)}"
        if len(cells) != width:
            return (
                f", line {number}: {len(cells)} number{'s' * (len(cells) != 1)} where line {rows[0][0]} has {width}: "
                "every row needs as many columns"
            )
    return None


def _remedy(rows: list[tuple[int, str]], number: int, cells: list[str], wrong: str, delimiter: str | None) -> str:
    mark = {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter or "", "blank")
    if not wrong and cells[-1] == "" and all(_is_number(cell) for cell in cells[:-1]):
        return f"it ends with a {mark}: remove the delimiter behind the last number of each row"
    if not wrong:
        return f"nothing stands between two delimiters ({mark}s): give every pixel a number"
    if _is_number(wrong.replace(",", ".")) or (delimiter == "," and len(wrong.split()) > 1):
        example = wrong if "," in wrong else rows[0][1].strip()
        return f"{_quoted(example)} has decimal commas: write decimal points"
    if number == rows[0][0] and not any(_is_number(cell) for cell in cells):
        return f"{_quoted(rows[0][1].strip())} is a heading: delete the line or put # before it"
    return f"{_quoted(wrong)} is not a number: write plain numbers only"


def _cells(line: str, delimiter: str | None) -> list[str]:
    return [cell.strip() for cell in line.split("#")[0].strip(" \r\n").split(delimiter)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
