"""Height maps as `.gwy`, the file of Gwyddion, which every AFM user opens.

After the Gwyddion user guide, "Format of Gwyddion Files": four bytes `GWYP`, then one object. An object is its name,
its size and its components; a component is its name, a letter for its type, and its value. Little endian, names and
texts end with a NUL, lengths in metres.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError

_METRES = 1e-9
# An object's size is a 32-bit number; this leaves room for the words around the numbers.
_LARGEST_BYTES = 2**32 - 2**24
CONVENTIONS = "row 0 at the top of the image, heights up to the detector, samples at pixel centres"


def write_gwyddion(
    path: Path,
    height_nm: np.ndarray,
    pixel_size_nm: float,
    height_std_nm: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Channel 0 "Height" and, where given, channel 1 "Height standard deviation", double precision, in metres.

    The format forbids NaN: such pixels get the mean of the others and a mask over them, which Gwyddion's tools can be
    told to exclude. The notes are metadata of channel 0. Gradient: none.
    """
    channels = {"Height": height_nm}
    if height_std_nm is not None:
        channels["Height standard deviation"] = height_std_nm
    fields = sum(1 + bool(np.isnan(values).any()) for values in channels.values())
    if 8 * height_nm.size * fields > _LARGEST_BYTES:
        raise InputError(
            f"height_nm has {height_nm.shape[0]} x {height_nm.shape[1]} pixels, and with {fields} such arrays a .gwy "
            "file would pass its 4 GiB: bin or crop the map, or write .nc or .npz."
        )
    parts = []
    for k, (title, values) in enumerate(channels.items()):
        unknown = np.isnan(values)
        filled = np.where(unknown, np.mean(values[~unknown]) if not unknown.all() else 0.0, values)
        parts.append(_component(f"/{k}/data", "o", _field(filled.astype(np.float64) * _METRES, pixel_size_nm, "m")))
        parts.append(_component(f"/{k}/data/title", "s", _text(title)))
        if unknown.any():
            parts.append(_component(f"/{k}/mask", "o", _field(unknown.astype(np.float64), pixel_size_nm, "")))
    parts.append(_component("/0/data/visible", "b", b"\1"))
    said = {**(notes or {}), "eclipsjax": "height 1", "eclipsjax conventions": CONVENTIONS}
    if np.isnan(height_nm).any():
        said["eclipsjax mask"] = "masked pixels were not measured and hold the mean of the others"
    meta = [_component(key, "s", _text(value)) for key, value in said.items()]
    parts.append(_component("/0/meta", "o", _object("GwyContainer", meta)))
    path.write_bytes(b"GWYP" + _object("GwyContainer", parts))


def _field(values: np.ndarray, pixel_size_nm: float, unit: str) -> bytes:
    """A `GwyDataField`: `values` of the unit `unit` on pixels of `pixel_size_nm`."""
    rows, columns = values.shape
    pixel = pixel_size_nm * _METRES
    return _object(
        "GwyDataField",
        [
            _component("xres", "i", struct.pack("<i", columns)),
            _component("yres", "i", struct.pack("<i", rows)),
            _component("xreal", "d", struct.pack("<d", columns * pixel)),
            _component("yreal", "d", struct.pack("<d", rows * pixel)),
            _component("si_unit_xy", "o", _unit("m")),
            _component("si_unit_z", "o", _unit(unit)),
            _component("data", "D", struct.pack("<I", values.size) + values.astype("<f8").tobytes()),
        ],
    )


def _unit(name: str) -> bytes:
    return _object("GwySIUnit", [_component("unitstr", "s", _text(name))])


def _object(name: str, components: list[bytes]) -> bytes:
    return _text(name) + struct.pack("<I", sum(map(len, components))) + b"".join(components)


def _component(name: str, kind: str, value: bytes) -> bytes:
    return _text(name) + kind.encode("ascii") + value


def _text(value: Any) -> bytes:
    """A text as it is, anything else as JSON; JSON also where a NUL would end the text early."""
    plain = value if isinstance(value, str) and "\0" not in value else json.dumps(value)
    return plain.encode("utf-8") + b"\0"
