"""TESCAN: lines of `key=value` in SI units, in TIFF tag 50431 or a side-car NAME.hdr or NAME-tif.hdr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eclipsjax._types import InputError
from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.units import measured, number, pixel_size, positive, several, turn, whole, words

VENDOR = "TESCAN"
TAG = 50431
MARKS = ("PixelSizeX", "[MAIN]")


def read(raw: Mapping[str, Any]) -> tuple[Facts, Frame]:
    """The facts of a file with one detector's view.

    The current is the one that the beam is predicted to have: the specimen current is what the specimen absorbs, the
    emission current what leaves the gun.
    """
    # The tag has no section heads, the side-car has [MAIN] and [SEM]: the keys are the same.
    flat = {k: v for part in raw.values() if isinstance(part, Mapping) for k, v in part.items()}
    views = [whole(flat.get(f"ViewFieldsCount{axis}")) or 1 for axis in "XY"]
    if views != [1, 1]:
        raise InputError(
            f"it holds {views[0]} x {views[1]} detectors' views side by side: save each detector's image on its own."
        )
    facts = Facts(
        vendor=VENDOR,
        pixel_size_nm=pixel_size("PixelSizeX", flat.get("PixelSizeX"), "m"),
        pixel_size_y_nm=pixel_size("PixelSizeY", flat.get("PixelSizeY", flat.get("PixelSizeX")), "m"),
        energy_kev=positive(measured(flat.get("HV"), "kV", "V"), 1e3),
        working_distance_mm=positive(measured(flat.get("WD"), "mm", "m"), 1e3),
        current_na=positive(measured(flat.get("PredictedBeamCurrent"), "nA", "A"), 1e6),
        dwell_us=positive(measured(flat.get("DwellTime"), "us", "s"), 1e9),
        stage_tilt_deg=measured(flat.get("StageTilt"), "deg"),
        scan_rotation_deg=turn(measured(flat.get("ScanRotation"), "deg")),
        detector=words(flat.get("Detector0")) or words(flat.get("Detector")),
        contrast=number(flat.get("Detector0Gain")),
        brightness=number(flat.get("Detector0Offset")),
        recorded=words(flat.get("Date"), flat.get("Time")),
        stage_mm=several(*(measured(flat.get(f"Stage{axis}"), "mm", "m") for axis in "XYZ")),
        raw=raw,
    )
    return facts, Frame(databar_rows=whole(flat.get("ImageStripSize")))
