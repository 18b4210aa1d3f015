"""A brute-force reference for the forward model: every direction of every pixel is marched over the relief.

NumPy alone and nothing from the package. Slow, simple, and wrong only by its step and its count of directions.
"""

import numpy as np


class Annulus:
    """A flat ring detector centred above every pixel, cut into equal sectors; the first is centred on +x."""

    def __init__(self, inner_mm=1.0, outer_mm=5.0, distance_mm=6.0, segments=4):
        self.inner, self.outer, self.distance, self.segments = inner_mm, outer_mm, distance_mm, segments

    def hit(self, direction):
        """Segment that each direction (..., 3), in x right, y up, z to the detector, lands on; -1 for none."""
        x = self.distance * direction[..., 0] / direction[..., 2]
        y = self.distance * direction[..., 1] / direction[..., 2]
        radius = np.hypot(x, y)
        sector = np.floor(np.degrees(np.arctan2(y, x)) / (360 / self.segments) + 0.5).astype(int) % self.segments
        return np.where((radius >= self.inner) & (radius <= self.outer), sector, -1)


def bilinear(height, row, column):
    """Height at fractional indices inside the map."""
    r = np.clip(row.astype(int), 0, height.shape[0] - 2)
    c = np.clip(column.astype(int), 0, height.shape[1] - 2)
    u, v = row - r, column - c
    upper = (1 - v) * height[r, c] + v * height[r, c + 1]
    lower = (1 - v) * height[r + 1, c] + v * height[r + 1, c + 1]
    return (1 - u) * upper + u * lower


def signals(height_px, pixels, detector, azimuths=256, polars=96, step_px=0.2, seed=0):
    """Share of the emitted electrons that each segment collects: (pixel, segment), for `pixels` [(row, column)].

    `height_px` in pixels. The cone that holds the detector is cut into azimuths x polars strata of equal
    d(theta) d(phi) with one random direction each; the pixel's normal comes from central differences and the law is
    Lambertian. A direction is lost below the pixel's own plane or as soon as the bilinear surface rises above it; it
    is free once it has left the map or passed above the highest point.
    """
    rng = np.random.default_rng(seed)
    out = np.zeros((len(pixels), detector.segments))
    for k, (row, column) in enumerate(pixels):
        # A little wider than the detector, so that its rims are found by landing and not by construction.
        theta_max = 1.02 * np.arctan(detector.outer / detector.distance)
        theta = theta_max * (np.arange(polars)[None, :] + rng.random((azimuths, polars))) / polars
        phi = 2 * np.pi * (np.arange(azimuths) + rng.random(azimuths)) / azimuths
        solid_angle = np.sin(theta) * (theta_max / polars) * (2 * np.pi / azimuths)
        direction = np.stack(
            [np.sin(theta) * np.cos(phi)[:, None], np.sin(theta) * np.sin(phi)[:, None], np.cos(theta)], axis=-1
        )
        leaning = direction @ _normal(height_px, row, column)
        free = (leaning > 0) & ~_is_blocked(height_px, row, column, phi, 1 / np.tan(theta), step_px)
        emitted = np.where(free, leaning / np.pi * solid_angle, 0.0)
        landed = detector.hit(direction)
        out[k] = [emitted[landed == s].sum() for s in range(detector.segments)]
    return out


def _normal(height, row, column):
    """Unit normal (x right, y up, z) from central differences."""
    x = -0.5 * (height[row, column + 1] - height[row, column - 1])
    y = -0.5 * (height[row - 1, column] - height[row + 1, column])
    return np.array([x, y, 1.0]) / np.sqrt(x * x + y * y + 1)


def _is_blocked(height, row, column, phi, climb, step):
    """Whether the rays along `phi` (azimuth,) that rise by `climb` (azimuth, polar) per pixel meet the surface."""
    start, top = height[row, column], height.max()
    blocked = np.zeros(climb.shape, dtype=bool)
    lowest = climb.min()
    away = step
    while start + away * lowest <= top:
        r, c = row - away * np.sin(phi), column + away * np.cos(phi)
        inside = (r >= 0) & (r <= height.shape[0] - 1) & (c >= 0) & (c <= height.shape[1] - 1)
        if not inside.any():
            break
        surface = np.where(inside, bilinear(height, np.where(inside, r, 0.0), np.where(inside, c, 0.0)), -np.inf)
        blocked |= surface[:, None] > start + away * climb
        away += step
    return blocked
