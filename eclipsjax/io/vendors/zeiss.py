"""Zeiss and LEO: TIFF tag 34118, as tifffile parses it: `key: (label, value, unit)`, and numbers without a name.

`ap_pixel_size` is the size on the monitor, not on the specimen: it is never used. Older instruments write no
`ap_image_pixel_size`; then the fourth of the nameless numbers at the head is the pixel size in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eclipsjax.io.vendors.record import Facts, Frame
from eclipsjax.io.vendors.units import measured, number, pixel_size, positive, several, turn, words

VENDOR = "Zeiss"
TAG = 34118
_HEAD_PIXEL_SIZE = 3
_OFF = (None, False, "", 0, "Off", "None", "Zero")


def read(raw: Mapping[str, Any]) -> tuple[Facts, Frame]:
    """The facts; the data bar, where there is one, is painted over the image and cannot be told from it."""
    size = _pixel_size(raw)
    off = _value(raw, "dp_scan_rot") is False
    facts = Facts(
        vendor=VENDOR,
        pixel_size_nm=size,
        pixel_size_y_nm=size,
        energy_kev=positive(_measured(raw, "kV", "ap_actualkv", "ap_manualkv"), 1e3),
        working_distance_mm=positive(_measured(raw, "mm", "ap_wd"), 1e3),
        current_na=positive(_measured(raw, "nA", "ap_iprobe"), 1e6),
        dwell_us=positive(_measured(raw, "us", "dp_dwell_time", "ap_dwell_time"), 1e9),
        stage_tilt_deg=_measured(raw, "deg", "ap_stage_at_t"),
        # The angle stays in the file when the rotation is switched off.
        scan_rotation_deg=0.0 if off else turn(_measured(raw, "deg", "ap_scanrotation", "ap_scan_rotation")),
        detector=words(_value(raw, "dp_detector_channel")) or words(_value(raw, "dp_detector_type")),
        segment=_quadrant(raw),
        contrast=number(_value(raw, "ap_contrast")),
        brightness=number(_value(raw, "ap_brightness")),
        recorded=words(_value(raw, "ap_date"), _value(raw, "ap_time")),
        stage_mm=several(*(_measured(raw, "mm", f"ap_stage_at_{axis}") for axis in "xyz")),
        raw=raw,
    )
    return facts, Frame()


def _pixel_size(raw: Mapping[str, Any]) -> float | None:
    if "ap_image_pixel_size" in raw:
        value, unit = _entry(raw, "ap_image_pixel_size")
        return pixel_size("ap_image_pixel_size", value, unit)
    head = raw.get("")
    if isinstance(head, tuple | list) and len(head) > _HEAD_PIXEL_SIZE:
        return positive(measured(number(head[_HEAD_PIXEL_SIZE]), "nm", "m"), 1e9)
    return None


def _quadrant(raw: Mapping[str, Any]) -> str | None:
    """The one quadrant of a four-quadrant detector that is switched on; None for sums and differences."""
    on = [f"Q{k}" for k in range(1, 5) if _value(raw, f"dp_4qbsd_q{k}") not in _OFF]
    return on[0] if len(on) == 1 else None


def _entry(raw: Mapping[str, Any], key: str) -> tuple[Any, str]:
    found = raw.get(key)
    if not isinstance(found, tuple | list) or len(found) < 2:
        return None, ""
    return found[1], str(found[2]).strip() if len(found) > 2 else ""


def _value(raw: Mapping[str, Any], key: str) -> Any:
    return _entry(raw, key)[0]


def _measured(raw: Mapping[str, Any], target: str, *keys: str) -> float | None:
    found = (measured(value, target, unit) for value, unit in (_entry(raw, key) for key in keys))
    return next((value for value in found if value is not None), None)
