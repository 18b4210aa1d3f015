"""Pictures of a reconstruction: residuals, shaded relief, normals, standard deviations, truth, convergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eclipsjax.instrument.microscope import Segments
from eclipsjax.report.canvas import INK, legend_beside, new_figure
from eclipsjax.report.figures import sample_map
from eclipsjax.report.labels import segment_line, shown_names
from eclipsjax.report.maps import columns_of_panels, draw_map, is_strip, profile_line
from eclipsjax.specimen.surface import Surface

# Residuals are shown up to this many standard deviations.
RESIDUAL_LIMIT = 5.0
_LIGHT_ELEVATION_DEG, _LIGHT_AZIMUTH_DEG = 45.0, 135.0
_HIDDEN_COLOUR = (0.835, 0.369, 0.0)
_TRUTH_COLOUR = "#d55e00"


def map_figure(values: Any, pixel_size_nm: float, title: str, label: str, **how: Any) -> Figure:
    """A map `(y, x)` with its scale bar, a colour bar called `label`, and a title; `how` goes to imshow."""
    rows, columns = np.shape(values)[:2]
    figure = new_figure(6.4, min(6.2, max(1.9, 4.9 * rows / columns + 0.4)))
    axes = figure.add_subplot()
    image = draw_map(axes, values, pixel_size_nm, **how)
    _colour_bar(axes, image, (rows, columns), label)
    _title(axes, title, (rows, columns))
    return figure


def _title(axes: Axes, title: str, shape: tuple[int, int]) -> None:
    tall = is_strip(shape) and shape[0] > shape[1]
    (axes.figure.suptitle if tall else axes.set_title)(title, fontsize=10)


def _colour_bar(axes: Axes, image: Any, shape: tuple[int, int], label: str) -> None:
    if is_strip(shape):
        side = "bottom" if shape[1] > shape[0] else "right"
        bar = axes.figure.colorbar(image, ax=axes, location=side, fraction=0.05, pad=0.06, aspect=40)
    else:
        bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.045, 1)))
    bar.set_label(label)


def exaggeration(height_nm: np.ndarray, pixel_size_nm: float, share: float = 0.2) -> float:
    """The factor (1, 2, 5, 10, ...) that lifts the relief to at most `share` of the image's longer side; 1 or more."""
    relief, side = float(np.ptp(height_nm)), max(height_nm.shape) * pixel_size_nm
    if relief <= 0 or share * side <= relief:
        return 1.0
    most = share * side / relief
    power = 10.0 ** math.floor(math.log10(most))
    return min(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)), 1e6)


def hillshade(surface: Surface, factor: float = 1.0) -> np.ndarray:
    """Brightness, 0 to 1, of a white matt surface `(y, x)`, heights times `factor`, lit from the image's upper left."""
    slope_x, slope_y = (factor * np.asarray(s, float) for s in surface.slopes())
    up, around = math.radians(_LIGHT_ELEVATION_DEG), math.radians(_LIGHT_AZIMUTH_DEG)
    # Azimuths are counter-clockwise as seen, rows run down: the light's y component is negative there.
    light = np.array([math.cos(up) * math.cos(around), -math.cos(up) * math.sin(around), math.sin(up)])
    size = np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.clip((-slope_x * light[0] - slope_y * light[1] + light[2]) / size, 0.0, 1.0)


def shaded_figure(surface: Surface, factor: float, occluded: Any = None) -> Figure:
    """The shaded relief; pixels that are `occluded` tinted in vermilion."""
    grey = hillshade(surface, factor)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    if occluded is not None:
        hidden = np.asarray(occluded, bool)
        colour[hidden] = 0.45 * colour[hidden] + 0.55 * np.array(_HIDDEN_COLOUR)
    rows, columns = grey.shape
    figure = new_figure(6.4, min(6.2, max(1.9, 5.6 * rows / columns + 0.4)))
    axes = figure.add_subplot()
    draw_map(axes, colour, float(surface.pixel_size_nm))
    told = "" if factor == 1 else f", heights x {factor:g}"
    title = f"Shaded relief{told}" if occluded is None else "Pixels from which the relief hides part of the detector"
    _title(axes, title, (rows, columns))
    return figure


def facing_colours(normals: Any) -> tuple[np.ndarray, float]:
    """Colours `(y, x, 3)` of unit normals `(y, x, 3)`, and the inclination (deg) that is fully coloured.

    Hue: the azimuth that the surface faces, counter-clockwise as seen. White: level.
    """
    normals = np.asarray(normals, float)
    tilt = np.degrees(np.arctan2(np.hypot(normals[..., 0], normals[..., 1]), normals[..., 2]))
    full = max(float(np.ceil(np.percentile(tilt, 99))), 1.0)
    azimuth = np.arctan2(-normals[..., 1], normals[..., 0])
    return _facing(azimuth, tilt / full), full


def _facing(azimuth: np.ndarray, share: np.ndarray) -> np.ndarray:
    hue, full = np.mod(azimuth / (2 * np.pi), 1.0), np.clip(share, 0.0, 1.0)
    return hsv_to_rgb(np.stack([hue, full, 1.0 - 0.12 * full], axis=-1))


def normals_figure(normals: Any, pixel_size_nm: float) -> Figure:
    """Where the surface faces, as colours, with the wheel that tells them."""
    colours, full = facing_colours(normals)
    rows, columns = colours.shape[:2]
    beside = rows > 0.6 * columns
    size = (6.4, min(6.2, max(1.9, 4.4 * rows / columns + 0.4))) if beside else (6.4, 4.9 * rows / columns + 2.6)
    figure = new_figure(*size)
    grid = figure.add_gridspec(*((1, 2) if beside else (2, 1)), **(
        {"width_ratios": (3.0, 1.0)} if beside else {"height_ratios": (max(6.4 * rows / columns, 0.6), 1.9)}
    ))  # fmt: skip
    axes = figure.add_subplot(grid[0])
    draw_map(axes, colours, pixel_size_nm)
    axes.set_title("Where the surface faces", fontsize=10)
    _draw_wheel(figure.add_subplot(grid[1]), full)
    return figure


def _draw_wheel(axes: Axes, full: float) -> None:
    y, x = np.mgrid[1:-1:181j, -1:1:181j]
    radius = np.hypot(x, y)
    wheel = np.dstack([_facing(np.arctan2(y, x), radius), radius <= 1])
    axes.imshow(wheel, extent=(-1, 1, -1, 1))
    for degrees in (0, 90, 180, 270):
        angle = math.radians(degrees)
        axes.text(1.32 * math.cos(angle), 1.22 * math.sin(angle), f"{degrees}°", ha="center", va="center", fontsize=8)
    axes.text(0, -1.62, f"centre: level\nrim: {full:.0f}° or steeper", ha="center", va="top", fontsize=8)
    axes.set(xlim=(-1.6, 1.6), ylim=(-2.3, 1.5), aspect="equal")
    axes.set_axis_off()


def residual_figure(residual: Any, pixel_size_nm: float, segments: Segments) -> Figure:
    """What the model leaves unexplained in every segment `(segment, y, x)`, in units of its noise."""
    residual = np.asarray(residual)
    count, rows, columns = residual.shape
    across = columns_of_panels(count, min(max(columns / rows, 0.4), 2.5), 1.25)
    down, width = math.ceil(count / across), min(4.2, 9.2 / across)
    high = min(max(width * rows / columns, 0.25), 1.6 * width)
    figure = new_figure(across * width + 0.9, down * (high + 0.35) + 0.3)
    names, small = shown_names(segments.names, 14 if across < 5 else 5), across > 2
    panels, image = [], None
    for k in range(count):
        axes = figure.add_subplot(down, across, k + 1)
        image = draw_map(axes, residual[k], pixel_size_nm, not small or k == 0, max(6.0, 11.0 - across),
                         cmap="RdBu_r", vmin=-RESIDUAL_LIMIT, vmax=RESIDUAL_LIMIT)  # fmt: skip
        size = math.sqrt(np.mean(np.square(residual[k], dtype=float)))
        text = f"{names[k]}: rms {size:.2f}" if small else f"segment {names[k]}: root mean square {size:.2f}"
        axes.set_title(text, fontsize=10 if not small else max(5, 10 - across / 2), pad=3)
        panels.append(axes)
    figure.colorbar(image, ax=panels, extend="both", fraction=0.05, aspect=30, label="residual / noise")
    return figure


def residual_histogram_figure(residual: Any, names: Any) -> Figure:
    """Distribution of every segment's residuals against the normal curve, on a logarithmic scale."""
    residual = np.asarray(residual, float)
    edges = np.linspace(-7.0, 7.0, 85)
    figure = new_figure(7.2 if len(names) <= 4 else 9.2, 3.4)
    axes = figure.add_subplot()
    middles, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
    for k, name in enumerate(shown_names(names)):
        counts, _ = np.histogram(np.clip(residual[k], edges[0], edges[-1]), edges)
        axes.stairs(100 * counts / residual[k].size, edges, **segment_line(k), lw=1.2, label=name)
    normal = 100 * width * np.exp(-0.5 * middles**2) / math.sqrt(2 * math.pi)
    axes.plot(middles, normal, color=INK, lw=1.6, ls=(0, (4, 2)), label="normal curve")
    least = max(100 / residual[0].size, 1e-4)
    axes.set(yscale="log", ylim=(0.6 * least, 60 if normal.max() < 60 else 100), xlim=(edges[0], edges[-1]))
    axes.set(xlabel="residual / noise (beyond ±7 counted at the ends)", ylabel="pixels (%)")
    legend_beside(figure, [*axes.patches, *axes.lines])
    axes.set_axisbelow(True)
    axes.grid(color="0.9")
    return figure


def truth_figure(truth_nm: Any, height_nm: Any, pixel_size_nm: float) -> Figure:
    """Truth, result (one colour scale, means made equal) and result less truth."""
    truth, height = (np.asarray(h, float) - np.mean(np.asarray(h, float)) for h in (truth_nm, height_nm))
    low = min(truth.min(), height.min())
    high = max(truth.max(), height.max())
    rows, columns = truth.shape
    wide = columns > 2.5 * rows
    tall_px = 3.1 * rows / columns if not wide else 8.0 * rows / columns
    figure = new_figure(10.4, min(6.0, max(1.6, tall_px) + 0.8) if not wide else 3 * (tall_px + 0.5) + 0.6)
    panels = figure.subplots(*((3, 1) if wide else (1, 3)))
    bars = "right" if wide else "bottom"
    for axes, values, title in zip(panels, (truth, height), ("truth", "result"), strict=False):
        image = draw_map(axes, values - low, pixel_size_nm, fontsize=9.0, vmin=0, vmax=(high - low) or 1.0)
        axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=list(panels[:2]), location=bars, label="height (nm)", aspect=40, fraction=0.06)
    error = height - truth
    limit = float(np.percentile(np.abs(error), 99.5)) or 1.0
    shown = draw_map(panels[2], error, pixel_size_nm, fontsize=9.0, cmap="RdBu_r", vmin=-limit, vmax=limit)
    panels[2].set_title("result less truth", fontsize=10)
    figure.colorbar(shown, ax=panels[2], location=bars, label="difference (nm)", fraction=0.06, extend="both")
    return figure


def profile_with_band(
    height_nm: Any, std_nm: Any, pixel_size_nm: float, azimuth_deg: float, truth_nm: Any = None
) -> Figure:
    """`draw_profile` on a figure of its own."""
    figure = new_figure(9.2, 3.4)
    axes = figure.add_subplot()
    draw_profile(axes, height_nm, std_nm, pixel_size_nm, azimuth_deg, truth_nm)
    axes.set_title(f"Profile through the middle, azimuth {azimuth_deg:.1f}°", fontsize=10)
    legend_beside(figure, axes.get_legend_handles_labels()[0])
    return figure


def draw_profile(
    axes: Axes, height_nm: Any, std_nm: Any, pixel_size_nm: float, azimuth_deg: float, truth_nm: Any = None
) -> None:
    """Height above the lowest point along an azimuth through the middle, +- 1 standard deviation, and the truth."""
    height = np.asarray(height_nm, float)
    column, row, distance = profile_line(height.shape, azimuth_deg)
    unit, size = ("µm", 1e3) if distance[-1] * pixel_size_nm >= 2e3 else ("nm", 1.0)
    along = distance * pixel_size_nm / size
    line = sample_map(height - height.min(), column, row)
    std = sample_map(std_nm, column, row)
    if np.isfinite(std).any():
        axes.fill_between(along, line - std, line + std, color="#0072b2", alpha=0.22, lw=0, label="± 1 std")
    if truth_nm is not None:
        truth = np.asarray(truth_nm, float)
        true_line = sample_map(truth - truth.mean() + height.mean() - height.min(), column, row)
        axes.plot(along, true_line, color=_TRUTH_COLOUR, ls="--", lw=1.4, label="truth")
    axes.plot(along, line, color="#0b4f7d", lw=1.5, label="result")
    axes.set(xlabel=f"distance along the line ({unit})", ylabel="height (nm)", xlim=(along[0], along[-1]))
    axes.set_axisbelow(True)
    axes.grid(color="0.9")


def convergence_figure(history: Any) -> Figure:
    """Mean squared residual per measured level after every step, `history` as in a `Reconstruction`."""
    values = np.asarray(history, float)[:, 1]
    figure = new_figure(7.2, 2.9)
    axes = figure.add_subplot()
    axes.plot(np.arange(len(values)), values, "o-", color="#0b4f7d", ms=4, lw=1.3)
    axes.axhline(1.0, color=INK, lw=1.0, ls="--")
    wide = values[np.isfinite(values)]
    if wide.size and wide.min() > 0 and wide.max() > 20 * wide.min():
        axes.set_yscale("log")
    axes.set(xlabel="step", ylabel="chi-square per level")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    axes.grid(color="0.9")
    return figure
