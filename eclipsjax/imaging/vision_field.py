"""The vision field: how far around a pixel the relief must be known, given that a direction is clear up to there.

A direction at elevation e (above the horizontal) is a straight line of slope m = tan e over the relief. Along it the
heights z(t) of a stationary Gaussian surface with correlation h^2 exp(-t^2 / L^2) are a Gaussian process with rms
slope s = sqrt(2) h / L. In lengths of L and heights of s L nothing is left but m / s and r / L. Given the height and
the slope it starts from, the process rises through the line at t for the first time at about the rate

    rate(t) = E[max(z' - m, 0); z(t) = line | start] / P(z(t) < line | start),

Rice's formula, normalised as Smith did for shadows (IEEE Trans. Antennas Propag. 15, 668, 1967) but with the whole
correlation between start and end kept. Clear from 0 to r is exp(-integral of the rate), averaged over all starts below
the line; what is blocked farther out follows.

Measured against 8 million simulated starts, r from 0 to 6 L: at m / s = 0.25 | 0.5 | 1 | 1.5 | 2 the probability is at
most 0.027 | 0.015 | 0.0021 | 0.0003 | 0.00004 off. It is too small by up to 4 % of itself at r = 0 and by up to 16 %
about r = 2 L, too large by up to 24 % at 6 L where m / s is 0.5 or less; the radius for a given probability is at
most 0.16 L too small, 0.21 L too large. With the start's height alone the errors are 0.043 | 0.031 | 0.0067 | 0.0010 |
0.0001, and with Smith's independent heights 0.034 | 0.045 | 0.041 | 0.022 | 0.0085, three times too small at m / s = 2.
"""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map, Number, Scalar, as_real, concrete, real_named, shown, whole_number
from eclipsjax.specimen.horizon import HardHorizon, azimuth_centres, check_choices, horizon
from eclipsjax.specimen.surface import Surface

# Nodes over start heights, start slopes and distances: doubling all three moves no probability by more than 3e-4.
_HEIGHTS, _SLOPES, _DISTANCES = 32, 32, 48
# Slopes beyond this many rms slopes are as good as absent (1e-9 of all).
_STEEPEST = 6.0
# A line this high (in s L, at least the standard deviation of any difference of heights) is above everything.
_ABOVE_ALL = 8.0
# Nearer than this (in L) the end is the start, and float32 cannot tell its variance from 0.
_NEAREST = 0.02
_HALVINGS = 30


class SurfaceStatistics(eqx.Module):
    """What the vision field needs to know of a relief, as if it were Gaussian with correlation h^2 exp(-t^2 / L^2).

    - `rms_slope`: root mean square of the slope along one direction, dimensionless (that of the gradient's length is
      sqrt(2) times larger on an isotropic surface).
    - `correlation_nm`: L, the distance at which the correlation of heights has fallen to 1/e, nm.

    Gradient: exact in both.
    """

    rms_slope: Scalar = eqx.field(converter=real_named("rms_slope"))
    correlation_nm: Scalar = eqx.field(converter=real_named("correlation_nm"))

    def __check_init__(self):
        for name in ("rms_slope", "correlation_nm"):
            value = concrete(getattr(self, name))
            if value is not None and not (value.ndim == 0 and 0 < value < np.inf):
                raise InputError(
                    f"{name} is {shown(value.tolist())}: give one positive number; a surface without relief hides "
                    "nothing and has no vision field."
                )

    @property
    def rms_height_nm(self) -> Scalar:
        """h = s L / sqrt(2), nm. Gradient: exact."""
        return self.rms_slope * self.correlation_nm.astype(self.rms_slope.dtype) / math.sqrt(2.0)

    @classmethod
    def of(cls, surface: Surface) -> SurfaceStatistics:
        """Statistics of a height map less its least-squares plane: L = sqrt(2) h / s.

        h is the rms height. s is the rms difference of neighbouring pixels over the pixel size, of rows and columns
        alike; it reads low where L is but few pixels (by 1 % at 5).
        Gradient: exact.
        """
        if not isinstance(surface, Surface):
            raise InputError(f"surface is {shown(surface)}: give a Surface(height_nm, pixel_size_nm).")
        if min(surface.height_nm.shape) < 3:
            raise InputError(f"height_nm has shape {surface.height_nm.shape}: give at least 3 pixels each way.")
        return cls(*_slope_and_correlation(surface.height_nm, surface.pixel_size_nm))


@jax.jit
def _slope_and_correlation(height: Map, pixel: Scalar) -> tuple[Scalar, Scalar]:
    z = height - jnp.mean(height)
    for axis, count in enumerate(z.shape):
        place = jnp.expand_dims(jnp.arange(count, dtype=z.dtype) - (count - 1) / 2, 1 - axis)
        z = z - place * (jnp.sum(place * z) / jnp.sum(place**2 * jnp.ones_like(z)))
    rise = jnp.sqrt(0.5 * (jnp.mean(jnp.diff(z, axis=0) ** 2) + jnp.mean(jnp.diff(z, axis=1) ** 2)))
    pixel = pixel.astype(z.dtype)
    return rise / pixel, jnp.sqrt(2.0 * jnp.mean(z**2)) / rise * pixel


def blocked_beyond(statistics: SurfaceStatistics, elevation_deg: Number, radius_nm: Number) -> Scalar:
    """Probability that a direction is blocked farther out than a radius, given that it is clear within it.

    1 - S(infinity) / S(r), with S(r) = E[exp(-integral of the rate from 0 to r)] over all start heights and over start
    slopes below the line (a direction under the pixel's own tangent plane is not clear). The rate and its margins stand
    at the top of this file.

    **Arguments:**

    - `statistics`: of the relief, `SurfaceStatistics(...)` or `SurfaceStatistics.of(surface)`.
    - `elevation_deg`: of the direction above the horizontal, deg, between 0 and 90, scalar.
    - `radius_nm`: in the plane, nm, scalar.

    Returns a scalar; for many directions or radii, `jax.vmap`. Gradient: exact, of this approximation.
    """
    _check_statistics(statistics)
    elevation, radius = _elevation("elevation_deg", elevation_deg), as_real(radius_nm, "radius_nm")
    known = concrete(radius)
    if known is not None and not (known.ndim == 0 and 0 <= known < np.inf):
        raise InputError(f"radius_nm is {shown(known.tolist())}: give one number of nanometres, 0 or more.")
    return _blocked_beyond(statistics, elevation, radius)


@jax.jit
def _blocked_beyond(statistics, elevation, radius):
    line, length = _scaled(statistics, elevation)
    return _blocked(line, radius.astype(line.dtype) / length)


def vision_field_radius_nm(
    statistics: SurfaceStatistics, lowest_elevation_deg: Number, delta_out: Number = 0.01
) -> Scalar:
    """The smallest radius beyond which a clear direction is blocked with probability `delta_out` at most, nm.

    `blocked_beyond` falls with the radius and with the elevation, so the lowest direction that the detector sees
    decides: 90 deg less the polar angle of its outer rim. Bisected, 0 where even the tangent plane is enough. For
    `render`, `radius_px` is this over the pixel size, rounded up.

    **Arguments:**

    - `statistics`: of the relief.
    - `lowest_elevation_deg`: deg above the horizontal, between 0 and 90, scalar.
    - `delta_out`: probability, between 0 and 1, scalar.

    Returns a scalar. Gradient: exact (implicit function theorem), 0 where the radius is 0.
    """
    _check_statistics(statistics)
    elevation = _elevation("lowest_elevation_deg", lowest_elevation_deg)
    threshold = as_real(delta_out, "delta_out")
    known = concrete(threshold)
    if known is not None and not (known.ndim == 0 and 0 < known < 1):
        raise InputError(f"delta_out is {shown(known.tolist())}: give one probability between 0 and 1, such as 0.01.")
    return _vision_field_radius(statistics, elevation, threshold)


@jax.jit
def _vision_field_radius(statistics, elevation, threshold):
    line, length = _scaled(statistics, elevation)
    threshold = threshold.astype(line.dtype)

    def excess(radius):
        return _blocked(line, radius) - threshold

    def bisect(excess, start):
        def halve(_, bracket):
            low, high = bracket
            middle = 0.5 * (low + high)
            too_near = excess(middle) > 0
            return jnp.where(too_near, middle, low), jnp.where(too_near, high, middle)

        return lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros_like(start), start))[1]

    def divide(linear, value):
        slope = linear(jnp.ones_like(value))
        return value / jnp.where(slope == 0, 1.0, slope)

    farthest = lax.stop_gradient(1.5 * _ABOVE_ALL / line)
    radius = lax.custom_root(excess, farthest, bisect, divide)
    at_once = excess(jnp.zeros_like(line)) <= 0
    return length * jnp.where(at_once, jnp.zeros_like(radius), radius)


def _scaled(statistics: SurfaceStatistics, elevation: Scalar) -> tuple[Scalar, Scalar]:
    """Slope of the line in rms slopes, and the length that all radii are measured in, nm."""
    slope = statistics.rms_slope
    return jnp.tan(jnp.deg2rad(elevation)).astype(slope.dtype) / slope, statistics.correlation_nm.astype(slope.dtype)


def _blocked(line: Scalar, radius: Scalar) -> Scalar:
    """`blocked_beyond` in lengths of L and slopes of s."""
    dtype = line.dtype
    root, weight = np.polynomial.hermite_e.hermegauss(_HEIGHTS)
    height = jnp.asarray(root / np.sqrt(2.0), dtype)
    # Slopes of the start up to that of the line.
    node, share = (jnp.asarray(a, dtype) for a in _unit_interval(_SLOPES))
    width = jnp.minimum(line, _STEEPEST) + _STEEPEST
    slope = width * node - _STEEPEST
    starts = jnp.asarray(weight, dtype)[:, None] * (width * share * jnp.exp(-0.5 * slope**2))[None, :]
    # Risen within the radius, and beyond it: in one call, which halves the time to compile.
    reach = _ABOVE_ALL / line
    first, span = jnp.stack([jnp.zeros_like(radius), radius]), jnp.stack([jnp.minimum(radius, reach), reach])
    inside, outside = _risen(line, height, slope, first, span)
    clear = starts * jnp.exp(-inside)
    return jnp.sum(clear * -jnp.expm1(-outside)) / jnp.sum(clear)


def _risen(line: Scalar, height: Array, slope: Array, first: Array, span: Array) -> Float[Array, "part height slope"]:
    """Integrals of the rate from `first` over a length `span`, with nodes that crowd toward `first`."""
    node, share = (jnp.asarray(a, line.dtype)[None, :] for a in _unit_interval(_DISTANCES))
    stretch = jnp.log1p(span)[:, None]
    distance = jnp.maximum(first[:, None] + jnp.expm1(node * stretch), _NEAREST)
    step = share * stretch * jnp.exp(node * stretch)
    rate = _rate(line, height[None, None, :, None], slope[None, None, None, :], distance[:, :, None, None])
    return jnp.sum(step[:, :, None, None] * rate, axis=1)


def _rate(line: Scalar, height: Array, slope: Array, distance: Array) -> Array:
    """Rate of rising through the line at a distance, given the start: `(part, step, height, slope)`."""
    square = distance**2
    twice, kept = 2.0 * square, jnp.exp(-square)
    faded = kept**2
    # The height and slope at the end given those at the start: means, variances, covariance over variance of height.
    variance = 0.5 * (-jnp.expm1(-twice) - twice * faded)
    per_height = distance * twice * faded / variance
    spread = -jnp.expm1(-twice) + faded * (twice - twice**2) - per_height**2 * variance
    mean_slope = kept * ((1.0 - twice) * slope - 2.0 * distance * height)
    gap = distance * (line - kept * slope) - jnp.expm1(-square) * height
    # The slope's own excess over the line's where the heights meet.
    spread = jnp.sqrt(jnp.maximum(spread, 1e-12))
    excess = mean_slope + per_height * gap - line
    flux = spread * _normal(excess / spread) + excess * _normal_below(excess / spread)
    deviation = jnp.sqrt(variance)
    score = gap / deviation
    # No start that is summed lies more than 11 standard deviations above the line: nothing underflows below.
    # Rounding may leave a flux just below 0.
    return _normal(score) / (_normal_below(score) * deviation) * jnp.maximum(flux, 0.0)


def _normal(score: Array) -> Array:
    return jnp.exp(-0.5 * score**2) / math.sqrt(2 * math.pi)


def _normal_below(score: Array) -> Array:
    return 0.5 * lax.erfc(-math.sqrt(0.5) * score)


def _unit_interval(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights from 0 to 1."""
    node, weight = np.polynomial.legendre.leggauss(count)
    return 0.5 * (node + 1.0), 0.5 * weight


def blocked_beyond_counted(
    surface: Surface, elevation_deg: Any, radii_px: Any, azimuths: int = 8
) -> Float[Array, "*elevation radius"]:
    """The same probability counted on a height map: of all directions clear within a radius, those blocked farther out.

    A direction of a pixel is clear within r where `horizon(..., HardHorizon(radius_px=r))` lies below it, tangent plane
    included. Farther out means up to the largest radius of the list, so its own entry is 0 and the list should end
    where nothing is left to block. A pixel counts for those azimuths whose ray stays on the map up to that largest
    radius, for all radii alike.

    **Arguments:**

    - `surface`: any height map, nm.
    - `elevation_deg`: deg above the horizontal, scalar or `(elevation,)`.
    - `radii_px`: increasing whole numbers (static), pixels along the ray's major axis as for `HardHorizon`. With 8
      azimuths every ray is 1 / cos(22.5 deg) = 1.082 times as long; with others rays differ.
    - `azimuths`: directions around each pixel (static).

    Returns `(*elevation, radius)`; NaN where no direction is clear. Gradient: zero (a count).
    """
    azimuths = check_choices(surface, azimuths, HardHorizon())
    elevation, radii = _elevation("elevation_deg", elevation_deg, most_dimensions=1), _radii(radii_px)
    rows, columns = surface.height_nm.shape
    if radii[-1] >= min(rows, columns):
        raise InputError(
            f"radii_px ends at {radii[-1]} but the map has {rows} x {columns} pixels: no ray of that length stays on "
            "it; give smaller radii or a larger map."
        )
    return _counted(surface, elevation, radii, azimuths)


@partial(jax.jit, static_argnames=("radii", "azimuths"))
def _counted(surface, elevation, radii, azimuths):
    dtype = surface.height_nm.dtype
    whole = jnp.asarray(_whole_rays(surface.height_nm.shape, radii[-1], azimuths))
    line = jnp.tan(jnp.deg2rad(elevation)).astype(dtype)
    horizons = [horizon(surface, azimuths, HardHorizon(radius_px=radius)) for radius in radii]

    def share(line):
        clear = jnp.stack([jnp.sum(whole & (cot < line), dtype=dtype) for cot in horizons])
        return jnp.where(clear > 0, 1.0 - clear[-1] / clear, jnp.nan)

    return share(line) if line.ndim == 0 else lax.map(share, line)


def _whole_rays(shape: tuple[int, int], radius_px: int, azimuths: int) -> np.ndarray:
    """Where the ray of each azimuth ends on the map, `(azimuth, y, x)`."""
    centres = azimuth_centres(azimuths)
    along = np.stack([-np.sin(centres), np.cos(centres)])
    end = radius_px * along / np.abs(along).max(0)
    on = [
        (np.arange(n) + e[:, None] >= 0) & (np.arange(n) + e[:, None] <= n - 1) for n, e in zip(shape, end, strict=True)
    ]
    return on[0][:, :, None] & on[1][:, None, :]


def _check_statistics(statistics: Any) -> None:
    if not isinstance(statistics, SurfaceStatistics):
        raise InputError(
            f"statistics is {shown(statistics)}: give SurfaceStatistics(rms_slope, correlation_nm) or "
            "SurfaceStatistics.of(surface)."
        )


def _elevation(name: str, value: Any, most_dimensions: int = 0) -> Array:
    elevation = as_real(value, name)
    if elevation.ndim > most_dimensions:
        raise InputError(f"{name} has shape {elevation.shape}: give one angle a call, or jax.vmap over many.")
    known = concrete(elevation)
    if known is not None and not (known.size > 0 and ((known > 0) & (known < 90)).all()):
        raise InputError(f"{name} is {shown(known.tolist())}: give degrees above the horizontal, between 0 and 90.")
    return elevation


def _radii(values: Any) -> tuple[int, ...]:
    try:
        radii = tuple(whole_number("radii_px", value, 1) for value in values)
    except TypeError:
        raise InputError(f"radii_px is {shown(values)}: give a list of whole numbers of pixels.") from None
    if len(radii) < 2 or any(b <= a for a, b in itertools.pairwise(radii)):
        raise InputError(f"radii_px is {shown(radii)}: give at least two whole numbers that increase.")
    return radii
