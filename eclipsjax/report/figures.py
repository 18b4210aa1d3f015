"""Pictures of surfaces and segment images, as matplotlib figures that touch no global state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eclipsjax.instrument.microscope import Segments
from eclipsjax.report.canvas import INK, legend_beside, new_figure as new_figure, to_png as to_png
from eclipsjax.report.labels import segment_azimuths_deg as segment_azimuths_deg, segment_line, shown_names
from eclipsjax.report.maps import (
    columns_of_panels,
    draw_height,
    draw_map as draw_map,
    draw_segments,
    grey_limits,
    profile_line,
)
from eclipsjax.specimen.surface import Surface

# Legends with more entries than this hide curves, so they stand beside the axes.
_INSIDE = 4
# With more the numbers are for the page's table.
_TOLD = 16


def steepest_azimuth_deg(surface: Surface) -> float:
    """The azimuth along which the heights change most, deg in (-90, 90]: where a profile crosses the steps.

    Principal axis of the mean of (slope_x, -slope_y)(slope_x, -slope_y)^T.
    """
    slope_x, slope_y = (np.asarray(s, float) for s in surface.slopes())
    slope_y = -slope_y
    xx, yy, xy = np.mean(slope_x**2), np.mean(slope_y**2), np.mean(slope_x * slope_y)
    return math.degrees(0.5 * math.atan2(2 * xy, xx - yy))


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


def draw_profile(upper: Axes, lower: Axes, surface: Surface, signal: Any, names: Any, azimuth_deg: float) -> None:
    """Height (above) and the signal of every segment (below) along the line that `draw_height` marks."""
    column, row, distance = profile_line(surface.height_nm.shape, azimuth_deg)
    pixel = float(surface.pixel_size_nm)
    unit, size = ("µm", 1e3) if distance[-1] * pixel >= 2e3 else ("nm", 1.0)
    along = distance * pixel / size
    height = sample_map(surface.height_nm, column, row)
    style = {"lw": 1.1, "marker": "o" if along[-1] == along[0] else ""}
    upper.plot(along, height - height.min(), color=INK, **style)
    upper.set_ylabel("height (nm)")
    upper.set_title(f"Profile along the steepest direction, azimuth {azimuth_deg:.1f}°", fontsize=10)
    upper.tick_params(labelbottom=False)
    for k, name in enumerate(shown_names(names)):
        lower.plot(along, 100 * sample_map(signal[k], column, row), **segment_line(k), **style, label=name)
    lower.set(xlabel=f"distance along the line ({unit})", ylabel="signal (% of emitted)")
    legend_beside(lower.figure, lower.lines, "before blur\nand noise")
    for axes, least in ((upper, 0.0), (lower, 0.02)):
        _keep_rounding_small(axes, least)
        if along[-1] > along[0]:
            axes.set_xlim(along[0], along[-1])
        axes.set_axisbelow(True)
        axes.grid(color="0.9")


def _keep_rounding_small(axes: Axes, least: float) -> None:
    """Let the y axis span at least the share `least` of its values, so that a flat line looks flat."""
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    middle = 0.5 * (low + high)
    if high - low < least * abs(middle):
        axes.set_ylim(middle - 0.5 * least * abs(middle), middle + 0.5 * least * abs(middle))


def draw_histogram(axes: Axes, images: Any, names: Any, unit: str, legend: bool = True) -> None:
    """Distribution of the stored values of every segment; a long legend stands beside the axes, if at all."""
    images = np.asarray(images)
    edges = _histogram_edges(images, unit)
    few, told = len(names) <= _INSIDE, len(names) <= _TOLD
    for k, name in enumerate(shown_names(names)):
        counts, _ = np.histogram(images[k], edges)
        label = f"{name}: {images[k].mean():.5g} ± {images[k].std():.4g}" if told else name
        axes.stairs(100 * counts / images[k].size, edges, **segment_line(k), lw=1.2, label=label)
    axes.set(xlabel=unit, ylabel="pixels (%)", xlim=(edges[0], edges[-1]))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.ticklabel_format(axis="x", useOffset=False)
    shown = told and (few or legend)
    axes.set_title("Stored values, mean ± standard deviation" if shown else "Stored values", fontsize=10)
    if few:
        axes.set_ylim(0, axes.get_ylim()[1] * (1.08 + 0.08 * len(names)))
        axes.legend(fontsize=8)
    elif legend:
        legend_beside(axes.figure, axes.patches)
    axes.set_axisbelow(True)
    axes.grid(color="0.9")


def _histogram_edges(images: np.ndarray, unit: str) -> np.ndarray:
    low, high = grey_limits(images)
    margin = 0.15 * (high - low)
    inside = max(low - margin, float(images.min())), min(high + margin, float(images.max()))
    low, high = inside if inside[1] - inside[0] > 0.1 * (high - low) else (low, high)
    if unit != "grey level":
        return np.linspace(low, high, 101)
    width = max(1, math.ceil((high - low) / 100))
    return np.arange(math.floor(low), math.ceil(high) + width + 1, width) - 0.5


def height_figure(surface: Surface, azimuth_deg: float | None = None) -> Figure:
    """The height map with its colour bar."""
    rows, columns = surface.height_nm.shape
    figure = new_figure(7.2, min(6.0, max(1.9, 5.6 * rows / columns + 0.4)))
    draw_height(figure.add_subplot(), surface, azimuth_deg)
    return figure


def segments_figure(images: Any, pixel_size_nm: float, segments: Segments) -> Figure:
    """All segment images `(segment, y, x)` in one common grey range."""
    count, rows, columns = np.shape(images)
    across = columns_of_panels(count, min(max(columns / rows, 0.4), 2.5), 1.25)
    down = math.ceil(count / across)
    width = min(4.6, 9.2 / across)
    high = min(max(width * rows / columns, 0.25), 1.6 * width)
    figure = new_figure(across * width + 0.2, down * (high + 0.35) + 0.3)
    draw_segments(figure, images, pixel_size_nm, segments, across)
    return figure


def profile_figure(surface: Surface, signal: Any, names: Any, azimuth_deg: float) -> Figure:
    """Heights and signals along one line."""
    figure = new_figure(9.2, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_profile(upper, lower, surface, signal, names, azimuth_deg)
    return figure


def histogram_figure(images: Any, names: Any, unit: str) -> Figure:
    """Histogram of all segment images."""
    figure = new_figure(7.2 if len(names) <= _INSIDE else 9.2, 3.4)
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
    rows, columns = surface.height_nm.shape
    draw_segments(
        right, np.asarray(images), float(surface.pixel_size_nm), segments,
        columns_of_panels(segments.count, min(max(columns / rows, 0.4), 2.5), 1.1),
    )  # fmt: skip
    left, right = bottom.subfigures(1, 2, width_ratios=(1.6, 1.0))
    upper, lower = left.subplots(2, 1, sharex=True)
    draw_profile(upper, lower, surface, signal, segments.names, azimuth_deg)
    draw_histogram(right.add_subplot(), images, segments.names, unit, legend=False)
    return figure
