"""One sheet that shows what a reconstruction is: images in, heights out, and how near the truth they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eclipsjax.inverse.reconstruction import Reconstruction
from eclipsjax.report.canvas import new_figure
from eclipsjax.report.figures import steepest_azimuth_deg
from eclipsjax.report.maps import draw_height, draw_segments
from eclipsjax.report.reconstruction_figures import draw_profile
from eclipsjax.specimen.surface import Surface


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
    axes, pixel = below.subplots(), float(result.pixel_size_nm)
    draw_profile(axes, result.height_nm, result.height_std_nm, pixel, azimuth, truth.height_nm)
    axes.legend(fontsize=8, loc="upper right")
    return figure
