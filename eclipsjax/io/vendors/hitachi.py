"""Hitachi: a side-car NAME.txt with the section `[SemImageFile]`, lengths in nm where no unit stands beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.text import section
from eclipsjax.io.vendors.units import measured, number, pixel_size, positive, several, turn, whole, words

VENDOR = "Hitachi"
SECTION = "SemImageFile"


def read(raw: Mapping[str, Any]) -> tuple[Facts, Frame]:
    """The facts; the emission current in the file is the gun's, not the beam's, and stays in `raw`."""
    told = section(raw, SECTION)
    size = pixel_size("PixelSize", told.get("PixelSize"), "nm")
    extent = re.fullmatch(r"\s*(\d+)\s*[xX*]\s*(\d+)\s*", str(told.get("DataSize", "")))
    facts = Facts(
        vendor=VENDOR,
        pixel_size_nm=size,
        pixel_size_y_nm=size,
        energy_kev=positive(measured(told.get("AcceleratingVoltage"), "kV", "V"), 1e3),
        working_distance_mm=positive(measured(told.get("WorkingDistance"), "mm", "um"), 1e3),
        scan_rotation_deg=turn(measured(told.get("ScanRotation"), "deg")),
        detector=words(told.get("SignalName")),
        contrast=number(told.get("Contrast")),
        brightness=number(told.get("Brightness")),
        recorded=words(told.get("Date"), told.get("Time")),
        stage_mm=several(*(measured(told.get(f"StagePosition{axis}"), "mm", "nm") for axis in "XY")),
        raw=raw,
    )
    return facts, Frame(rows=whole(extent[2]), columns=whole(extent[1])) if extent else Frame()
