"""Thermo Fisher and FEI: sections of numbers in SI units, in TIFF tags 34680 and 34682."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.text import section
from eclipsjax.io.vendors.units import measured, number, pixel_size, positive, several, turn, whole, words

VENDOR = "Thermo Fisher / FEI"
TAGS = (34680, 34682)


def read(raw: Mapping[str, Any]) -> tuple[Facts, Frame]:
    """The facts; a navigation camera's picture has no `[Scan]` and so no pixel size."""
    beam, scan, stage = section(raw, "Beam"), section(raw, "Scan"), section(raw, "Stage")
    # [Beam] and [Scan] repeat the active column, which has sections of its own.
    column = section(raw, beam.get("Beam", "EBeam")) or section(raw, "EBeam")
    scanner = section(raw, beam.get("Scan", "EScan")) or section(raw, "EScan")
    detectors, image, private, user = (section(raw, k) for k in ("Detectors", "Image", "PrivateFei", "User"))
    gain = section(raw, detectors.get("Name"))
    facts = Facts(
        vendor=VENDOR,
        pixel_size_nm=pixel_size("[Scan] PixelWidth", _first("PixelWidth", scan, scanner), "m"),
        pixel_size_y_nm=pixel_size("[Scan] PixelHeight", _first("PixelHeight", scan, scanner), "m"),
        energy_kev=positive(measured(_first("HV", beam, column), "kV", "V"), 1e3),
        working_distance_mm=positive(
            measured(stage.get("WorkingDistance"), "mm", "m") or measured(column.get("WD"), "mm", "m"), 1e3
        ),
        current_na=positive(measured(_first("BeamCurrent", column, beam), "nA", "A"), 1e6),
        dwell_us=positive(measured(scan.get("Dwelltime", scanner.get("Dwell")), "us", "s"), 1e9),
        stage_tilt_deg=measured(stage.get("StageT", column.get("StageTa")), "deg", "rad"),
        scan_rotation_deg=turn(measured(_first("ScanRotation", beam, column), "deg", "rad")),
        detector=words(detectors.get("Name")),
        segment=words(detectors.get("Mode")) or words(gain.get("Setting")),
        contrast=number(gain.get("Contrast")),
        brightness=number(gain.get("Brightness")),
        recorded=words(user.get("Date"), user.get("Time")) or words(private.get("TimeOfCreation")),
        stage_mm=several(*(measured(_first(k, stage, column), "mm", "m") for k in ("StageX", "StageY", "StageZ"))),
        raw=raw,
    )
    frame = Frame(
        rows=whole(image.get("ResolutionY")),
        columns=whole(image.get("ResolutionX")),
        databar_rows=whole(private.get("DatabarHeight")),
    )
    return facts, frame


def _first(key: str, *places: Mapping[str, Any]) -> Any:
    return next((place[key] for place in places if place.get(key) not in (None, "")), None)
