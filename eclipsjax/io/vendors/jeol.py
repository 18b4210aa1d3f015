"""JEOL: a side-car NAME.txt of lines `$KEY value`; the pixel size follows from the micron bar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eclipsjax._types import InputError
from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.units import measured, number, pixel_size, positive, several, turn, whole, words

VENDOR = "JEOL"
MARK = re.compile(r"^\s*\$+(?:CM|SM)_", re.MULTILINE)
_LINE = re.compile(r"\s*\$+(\w+)[ \t]*(.*)")


def parse(text: str) -> dict[str, str]:
    """The lines `$KEY value`, without the dollar signs, of which models write one or two."""
    return {m[1]: m[2].strip() for line in text.splitlines() if (m := _LINE.match(line))}


def read(raw: Mapping[str, Any]) -> tuple[Facts, Frame]:
    """The facts; below the rows of `CM_FULL_SIZE` lies the data bar."""
    columns, rows, *_ = [*_numbers(raw, "CM_FULL_SIZE", "CM_IMAGE_SIZE"), None, None]
    size = _pixel_size(raw, columns)
    place = _numbers(raw, "CM_STAGE_POS", "CM_STAGE_POSITION")
    facts = Facts(
        vendor=VENDOR,
        pixel_size_nm=size,
        pixel_size_y_nm=size,
        energy_kev=positive(measured(raw.get("CM_ACCEL_VOLT"), "kV"), 1e3),
        working_distance_mm=positive(measured(raw.get("SM_WD"), "mm"), 1e3),
        scan_rotation_deg=turn(measured(raw.get("SM_SCAN_ROTATION"), "deg")),
        # x y z rotation tilt
        stage_tilt_deg=place[4] if len(place) > 4 else None,
        detector=words(raw.get("CM_SIGNAL")) or words(raw.get("FE_DETECTOR_NAME")),
        contrast=number(raw.get("CM_CONTRAST")),
        brightness=number(raw.get("CM_BRIGHTNESS")),
        recorded=words(raw.get("CM_DATE"), raw.get("CM_TIME")),
        stage_mm=several(*place[:3]),
        raw=raw,
    )
    return facts, Frame(rows=whole(rows), columns=whole(columns))


def _pixel_size(raw: Mapping[str, Any], columns: float | None) -> float | None:
    """Length of the bar over its pixels; the field of view, where it says the same, is not rounded to pixels."""
    marker, bar = pixel_size("$$SM_MICRON_MARKER", raw.get("SM_MICRON_MARKER")), number(raw.get("SM_MICRON_BAR"))
    if marker is None or bar is None:
        return None
    if bar < 1:
        raise InputError(f"$$SM_MICRON_BAR is {bar:g} pixels, and the pixel size follows from it: correct it.")
    size = marker / bar
    field = measured(next(iter(_numbers(raw, "CM_FIELD_OF_VIEW")), None), "nm", "um")
    finer = field / columns if field and columns else size
    return finer if abs(finer - size) * bar <= size else size


def _numbers(raw: Mapping[str, Any], *keys: str) -> list[float]:
    """The numbers that stand behind the first of `keys` that is there, up to what is not one."""
    found: list[float] = []
    for word in next((str(raw[key]) for key in keys if key in raw), "").split():
        value = number(word)
        if value is None:
            break
        found.append(value)
    return found
