"""The chamber from the side: a section along the steepest tilt, with electrodes, field and electrons' flights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from eclipsjax._types import image_direction
from eclipsjax.instrument.microscope import Microscope, Segments
from eclipsjax.instrument.plane import Plane, detector_plane, stage_plane
from eclipsjax.instrument.trajectories import LANDED, RETURNED, emission_direction
from eclipsjax.report.canvas import INK, new_figure
from eclipsjax.report.flights import flight_paths
from eclipsjax.report.labels import segment_colour, shown_names

_METAL, _FAINT, _FIELD = "#b9c0c8", "#8a929b", "#2f7ed8"
_STYLES = {
    "collected": ({"color": "#1b7837", "lw": 1.2}, "electrons on a segment"),
    "missed": ({"color": _FAINT, "lw": 0.9, "ls": "--"}, "electrons past the segments"),
    "returned": ({"color": "#9b2226", "lw": 1.0, "ls": ":"}, "electrons that return"),
}


def section_azimuth_deg(scope: Microscope) -> float:
    """Azimuth in (-90, 90] of the section: along the plate's steepest tilt, else the stage's, else the image's x."""
    for plane in (detector_plane(scope), stage_plane(scope)):
        lean_x, lean_y, _ = (float(v) for v in plane.normal)
        if math.hypot(lean_x, lean_y) > 1e-6:
            azimuth = math.degrees(math.atan2(-lean_y, lean_x))
            return azimuth - 180.0 * math.ceil((azimuth - 90.0 - 1e-4) / 180.0)
    return 0.0


def side_figure(scope: Microscope, field: Any = None, theta_deg: Any = tuple(range(10, 90, 10))) -> Figure:
    """Section through the optical axis along `section_azimuth_deg`, electrons of the given polar angles to each side.

    With a `field` its lines and equipotentials (V) below the plate are drawn too, and electrons fly in it. What lies
    off the section (a displaced beam, curved flights) is seen from the side.
    """
    plate, column = scope.detector, scope.column
    outer = float(np.max(np.asarray(plate.segments.outer_radius_mm)))
    distance, roof = float(plate.distance_mm), float(column.working_distance_mm)
    reach, top = min(1.6 * outer + 1.0, float(column.chamber_radius_mm)), roof + 0.35 * distance
    azimuth = section_azimuth_deg(scope)
    figure = new_figure(9.6, 1.2 + 8.9 * (1.12 * top) / (2 * reach))
    axes = figure.add_subplot()
    if field is not None:
        _draw_field(axes, scope, field, azimuth, reach)
    _draw_electrons(axes, scope, field, azimuth, np.asarray(theta_deg, float), reach)
    _draw_plate(axes, scope, azimuth)
    _draw_chamber(axes, scope, azimuth, reach, top)
    axes.set(xlim=(-reach, reach), ylim=(-0.12 * top, top), aspect="equal", ylabel="height above the specimen (mm)")
    along_x = abs(azimuth) < 0.05
    axes.set_xlabel("x, to the right in the image (mm)" if along_x else f"toward azimuth {azimuth:.4g}° (mm)")
    bias, energy = float(column.specimen_bias_v), float(scope.beam.energy_kev)
    axes.set_title(f"Section through the chamber: {energy:g} keV electrons, specimen at {bias:g} V", fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _along(azimuth_deg: float) -> np.ndarray:
    return np.array([float(v) for v in image_direction(math.radians(azimuth_deg))])


def _height_on(plane: Plane, along: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Points `(sample, 3)` of the plane above the places `s` (mm from the optical axis) of the section's line."""
    normal, origin = np.asarray(plane.normal, float), np.asarray(plane.origin_mm, float)
    places = s[:, None] * along[None, :]
    return np.column_stack([places, origin[2] - (places - origin[:2]) @ normal[:2] / normal[2]])


def segment_at(segments: Segments, local_mm: np.ndarray) -> np.ndarray:
    """Index of the segment at each place `(sample, 2)` of the plate's own plane (mm, image axes), -1 for none."""
    inner, outer, start, stop, gap = (
        np.asarray(leaf, float)[:, None]
        for leaf in (segments.inner_radius_mm, segments.outer_radius_mm, segments.start_deg, segments.stop_deg,
                     segments.gap_mm)
    )  # fmt: skip
    radius = np.hypot(local_mm[:, 0], local_mm[:, 1])[None, :]
    turned = np.mod(np.degrees(np.arctan2(-local_mm[:, 1], local_mm[:, 0]))[None, :] - start, 360.0)
    nearest = np.minimum(turned, stop - start - turned)
    clear = radius * np.sin(np.radians(np.clip(nearest, 0.0, 90.0))) >= 0.5 * gap
    on = (inner <= radius) & (radius <= outer) & (nearest >= 0) & clear
    return np.where(on.any(axis=0), on.argmax(axis=0), -1)


def plate_in_section(scope: Microscope, azimuth_deg: float) -> list[tuple[int, np.ndarray]]:
    """`(segment, ends)` of what the section cuts of the plate, ends `(2, 2)` as (place, height) in mm; -1 is all of
    the plate's metal, segments or not.
    """
    segments, plane = scope.detector.segments, detector_plane(scope)
    outer = float(np.max(np.asarray(segments.outer_radius_mm)))
    hole = float(np.min(np.asarray(segments.inner_radius_mm)))
    far = outer + math.hypot(float(scope.detector.offset_x_mm), float(scope.detector.offset_y_mm))
    s = np.linspace(-far, far, 8001)
    points = _height_on(plane, _along(azimuth_deg), s)
    local = (points - np.asarray(plane.origin_mm, float)) @ np.asarray(plane.axes, float)[:2].T
    radius = np.hypot(local[:, 0], local[:, 1])
    metal = np.where((hole <= radius) & (radius <= outer), -1, -2)
    found = []
    for marks in (metal, segment_at(segments, local)):
        edges = np.flatnonzero(np.diff(marks)) + 1
        for first, last in zip([0, *edges], [*edges, len(s)], strict=True):
            mark = int(marks[first])
            if mark >= 0 or (marks is metal and mark == -1):
                found.append((mark, np.stack([[s[i], points[i, 2]] for i in (first, last - 1)])))
    return found


def _draw_plate(axes: Axes, scope: Microscope, azimuth_deg: float) -> None:
    normal = np.asarray(detector_plane(scope).normal, float)
    up = np.array([normal[:2] @ _along(azimuth_deg), normal[2]])
    up *= float(scope.detector.thickness_mm) / np.hypot(*up)
    names = shown_names(scope.detector.segments.names, 10)
    for k, ends in plate_in_section(scope, azimuth_deg):
        if k < 0:
            corners = [*ends, *(ends[::-1] + up)]
            axes.add_patch(Polygon(corners, closed=True, facecolor="#8fa3b8", edgecolor=INK, lw=0.8, zorder=2.2))
            continue
        axes.plot(ends[:, 0], ends[:, 1], color=segment_colour(k), lw=4, solid_capstyle="butt", zorder=2.3)
        spot = ends.mean(axis=0) + 0.5 * up
        axes.text(*spot, names[k], ha="center", va="center", fontsize=9, fontweight="bold", color=INK, clip_on=True)


def _draw_chamber(axes: Axes, scope: Microscope, azimuth_deg: float, reach: float, top: float) -> None:
    plate, column = scope.detector, scope.column
    roof, bore, pole = (float(v) for v in (column.working_distance_mm, column.bore_radius_mm, column.pole_radius_mm))
    for left, right in ((-pole, -bore), (bore, pole)):
        axes.add_patch(Rectangle((left, roof), right - left, top, facecolor=_METAL, edgecolor=INK, lw=0.8))
    floor = _height_on(stage_plane(scope), _along(azimuth_deg), np.array([-reach, reach]))[:, 2]
    corners = [(-reach, floor[0]), (reach, floor[1]), (reach, -top), (-reach, -top)]
    axes.add_patch(Polygon(corners, closed=True, facecolor="#d9cdbf", edgecolor=INK, lw=0.8))
    axes.text(0.5 * (bore + min(pole, reach)), roof + 0.6 * (top - roof), "pole piece", ha="center", va="center",
              fontsize=9, color=INK)  # fmt: skip
    axes.text(-0.97 * reach, -0.06 * top, "specimen", ha="left", va="center", fontsize=9, color=INK)
    axes.axvline(0, color=_FAINT, lw=0.7, ls=(0, (8, 4)))
    spot = float(np.array([scope.beam.position_x_mm, scope.beam.position_y_mm], float) @ _along(azimuth_deg))
    axes.plot([spot, spot], [0, top], color="#c1121f", lw=1.4, label="beam")
    distance = float(plate.distance_mm)
    axes.annotate(f"distance {distance:.3g} mm", (-0.93 * reach, 0.5 * distance), rotation=90, ha="right", va="center",
                  fontsize=8, color=INK)  # fmt: skip
    arrow = {"arrowstyle": "<->", "color": INK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (-0.92 * reach, distance), (-0.92 * reach, 0.0), arrowprops=arrow)


def _draw_field(axes: Axes, scope: Microscope, field: Any, azimuth_deg: float, reach: float) -> None:
    """Equipotentials, and lines of the field, between the specimen and the plane of the plate's face."""
    along, plane, dtype = _along(azimuth_deg), detector_plane(scope), scope.detector.distance_mm.dtype
    outer = float(np.max(np.asarray(scope.detector.segments.outer_radius_mm)))
    rims = _height_on(plane, along, np.array([-outer, outer]))[:, 2]
    top = min(float(rims.max()), float(scope.column.working_distance_mm))
    s, z = np.linspace(-reach, reach, 161), np.linspace(0.0, top, 81)
    places = np.stack(np.broadcast_arrays(s[None, :] * along[0], s[None, :] * along[1], z[:, None]), axis=-1)
    volts, slope = jax.jit(jax.vmap(field.sample))(jnp.asarray(places.reshape(-1, 3), dtype))
    # The plate's metal and what lies above it are no electron's way.
    above = (places - np.asarray(plane.origin_mm, float)) @ np.asarray(plane.normal, float) > 1e-6
    volts = np.ma.array(np.asarray(volts).reshape(above.shape), mask=above)
    slope = np.asarray(slope).reshape(*above.shape, 3)
    low, high = float(volts.min()), float(volts.max())
    if not high > low:
        return
    levels = [v for v in MaxNLocator(9).tick_values(low, high) if 0.03 < (v - low) / (high - low) < 0.97]
    lean, rise = (np.ma.array(-part, mask=above) for part in (slope[..., :2] @ along, slope[..., 2]))
    axes.streamplot(s, z, lean, rise, density=0.55, color="#cfe0f2", linewidth=0.8, arrowsize=0.8)
    lines = axes.contour(s, z, volts, levels=levels, colors=_FIELD, linewidths=0.8, linestyles="solid")
    axes.clabel(lines, fmt="%g V", fontsize=7)
    axes.plot([], [], color=_FIELD, lw=0.8, label="equipotentials")
    axes.plot([], [], color="#cfe0f2", lw=0.8, label="field lines")


def _draw_electrons(
    axes: Axes, scope: Microscope, field: Any, azimuth_deg: float, theta_deg: np.ndarray, reach: float
) -> None:
    theta = np.concatenate([theta_deg, theta_deg])
    azimuth = np.repeat([azimuth_deg, azimuth_deg + 180.0], len(theta_deg))
    directions = emission_direction(jnp.radians(jnp.asarray(theta)), jnp.radians(jnp.asarray(azimuth)))
    paths, status = flight_paths(scope, field, directions)
    plane, along, labelled = detector_plane(scope), _along(azimuth_deg), set()
    ends = (paths[:, -1] - np.asarray(plane.origin_mm, float)) @ np.asarray(plane.axes, float)[:2].T
    hit = (status == LANDED) & (segment_at(scope.detector.segments, ends) >= 0)
    for k, (angle, path) in enumerate(zip(theta, paths, strict=True)):
        path = path[np.isfinite(path).all(axis=-1)]
        if len(path) < 2:
            continue
        style, label = _STYLES["returned" if status[k] == RETURNED else "collected" if hit[k] else "missed"]
        across = path[:, :2] @ along
        axes.plot(across, path[:, 2], label=None if label in labelled else label, **style)
        labelled.add(label)
        away = np.hypot(across - across[0], path[:, 2])
        if k < len(theta_deg) and away.max() > 0:
            near = min(0.72 * min(reach, float(scope.detector.distance_mm)), 0.5 * away.max())
            spot = np.argmax(away >= near)
            text = axes.text(across[spot], path[spot, 2], f"{angle:g}°", fontsize=8, color=INK, ha="center",
                             va="center", clip_on=True)  # fmt: skip
            text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
