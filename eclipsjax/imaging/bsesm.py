"""The exact simulator: visible angle = valid and exposed, integrated over the emission law, per pixel and segment.

For every azimuth the horizon closes the polar bands of the valid solid angle from below. The Lambertian law is then a
difference of elementary antiderivatives; any other law is summed on a few Gauss points of what is left open of each
band.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, SignalStack, concrete, shown
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.visible import ClosedForm, Quadrature, body_bands
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.specimen.emission import EmissionLaw, Lambertian, law_of
from eclipsjax.specimen.horizon import HardHorizon, Horizon, NoRelief, check_choices, fold_azimuths
from eclipsjax.specimen.surface import Surface

# Wider images see the detector from noticeably different places: 0.1 deg of false slope.
NARROW_UM = 10.0


def render(
    surface: Surface,
    table: AcceptanceTable,
    azimuths: int = 64,
    radius_px: int | None = None,
    emission: EmissionLaw | None = None,
    horizon: Horizon | None = None,
) -> SignalStack:
    """Signal of every segment: the fraction of a pixel's emitted electrons that it collects.

    **Arguments:**

    - `surface`: heights, nm, `(y, x)`.
    - `table`: the valid solid angle, from `acceptance(scope)`; a table with a field of view must span the image, and
      one without (a `UserWarning` says so) is off by 0.1 % at 10 um, 0.6 % at 50 um and 6 % at 500 um.
    - `azimuths`: directions around each pixel (static).
    - `radius_px`: how far the relief is searched for what hides the detector, pixels (static); short for
      `horizon=HardHorizon(radius_px=...)`, 128 unless given.
    - `emission`: the angular law, `Lambertian()` unless given.
    - `horizon`: `HardHorizon(...)`, `SmoothHorizon(...)` or `NoRelief()`.

    Returns `(segment, y, x)`, before yield, gain, pedestal, blur and noise (those are `record`'s). Electrons count by
    the diode's response to their energy, collected over emitted: with `threshold_kev` and a `Spectrum` the signal is
    the fraction of what the diode would notice, see `Segments`. Where a segment is nearly all hidden and its edge lies
    inside an azimuth bin, the signal may fall below 0 by rounding of the bin: by 2e-5 with 64 azimuths, 1e-4 with 32,
    5e-4 with 16 (three, five or six segments; a clamp would spoil the gradient).
    Gradient: exact almost everywhere in the heights, the pixel size, the table and the law with `HardHorizon` (the
    horizon is a maximum: at a tie the derivative is that of one of the two); exact for the softened, biased image with
    `SmoothHorizon`.
    """
    if horizon is not None and radius_px is not None:
        raise InputError(f"radius_px = {radius_px} and horizon = {horizon} both say how far to look: give one of them.")
    if horizon is None:
        horizon = HardHorizon(radius_px=128 if radius_px is None else radius_px)
    azimuths = check_choices(surface, azimuths, horizon)
    emission = law_of(emission)
    _check_table_and_law(table, emission)
    _check_relief(surface, table)
    _check_field(surface, table)
    return _render(surface, table, azimuths, emission, horizon)


@partial(jax.jit, static_argnames="azimuths")
def _render(surface, table, azimuths, emission, horizon) -> SignalStack:
    slopes = surface.slopes()
    integral = ClosedForm(*slopes) if isinstance(emission, Lambertian) else Quadrature.of(*slopes, emission)
    bands = table.bands(azimuths, body_bands(emission)).astype(surface.height_nm.dtype)
    weights = _position_weights(surface, table) if table.follows_beam else None
    per_azimuth = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), integral.per_azimuth(bands))

    def from_here(cot_horizon, _, bands):
        return integral.collect(integral.open_to(cot_horizon), jax.tree.map(lambda leaf: leaf[0], bands))

    def from_everywhere(cot_horizon, _, bands):
        opening = integral.open_to(cot_horizon)
        collect = jax.checkpoint(lambda opening, xs: tuple(xs[0] * s for s in integral.collect(opening, xs[1])))

        def add(total, xs):
            return tuple(t + s for t, s in zip(total, collect(opening, xs), strict=True)), None

        none = (jnp.zeros_like(cot_horizon),) * len(table.names)
        return lax.scan(add, none, (weights, bands))[0]

    contribution = from_here if weights is None else from_everywhere
    total = fold_azimuths(surface, azimuths, horizon, contribution, per_azimuth)
    return integral.scale[None] * jnp.stack(total)


def flat_signal(table: AcceptanceTable, emission: EmissionLaw | None = None) -> PerSegment:
    """Signal of a level pixel without relief around it, `(segment,)`. Gradient: exact."""
    level = jnp.zeros((1, 1), table.theta.dtype)
    return render(Facets.isolated(level, level), table, emission=emission, horizon=NoRelief())[:, 0, 0]


def wide_field_mm(shape: tuple[int, int], pixel_size_nm: Any) -> tuple[float, float] | None:
    """Width and height (mm) of an image `shape` across which the view of the detector changes; None for small ones.

    What `acceptance(scope, field_mm=...)` takes.
    """
    rows, columns = shape
    width, height = (n * float(pixel_size_nm) * 1e-6 for n in (columns, rows))
    return (width, height) if max(width, height) > 1e-3 * NARROW_UM else None


def _position_weights(surface: Surface, table: AcceptanceTable) -> Float[Array, "position y x"]:
    """Weight of each of the table's beam positions at every pixel (quadratic Lagrange in x and y)."""
    rows, columns = surface.height_nm.shape
    dtype = surface.height_nm.dtype

    def basis(count, extent_mm, centre_mm):
        offset = (jnp.arange(count, dtype=dtype) - (count - 1) / 2) * surface.pixel_size_nm * 1e-6
        t = 2.0 * (offset + centre_mm.astype(dtype)) / extent_mm.astype(dtype)
        return 0.5 * t * (t - 1.0), 1.0 - t * t, 0.5 * t * (t + 1.0)

    along_x = basis(columns, table.field_mm[0], table.centre_mm[0])
    along_y = basis(rows, table.field_mm[1], table.centre_mm[1])
    return jnp.stack([wy[:, None] * wx[None, :] for wy in along_y for wx in along_x])


def _check_table_and_law(table: Any, emission: Any) -> None:
    if not isinstance(table, AcceptanceTable):
        raise InputError(f"table is {shown(table)}: give what acceptance(scope) returns.")
    if not isinstance(emission, EmissionLaw):
        raise InputError(f"emission is {shown(emission)}: give a law, such as Lambertian() or CosinePower(1.5).")


def _check_relief(surface: Surface, table: AcceptanceTable) -> None:
    height, distance = concrete(surface.height_nm), concrete(table.distance_mm)
    if height is not None and distance is not None and np.ptp(height) >= 1e6 * distance:
        raise InputError(
            f"the relief is {1e-6 * np.ptp(height):.4g} mm tall but the detector is only detector.distance_mm = "
            f"{distance:g} above the specimen: heights are in nanometres, so check their unit."
        )


def _check_field(surface: Surface, table: AcceptanceTable) -> None:
    pixel, field_mm = concrete(surface.pixel_size_nm), concrete(table.field_mm)
    if pixel is None or field_mm is None:
        return
    rows, columns = surface.height_nm.shape
    width, height = (float(pixel) * n * 1e-6 for n in (columns, rows))
    if not table.follows_beam:
        if max(width, height) > 1.001e-3 * NARROW_UM:
            warnings.warn(
                f"the image spans {width:.3g} x {height:.3g} mm, but the table sees the detector from its centre "
                "alone: build it with acceptance(scope, field_mm=...) for this field of view.",
                UserWarning,
                stacklevel=3,
            )
    elif width > 1.01 * field_mm[0] or height > 1.01 * field_mm[1]:
        raise InputError(
            f"the image spans {width:g} x {height:g} mm but the table only {field_mm[0]:g} x {field_mm[1]:g}: build it "
            "with acceptance(scope, field_mm=...) for this field of view."
        )
