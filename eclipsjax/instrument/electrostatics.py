"""The potential between specimen, detector plate, pole piece and chamber."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, concrete, shown
from eclipsjax.instrument.chamber import BORE_DEPTH, Cartesian, check_grid, solve_cartesian
from eclipsjax.instrument.clearances import check_clearances
from eclipsjax.instrument.field import AxisymmetricField, CartesianField
from eclipsjax.instrument.laplace import Electrode, connect, deepest, polar_areas, solve_direct, two_sections
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.plane import plate_radii
from eclipsjax.instrument.spline import EVEN, OPEN, spline_coefficients


class Axisymmetric(eqx.Module):
    """Solve in (r, z), about the detector plate's centre: `radial` nodes, `below` and `above` rows of nodes below and
    above the plate's face, which lies on a row; at least 8 of each. Spacing grows outward,
    r = R sinh(stretch s) / sinh(stretch). Gradient: none (static)."""

    radial: int = eqx.field(static=True, default=128)
    below: int = eqx.field(static=True, default=96)
    above: int = eqx.field(static=True, default=64)
    stretch: float = eqx.field(static=True, default=2.5)

    def __check_init__(self):
        check_grid(self, ("radial", "below", "above"))


def choose_grid(scope: Microscope) -> Axisymmetric | Cartesian:
    """`Cartesian()` where the stage or the plate is tilted or the segments' biases differ, else `Axisymmetric()`.

    Under a JAX transformation nobody can look at the numbers: what is traced counts as symmetric, so choose before and
    pass the choice on where it matters.
    """
    plate, column = scope.detector, scope.column
    tilts = (plate.tilt_x_deg, plate.tilt_y_deg, column.stage_tilt_x_deg, column.stage_tilt_y_deg)
    tilted = any(v is not None and bool(v != 0) for v in map(concrete, tilts))
    bias = concrete(plate.segments.bias_v)
    uneven = bias is not None and bool(np.ptp(bias) != 0)
    return Cartesian() if tilted or uneven else Axisymmetric()


def solve_field(scope: Microscope, grid: Axisymmetric | Cartesian | None = None) -> AxisymmetricField | CartesianField:
    """The electrostatic field of the microscope's chamber, from Laplace's equation.

    Electrodes: the specimen's plane at `column.specimen_bias_v`; the plate, from the smallest inner to the largest
    outer radius of the segments, at their mean bias (3D: each part at the bias of the nearest segment); pole piece,
    wall and lid at 0 V. `grid` is `Axisymmetric(...)` (direct solve; ignores tilts, takes the mean of the biases and
    puts the pole piece's bore over the plate's centre) or `Cartesian(...)` (conjugate gradients); by default
    `choose_grid(scope)` decides. In 3D a tilted stage goes on at its rim's height beyond the plate's outer radius.

    Returns a record with `potential_v(position_mm)`, `gradient_v_per_mm(position_mm)`, the linear solver's true
    relative `residual` and its `iterations` (0 where direct).
    Gradient: exact for the discrete system (3D: to the solver's tolerance) in biases, distances, radii, thickness,
    offsets and (3D) tilts; zero in segment azimuths, and in tilts when axisymmetric. Where an edge passes a grid node
    the derivative jumps by a relative O(h).
    """
    grid = choose_grid(scope) if grid is None else grid
    if isinstance(grid, Axisymmetric):
        return _solve_axisymmetric(scope, grid)
    if not isinstance(grid, Cartesian):
        raise InputError(f"grid is {shown(grid)}: give Axisymmetric(...) or Cartesian(...).")
    check_clearances(scope)
    return solve_cartesian(scope, grid)


@jax.jit
def _solve_axisymmetric(scope: Microscope, grid: Axisymmetric) -> AxisymmetricField:
    plate, column = scope.detector, scope.column
    radius, height = axisymmetric_axes(scope, grid)
    solution = solve_direct(connect((height, radius), polar_areas(radius, height), axisymmetric_electrodes(scope)))
    below = solution.potential_v[: grid.below + 1]
    return AxisymmetricField(
        coefficients=spline_coefficients(below, (OPEN, EVEN)),
        centre_mm=jnp.stack([plate.offset_x_mm, plate.offset_y_mm]),
        height_mm=plate.distance_mm,
        radius_mm=column.chamber_radius_mm,
        residual=solution.residual,
        iterations=solution.iterations,
        stretch=grid.stretch,
    )


def axisymmetric_axes(scope: Microscope, grid: Axisymmetric) -> tuple[Array, Array]:
    """Radii and heights of the grid's nodes, mm; row `grid.below` is the plate's face. Gradient: exact."""
    plate, column = scope.detector, scope.column
    dtype = plate.distance_mm.dtype
    spread = np.sinh(grid.stretch * np.linspace(0, 1, grid.radial)) / np.sinh(grid.stretch)
    lid = column.working_distance_mm + BORE_DEPTH * column.bore_radius_mm
    height = two_sections(jnp.zeros((), dtype), plate.distance_mm, lid, grid.below, grid.above)
    return column.chamber_radius_mm * jnp.asarray(spread, dtype), height


def axisymmetric_electrodes(scope: Microscope) -> list[Electrode]:
    """Specimen, plate, pole piece and wall with lid as signed distances of (z, r), in this order."""
    plate, column = scope.detector, scope.column
    hole, outer = plate_radii(scope)
    face, back = plate.distance_mm, plate.distance_mm + plate.thickness_mm
    bore, pole, roof = column.bore_radius_mm, column.pole_radius_mm, column.working_distance_mm
    wall, lid = column.chamber_radius_mm, roof + BORE_DEPTH * bore
    bias = jnp.mean(plate.segments.bias_v)
    return [
        Electrode(lambda z, r: z, column.specimen_bias_v),
        Electrode(lambda z, r: deepest(face - z, z - back, hole - r, r - outer), bias),
        Electrode(lambda z, r: deepest(roof - z, bore - r, r - pole), 0.0),
        Electrode(lambda z, r: jnp.minimum(wall - r, lid - z), 0.0),
    ]
