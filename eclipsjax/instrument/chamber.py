"""The chamber in three dimensions: for a tilted stage, a tilted plate or unequal segment biases."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from eclipsjax._types import InputError, shown, whole_number
from eclipsjax.instrument.field import CartesianField
from eclipsjax.instrument.laplace import (
    Electrode,
    Network,
    Solution,
    cartesian_areas,
    connect,
    deepest,
    solve_iterative,
    two_sections,
)
from eclipsjax.instrument.microscope import Microscope, Segments
from eclipsjax.instrument.plane import Plane, detector_plane, plate_radii, stage_plane
from eclipsjax.instrument.spline import OPEN, spline_coefficients

# The grounded lid lies this many bore radii above the pole piece's face; what leaks in falls by exp(-2.4) in each.
BORE_DEPTH = 3.0
# Fewer nodes describe no chamber (splines alone need three); a stronger stretch leaves float32 no steps at the axis.
FEWEST_NODES, MOST_STRETCH = 8, 8.0


class Cartesian(eqx.Module):
    """Solve in (x, y, z): `lateral` nodes along x and y each (finer near the axis), `below` and `above` rows of nodes
    below and above the highest point of the plate's face; at least 8 of each. Gradient: none (static)."""

    lateral: int = eqx.field(static=True, default=81)
    below: int = eqx.field(static=True, default=40)
    above: int = eqx.field(static=True, default=24)
    stretch: float = eqx.field(static=True, default=3.0)

    def __check_init__(self):
        check_grid(self, ("lateral", "below", "above"))


def check_grid(grid: Any, counts: tuple[str, ...]) -> None:
    """Raise `InputError` unless the named fields of a grid are counts of enough nodes and its stretch is usable."""
    for name in counts:
        whole_number(name, getattr(grid, name), FEWEST_NODES)
    if not (isinstance(grid.stretch, (int, float)) and 0 < grid.stretch <= MOST_STRETCH):
        raise InputError(
            f"stretch is {shown(grid.stretch)}: give a number above 0 and up to {MOST_STRETCH:g} (2 to 4 is usual)."
        )


@jax.jit
def solve_cartesian(scope: Microscope, grid: Cartesian) -> CartesianField:
    axes = _cartesian_axes(scope, grid)
    electrodes = _cartesian_electrodes(scope)
    network = connect(axes, cartesian_areas(*axes), electrodes)
    solution = solve_iterative(network)
    smooth = _extend_into_metal(network, solution, grid.below + 1)
    return CartesianField(
        coefficients=spline_coefficients(smooth, (OPEN, OPEN, OPEN)),
        bottom_mm=axes[2][0],
        top_mm=axes[2][grid.below],
        radius_mm=scope.column.chamber_radius_mm,
        residual=solution.residual,
        iterations=solution.iterations,
        stretch=grid.stretch,
    )


def _cartesian_axes(scope: Microscope, grid: Cartesian) -> tuple[Array, Array, Array]:
    column = scope.column
    _, outer = plate_radii(scope)
    stage, dtype = stage_plane(scope), outer.dtype
    spread = jnp.asarray(np.sinh(grid.stretch * np.linspace(-1, 1, grid.lateral)) / np.sinh(grid.stretch), dtype)
    # A tenth more than the tilts need: a surface that grazes a whole row of nodes would come and go with rounding.
    low = -1.1 * outer * jnp.sum(jnp.abs(stage.normal[:2])) / stage.normal[2]
    high = _plate_top(scope)
    lid = jnp.maximum(column.working_distance_mm, high) + BORE_DEPTH * column.bore_radius_mm
    lateral = column.chamber_radius_mm * spread
    return lateral, lateral, two_sections(low, high, lid, grid.below, grid.above)


def _plate_top(scope: Microscope) -> Array:
    """A height no part of the plate's lower face exceeds; that face itself where the plate is level."""
    plate, (_, outer) = detector_plane(scope), plate_radii(scope)
    return plate.origin_mm[2] + 1.1 * outer * jnp.sum(jnp.abs(plate.axes[:2, 2]))


def _cartesian_electrodes(scope: Microscope) -> list[Electrode]:
    plate, column = scope.detector, scope.column
    hole, outer = plate_radii(scope)
    face, stage = detector_plane(scope), stage_plane(scope)
    bore, pole, roof, wall = (
        column.bore_radius_mm,
        column.pole_radius_mm,
        column.working_distance_mm,
        column.chamber_radius_mm,
    )

    def specimen(x, y, z):
        beyond = x**2 + y**2 > outer**2
        shrink = jnp.where(beyond, outer * lax.rsqrt(jnp.where(beyond, x**2 + y**2, 1.0)), 1.0)
        return stage.normal[2] * z + shrink * (stage.normal[0] * x + stage.normal[1] * y)

    def ring(x, y, z):
        along_x, along_y, above = _local(face, x, y, z)
        rho = _radius(along_x, along_y)
        return deepest(-above, above - plate.thickness_mm, hole - rho, rho - outer)

    lid = jnp.maximum(roof, _plate_top(scope)) + BORE_DEPTH * bore
    return [
        Electrode(specimen, column.specimen_bias_v),
        Electrode(ring, lambda x, y, z: _nearest_bias(plate.segments, *_local(face, x, y, z)[:2])),
        Electrode(lambda x, y, z: deepest(roof - z, bore - _radius(x, y), _radius(x, y) - pole), 0.0),
        Electrode(lambda x, y, z: jnp.minimum(wall - _radius(x, y), lid - z), 0.0),
    ]


def _nearest_bias(segments: Segments, along_x: Array, along_y: Array) -> Array:
    """Bias of the segment nearest to each point of the plate (only the biases carry a derivative)."""
    x, y = lax.stop_gradient((along_x, along_y))
    rho, azimuth = _radius(x, y), jnp.rad2deg(jnp.arctan2(-y, x))
    fixed = lax.stop_gradient(segments)
    best, bias = jnp.full_like(rho, jnp.inf), jnp.zeros_like(rho)
    for k in range(segments.count):
        half = 0.5 * (fixed.stop_deg[k] - fixed.start_deg[k])
        from_middle = jnp.abs((azimuth - fixed.start_deg[k] - half + 180.0) % 360.0 - 180.0)
        aside = rho * jnp.deg2rad(jnp.maximum(from_middle - half, 0.0))
        miss = aside + jnp.maximum(deepest(fixed.inner_radius_mm[k] - rho, rho - fixed.outer_radius_mm[k]), 0.0)
        bias = jnp.where(miss < best, segments.bias_v[k], bias)
        best = jnp.minimum(miss, best)
    return bias


def _extend_into_metal(network: Network, solution: Solution, rows: int) -> Array:
    """The potential with the metal's inside replaced by the straight continuation, along z, of what lies before it.

    Inside a conductor the potential is constant; a spline across that kink would ring where electrons start and land.
    """
    raw, metal = (jnp.moveaxis(a[:, :, :rows], -1, 0) for a in (solution.potential_v, network.solid))
    cut = network.cuts[2]
    fraction, met = (jnp.moveaxis(a[:, :, : rows - 1], -1, 0) for a in (cut.fraction, cut.potential_v))
    under = jnp.cumsum(~metal, axis=0) == 0

    def sweep(values, metal, enters, fraction, met):
        none = jnp.zeros_like(values[0])

        def step(carry, row):
            last, before, slope = carry
            value, inside, enters, t, surface = row
            slope = jnp.where(enters, (surface - before) / (1.0 + t), slope)
            extended = jnp.where(enters, surface + slope * (1.0 - t), last + slope)
            value = jnp.where(inside, extended, value)
            return (value, last, slope), value

        first = (values[0], values[0], none)
        return jnp.concatenate([values[:1], lax.scan(step, first, (values[1:], metal[1:], enters, fraction, met))[1]])

    upward = sweep(raw, metal & ~under, metal[1:] & ~metal[:-1], fraction, met)
    enters = under[:-1] & ~under[1:]
    downward = sweep(upward[::-1], under[::-1], enters[::-1], fraction[::-1], met[::-1])
    return jnp.moveaxis(downward[::-1], 0, -1)


def _local(plane: Plane, x: Array, y: Array, z: Array) -> list[Array]:
    dx, dy, dz = x - plane.origin_mm[0], y - plane.origin_mm[1], z - plane.origin_mm[2]
    return [row[0] * dx + row[1] * dy + row[2] * dz for row in plane.axes]


def _radius(x: Array, y: Array) -> Array:
    """hypot with a derivative (zero) on the axis."""
    squared = x**2 + y**2
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
