"""The potential between specimen, detector plate, pole piece and chamber, and the smooth field electrons fly in."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from eclipsjax._types import InputError, Scalar, as_real, concrete
from eclipsjax.instrument.laplace import (
    Electrode,
    Solution,
    cartesian_areas,
    connect,
    crossings,
    polar_areas,
    solve_direct,
    solve_iterative,
)
from eclipsjax.instrument.microscope import Microscope, Segments
from eclipsjax.instrument.plane import Plane, Vector, detector_plane, stage_plane
from eclipsjax.instrument.spline import EVEN, OPEN, spline_coefficients, spline_sample

# The grounded lid lies this many bore radii above the pole piece's face: what leaks into the bore falls by exp(-2.4) per radius.
BORE_DEPTH = 3.0


class Axisymmetric(eqx.Module):
    """Solve in (r, z), about the detector plate's centre: `radial` nodes, `below` and `above` rows below and above the plate's
    face, which lies on a row. Node spacing grows outward, r = R sinh(stretch s) / sinh(stretch)."""

    radial: int = eqx.field(static=True, default=128)
    below: int = eqx.field(static=True, default=96)
    above: int = eqx.field(static=True, default=64)
    stretch: float = eqx.field(static=True, default=2.5)


class Cartesian(eqx.Module):
    """Solve in (x, y, z): `lateral` nodes along x and y each (finer near the axis), `below` and `above` rows below and above
    the highest point of the plate's face."""

    lateral: int = eqx.field(static=True, default=81)
    below: int = eqx.field(static=True, default=40)
    above: int = eqx.field(static=True, default=24)
    stretch: float = eqx.field(static=True, default=3.0)


class UniformField(eqx.Module):
    """The field between two endless plates: potential = `gradient_z_v_per_mm` z, z in mm. Gradient: exact."""

    gradient_z_v_per_mm: Scalar = eqx.field(converter=as_real)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm) at a position in image axes (mm)."""
        slope = self.gradient_z_v_per_mm.astype(position_mm.dtype)
        return slope * position_mm[2], slope * jnp.array([0.0, 0.0, 1.0], position_mm.dtype)


class AxisymmetricField(eqx.Module):
    """A field symmetric about the vertical through `centre_mm`, as spline coefficients `[z, r]` between specimen and plate."""

    coefficients: Float[Array, "z r"]
    centre_mm: Float[Array, "2"]
    height_mm: Scalar
    radius_mm: Scalar
    residual: Scalar
    iterations: Int[Array, ""]
    stretch: float = eqx.field(static=True)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm, E = -gradient) at one position (mm, image axes). Beyond the plate's face
        the potential goes on linearly. Gradient: exact."""
        rows, columns = (n - 3 for n in self.coefficients.shape)
        offset = position_mm[:2] - self.centre_mm
        # Rounds the cone r = |offset| off where its slope is undefined; the potential is even in r, so nothing is lost.
        small = 1e-3 * self.radius_mm / columns
        radius = jnp.sqrt(offset[0] ** 2 + offset[1] ** 2 + small**2)
        bend = np.sinh(self.stretch) / self.radius_mm
        place_r = jnp.arcsinh(bend * radius) * (columns / self.stretch)
        slope_r = bend * (columns / self.stretch) / jnp.sqrt(1.0 + (bend * radius) ** 2)
        per_mm = rows / self.height_mm
        value, (along_z, along_r) = spline_sample(self.coefficients, (position_mm[2] * per_mm, place_r))
        lateral = (along_r * slope_r / radius) * offset
        return value, jnp.stack([lateral[0], lateral[1], along_z * per_mm])

    def potential_v(self, position_mm: Vector) -> Scalar:
        """Potential at one position (mm, image axes), V. Gradient: exact."""
        return self.sample(position_mm)[0]

    def gradient_v_per_mm(self, position_mm: Vector) -> Vector:
        """Gradient of the potential, V/mm; the field strength is its negative. Gradient: exact."""
        return self.sample(position_mm)[1]


class CartesianField(eqx.Module):
    """A field without symmetry, as spline coefficients `[x, y, z]` between `bottom_mm` and `top_mm`."""

    coefficients: Float[Array, "x y z"]
    bottom_mm: Scalar
    top_mm: Scalar
    radius_mm: Scalar
    residual: Scalar
    iterations: Int[Array, ""]
    stretch: float = eqx.field(static=True)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm, E = -gradient) at one position (mm, image axes). Gradient: exact."""
        columns, rows = self.coefficients.shape[0] - 3, self.coefficients.shape[2] - 3
        bend = np.sinh(self.stretch) / self.radius_mm
        lateral = bend * position_mm[:2]
        scale = 0.5 * columns / self.stretch
        place = jnp.arcsinh(lateral) * scale + 0.5 * columns
        slope = bend * scale / jnp.sqrt(1.0 + lateral**2)
        per_mm = rows / (self.top_mm - self.bottom_mm)
        height = (position_mm[2] - self.bottom_mm) * per_mm
        value, partial = spline_sample(self.coefficients, (place[0], place[1], height))
        return value, jnp.stack([partial[0] * slope[0], partial[1] * slope[1], partial[2] * per_mm])

    def potential_v(self, position_mm: Vector) -> Scalar:
        """Potential at one position (mm, image axes), V. Gradient: exact."""
        return self.sample(position_mm)[0]

    def gradient_v_per_mm(self, position_mm: Vector) -> Vector:
        """Gradient of the potential, V/mm; the field strength is its negative. Gradient: exact."""
        return self.sample(position_mm)[1]


Field = AxisymmetricField | CartesianField | UniformField


def choose_grid(scope: Microscope) -> Axisymmetric | Cartesian:
    """`Cartesian()` where the stage or the plate is tilted or the segments' biases differ, else `Axisymmetric()`.

    Under a JAX transformation nobody can look at the numbers: what is traced counts as symmetric, so choose before and pass
    the choice on where it matters.
    """
    plate, column = scope.detector, scope.column
    tilts = (plate.tilt_x_deg, plate.tilt_y_deg, column.stage_tilt_x_deg, column.stage_tilt_y_deg)
    tilted = any(v is not None and bool(v != 0) for v in map(concrete, tilts))
    bias = concrete(plate.segments.bias_v)
    uneven = bias is not None and bool(np.ptp(bias) != 0)
    return Cartesian() if tilted or uneven else Axisymmetric()


def solve_field(scope: Microscope, grid: Axisymmetric | Cartesian | None = None) -> AxisymmetricField | CartesianField:
    """The electrostatic field of the microscope's chamber, from Laplace's equation.

    Electrodes: the specimen's plane at `column.specimen_bias_v`; the plate, from the smallest inner to the largest outer radius
    of the segments, at their mean bias (3D: each part at the bias of the nearest segment); pole piece, wall and lid at 0 V.
    `grid` is `Axisymmetric(...)` (direct solve; ignores tilts, takes the mean of the biases and puts the pole piece's bore over the
    plate's centre) or `Cartesian(...)` (conjugate gradients); by default `choose_grid(scope)` decides. In 3D a tilted
    stage goes on at the height of its rim beyond the plate's outer radius.

    Returns a record with `potential_v(position_mm)`, `gradient_v_per_mm(position_mm)`, the linear solver's true relative
    `residual` and its `iterations` (0 where direct).
    Gradient: exact for the discrete system (3D: to the solver's tolerance) in biases, distances, radii, thickness, offsets and
    (3D) tilts; zero in segment azimuths, and in tilts when axisymmetric. Where an edge passes a grid node the derivative
    jumps by a relative O(h).
    """
    grid = choose_grid(scope) if grid is None else grid
    if isinstance(grid, Axisymmetric):
        return _solve_axisymmetric(scope, grid)
    _check_room(scope)
    return _solve_cartesian(scope, grid)


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
    height = _two_sections(as_real(0.0).astype(dtype), plate.distance_mm, lid, grid.below, grid.above)
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
        Electrode(lambda z, r: _deepest(face - z, z - back, hole - r, r - outer), bias),
        Electrode(lambda z, r: _deepest(roof - z, bore - r, r - pole), 0.0),
        Electrode(lambda z, r: jnp.minimum(wall - r, lid - z), 0.0),
    ]


def plate_radii(scope: Microscope) -> tuple[Scalar, Scalar]:
    """Radius of the plate's hole and of the plate, mm. Gradient: exact (shared where segments tie)."""
    segments = scope.detector.segments
    return jnp.min(segments.inner_radius_mm), jnp.max(segments.outer_radius_mm)


@jax.jit
def _solve_cartesian(scope: Microscope, grid: Cartesian) -> CartesianField:
    axes = _cartesian_axes(scope, grid)
    electrodes = _cartesian_electrodes(scope)
    solution = solve_iterative(connect(axes, cartesian_areas(*axes), electrodes))
    rows = grid.below + 1
    smooth = _extend_into_metal((axes[0], axes[1], axes[2][:rows]), electrodes, solution, rows)
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
    plate, stage = detector_plane(scope), stage_plane(scope)
    dtype = outer.dtype
    spread = jnp.asarray(np.sinh(grid.stretch * np.linspace(-1, 1, grid.lateral)) / np.sinh(grid.stretch), dtype)
    low = -outer * jnp.sum(jnp.abs(stage.normal[:2])) / stage.normal[2]
    high = plate.origin_mm[2] + outer * jnp.sum(jnp.abs(plate.axes[:2, 2]))
    lid = jnp.maximum(column.working_distance_mm, high) + BORE_DEPTH * column.bore_radius_mm
    lateral = column.chamber_radius_mm * spread
    return lateral, lateral, _two_sections(low, high, lid, grid.below, grid.above)


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
        return _deepest(-above, above - plate.thickness_mm, hole - rho, rho - outer)

    lid = jnp.maximum(roof, face.origin_mm[2] + outer * jnp.sum(jnp.abs(face.axes[:2, 2]))) + BORE_DEPTH * bore
    return [
        Electrode(specimen, column.specimen_bias_v),
        Electrode(ring, lambda x, y, z: _nearest_bias(plate.segments, *_local(face, x, y, z)[:2])),
        Electrode(lambda x, y, z: _deepest(roof - z, bore - _radius(x, y), _radius(x, y) - pole), 0.0),
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
        miss = aside + jnp.maximum(_deepest(fixed.inner_radius_mm[k] - rho, rho - fixed.outer_radius_mm[k]), 0.0)
        bias = jnp.where(miss < best, segments.bias_v[k], bias)
        best = jnp.minimum(miss, best)
    return bias


def _extend_into_metal(axes, electrodes: list[Electrode], solution: Solution, rows: int) -> Array:
    """The potential with the metal's inside replaced by the straight continuation, along z, of what lies before it.

    Inside a conductor the potential is constant; a spline across that kink would ring where electrons start and land.
    """
    raw = jnp.moveaxis(solution.potential_v[:, :, :rows], -1, 0)
    cut, fraction, met = (jnp.moveaxis(a, -1, 0) for a in crossings(axes, electrodes, 2))
    nodes = jnp.broadcast_to(axes[0][None, :, None], raw.shape), jnp.broadcast_to(axes[1][None, None, :], raw.shape)
    heights = jnp.broadcast_to(axes[2][:, None, None], raw.shape)
    metal = jnp.min(jnp.stack([e.distance(*nodes, heights) for e in electrodes]), axis=0) <= 0
    under = jnp.cumsum(~metal, axis=0) == 0

    def sweep(values, metal, cut, fraction, met):
        none = jnp.zeros_like(values[0])

        def step(carry, row):
            last, before, slope = carry
            value, inside, enters, t, surface = row
            slope = jnp.where(enters, (surface - before) / (1.0 + t), slope)
            extended = jnp.where(enters, surface + slope * (1.0 - t), last + slope)
            value = jnp.where(inside, extended, value)
            return (value, last, slope), value

        first = (values[0], values[0], none)
        rows = (values[1:], metal[1:], cut & metal[1:] & ~metal[:-1], fraction, met)
        return jnp.concatenate([values[:1], lax.scan(step, first, rows)[1]])

    upward = sweep(raw, metal & ~under, cut, fraction, met)
    downward = sweep(upward[::-1], under[::-1], cut[::-1], fraction[::-1], met[::-1])
    return jnp.moveaxis(downward[::-1], 0, -1)


def _check_room(scope: Microscope) -> None:
    """Raise `InputError` where a tilted stage or plate touches its neighbour (what is being traced is skipped)."""
    _, outer = plate_radii(scope)
    plate, stage = detector_plane(scope), stage_plane(scope)
    numbers = [concrete(v) for v in (outer, plate.axes, stage.axes, plate.origin_mm, scope.column.working_distance_mm)]
    if any(v is None for v in numbers):
        return
    reach, plate_axes, stage_axes, origin, roof = numbers
    rise = reach * np.hypot(*plate_axes[:2, 2])
    if origin[2] + rise > roof + 1e-6 and rise > 0:
        raise InputError(
            f"the tilted detector plate rises {rise:g} mm above its centre at {origin[2]:g} mm and touches the pole piece at "
            f"column.working_distance_mm = {roof:g}: reduce detector.tilt_*_deg or raise the working distance."
        )
    stage_rise = reach * np.hypot(*stage_axes[2, :2]) / stage_axes[2, 2]
    if stage_rise >= origin[2] - rise:
        raise InputError(
            f"the tilted stage rises {stage_rise:g} mm under the detector plate at {origin[2] - rise:g} mm and touches it: "
            "reduce column.stage_tilt_*_deg or raise detector.distance_mm."
        )


def _two_sections(low: Array, middle: Array, high: Array, below: int, above: int) -> Array:
    """Uniform nodes from `low` to `middle`, then from `middle` to `high`; both ends and the middle are met exactly."""
    first = jnp.asarray(np.linspace(0, 1, below + 1), low.dtype)
    second = jnp.asarray(np.linspace(0, 1, above + 1)[1:], low.dtype)
    lower = low * (1.0 - first) + middle * first
    return jnp.concatenate([lower, middle * (1.0 - second) + high * second])


def _local(plane: Plane, x: Array, y: Array, z: Array) -> list[Array]:
    dx, dy, dz = x - plane.origin_mm[0], y - plane.origin_mm[1], z - plane.origin_mm[2]
    return [row[0] * dx + row[1] * dy + row[2] * dz for row in plane.axes]


def _radius(x: Array, y: Array) -> Array:
    """hypot with a derivative (zero) on the axis."""
    squared = x**2 + y**2
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)


def _deepest(*distances: Array) -> Array:
    """Signed distance to what lies inside all of several surfaces."""
    out = distances[0]
    for distance in distances[1:]:
        out = jnp.maximum(out, distance)
    return out
