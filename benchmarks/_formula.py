"""The forward formula of NFH-SEM (arXiv 2508.04728) in place of a simulator, and heights through it.

    level_i = R(theta) [d_i cos(phi_i - phi) sin(theta) + c_i cos(theta)] + e_i,   R = 1 + r_1 theta + ... + r_4 theta^4

theta and phi being the inclination of the surface and the azimuth it leans to, phi_i that of segment i. It knows no
relief around a pixel: what lies in shadow is left out by its residual. Written from the paper's text; the paper has
several views, and a neural field where this has heights.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from _peers import closed_form_slopes
from _scenes import Recording, acceptance

import eclipsjax as ej
from eclipsjax._cosine import (
    cosine_modes_2d,
    frequencies,
    from_cosine_modes_2d,
    inverse_or_zero,
)
from eclipsjax.inverse.descent import descend

# Planes of the calibration: inclinations and azimuths, deg.
_TILTS, _AZIMUTHS = np.arange(0.0, 60.1, 2.5), np.arange(0.0, 360.0, 15.0)
_FIT_ROUNDS = 60
# Residual in standard deviations that counts as shadow; how often it is looked for; most steps between.
_SHADOW, _MASKS, _STEPS, _ENOUGH = 3.0, 3, 30, 3e-5


class Formula(eqx.Module):
    """The formula's numbers, `(segment,)` but for `bend`, `(4,)`. 16 for four segments."""

    lean: jax.Array
    level: jax.Array
    offset: jax.Array
    bend: jax.Array
    azimuth: jax.Array

    def __call__(self, slope_x: Any, slope_y: Any) -> jax.Array:
        """Levels `(segment, y, x)` of surfaces that lean so."""
        square = slope_x**2 + slope_y**2
        upright = 1.0 / jnp.sqrt(1.0 + square)
        # The angle's slope at 0 is infinite.
        theta = jnp.arctan(jnp.sqrt(square + 1e-12))
        powers = jnp.stack([theta**k for k in range(1, 5)])
        bend = 1.0 + jnp.einsum("k,kyx->yx", self.bend, powers)
        across, up = jnp.cos(self.azimuth)[:, None, None], jnp.sin(self.azimuth)[:, None, None]
        toward = up * slope_y[None] - across * slope_x[None]
        lit = self.lean[:, None, None] * toward + self.level[:, None, None]
        return bend[None] * upright[None] * lit + self.offset[:, None, None]


def calibrated(scope: ej.Microscope, table: ej.AcceptanceTable) -> Formula:
    """The formula fitted to rendered planes of `scope`: Gauss-Newton, each plane by how much of a sphere it is."""
    tilt, azimuth = np.meshgrid(np.radians(_TILTS), np.radians(_AZIMUTHS), indexing="ij")
    dtype = table.theta.dtype
    slopes = [jnp.asarray(-np.tan(tilt) * part, dtype) for part in (np.cos(azimuth), -np.sin(azimuth))]
    levels = ej.render(ej.Facets.isolated(*slopes), table, horizon=ej.NoRelief())
    weight = jnp.asarray(np.sqrt(np.maximum(np.sin(tilt), 0.02) * np.cos(tilt)), dtype)
    segments = scope.detector.segments
    middle = jnp.deg2rad(0.5 * (segments.start_deg + segments.stop_deg)).astype(dtype)
    flat = levels[:, 0, 0]
    start = Formula(flat, flat, 0.0 * flat, jnp.zeros(4, dtype), middle)
    return _fitted(start, slopes[0], slopes[1], levels / jnp.mean(flat), weight, jnp.mean(flat))


@jax.jit
def _fitted(start, slope_x, slope_y, levels, weight, unit) -> Formula:
    """Levenberg's steps on levels in units of the flat one."""
    names = ("lean", "level", "offset", "bend")
    known = jnp.concatenate([start.lean / unit, start.level / unit, start.offset / unit, start.bend])
    count = start.lean.size

    def formula(numbers, scale=1.0):
        parts = [numbers[k * count : (k + 1) * count] * scale for k in range(3)] + [numbers[3 * count :]]
        return eqx.tree_at(lambda f: tuple(getattr(f, n) for n in names), start, tuple(parts))

    def residual(numbers):
        return (weight[None] * (formula(numbers)(slope_x, slope_y) - levels)).ravel()

    def step(numbers, _):
        response, rest = jax.jacfwd(residual)(numbers), residual(numbers)
        normal = response.T @ response
        damped = normal + 1e-7 * jnp.trace(normal) / len(numbers) * jnp.eye(len(numbers), dtype=normal.dtype)
        return numbers - jnp.linalg.solve(damped, response.T @ rest), None

    numbers, _ = jax.lax.scan(step, known, None, length=_FIT_ROUNDS)
    return formula(numbers, unit)


class Fit(eqx.Module):
    """What is minimised: levels, their noise, which of them lie in shadow, and a weight on second differences that
    makes least squares on central differences the same as Poisson integration where nothing is hidden."""

    formula: Formula
    levels: jax.Array
    std: jax.Array
    lit: jax.Array
    slope_std: jax.Array

    def residual(self, height_px: jax.Array) -> jax.Array:
        """In standard deviations, shadows included."""
        one = jnp.ones((), height_px.dtype)
        return (self.levels - self.formula(*ej.Surface(height_px, one).slopes())) / self.std[:, None, None]

    def value(self, height_px: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Half the sum of squares, and that of the residual alone."""
        square = jnp.sum(jnp.where(self.lit, self.residual(height_px) ** 2, 0.0))
        bent = sum(jnp.sum(jnp.diff(height_px, 2, axis) ** 2) for axis in (0, 1))
        return 0.5 * (square + bent / (4.0 * self.slope_std**2)), square


_value_and_gradient = jax.jit(lambda height, fit: jax.value_and_grad(fit.value, has_aux=True)(height))
_residual = jax.jit(lambda height, fit: fit.residual(height))


@jax.jit
def _solve(gradient: jax.Array, slope_std: jax.Array) -> jax.Array:
    """A step for a gradient, in the model of a level specimen without shadows: diagonal in cosine modes."""
    ky, kx = (frequencies(n, gradient.dtype) for n in gradient.shape)
    ky, kx = ky[:, None], kx[None, :]
    told = jnp.sin(kx) ** 2 + jnp.sin(ky) ** 2
    stiff = 4.0 * (jnp.sin(0.5 * kx) ** 4 + jnp.sin(0.5 * ky) ** 4)
    return from_cosine_modes_2d(cosine_modes_2d(gradient) * inverse_or_zero((told + stiff) / slope_std**2))


def through_formula(recording: Recording, masks: int = _MASKS) -> np.ndarray:
    """Heights, nm, whose levels by the formula are nearest to the measured ones, from those of the closed form on.

    `masks`: how often what deviates too far is taken for shadow and left out; 0: all levels count.
    """
    measurement, slopes = closed_form_slopes(recording)
    start_nm = ej.integrate(slopes.slope_x, slopes.slope_y, recording.pixel_nm)
    levels = measurement.level
    flat = ej.Surface(jnp.zeros(levels.shape[1:], levels.dtype), recording.pixel_nm)
    formula = calibrated(recording.scope, acceptance(recording.scope, flat))
    fit = Fit(formula, levels, measurement.std, jnp.ones(levels.shape, bool), _slope_std(formula, measurement.std))
    height = _descended(fit, start_nm / recording.pixel_nm)
    for _ in range(masks):
        fit = eqx.tree_at(lambda f: f.lit, fit, jnp.abs(_residual(height, fit)) < _SHADOW)
        height = _descended(fit, height)
    return np.asarray(height, np.float64) * recording.pixel_nm


def _slope_std(formula: Formula, std: jax.Array) -> jax.Array:
    toward = jnp.stack([-jnp.cos(formula.azimuth), jnp.sin(formula.azimuth)]) * formula.lean[None] / std[None]
    return jnp.sqrt(0.5 * jnp.trace(jnp.linalg.inv(toward @ toward.T)))


def _descended(fit: Fit, height: jax.Array) -> jax.Array:
    def evaluate(height):
        (value, square), gradient = _value_and_gradient(height, fit)
        return float(value), float(square), gradient

    small = 0
    for point in descend(evaluate, lambda _: lambda gradient: _solve(gradient, fit.slope_std), height):
        height = point.unknowns
        small = small + 1 if point.decrease < _ENOUGH * point.value else 0
        if small == 2 or point.steps >= _STEPS:
            break
    return height
