"""Drawings of the instrument: the detector's face, and the sky as the specimen sees it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.outline import segment_outlines
from eclipsjax.instrument.plane import detector_plane
from eclipsjax.report.canvas import INK, legend_beside, new_figure
from eclipsjax.report.flights import flight_paths as flight_paths
from eclipsjax.report.labels import segment_azimuths_deg, segment_colour, shown_names
from eclipsjax.report.side_view import section_azimuth_deg as section_azimuth_deg, side_figure as side_figure

_FAINT = "#8a929b"


def detector_figure(scope: Microscope) -> Figure:
    """The plate's face in the image's orientation: segments with names and azimuths, beam, axis. Lengths in mm."""
    segments = scope.detector.segments
    rims = np.asarray(segment_outlines(scope.detector))[..., :2]
    centre = np.array([scope.detector.offset_x_mm, scope.detector.offset_y_mm], float)
    reach = 1.28 * float(np.max(np.asarray(segments.outer_radius_mm)))
    figure = new_figure(6.4, 6.4)
    axes = figure.add_subplot()
    for k, rim in enumerate(rims):
        axes.add_patch(Polygon(rim, closed=True, facecolor=segment_colour(k), edgecolor=INK, alpha=0.75, lw=1.0))
    _name_segments(axes, scope, centre)
    for degrees in range(0, 360, 30):
        angle = np.radians(degrees)
        out = np.array([np.cos(angle), -np.sin(angle)])
        ends = np.stack([centre + 0.82 * reach * out, centre + 0.85 * reach * out])
        axes.plot(ends[:, 0], ends[:, 1], color=_FAINT, lw=1.0)
        axes.text(*(centre + 0.91 * reach * out), f"{degrees}°", ha="center", va="center", fontsize=8, color=_FAINT)
    beam = (float(scope.beam.position_x_mm), float(scope.beam.position_y_mm))
    axes.plot(0, 0, "+", color=INK, ms=11, mew=1.2, label="optical axis")
    axes.plot(*beam, "o", color="#c1121f", ms=5, label="beam")
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] + reach, centre[1] - reach), aspect="equal")
    axes.set(xlabel="x, to the right in the image (mm)", ylabel="y, down the image (mm)")
    axes.set_title("Detector face in the image's orientation", fontsize=11)
    return figure


def _name_segments(axes: Axes, scope: Microscope, centre: np.ndarray) -> None:
    """Name and azimuth on every segment; where there are many, small names near the rim."""
    segments, across = scope.detector.segments, np.asarray(detector_plane(scope).axes, float)[:2, :2]
    azimuths, many = segment_azimuths_deg(segments), segments.count > 16
    names = shown_names(segments.names, 12 if segments.count <= 6 else 6)
    box = {"boxstyle": f"round,pad={0.1 if many else 0.25}", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    for k, name in enumerate(names):
        inner, outer = float(segments.inner_radius_mm[k]), float(segments.outer_radius_mm[k])
        angle, radius = np.radians(azimuths[k]), inner + (0.85 if many else 0.6) * (outer - inner)
        spot = centre + radius * np.array([np.cos(angle), -np.sin(angle)]) @ across
        full = float(segments.stop_deg[k] - segments.start_deg[k]) > 359.0
        text = name if full or many else f"{name}\n{azimuths[k]:.4g}°"
        axes.text(*spot, text, ha="center", va="center", fontsize=6 if many else 10, fontweight="bold", color=INK,
                  bbox=box)  # fmt: skip


def sky_figure(table: AcceptanceTable, flat_percent: Any = None) -> Figure:
    """Valid solid angle on the sky above the beam: polar angle outward from 0 to 90 deg, azimuth around.

    Where the table holds several energies the first counts fully and the others are drawn as outlines.
    """
    centre = table.theta.shape[0] // 2
    theta, phi = np.degrees(np.asarray(table.theta[centre])), np.unwrap(np.asarray(table.phi[centre]), axis=-1)
    figure = new_figure(6.6 + 1.9 * math.ceil(len(table.names) / 16), 6.4)
    axes = figure.add_subplot(projection="polar")
    for e in range(theta.shape[0]):
        for k, name in enumerate(shown_names(table.names)):
            share = "" if flat_percent is None else f": {float(flat_percent[k]):.3g} %"
            if e == 0:
                axes.fill(phi[e, k], theta[e, k], color=segment_colour(k), alpha=0.65, lw=0, label=f"{name}{share}")
            axes.plot(phi[e, k], theta[e, k], color=INK, lw=0.8)
    axes.set_ylim(0, 90)
    axes.set_yticks([15, 30, 45, 60, 75, 90], [f"{t}°" for t in (15, 30, 45, 60, 75, 90)], fontsize=7, color=INK)
    axes.set_rlabel_position(22.5)
    axes.set_axisbelow(True)
    axes.grid(color="0.8")
    legend_beside(figure, axes.patches)
    axes.set_title("Where emitted electrons reach each segment", fontsize=11, pad=16)
    return figure
