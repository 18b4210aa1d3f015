"""The inverse of a flight: which way an electron must leave the specimen to land on a given point of the detector.

In a uniform field the answer is a closed form. What the real field adds is small: directions whose closed-form landing
points are a polar grid on the plate are traced once, and the misses (where they land minus where the closed form says)
are interpolated, by cubic splines along diameters and trigonometrically around. Newton inverts "point + miss(point)".
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from eclipsjax._types import Scalar, as_real
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.plane import Plane, detector_plane
from eclipsjax.instrument.spline import OPEN, spline_coefficients, spline_weights
from eclipsjax.instrument.trajectories import REST_ENERGY_KEV, trace

# Fraction of the closed form's range to trust in a retarding field: at the very end electrons graze the plate, and the
# landing point moves infinitely fast with direction.
TRUSTED_RANGE = 0.95
CHORD_STEPS = 5


class Uniform(eqx.Module):
    """The uniform field that comes nearest: what is needed to invert its parabola in the plate's own frame.

    - `foot_mm`: `(2,)` the emission point's foot on the plate; `gap_mm`: its distance from the plate.
    - `ratio`: u = (momentum at the plate / momentum at the specimen)^2 - 1.
    """

    foot_mm: Float[Array, "2"]
    gap_mm: Scalar
    ratio: Scalar

    @property
    def range_mm(self) -> Scalar:
        """How far from the foot electrons get: 2 D sqrt((1 + u) / -u), infinite unless the field retards."""
        slowing = self.ratio < 0
        share = jnp.maximum(1.0 + self.ratio, 0.0) / jnp.where(slowing, -self.ratio, 1.0)
        root = jnp.sqrt(jnp.where(share > 0, share, 1.0))
        limit = jnp.where(share > 0, 2 * TRUSTED_RANGE * self.gap_mm * root, 0.0)
        return jnp.where(slowing, limit, jnp.inf)

    def clip(self, point_mm: Float[Array, "2"]) -> Float[Array, "2"]:
        """The point, or where the way to it from the foot leaves the range."""
        away = point_mm - self.foot_mm
        squared, limit = jnp.vdot(away, away), self.range_mm
        beyond = squared > limit**2
        shrink = jnp.where(beyond, limit, 1.0) * lax.rsqrt(jnp.where(beyond, squared, 1.0))
        return jnp.where(beyond, self.foot_mm + shrink * away, point_mm)

    def direction(self, point_mm: Float[Array, "2"]) -> Float[Array, "3"]:
        """Emission direction, in the plate's frame, that lands on a point within the range.

        With q = r / 2D the parabola of a uniform field inverts to
        sin^2(theta) = q^2 (u + 2 + 2 sqrt(1 + u - q^2 u^2)) / (1 + 4 q^2).
        """
        way = (point_mm - self.foot_mm) / (2 * self.gap_mm)
        squared = jnp.vdot(way, way)
        inner = 1.0 + self.ratio - squared * self.ratio**2
        inner = jnp.where(inner > 0, jnp.sqrt(jnp.where(inner > 0, inner, 1.0)), 0.0)
        share = (self.ratio + 2.0 + 2.0 * inner) / (1.0 + 4.0 * squared)
        lateral = way * jnp.sqrt(jnp.where(share > 0, share, 1.0))
        return jnp.append(lateral, jnp.sqrt(jnp.maximum(1.0 - jnp.vdot(lateral, lateral), 1e-12)))


class Misses(eqx.Module):
    """Misses on the plate out to `radius_mm`, interpolated: `coefficients[place, diameter, (x, y, landed)]`."""

    coefficients: Float[Array, "r phi 3"]
    radius_mm: Scalar

    def __call__(self, point_mm: Float[Array, "2"]) -> tuple[Float[Array, "2"], Scalar]:
        """Miss (mm) at a point of the plate, and how surely electrons sent there land (1: all around it do)."""
        rows, diameters = self.coefficients.shape[0] - 3, self.coefficients.shape[1]
        squared = jnp.vdot(point_mm, point_mm)
        # The centre has no azimuth; a point a nanometre beside it will do.
        nudged = jnp.where(squared > 1e-12, point_mm, jnp.array([1e-6, 0.0], point_mm.dtype))
        radius = jnp.sqrt(jnp.vdot(nudged, nudged))
        azimuth = jnp.arctan2(nudged[1], nudged[0])
        shares = _around(azimuth, 2 * diameters)
        total = jnp.zeros(3, point_mm.dtype)
        for sign, share in ((1.0, shares[:diameters]), (-1.0, shares[diameters:])):
            place = 0.5 * rows * (1.0 + sign * radius / self.radius_mm)
            first, weight, _ = spline_weights(rows, place)
            patch = lax.dynamic_slice_in_dim(self.coefficients, first, 4)
            total = total + share @ jnp.tensordot(weight, patch, axes=1)
        return total[:2], total[2]


def aim(
    scope: Microscope,
    field: Any,
    beam_xy_mm: Float[Array, "2"],
    energy_kev: Scalar,
    targets_mm: Float[Array, "n 3"],
    *,
    radial: int = 40,
    diameters: int = 8,
    step: float = 0.4,
    adjoint: Any = None,
) -> tuple[Float[Array, "n 3"], Bool[Array, "n"]]:
    """Directions in which electrons leave the specimen to land on points of the detector plate.

    - `scope`: gives the detector's plane and the biases; `field`: what `solve_field` returned for it.
    - `beam_xy_mm`: emission point (beam_x, beam_y, 0), mm, image axes; `energy_kev`: scalar emission energy.
    - `targets_mm`: `(n, 3)` points on the plate's plane, mm, image axes.
    - `radial`, `diameters`: traced directions along each diameter of the plate, and how many diameters.
    - `step`, `adjoint`: of the flights, as in `trace`; the default step costs 2e-6 mm.

    Returns unit vectors `(n, 3)` in image axes with z up, and whether electrons get there at all `(n,)`. Where a
    retarding field turns them back, the direction is that of the farthest point reached on the way from the emission
    point's foot; near that limit landing points are good to 0.05 mm only (measured at u = -0.9).
    Batch energies and beam positions with `jax.vmap`.
    Gradient: exact for the interpolated flights in field, biases, energy, beam position, plate and targets (implicit
    function theorem, one Newton step); where not reachable, that of the uniform field's range.
    """
    dtype = targets_mm.dtype
    plane = detector_plane(scope)
    start = jnp.append(as_real(beam_xy_mm).astype(dtype), jnp.zeros(1, dtype))
    energy = as_real(energy_kev).astype(dtype)
    uniform = _nearest_uniform(scope, plane, start, energy)
    points = jax.vmap(plane.to_local)(targets_mm)[:, :2]
    misses = _trace_misses(field, plane, start, energy, uniform, points, (radial, diameters), step, adjoint)
    known = lax.stop_gradient((misses, points))

    def solve(target, fixed_target):
        slope = _slope(known[0], fixed_target)
        root = lax.fori_loop(0, CHORD_STEPS, lambda _, p: _step(known[0], slope, fixed_target, p), fixed_target)
        point = _step(misses, _slope(known[0], root), target, lax.stop_gradient(root))
        miss, landed = misses(point)
        # Targets out of reach have no root; the way to them is then clipped as in the uniform field.
        found = jnp.sum((point + miss - target) ** 2) < (1e-3 * uniform.gap_mm) ** 2
        point = jnp.where(found, point, target)
        clipped = uniform.clip(point)
        reached = found & (landed > 0.99) & jnp.all(clipped == point)
        return plane.axes.T @ uniform.direction(clipped), reached

    return jax.vmap(solve)(points, known[1])


def _slope(misses: Misses, point: Array) -> Float[Array, "2 2"]:
    """Derivative of the landing point by the closed form's."""
    return lax.stop_gradient(jax.jacfwd(lambda p: p + misses(p)[0])(point))


def _step(misses: Misses, slope: Array, target: Array, point: Array) -> Float[Array, "2"]:
    """One Newton step (chord step where `slope` is an older one) toward point + miss(point) = target."""
    error = point + misses(point)[0] - target
    determinant = slope[0, 0] * slope[1, 1] - slope[0, 1] * slope[1, 0]
    step_x = slope[1, 1] * error[0] - slope[0, 1] * error[1]
    step_y = slope[0, 0] * error[1] - slope[1, 0] * error[0]
    return point - jnp.stack([step_x, step_y]) / determinant


def _nearest_uniform(scope: Microscope, plane: Plane, start: Array, energy: Array) -> Uniform:
    gained = 1e-3 * (jnp.mean(scope.detector.segments.bias_v) - scope.column.specimen_bias_v)
    final = energy + gained.astype(energy.dtype)
    ratio = final * (final + 2 * REST_ENERGY_KEV) / (energy * (energy + 2 * REST_ENERGY_KEV)) - 1.0
    local = plane.to_local(start)
    # An electron without the energy for the plate has no real final momentum; any u <= -1 says so.
    return Uniform(local[:2], -local[2], jnp.where(final > 0, ratio, -1.0))


def _trace_misses(field, plane, start, energy, uniform, points, shape, step, adjoint) -> Misses:
    radial, diameters = shape
    dtype = start.dtype
    # The grid spans the targets, or what electrons can reach of them, about the plate's centre.
    away = jnp.sum(uniform.foot_mm**2)
    reach = uniform.range_mm + jnp.where(away > 0, jnp.sqrt(jnp.where(away > 0, away, 1.0)), 0.0)
    radius = jnp.minimum(jnp.sqrt(jnp.max(jnp.sum(points**2, axis=1))), reach)
    radius = jnp.maximum(radius, 1e-3 * uniform.gap_mm)
    across = jnp.asarray(np.linspace(-1, 1, radial), dtype)
    angle = np.pi * np.arange(diameters) / diameters
    spokes = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=-1), dtype)
    grid = (radius * across[:, None, None] * spokes[None]).reshape(-1, 2)

    def miss(point):
        nominal = uniform.clip(point)
        direction = plane.axes.T @ uniform.direction(nominal)
        flight = trace(field, start, direction, energy, plane, step=step, adjoint=adjoint)
        off = plane.to_local(flight.position_mm)[:2] - nominal
        landed = flight.landed
        return jnp.append(jnp.where(landed, off, 0.0), landed.astype(dtype))

    values = jax.vmap(miss)(grid).reshape(radial, diameters, 3)
    return Misses(spline_coefficients(values, (OPEN,)), radius)


def _around(azimuth: Array, count: int) -> Float[Array, "{count}"]:
    """Shares of `count` equally spaced samples in the trigonometric interpolant at `azimuth` (`count` even)."""
    turn = azimuth - jnp.asarray(2 * np.pi * np.arange(count) / count, azimuth.dtype)
    order = jnp.asarray(np.arange(1, count // 2), azimuth.dtype)
    waves = jnp.sum(jnp.cos(order[:, None] * turn[None, :]), axis=0)
    return (1.0 + 2.0 * waves + jnp.cos(0.5 * count * turn)) / count
