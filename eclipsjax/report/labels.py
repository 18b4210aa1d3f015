"""What stands for a segment in every picture: its colour, its line, and its name as far as a picture can show it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties, findfont, get_font

from eclipsjax.instrument.microscope import Segments

# Okabe and Ito's eight first, which colour-blind readers tell apart too; then eight that differ from them in lightness.
COLOURS = (
    "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#808080",
    "#7a0177", "#a6d854", "#1f1f7a", "#6fd0c0", "#f4a58a", "#0b4f3c", "#b49be0", "#c2185b",
)  # fmt: skip
_STYLES = ("-", "--", ":", "-.")
_LONGEST = 14


def segment_colour(k: int) -> str:
    """The colour that stands for segment `k` in every picture."""
    return COLOURS[k % len(COLOURS)]


def segment_line(k: int) -> dict[str, Any]:
    """Colour and dashes of segment `k`'s curves: no two of the first 64 look the same."""
    return {"color": segment_colour(k), "ls": _STYLES[k // len(COLOURS) % len(_STYLES)]}


def shown_names(names: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """The names as pictures show them: long ones shortened in the middle, `#2` where the second cannot be drawn.

    Matplotlib would read dollars as formulas and leave out of legends what begins with an underscore.
    """
    short = [_shortened(name, longest) for name in names]
    numbered = [name if _drawable(name) and short.count(name) == 1 else f"#{k + 1}" for k, name in enumerate(short)]
    escaped = [name.replace("$", r"\$") for name in numbered]
    return [f"\u200a{name}" if name.startswith("_") else name for name in escaped]


def _shortened(name: str, longest: int) -> str:
    tail = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def _drawable(name: str) -> bool:
    return bool(name.strip()) and name.isprintable() and all(_has_glyph(letter) for letter in name)


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    return get_font(findfont(FontProperties())).get_char_index(ord(letter)) != 0


def segment_azimuths_deg(segments: Segments) -> np.ndarray:
    """Centre azimuth of every segment, deg in [0, 360), counter-clockwise as seen in the image."""
    return np.mod(0.5 * (np.asarray(segments.start_deg) + np.asarray(segments.stop_deg)) + 1e-4, 360.0) - 1e-4


def length_text(length_nm: float) -> str:
    """A length with the unit that suits it: `500 nm`, `2 µm`, `1.5 mm`."""
    for unit, size in (("mm", 1e6), ("µm", 1e3)):
        if length_nm >= size:
            return f"{length_nm / size:.3g} {unit}"
    return f"{length_nm:.3g} nm"
