"""What a page carries inside itself for its scripts: maps as base64, numbers as JSON, the scripts themselves."""

from __future__ import annotations

import base64
import json
from importlib import resources
from typing import Any

import numpy as np
from matplotlib import colormaps

from eclipsjax.report.maps import grey_limits

# Longest side of what a page carries, and of what its 3D view shows, pixels.
MOST_PIXELS, MOST_VERTICES = 1024, 512
_SCRIPTS = (
    "common.js", "relief_mesh.js", "relief_view.js", "relief.js",
    "profile_numbers.js", "profile_plot.js", "profile.js", "start.js",
)  # fmt: skip


def asset(name: str) -> str:
    """Text of a file in `report/assets`."""
    return (resources.files("eclipsjax.report") / "assets" / name).read_text("utf-8")


def scripts() -> str:
    """All scripts of the reconstruction's page, in the order in which they need each other."""
    return "\n".join(asset(name) for name in _SCRIPTS)


def json_element(name: str, data: Any) -> str:
    """A `<script>` element that holds data; nothing in the data can end it or be taken for markup."""
    text = json.dumps(data, allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def block_mean(values: np.ndarray, block: int) -> np.ndarray:
    """Means of `block` x `block` pixels of `(y, x)`; rows and columns that fill no whole block are left out."""
    rows, columns = (n // block for n in values.shape)
    whole = np.asarray(values, float)[: rows * block, : columns * block]
    return whole.reshape(rows, block, columns, block).mean(axis=(1, 3))


def block_for(shape: tuple[int, ...], most: int) -> int:
    """The smallest block whose means number `most` or fewer on the longer side, as far as the shorter side allows."""
    return min(-(-max(shape) // most), min(shape))


def relief_maps(
    height_nm: np.ndarray,
    std_nm: np.ndarray,
    brightness: np.ndarray,
    pixel_nm: float,
    truth_nm: np.ndarray | None = None,
) -> dict[str, Any]:
    """The maps that profile tool and 3D view share, ready for `json_element`.

    - `height_nm`, `std_nm`, `truth_nm`: `(y, x)`, nm; heights above the lowest; the truth moved to the same mean.
    - `brightness`: `(y, x)`, what the 3D view may be coloured by: any units.

    Maps of more than 1024 pixels on a side are carried as block means; `block` and `view_block` say of how many pixels.
    """
    block = block_for(height_nm.shape, MOST_PIXELS)
    height = block_mean(height_nm, block)
    low = height.min()
    std = block_mean(std_nm, block) if np.isfinite(std_nm).any() else None
    if truth_nm is not None:
        truth_nm = block_mean(truth_nm, block)
        truth_nm = truth_nm - truth_nm.mean() + height.mean() - low
    dark, bright = grey_limits(brightness)
    grey = np.clip((block_mean(brightness, block) - dark) / (bright - dark), 0.0, 1.0)
    colours = colormaps["viridis"](np.arange(256))[:, :3]
    return {
        "width": height.shape[1],
        "height": height.shape[0],
        "pixel_nm": pixel_nm * block,
        "block": block,
        "view_block": block_for(height.shape, MOST_VERTICES),
        "height_nm": _floats(height - low),
        "std_nm": None if std is None else _floats(std),
        "truth_nm": None if truth_nm is None else _floats(truth_nm),
        "grey": _bytes(255 * grey),
        "colours": _bytes(255 * colours),
    }


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")


def _bytes(values: np.ndarray) -> str:
    return base64.b64encode(np.round(values).astype(np.uint8).tobytes()).decode("ascii")
