"""Maps of heights and grey values: to scale, with a scale bar, and with the icon of the segment that made them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Wedge
from matplotlib.patheffects import withStroke
from matplotlib.transforms import ScaledTranslation, blended_transform_factory

from eclipsjax.instrument.microscope import Segments
from eclipsjax.report.canvas import INK
from eclipsjax.report.labels import length_text, segment_azimuths_deg, segment_colour, shown_names
from eclipsjax.specimen.surface import Surface

# Narrower maps than this (short side over long) have no room for writing inside.
_STRIP = 0.25
# Spreads below this share of the values are rounding, not contrast.
_ROUNDING = 1e-4


def scale_bar_nm(width_nm: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that fits into 0.3 of the width, nm."""
    most = 0.3 * width_nm
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def is_strip(shape: tuple[int, ...]) -> bool:
    """Whether a map of this shape `(y, x)` is so narrow that writing goes outside it."""
    return min(shape) < _STRIP * max(shape)


def draw_map(
    axes: Axes, values: Any, pixel_size_nm: float, bar: bool = True, fontsize: float = 10.0, **how: Any
) -> Any:
    """A map `(y, x)`, or colours `(y, x, 3)`, no ticks, with a scale bar unless `bar` is False; returns the image."""
    rows, columns = np.shape(values)[:2]
    extent = (0, columns * pixel_size_nm, rows * pixel_size_nm, 0)
    image = axes.imshow(np.asarray(values), extent=extent, origin="upper", **how)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color(INK)
    if bar:
        _draw_scale_bar(axes, extent[1], extent[2], is_strip((rows, columns)), fontsize)
    return image


def _draw_scale_bar(axes: Axes, width: float, height: float, outside: bool, fontsize: float) -> None:
    """White in the lower right corner, or black below the map."""
    bar, right = scale_bar_nm(width), 0.96 * width
    if outside:
        below = axes.transAxes + ScaledTranslation(0, -6 / 72, axes.figure.dpi_scale_trans)
        where, level = blended_transform_factory(axes.transData, below), 0.0
        axes.plot([right - bar, right], [0, 0], color=INK, lw=3, solid_capstyle="butt", transform=where, clip_on=False)
        placed = {"xytext": (0, -4), "va": "top", "color": INK}
    else:
        where, level = axes.transData, height - 0.045 * max(width, height)
        outline = [withStroke(linewidth=5, foreground="black")]
        axes.plot([right - bar, right], [level] * 2, color="white", lw=3, solid_capstyle="butt", path_effects=outline)
        halo = [withStroke(linewidth=2.5, foreground="black")]
        placed = {"xytext": (0, 4), "va": "bottom", "color": "white", "path_effects": halo}
    style = {"textcoords": "offset points", "ha": "right", "fontsize": fontsize, "fontweight": "bold"}
    axes.annotate(length_text(bar), (right, level), xycoords=where, **style, **placed)


def draw_height(axes: Axes, surface: Surface, azimuth_deg: float | None = None) -> None:
    """Heights in nm above the lowest point with a colour bar; `azimuth_deg` marks where the profile runs."""
    height, pixel = np.asarray(surface.height_nm, float), float(surface.pixel_size_nm)
    rows, columns = height.shape
    relief = height - height.min()
    image = draw_map(axes, relief, pixel, cmap="viridis", vmin=0, vmax=relief.max() or 1.0)
    if is_strip(height.shape):
        side = "bottom" if columns > rows else "right"
        bar = axes.figure.colorbar(image, ax=axes, location=side, fraction=0.05, pad=0.06, aspect=40)
    else:
        bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.045, 1)))
    # Beside low maps there is no room for more words.
    bar.set_label("height above the lowest point (nm)" if 2 * rows > columns else "height (nm)")
    title = f"Height: {length_text(columns * pixel)} x {length_text(rows * pixel)}, {pixel:.4g} nm pixels"
    tall = is_strip(height.shape) and rows > columns
    (axes.figure.suptitle if tall else axes.set_title)(title, fontsize=10)
    if azimuth_deg is None:
        return
    column, row, _ = profile_line(height.shape, azimuth_deg)
    ends = [((column[k] + 0.5) * pixel, (row[k] + 0.5) * pixel) for k in (0, -1)]
    arrow = {"arrowstyle": "-|>", "color": "white", "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    arrow["path_effects"] = [withStroke(linewidth=3, foreground="black")]
    axes.annotate("", ends[1], ends[0], arrowprops=arrow)


def draw_segments(canvas: Any, images: Any, pixel_size_nm: float, segments: Segments, across: int) -> None:
    """All segments' images `(segment, y, x)` in one common grey range, `across` in a row of the (sub)figure."""
    count, down = len(images), math.ceil(len(images) / across)
    limits, small = grey_limits(images), across > 2
    names, azimuths = shown_names(segments.names, 14 if across < 5 else 5), segment_azimuths_deg(segments)
    for k in range(count):
        axes = canvas.add_subplot(down, across, k + 1)
        # All images have one scale, so where they are small one bar says it.
        draw_map(axes, images[k], pixel_size_nm, not small or k == 0, max(6.0, 11.0 - across), cmap="gray",
                 vmin=limits[0], vmax=limits[1])  # fmt: skip
        title = f"{names[k]}, {azimuths[k]:.4g}°" if small else f"segment {names[k]}, azimuth {azimuths[k]:.4g}°"
        axes.set_title(title, fontsize=10 if not small else max(5, 10 - across / 2), pad=3)
        if not is_strip(np.shape(images[k])):
            _draw_icon(axes, np.shape(images[k]), segments, k, 0.25 if small else 0.2)


def _draw_icon(axes: Axes, shape: tuple[int, ...], segments: Segments, k: int, size: float) -> None:
    """The detector in the upper left corner with segment `k` lit; `size` is its share of the image's longer side."""
    wide, high = (size * max(shape) / shape[axis] for axis in (1, 0))
    icon = axes.inset_axes((0.02, 0.98 - high, wide, high))
    icon.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", anchor="NW")
    icon.set_axis_off()
    icon.add_patch(Circle((0, 0), 1.12, facecolor="black", alpha=0.55))
    biggest = float(np.max(np.asarray(segments.outer_radius_mm)))
    line = min(0.8, 4.0 / segments.count)
    for j in range(segments.count):
        outer, inner = (float(r[j]) / biggest for r in (segments.outer_radius_mm, segments.inner_radius_mm))
        start, stop = float(segments.start_deg[j]), float(segments.stop_deg[j])
        fill = {"facecolor": segment_colour(k)} if j == k else {"facecolor": "none"}
        icon.add_patch(Wedge((0, 0), outer, start, stop, width=outer - inner, edgecolor="white", lw=line, **fill))


def columns_of_panels(count: int, panel_aspect: float, sheet_aspect: float) -> int:
    """How many panels (width / height = `panel_aspect`) to set in a row so that they come out largest on a sheet."""
    sizes = {across: min(1 / across, panel_aspect / sheet_aspect / math.ceil(count / across)) for across in
             range(1, count + 1)}  # fmt: skip
    return max(sizes, key=lambda across: (round(sizes[across], 6), -across))


def grey_limits(images: Any) -> tuple[float, float]:
    """Grey range that all images share: 0.2 % of the pixels lie below, 0.2 % above."""
    images = np.asarray(images)
    low, high = (float(v) for v in np.percentile(images, (0.2, 99.8)))
    middle = 0.5 * (low + high)
    if high - low > _ROUNDING * abs(middle):
        return low, high
    half = 0.5 if middle == 0 or (images == np.round(images)).all() else 0.02 * abs(middle)
    return middle - half, middle + half


def profile_line(shape: tuple[int, int], azimuth_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(column, row, distance)` in pixels of samples along an azimuth through the image's centre, border to border."""
    rows, columns = shape
    along_x, along_y = math.cos(math.radians(azimuth_deg)), -math.sin(math.radians(azimuth_deg))
    half = min(0.5 * (n - 1) / abs(a) if abs(a) > 1e-9 else math.inf for n, a in ((columns, along_x), (rows, along_y)))
    s = np.linspace(-half, half, max(2, int(2 * half) + 1))
    column = np.clip(0.5 * (columns - 1) + s * along_x, 0, columns - 1)
    row = np.clip(0.5 * (rows - 1) + s * along_y, 0, rows - 1)
    return column, row, s + half
