"""Images without a maker's notes: what eclipsjax itself, ImageJ, the resolution tags or an .npz say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eclipsjax.io.vendors.record import Facts
from eclipsjax.io.vendors.units import number, pixel_size, positive, words

OWN, PLAIN = "eclipsjax", "plain"


def own_image(notes: Mapping[str, Any]) -> Facts:
    """The notes in a TIFF that `eclipsjax simulate` wrote."""
    size = pixel_size("pixel_size_nm", notes.get("pixel_size_nm"))
    return Facts(
        vendor=OWN, pixel_size_nm=size, pixel_size_y_nm=size, segment=words(notes.get("segment")), raw=dict(notes)
    )


def tagged(sizes: tuple[float, float] | None, label: str | None, raw: Mapping[str, Any]) -> Facts:
    """A TIFF with pixel sizes (x, y) in nm in its resolution tags, `label` being the slice's in ImageJ."""
    x, y = (positive(number(v), 1e9) for v in sizes) if sizes else (None, None)
    return Facts(vendor=PLAIN, pixel_size_nm=x, pixel_size_y_nm=y, segment=words(label), raw=raw)


def archived(raw: Mapping[str, Any], segment: str | None) -> Facts:
    """The numbers beside the images in an .npz."""
    size = pixel_size("pixel_size_nm", raw.get("pixel_size_nm"))
    return Facts(
        vendor=OWN if "signal_unit" in raw else PLAIN,
        pixel_size_nm=size,
        pixel_size_y_nm=pixel_size("pixel_size_y_nm", raw.get("pixel_size_y_nm", raw.get("pixel_size_nm"))),
        scan_rotation_deg=number(raw.get("scan_rotation_deg")),
        segment=words(segment),
        raw=raw,
    )
