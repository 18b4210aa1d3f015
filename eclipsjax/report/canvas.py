"""Empty figures that touch no global state, and finished ones as the bytes of a PNG file."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from eclipsjax.report.labels import COLOURS

INK = "#1c2430"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches with its own canvas and a layout that keeps labels apart."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def legend_beside(figure: Any, handles: Iterable[Any], title: str | None = None) -> None:
    """A legend to the right of all axes of a (sub)figure, where it hides nothing; in columns where it is long."""
    handles, per_column = list(handles), 16
    size = 8 if len(handles) <= per_column else 6
    columns = math.ceil(len(handles) / per_column)
    figure.legend(
        handles=handles, loc="outside right upper", title=title, fontsize=size, title_fontsize=8, ncols=columns
    )


def to_png(figure: Figure, compact: bool = False) -> bytes:
    """The figure as a PNG file's bytes; `compact` uses a palette of 134 colours: a third of the size where noisy."""
    if not compact:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 6})
        return buffer.getvalue()
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    return _packed(_drawn(figure).quantize(palette=palette, dither=Image.Dither.NONE), optimize=True)


def small_png(figure: Figure) -> bytes:
    """The figure as a PNG file's bytes, in the 256 colours that suit it best."""
    return _packed(_drawn(figure).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))


def _drawn(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    return Image.frombytes("RGBA", figure.canvas.get_width_height(), buffer.getvalue()).convert("RGB")


def _packed(image: Image.Image, **how: bool) -> bytes:
    packed = io.BytesIO()
    image.save(packed, format="png", **how)
    return packed.getvalue()


def _palette() -> list[int]:
    """Greys for the images, the height map's colours, each segment's colour as it is and paler (for edges of lines)."""
    greys = np.linspace(0, 1, 38)[:, None] * np.ones(3)
    heights = colormaps["viridis"](np.linspace(0, 1, 64))[:, :3]
    lines = np.array([to_rgb(colour) for colour in COLOURS])
    rows = np.concatenate([greys, heights, lines, 0.5 + 0.5 * lines])
    return np.round(255 * rows).astype(int).ravel().tolist()
