"""One sheet that shows what a reconstruction is: images in, heights out, and how near the truth they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eclipsjax.inverse.reconstruction import Reconstruction
from eclipsjax.report.canvas import INK, new_figure
from eclipsjax.report.figures import sample_map, steepest_azimuth_deg
from eclipsjax.report.maps import draw_height, draw_segments, profile_line
from eclipsjax.specimen.surface import Surface

_RESULT = "#d55e00"


def overview_figure(result: Reconstruction, images: Any, truth: Surface) -> Figure:
    """Segment images, true and reconstructed heights in one scale, and both profiles with the standard deviation."""
    figure = new_figure(12.6, 7.4)
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.35))
    count = len(images)
    draw_segments(left, np.asarray(images), float(result.pixel_size_nm), result.scope.detector.segments, 2)
    left.suptitle(f"{count} images of one scan", fontsize=11)
    maps, below = right.subfigures(2, 1, height_ratios=(1.25, 1.0))
    found = Surface(result.height_nm, result.pixel_size_nm)
    azimuth = steepest_azimuth_deg(truth)
    for axes, surface, title in zip(maps.subplots(1, 2), (truth, found), ("truth", "reconstructed"), strict=True):
        draw_height(axes, surface, azimuth)
        axes.set_title(title, fontsize=10)
    _draw_profiles(below.subplots(), result, truth, azimuth)
    return figure


def _draw_profiles(axes: Any, result: Reconstruction, truth: Surface, azimuth_deg: float) -> None:
    column, row, distance = profile_line(truth.height_nm.shape, azimuth_deg)
    along = distance * float(result.pixel_size_nm)
    true, height, std = (sample_map(m, column, row) for m in (truth.height_nm, result.height_nm, result.height_std_nm))
    height = height + np.mean(np.asarray(truth.height_nm)) - true.min()
    axes.plot(along, true - true.min(), color=INK, lw=1.4, label="truth")
    axes.plot(along, height, color=_RESULT, lw=1.2, label="reconstructed")
    axes.fill_between(
        along, height - std, height + std, color=_RESULT, alpha=0.25, lw=0, label="± 1 standard deviation"
    )
    axes.set(xlabel="distance along the arrow (nm)", ylabel="height (nm)", xlim=(along[0], along[-1]))
    axes.legend(fontsize=8, loc="upper right")
    axes.set_axisbelow(True)
    axes.grid(color="0.9")
