"""The units that microscopes write, in one table, and numbers out of their texts."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from eclipsjax._types import InputError, shown

# Two letters look like the micro sign: U+00B5 and the Greek U+03BC.
LENGTH = {"pm": 1e-3, "Å": 0.1, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "microns": 1e3, "mm": 1e6}
LENGTH |= {"cm": 1e7, "inch": 2.54e7, "m": 1e9}
_VOLTAGE = {"mV": 1e-3, "V": 1.0, "Volt": 1.0, "volt": 1.0, "Volts": 1.0, "kV": 1e3, "KV": 1e3, "kVolt": 1e3, "MV": 1e6}
_CURRENT = {"fA": 1e-6, "pA": 1e-3, "nA": 1.0, "uA": 1e3, "µA": 1e3, "μA": 1e3, "mA": 1e6, "A": 1e9}
_TIME = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6, "Secs": 1e6, "min": 6e7}
_ANGLE = {"mrad": math.degrees(1e-3), "rad": math.degrees(1), "°": 1.0, "º": 1.0, "deg": 1.0, "degree": 1.0}
KINDS: tuple[Mapping[str, float], ...] = (LENGTH, _VOLTAGE, _CURRENT, _TIME, _ANGLE)
_QUANTITY = re.compile(r"\s*([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*?)?\s*")


def in_unit(value: float, unit: str, target: str) -> float | None:
    """`value` of `unit` expressed in `target`; None where the table does not know `unit` as one of that kind."""
    kind = next(kind for kind in KINDS if target in kind)
    return value * kind[unit] / kind[target] if unit in kind else None


def number(value: Any) -> float | None:
    """A finite number from a number or its text (decimal point or comma); None for anything else."""
    if isinstance(value, str):
        value = value.strip().replace(",", ".")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def measured(value: Any, target: str, unit: str = "") -> float | None:
    """A quantity in `target`: a number of `unit`, or a text that brings its own unit ("100nm", "5000 Volt").

    None where there is no number, or a unit that is not in the table.
    """
    found, unit = _parts(value, unit)
    return None if found is None else in_unit(found, unit or target, target)


def _parts(value: Any, unit: str) -> tuple[float | None, str]:
    """A number and its unit, as written."""
    if isinstance(value, str) and (match := _QUANTITY.fullmatch(value)):
        return number(match[1]), match[2] or unit
    return number(value), unit


def pixel_size(key: str, value: Any, unit: str = "") -> float | None:
    """A pixel's side in nm, None where there is no positive number; `InputError` names a unit that is not known."""
    found, unit = _parts(value, unit)
    if found is not None and unit and unit not in LENGTH:
        raise InputError(
            f"{key} is {shown(f'{found:g} {unit}')}, and that is no unit of length known here ({', '.join(LENGTH)}): "
            "correct it."
        )
    return positive(measured(found, "nm", unit), 1e9)


def positive(value: float | None, most: float) -> float | None:
    """`value`, or None where it is not above 0 and at most `most`: what nobody measured is written as 0 or -1."""
    return value if value is not None and 0 < value <= most else None


def turn(value: float | None) -> float | None:
    """An angle in degrees as one from 0 up to 360."""
    return None if value is None else value % 360.0


def words(*values: Any) -> str | None:
    """The texts among `values` in one line, None where there are none."""
    return " ".join(" ".join(str(v).split()) for v in values if v not in (None, "")) or None


def whole(value: Any) -> int | None:
    """A count of pixels or rows; None for what is not a whole number from 0."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def several(*values: Any) -> tuple[float, ...] | None:
    """Coordinates up to the first that is missing; None without at least two."""
    known = tuple(itertools.takewhile(lambda value: value is not None, values))
    return known if len(known) > 1 else None
