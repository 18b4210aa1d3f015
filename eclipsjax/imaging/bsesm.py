"""The exact simulator: visible angle = valid and exposed, integrated over the emission law, per pixel and segment.

For every azimuth the horizon closes the polar bands of the valid solid angle from below. The Lambertian law is then a
difference of elementary antiderivatives; any other law is summed on a few Gauss points of what is left open of each
band.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._polar import polar_primitives, polar_primitives_of_angle
from eclipsjax._types import InputError, SignalStack, concrete, image_direction
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.specimen.emission import Lambertian
from eclipsjax.specimen.horizon import HardHorizon, Horizon, azimuth_centres, fold_azimuths
from eclipsjax.specimen.surface import Surface

# For laws without antiderivatives: polar bands between two rims, and Gauss points in each and in a rim's narrow band.
_BODY_BANDS, _BODY_POINTS, _RIM_POINTS = 3, 3, 2


def render(
    surface: Surface,
    table: AcceptanceTable,
    azimuths: int = 64,
    radius_px: int | None = None,
    emission=None,
    horizon: Horizon | None = None,
) -> SignalStack:
    """Signal of every segment: the fraction of a pixel's emitted electrons that it collects.

    **Arguments:**

    - `surface`: heights, nm, `(y, x)`.
    - `table`: the valid solid angle, from `acceptance(scope)`; a table with a field of view must span the image.
    - `azimuths`: directions around each pixel (static).
    - `radius_px`: how far the relief is searched for what hides the detector, pixels (static); short for
      `horizon=HardHorizon(radius_px=...)`, 128 unless given.
    - `emission`: the angular law, `Lambertian()` unless given.
    - `horizon`: `HardHorizon(...)`, `SmoothHorizon(...)` or `NoRelief()`.

    Returns `(segment, y, x)`, before yield, gain, pedestal, blur and noise (those are `record`'s).
    Gradient: exact almost everywhere in the heights, the pixel size, the table and the law with `HardHorizon` (the
    horizon is a maximum: at a tie the derivative is that of one of the two); exact for the softened, biased image with
    `SmoothHorizon`.
    """
    if horizon is not None and radius_px is not None:
        raise InputError(f"radius_px = {radius_px} and horizon = {horizon} both say how far to look: give one of them.")
    if horizon is None:
        horizon = HardHorizon(radius_px=128 if radius_px is None else radius_px)
    _check_field(surface, table)
    return _render(surface, table, azimuths, Lambertian() if emission is None else emission, horizon)


@partial(jax.jit, static_argnames="azimuths")
def _render(surface, table, azimuths, emission, horizon) -> SignalStack:
    dtype = surface.height_nm.dtype
    is_lambertian = isinstance(emission, Lambertian)
    bands = table.bands(azimuths, body_bands=1 if is_lambertian else _BODY_BANDS).astype(dtype)
    slope_x, slope_y = surface.slopes()
    normal_z = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    weights = _position_weights(surface, table)
    if is_lambertian:
        collect = _lambertian(slope_x, slope_y, weights)
        bands = (polar_primitives_of_angle(bands.theta), (bands.measure, bands.measure_x, bands.measure_y))
        scale = normal_z / np.pi
    else:
        emission = jax.tree.map(lambda leaf: leaf.astype(dtype), emission)
        collect = _by_quadrature(slope_x, slope_y, normal_z, emission, weights)
        bands = (bands, jnp.asarray(azimuth_centres(azimuths), dtype=dtype)[None, :])
        scale = jnp.ones_like(normal_z)
    per_azimuth = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), bands)
    return scale[None] * jnp.stack(fold_azimuths(surface, azimuths, horizon, collect, per_azimuth))


def _lambertian(slope_x, slope_y, position_weights):
    """Contribution of one azimuth to every segment's signal, without the factor n_z / pi."""

    def collect(cot_horizon, _, bands):
        (b_knots, a_knots), (measure, measure_x, measure_y) = bands
        # Without the barrier XLA works the horizon out anew for every segment (measured: 30 times slower).
        b, a = lax.optimization_barrier(polar_primitives(jnp.maximum(cot_horizon, 0.0)))
        total = None
        for p, weight in enumerate(position_weights):
            bands = range(measure.shape[2])
            open_b = [_between(b, b_knots[p, n], b_knots[p, n + 1]) - b_knots[p, n] for n in bands]
            open_a = [_between(a, a_knots[p, n], a_knots[p, n + 1]) - a_knots[p, n] for n in bands]
            signals = []
            for s in range(measure.shape[1]):
                upward = sum(measure[p, s, n] * open_b[n] for n in bands)
                along_x = sum(measure_x[p, s, n] * open_a[n] for n in bands)
                along_y = sum(measure_y[p, s, n] * open_a[n] for n in bands)
                signals.append(_times(weight, upward - slope_x * along_x - slope_y * along_y))
            total = _add(total, signals)
        return total

    return collect


def _by_quadrature(slope_x, slope_y, normal_z, law, position_weights):
    """Contribution of one azimuth to every segment's signal under any emission law."""
    coefficients = law.coefficients(normal_z)

    def density(cos_polar, azimuth):
        along_x, along_y = image_direction(azimuth)
        sin_polar = jnp.sqrt(1.0 - cos_polar * cos_polar)
        cos_emission = normal_z * (cos_polar - (slope_x * along_x + slope_y * along_y) * sin_polar)
        return law.density(coefficients, cos_emission, cos_polar, normal_z)

    def collect(cot_horizon, _, xs):
        bands, azimuth = xs
        azimuth = azimuth[0]
        cot_horizon = jnp.maximum(cot_horizon, 0.0)
        cos_horizon = lax.optimization_barrier(cot_horizon / jnp.sqrt(1.0 + cot_horizon * cot_horizon))
        across_x, across_y = image_direction(azimuth + np.pi / 2)
        total = None
        for p, weight in enumerate(position_weights):
            count = bands.measure.shape[1]
            signals = [jnp.zeros_like(cot_horizon)] * count
            for n in range(bands.measure.shape[2]):
                top = jnp.cos(bands.theta[p, n])
                low = _between(cos_horizon, jnp.cos(bands.theta[p, n + 1]), top)
                flat, tilted = 0.0, 0.0
                # Every ring brings a rim, its body, a rim, and the gap before the next ring.
                is_body = 1 <= n % (_BODY_BANDS + 3) <= _BODY_BANDS
                rule = np.polynomial.legendre.leggauss(_BODY_POINTS if is_body else _RIM_POINTS)
                for point, g in zip(*(v.tolist() for v in rule), strict=True):
                    cos_polar = low + (top - low) * (0.5 + 0.5 * point)
                    value, change = jax.jvp(partial(density, cos_polar), (azimuth,), (jnp.ones_like(azimuth),))
                    flat, tilted = flat + g * value, tilted + g * change
                flat, tilted = lax.optimization_barrier((flat, tilted))
                half = 0.5 * (top - low)
                for s in range(count):
                    # The azimuth the segment covers need not be centred in the bin: first-order correction.
                    sideways = across_x * bands.measure_x[p, s, n] + across_y * bands.measure_y[p, s, n]
                    signals[s] = signals[s] + half * (bands.measure[p, s, n] * flat + sideways * tilted)
            total = _add(total, [_times(weight, signal) for signal in signals])
        return total

    return collect


def _between(value, low, high):
    """`value` cut to [low, high] with selects, whose derivative XLA gets for nothing, unlike `clip`'s shared ties."""
    return jnp.where(value < low, low, jnp.where(value < high, value, high))


def _times(weight, signal):
    return signal if weight is None else weight * signal


def _add(total, signals):
    # A tuple of maps, not one stack: XLA would recompute everything above for each slice of the stack.
    return tuple(signals) if total is None else tuple(t + s for t, s in zip(total, signals, strict=True))


def _position_weights(surface: Surface, table: AcceptanceTable) -> list[Float[Array, "y x"] | None]:
    """Weight of each of the table's beam positions at every pixel (quadratic Lagrange in x and y)."""
    if not table.follows_beam:
        return [None]
    rows, columns = surface.height_nm.shape
    dtype = surface.height_nm.dtype

    def basis(count, extent_mm):
        offset = (jnp.arange(count, dtype=dtype) - (count - 1) / 2) * surface.pixel_size_nm * 1e-6
        t = 2.0 * offset / extent_mm.astype(dtype)
        return 0.5 * t * (t - 1.0), 1.0 - t * t, 0.5 * t * (t + 1.0)

    along_x, along_y = basis(columns, table.field_mm[0]), basis(rows, table.field_mm[1])
    return [wy[:, None] * wx[None, :] for wy in along_y for wx in along_x]


def _check_field(surface: Surface, table: AcceptanceTable) -> None:
    pixel, field_mm = concrete(surface.pixel_size_nm), concrete(table.field_mm)
    if pixel is None or field_mm is None or not table.follows_beam:
        return
    rows, columns = surface.height_nm.shape
    needed = np.array([columns, rows]) * pixel * 1e-6
    if (needed > 1.01 * field_mm).any():
        raise InputError(
            f"the image spans {needed[0]:g} x {needed[1]:g} mm but the table only {field_mm[0]:g} x {field_mm[1]:g}: "
            "build it with acceptance(scope, field_mm=...) for this field of view."
        )
