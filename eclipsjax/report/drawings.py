"""Drawings of the instrument: the detector's face, the chamber from the side, and the sky as the specimen sees it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from eclipsjax.imaging.bsesm import render
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.outline import segment_outlines
from eclipsjax.instrument.plane import Plane, detector_plane, stage_plane
from eclipsjax.instrument.trajectories import LANDED, LOST, RETURNED, emission_direction, trace
from eclipsjax.report.figures import new_figure, segment_azimuths_deg, segment_colour
from eclipsjax.specimen.horizon import NoRelief
from eclipsjax.specimen.surface import Surface

_METAL, _INK, _FAINT, _FIELD = "#b9c0c8", "#1c2430", "#8a929b", "#2f7ed8"


def detector_figure(scope: Microscope) -> Figure:
    """The plate's face in the image's orientation: segments with names and azimuths, beam, axis. Lengths in mm."""
    segments = scope.detector.segments
    rims = np.asarray(segment_outlines(scope.detector))[..., :2]
    centre = np.array([scope.detector.offset_x_mm, scope.detector.offset_y_mm], float)
    reach = 1.28 * float(np.max(np.asarray(segments.outer_radius_mm)))
    figure = new_figure(6.4, 6.4)
    axes = figure.add_subplot()
    azimuths = segment_azimuths_deg(segments)
    for k, rim in enumerate(rims):
        colour = segment_colour(k)
        axes.add_patch(Polygon(rim, closed=True, facecolor=colour, edgecolor=_INK, alpha=0.75, lw=1.0))
        inner, outer = float(segments.inner_radius_mm[k]), float(segments.outer_radius_mm[k])
        angle, middle = np.radians(azimuths[k]), 0.5 * (inner + outer)
        spot = centre + middle * np.array([np.cos(angle), -np.sin(angle)])
        full = float(segments.stop_deg[k] - segments.start_deg[k]) > 359.0
        text = segments.names[k] if full else f"{segments.names[k]}\n{azimuths[k]:.4g}°"
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        axes.text(*spot, text, ha="center", va="center", fontsize=10, fontweight="bold", color=_INK, bbox=box)
    for degrees in range(0, 360, 30):
        angle = np.radians(degrees)
        out = np.array([np.cos(angle), -np.sin(angle)])
        ends = np.stack([centre + 0.82 * reach * out, centre + 0.85 * reach * out])
        axes.plot(ends[:, 0], ends[:, 1], color=_FAINT, lw=1.0)
        axes.text(*(centre + 0.91 * reach * out), f"{degrees}°", ha="center", va="center", fontsize=8, color=_FAINT)
    beam = (float(scope.beam.position_x_mm), float(scope.beam.position_y_mm))
    axes.plot(0, 0, "+", color=_INK, ms=11, mew=1.2, label="optical axis")
    axes.plot(*beam, "o", color="#c1121f", ms=5, label="beam")
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] + reach, centre[1] - reach), aspect="equal")
    axes.set(xlabel="x, to the right in the image (mm)", ylabel="y, down the image (mm)")
    axes.set_title("Detector face in the image's orientation", fontsize=11)
    return figure


def sky_figure(table: AcceptanceTable, flat_percent: Any = None) -> Figure:
    """Valid solid angle on the sky above the beam: polar angle outward from 0 to 90 deg, azimuth around.

    Where the table holds several energies the first counts fully and the others are drawn as outlines.
    """
    centre = table.theta.shape[0] // 2
    theta, phi = np.degrees(np.asarray(table.theta[centre])), np.unwrap(np.asarray(table.phi[centre]), axis=-1)
    figure = new_figure(6.4, 6.6)
    axes = figure.add_subplot(projection="polar")
    for e in range(theta.shape[0]):
        for k, name in enumerate(table.names):
            share = "" if flat_percent is None else f": {float(flat_percent[k]):.3g} %"
            if e == 0:
                axes.fill(phi[e, k], theta[e, k], color=segment_colour(k), alpha=0.65, lw=0, label=f"{name}{share}")
            axes.plot(phi[e, k], theta[e, k], color=_INK, lw=0.8)
    axes.set_ylim(0, 90)
    axes.set_yticks([15, 30, 45, 60, 75, 90], [f"{t}°" for t in (15, 30, 45, 60, 75, 90)], fontsize=7, color=_INK)
    axes.set_rlabel_position(22.5)
    axes.grid(color="0.8")
    axes.legend(loc="upper left", bbox_to_anchor=(-0.08, 1.08), fontsize=8)
    axes.set_title("Valid solid angle: where emitted electrons reach each segment", fontsize=11, pad=16)
    return figure


def flat_signal(table: AcceptanceTable) -> np.ndarray:
    """Fraction of the electrons from a flat specimen that each segment collects, `(segment,)`."""
    one_pixel = Surface(jnp.zeros((1, 1), table.theta.dtype), jnp.ones((), table.theta.dtype))
    return np.asarray(render(one_pixel, table, horizon=NoRelief()))[:, 0, 0]


def side_figure(scope: Microscope, field: Any = None, theta_deg: Any = tuple(range(10, 90, 10))) -> Figure:
    """Section through the chamber along the image's x, with electrons of the given polar angles to either side.

    With a `field` its lines and equipotentials (V) below the plate are drawn too, and electrons fly in it.
    """
    plate, column = scope.detector, scope.column
    outer = float(np.max(np.asarray(plate.segments.outer_radius_mm)))
    distance, roof = float(plate.distance_mm), float(column.working_distance_mm)
    reach, top = min(1.6 * outer + 1.0, float(column.chamber_radius_mm)), roof + 0.35 * distance
    figure = new_figure(9.6, 1.2 + 8.9 * (1.12 * top) / (2 * reach))
    axes = figure.add_subplot()
    if field is not None:
        _draw_field(axes, scope, field, reach)
    _draw_electrons(axes, scope, field, np.asarray(theta_deg, float), reach)
    _draw_metal(axes, scope, reach, top)
    axes.set(xlim=(-reach, reach), ylim=(-0.12 * top, top), aspect="equal")
    axes.set(xlabel="x, to the right in the image (mm)", ylabel="height above the specimen (mm)")
    bias, energy = float(column.specimen_bias_v), float(scope.beam.energy_kev)
    axes.set_title(f"Section through the chamber: {energy:g} keV electrons, specimen at {bias:g} V", fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def _draw_metal(axes: Axes, scope: Microscope, reach: float, top: float) -> None:
    plate, column = scope.detector, scope.column
    roof, bore, pole = (float(v) for v in (column.working_distance_mm, column.bore_radius_mm, column.pole_radius_mm))
    box = {"facecolor": _METAL, "edgecolor": _INK, "lw": 0.8}
    for left, right in ((-pole, -bore), (bore, pole)):
        axes.add_patch(Rectangle((left, roof), right - left, top, **box))
    along = np.asarray(detector_plane(scope).axes[0])[[0, 2]]
    up = np.array([-along[1], along[0]])
    centre = np.array([plate.offset_x_mm, plate.distance_mm], float)
    segments = plate.segments
    radii = float(np.min(np.asarray(segments.inner_radius_mm))), float(np.max(np.asarray(segments.outer_radius_mm)))
    for side in (-1, 1):
        corners = [centre + side * r * along + h * up for r, h in ((radii[0], 0), (radii[1], 0))]
        corners += [c + float(plate.thickness_mm) * up for c in corners[::-1]]
        axes.add_patch(Polygon(corners, closed=True, **{**box, "facecolor": "#8fa3b8"}))
    for k, name, low, high in _segments_in_section(scope):
        ends = np.stack([centre + low * along, centre + high * along])
        axes.plot(ends[:, 0], ends[:, 1], color=segment_colour(k), lw=4, solid_capstyle="butt")
        spot = 0.5 * (ends[0] + ends[1]) + 0.5 * float(plate.thickness_mm) * up
        axes.text(*spot, name, ha="center", va="center", fontsize=9, fontweight="bold", color=_INK)
    stage = np.tan(np.radians(float(column.stage_tilt_y_deg)))
    floor = [(-reach, -reach * stage), (reach, reach * stage), (reach, -top), (-reach, -top)]
    axes.add_patch(Polygon(floor, closed=True, facecolor="#d9cdbf", edgecolor=_INK, lw=0.8))
    for x, z, text in ((0.5 * (bore + min(pole, reach)), roof + 0.6 * (top - roof), "pole piece"),):
        axes.text(x, z, text, ha="center", va="center", fontsize=9, color=_INK)
    axes.text(-0.97 * reach, -0.06 * top, "specimen", ha="left", va="center", fontsize=9, color=_INK)
    axes.axvline(0, color=_FAINT, lw=0.7, ls=(0, (8, 4)))
    x = float(scope.beam.position_x_mm)
    axes.plot([x, x], [0, top], color="#c1121f", lw=1.4, label="beam")
    axes.annotate(
        f"distance {float(plate.distance_mm):.3g} mm",
        (-0.93 * reach, 0.5 * float(plate.distance_mm)),
        rotation=90, ha="right", va="center", fontsize=8, color=_INK,
    )  # fmt: skip
    arrow = {"arrowstyle": "<->", "color": _INK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (-0.92 * reach, float(plate.distance_mm)), (-0.92 * reach, 0.0), arrowprops=arrow)


def _segments_in_section(scope: Microscope) -> list[tuple[int, str, float, float]]:
    """`(index, name, from, to)` along the plate's x for the segments that the plane y = 0 of the plate cuts."""
    segments, found = scope.detector.segments, []
    for k, name in enumerate(segments.names):
        start, stop = float(segments.start_deg[k]), float(segments.stop_deg[k])
        inner, outer = float(segments.inner_radius_mm[k]), float(segments.outer_radius_mm[k])
        for azimuth, side in ((0.0, 1.0), (180.0, -1.0)):
            if 0 < (azimuth - start) % 360.0 < stop - start:
                found.append((k, name, side * inner, side * outer))
    return found


def _draw_field(axes: Axes, scope: Microscope, field: Any, reach: float) -> None:
    """Equipotentials, and lines of the field, between the specimen and the height of the plate's face."""
    x, z = np.linspace(-reach, reach, 161), np.linspace(0.0, float(scope.detector.distance_mm), 81)
    dtype = scope.detector.distance_mm.dtype
    places = np.stack(np.broadcast_arrays(x[None, :], np.zeros((1, 1)), z[:, None]), axis=-1).reshape(-1, 3)
    volts, slope = jax.jit(jax.vmap(field.sample))(jnp.asarray(places, dtype))
    volts, slope = np.asarray(volts).reshape(len(z), len(x)), np.asarray(slope).reshape(len(z), len(x), 3)
    low, high = volts.min(), volts.max()
    if not high > low:
        return
    levels = [v for v in MaxNLocator(9).tick_values(low, high) if 0.03 < (v - low) / (high - low) < 0.97]
    axes.streamplot(x, z, -slope[..., 0], -slope[..., 2], density=0.55, color="#cfe0f2", linewidth=0.8, arrowsize=0.8)
    lines = axes.contour(x, z, volts, levels=levels, colors=_FIELD, linewidths=0.8, linestyles="solid")
    axes.clabel(lines, fmt="%g V", fontsize=7)
    axes.plot([], [], color=_FIELD, lw=0.8, label="equipotentials")
    axes.plot([], [], color="#cfe0f2", lw=0.8, label="field lines")


def flight_paths(scope: Microscope, field: Any, directions: Any, points: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """`(paths, status)` of electrons that leave the beam's spot along unit vectors `directions` `(electron, 3)`.

    `paths`: `(electron, point, 3)` mm in image axes, `status` as in `Flight`. Each path is sampled where it crosses
    upright planes between its start and its end; points it never reaches are not finite. In no field (None) electrons
    fly straight to the detector's plane.
    """
    face, beam = detector_plane(scope), scope.beam
    start = jnp.stack([beam.position_x_mm, beam.position_y_mm, jnp.zeros_like(beam.position_x_mm)])
    directions = jnp.asarray(directions, start.dtype)
    shares = np.linspace(0, 1, points)
    if field is None:
        along = jnp.vdot(face.normal, face.origin_mm - start) / (directions @ face.normal)
        way = np.asarray(jnp.where(along > 0, along, jnp.nan)[:, None] * directions)
        status = np.where(np.asarray(along) > 0, LANDED, LOST)
        return np.asarray(start) + shares[None, :, None] * way[:, None, :], status
    ways, status = _fly(scope, field, start, directions, jnp.asarray(shares[1:-1], start.dtype))
    return np.asarray(ways), np.asarray(status)


@jax.jit
def _fly(scope, field, start, directions, shares):
    face, floor, energy = detector_plane(scope), stage_plane(scope), scope.beam.energy_kev
    fly = partial(trace, field, start, energy_kev=energy, floor=floor)
    upward = jnp.asarray([0.0, 0.0, 1.0], start.dtype)

    def one(direction):
        end = fly(direction=direction, plane=face)
        outward = (end.position_mm - start).at[2].set(0.0)
        reach = jnp.sqrt(jnp.sum(outward**2))
        outward = outward / reach
        sideways = jnp.stack([-outward[1], outward[0], jnp.zeros_like(reach)])

        def crossing(share):
            upright = Plane(start + share * reach * outward, jnp.stack([upward, sideways, outward]))
            passed = fly(direction=direction, plane=upright)
            return jnp.where(passed.landed, passed.position_mm, jnp.nan)

        last = jnp.where(end.status == LOST, jnp.nan, end.position_mm)
        return jnp.concatenate([start[None], jax.vmap(crossing)(shares), last[None]]), end.status

    return jax.vmap(one)(directions)


def _draw_electrons(axes: Axes, scope: Microscope, field: Any, theta_deg: np.ndarray, reach: float) -> None:
    theta = np.concatenate([theta_deg, theta_deg])
    azimuth = np.repeat([0.0, 180.0], len(theta_deg))
    directions = emission_direction(jnp.radians(jnp.asarray(theta)), jnp.radians(jnp.asarray(azimuth)))
    paths, status = flight_paths(scope, field, directions)
    plate, sections, labelled = scope.detector, _segments_in_section(scope), set()
    along = np.asarray(detector_plane(scope).axes[0])
    centre = np.array([plate.offset_x_mm, plate.offset_y_mm, plate.distance_mm], float)
    for angle, side, path, state in zip(theta, azimuth, paths, status, strict=True):
        path = path[np.isfinite(path).all(axis=-1)]
        if len(path) < 2:
            continue
        offset = float((path[-1] - centre) @ along)
        hit = state == LANDED and any(min(a, b) <= offset <= max(a, b) for _, _, a, b in sections)
        style, label = _STYLES["returned" if state == RETURNED else "collected" if hit else "missed"]
        axes.plot(path[:, 0], path[:, 2], label=None if label in labelled else label, **style)
        labelled.add(label)
        away = np.hypot(path[:, 0] - path[0, 0], path[:, 2])
        if side == 0.0 and away.max() > 0:
            spot = path[np.argmax(away >= min(0.72 * min(reach, centre[2]), 0.5 * away.max()))]
            halo = [withStroke(linewidth=2.5, foreground="white")]
            text = axes.text(spot[0], spot[2], f"{angle:g}°", fontsize=8, color=_INK, ha="center", va="center")
            text.set_path_effects(halo)


_STYLES = {
    "collected": ({"color": "#1b7837", "lw": 1.2}, "electrons on a segment"),
    "missed": ({"color": _FAINT, "lw": 0.9, "ls": "--"}, "electrons past the segments"),
    "returned": ({"color": "#9b2226", "lw": 1.0, "ls": ":"}, "electrons that return"),
}
