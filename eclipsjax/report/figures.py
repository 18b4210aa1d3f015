"""Pictures of surfaces and segment images, as matplotlib figures that touch no global state."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Wedge
from matplotlib.patheffects import withStroke
from PIL import Image

from eclipsjax.instrument.microscope import Segments
from eclipsjax.specimen.surface import Surface

# Okabe and Ito's colours: told apart by colour-blind readers too.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#555555")
_INK = "#1c2430"


def segment_colour(k: int) -> str:
    """The colour that stands for segment `k` in every picture."""
    return _COLOURS[k % len(_COLOURS)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches with its own canvas and a layout that keeps labels apart."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, compact: bool = False) -> bytes:
    """The figure as a PNG file's bytes; `compact` uses a palette of 118 colours: a third of the size where noisy."""
    buffer = io.BytesIO()
    if not compact:
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 6})
        return buffer.getvalue()
    figure.savefig(buffer, format="rgba")
    image = Image.frombytes("RGBA", figure.canvas.get_width_height(), buffer.getvalue()).convert("RGB")
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    packed = io.BytesIO()
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(packed, format="png", optimize=True)
    return packed.getvalue()


def _palette() -> list[int]:
    """Greys for the images, the height map's colours, each segment's colour as it is and paler (for edges of lines)."""
    greys = np.linspace(0, 1, 38)[:, None] * np.ones(3)
    heights = colormaps["viridis"](np.linspace(0, 1, 64))[:, :3]
    lines = np.array([to_rgb(colour) for colour in _COLOURS])
    rows = np.concatenate([greys, heights, lines, 0.5 + 0.5 * lines])
    return np.round(255 * rows).astype(int).ravel().tolist()


def length_text(length_nm: float) -> str:
    """A length with the unit that suits it: `500 nm`, `2 µm`, `1.5 mm`."""
    for unit, size in (("mm", 1e6), ("µm", 1e3)):
        if length_nm >= size:
            return f"{length_nm / size:.3g} {unit}"
    return f"{length_nm:.3g} nm"


def scale_bar_nm(width_nm: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that fits into 0.3 of the width, nm."""
    most = 0.3 * width_nm
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def segment_azimuths_deg(segments: Segments) -> np.ndarray:
    """Centre azimuth of every segment, deg in [0, 360), counter-clockwise as seen in the image."""
    return np.mod(0.5 * (np.asarray(segments.start_deg) + np.asarray(segments.stop_deg)) + 1e-4, 360.0) - 1e-4


def steepest_azimuth_deg(surface: Surface) -> float:
    """The azimuth along which the heights change most, deg in (-90, 90]: where a profile crosses the steps.

    Principal axis of the mean of (slope_x, -slope_y)(slope_x, -slope_y)^T.
    """
    slope_x, slope_y = (np.asarray(s, float) for s in surface.slopes())
    slope_y = -slope_y
    xx, yy, xy = np.mean(slope_x**2), np.mean(slope_y**2), np.mean(slope_x * slope_y)
    return math.degrees(0.5 * math.atan2(2 * xy, xx - yy))


def profile_line(shape: tuple[int, int], azimuth_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(column, row, distance)` in pixels of samples along an azimuth through the image's centre, border to border."""
    rows, columns = shape
    along_x, along_y = math.cos(math.radians(azimuth_deg)), -math.sin(math.radians(azimuth_deg))
    half = min(0.5 * (n - 1) / abs(a) if abs(a) > 1e-9 else math.inf for n, a in ((columns, along_x), (rows, along_y)))
    s = np.linspace(-half, half, max(2, int(2 * half) + 1))
    column = np.clip(0.5 * (columns - 1) + s * along_x, 0, columns - 1)
    row = np.clip(0.5 * (rows - 1) + s * along_y, 0, rows - 1)
    return column, row, s + half


def sample_map(values: Any, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Bilinear values of a map `(y, x)` at pixel positions inside it."""
    values = np.asarray(values, float)
    rows, columns = values.shape
    x0, y0 = (np.minimum(np.floor(p).astype(int), max(n - 2, 0)) for p, n in ((column, columns), (row, rows)))
    x1, y1 = np.minimum(x0 + 1, columns - 1), np.minimum(y0 + 1, rows - 1)
    fx, fy = column - x0, row - y0
    top = (1 - fx) * values[y0, x0] + fx * values[y0, x1]
    bottom = (1 - fx) * values[y1, x0] + fx * values[y1, x1]
    return (1 - fy) * top + fy * bottom


def draw_map(axes: Axes, values: Any, pixel_size_nm: float, **kwargs: Any) -> Any:
    """A map `(y, x)` without ticks, with a scale bar; returns the image."""
    rows, columns = np.shape(values)
    extent = (0, columns * pixel_size_nm, rows * pixel_size_nm, 0)
    image = axes.imshow(np.asarray(values), extent=extent, origin="upper", **kwargs)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(_INK)
    width, height = extent[1], extent[2]
    bar = scale_bar_nm(width)
    right, level = 0.96 * width, height - 0.045 * max(width, height)
    outline = [withStroke(linewidth=5, foreground="black")]
    axes.plot([right - bar, right], [level, level], color="white", lw=3, solid_capstyle="butt", path_effects=outline)
    label = axes.annotate(
        length_text(bar), (right - 0.5 * bar, level), (0, 4), textcoords="offset points", ha="center", va="bottom"
    )
    label.set(
        color="white", fontsize=10, fontweight="bold", path_effects=[withStroke(linewidth=2.5, foreground="black")]
    )
    return image


def draw_height(axes: Axes, surface: Surface, azimuth_deg: float | None = None) -> None:
    """Heights in nm above the lowest point with a colour bar; `azimuth_deg` marks where the profile runs."""
    height, pixel = np.asarray(surface.height_nm, float), float(surface.pixel_size_nm)
    image = draw_map(axes, height - height.min(), pixel, cmap="viridis")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("height above the lowest point (nm)")
    rows, columns = height.shape
    axes.set_title(
        f"Height: {length_text(columns * pixel)} x {length_text(rows * pixel)}, {pixel:.4g} nm pixels", fontsize=10
    )
    if azimuth_deg is None:
        return
    column, row, _ = profile_line(height.shape, azimuth_deg)
    ends = [((column[k] + 0.5) * pixel, (row[k] + 0.5) * pixel) for k in (0, -1)]
    arrow = {"arrowstyle": "-|>", "color": "white", "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    arrow["path_effects"] = [withStroke(linewidth=3, foreground="black")]
    axes.annotate("", ends[1], ends[0], arrowprops=arrow)


def draw_segment(axes: Axes, image: Any, pixel_size_nm: float, segments: Segments, k: int, limits: Any) -> None:
    """One segment's image in grey, with the detector's icon: the segment that made it, and its azimuth."""
    draw_map(axes, image, pixel_size_nm, cmap="gray", vmin=limits[0], vmax=limits[1])
    azimuth = segment_azimuths_deg(segments)[k]
    axes.set_title(f"segment {segments.names[k]}, azimuth {azimuth:.4g}°", fontsize=10)
    icon = axes.inset_axes((0.02, 0.78, 0.2, 0.2))
    icon.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", anchor="NW")
    icon.set_axis_off()
    icon.add_patch(Circle((0, 0), 1.12, facecolor="black", alpha=0.55))
    biggest = float(np.max(np.asarray(segments.outer_radius_mm)))
    for j in range(segments.count):
        outer, inner = (float(r[j]) / biggest for r in (segments.outer_radius_mm, segments.inner_radius_mm))
        start, stop = float(segments.start_deg[j]), float(segments.stop_deg[j])
        fill = {"facecolor": segment_colour(k)} if j == k else {"facecolor": "none"}
        icon.add_patch(Wedge((0, 0), outer, start, stop, width=outer - inner, edgecolor="white", lw=0.8, **fill))


def grey_limits(images: Any) -> tuple[float, float]:
    """Grey range that all images share: 0.2 % of the pixels lie below, 0.2 % above."""
    low, high = np.percentile(np.asarray(images), (0.2, 99.8))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def draw_profile(upper: Axes, lower: Axes, surface: Surface, signal: Any, names: Any, azimuth_deg: float) -> None:
    """Height (above) and the signal of every segment (below) along the line that `draw_height` marks."""
    column, row, distance = profile_line(surface.height_nm.shape, azimuth_deg)
    pixel = float(surface.pixel_size_nm)
    unit, size = ("µm", 1e3) if distance[-1] * pixel >= 2e3 else ("nm", 1.0)
    along = distance * pixel / size
    height = sample_map(surface.height_nm, column, row)
    upper.plot(along, height - height.min(), color=_INK, lw=1.3)
    upper.set_ylabel("height (nm)")
    upper.set_title(f"Profile along the steepest direction, azimuth {azimuth_deg:.1f}°", fontsize=10)
    upper.tick_params(labelbottom=False)
    for k, name in enumerate(names):
        lower.plot(along, 100 * sample_map(signal[k], column, row), color=segment_colour(k), lw=1.1, label=name)
    lower.set(xlabel=f"distance along the line ({unit})", ylabel="signal (% of emitted)")
    lower.legend(
        loc="upper right", ncols=min(len(names), 4), fontsize=8, title="before blur and noise", title_fontsize=8
    )
    low, high = lower.get_ylim()
    lower.set_ylim(low, high + 0.45 * (high - low))
    for axes in (upper, lower):
        axes.set_xlim(along[0], along[-1])
        axes.grid(color="0.9")


def draw_histogram(axes: Axes, images: Any, names: Any, unit: str) -> None:
    """Distribution of the stored values of every segment."""
    images = np.asarray(images)
    low, high = grey_limits(images)
    margin = 0.15 * (high - low)
    low, high = max(low - margin, float(images.min())), min(high + margin, float(images.max()))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 101)
    if unit == "grey level":
        width = max(1, math.ceil((high - low) / 100))
        edges = np.arange(math.floor(low), math.ceil(high) + width + 1, width) - 0.5
    for k, name in enumerate(names):
        counts, _ = np.histogram(images[k], edges)
        label = f"{name}: {images[k].mean():.5g} ± {images[k].std():.4g}"
        axes.stairs(100 * counts / images[k].size, edges, color=segment_colour(k), lw=1.2, label=label)
    axes.set(xlabel=unit, ylabel="pixels (%)", xlim=(edges[0], edges[-1]))
    axes.set_title("Stored values, mean ± standard deviation over the image", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(color="0.9")


def height_figure(surface: Surface, azimuth_deg: float | None = None) -> Figure:
    """The height map with its colour bar."""
    figure = new_figure(7.2, 6.0)
    draw_height(figure.add_subplot(), surface, azimuth_deg)
    return figure


def segments_figure(images: Any, pixel_size_nm: float, segments: Segments) -> Figure:
    """All segment images `(segment, y, x)` in one common grey range."""
    count, rows, columns = np.shape(images)
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    width = 4.6 * min(1.0, columns / rows)
    figure = new_figure(across * width + 0.2, down * (width * rows / columns + 0.35))
    limits = grey_limits(images)
    for k in range(count):
        draw_segment(figure.add_subplot(down, across, k + 1), images[k], pixel_size_nm, segments, k, limits)
    return figure


def profile_figure(surface: Surface, signal: Any, names: Any, azimuth_deg: float) -> Figure:
    """Heights and signals along one line."""
    figure = new_figure(9.2, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_profile(upper, lower, surface, signal, names, azimuth_deg)
    return figure


def histogram_figure(images: Any, names: Any, unit: str) -> Figure:
    """Histogram of all segment images."""
    figure = new_figure(7.2, 3.4)
    draw_histogram(figure.add_subplot(), images, names, unit)
    return figure


def overview_figure(
    surface: Surface, signal: Any, images: Any, segments: Segments, unit: str, azimuth_deg: float
) -> Figure:
    """Height, segment images, profile and histogram on one sheet."""
    figure = new_figure(12.0, 9.2)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.45, 1.0))
    left, right = top.subfigures(1, 2, width_ratios=(1.0, 1.0))
    draw_height(left.add_subplot(), surface, azimuth_deg)
    across = math.ceil(math.sqrt(segments.count))
    down = math.ceil(segments.count / across)
    limits, pixel = grey_limits(images), float(surface.pixel_size_nm)
    for k in range(segments.count):
        draw_segment(right.add_subplot(down, across, k + 1), images[k], pixel, segments, k, limits)
    grid = bottom.add_gridspec(2, 2, width_ratios=(1.5, 1.0))
    upper, lower = bottom.add_subplot(grid[0, 0]), bottom.add_subplot(grid[1, 0])
    draw_profile(upper, lower, surface, signal, segments.names, azimuth_deg)
    draw_histogram(bottom.add_subplot(grid[:, 1]), images, segments.names, unit)
    return figure
