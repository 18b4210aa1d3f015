"""Closed-form photometric stereo for any layout of three or more segments: one linear fit per pixel.

For the cosine law and a pixel that nothing hides, signal_k sqrt(1 + p^2 + q^2) = A_k + G_k . (p, q) exactly, A and G
being the acceptance table's own response to a level pixel and to its two leans. So levels are linear in
u = brightness / sqrt(1 + p^2 + q^2) * (1, p, q): weighted least squares, then p = u_1 / u_0 and q = u_2 / u_0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from eclipsjax._types import InputError, Map, SignalStack, concrete
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import SlopeMatrix, level_precision, slope_response
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.specimen.emission import EmissionLaw, Lambertian
from eclipsjax.specimen.horizon import NoRelief

# Leans beyond what any segment can see (89 deg) come of noise.
_STEEPEST = 57.0
_AZIMUTHS = 64


class Slopes(eqx.Module):
    """Slopes of every pixel with their covariance, and its brightness.

    - `slope_x`, `slope_y`: `(y, x)`, dz/dx and dz/dy (y down).
    - `covariance`: `(y, x, 2, 2)` of the two slopes, from the levels' noise, brightness unknown.
    - `brightness`: `(y, x)`, electrons emitted per unit of dose times grey levels per electron: what multiplies the
      signal.
    - `chi_square`: `(y, x)`, what the fit leaves, in units of the noise; expected: segments - 3.
    - `residual`: `(segment, y, x)`, the same level by level, each in units of its noise.

    Gradient: exact in the levels.
    """

    slope_x: Map
    slope_y: Map
    covariance: SlopeMatrix
    brightness: Map
    chi_square: Map
    residual: SignalStack


def photometric_slopes(
    measurement: Measurement,
    table: AcceptanceTable,
    emission: EmissionLaw | None = None,
    rounds: int | None = None,
    pixel_size_nm: Any = 1.0,
) -> Slopes:
    """Slopes that explain each pixel's own levels best, its surroundings left aside.

    **Arguments:**

    - `measurement`: from `measure(images, scope)`; levels that were cut off are taken as they are.
    - `table`: from `acceptance(scope)`.
    - `emission`: the angular law, `Lambertian()` unless given.
    - `rounds`: Gauss-Newton rounds after the closed form, for other laws (3 unless given) and for pixels so steep that
      they cut off part of a segment themselves (static; 0 unless given for the cosine law).
    - `pixel_size_nm`: nm; matters only to a table with a field of view.

    Gradient: exact in levels and table.
    """
    emission = Lambertian() if emission is None else emission
    if rounds is None:
        rounds = 0 if isinstance(emission, Lambertian) else 3
    _check_directions(table, emission)
    return _photometric_slopes(measurement, table, emission, pixel_size_nm, rounds)


@partial(jax.jit, static_argnames=("shape", "azimuths"))
def flat_response(
    table: AcceptanceTable,
    emission: EmissionLaw,
    shape: tuple[int, int] = (1, 1),
    pixel_size_nm: Any = 1.0,
    azimuths: int = _AZIMUTHS,
) -> Float[Array, "segment 3 y x"]:
    """Signal of a level pixel, and its derivatives with respect to the pixel's two slopes. Gradient: exact.

    `(segment, 3, 1, 1)`, or a map of `shape` where the table follows the beam across the image.
    """
    shape = shape if table.follows_beam else (1, 1)
    dtype = table.theta.dtype
    level = jnp.zeros(shape, dtype)
    facets = Facets(level, jnp.asarray(pixel_size_nm, dtype), level, level)
    signal, response = slope_response(facets, table, azimuths, emission, NoRelief())
    return jnp.concatenate([signal[:, None], jnp.moveaxis(response, 0, 1)], axis=1)


def _check_directions(table: AcceptanceTable, emission: EmissionLaw) -> None:
    matrix = concrete(flat_response(table, emission)[..., 0, 0])
    if matrix is None:
        return
    values = np.linalg.svd(matrix, compute_uv=False)
    if len(values) < 3 or values[2] < 1e-4 * values[0]:
        raise InputError(
            "the segments' azimuths do not tell both slopes and the brightness apart: heights need at least three "
            "segments that look from different sides, so check start_deg and stop_deg of the microscope."
        )


@partial(jax.jit, static_argnames="rounds")
def _photometric_slopes(measurement, table, emission, pixel_size_nm, rounds) -> Slopes:
    level = measurement.level
    response = flat_response(table, emission, level.shape[1:], pixel_size_nm).astype(level.dtype)
    response = jnp.broadcast_to(response, (*response.shape[:2], *level.shape[1:]))
    precision = measurement.noise.precision(level)
    u, information = _weighted_fit(response, precision, level)
    slopes = _leaning(u)
    for _ in range(rounds):
        slopes, information = _gauss_newton(slopes, measurement, precision, table, emission, pixel_size_nm)
    slope_x, slope_y, brightness = slopes
    left = level - brightness[None] * _signal(slope_x, slope_y, table, emission, pixel_size_nm, rounds, response)
    chi_square = jnp.einsum("kyx,yxkl,lyx->yx", left, precision, left)
    residual = left / measurement.std[:, None, None]
    return Slopes(slope_x, slope_y, _covariance(slopes, information, rounds > 0), brightness, chi_square, residual)


def _weighted_fit(response, precision, level) -> tuple[Float[Array, "y x 3"], Float[Array, "y x 3 3"]]:
    """u of every pixel, and its information matrix."""
    pulled = jnp.einsum("kayx,yxkl->yxal", response, precision)
    information = jnp.einsum("yxak,kbyx->yxab", pulled, response)
    right = jnp.einsum("yxak,kyx->yxa", pulled, level)
    return _solve_3(information, right), information


def _solve_3(matrix: Float[Array, "y x 3 3"], right: Float[Array, "y x 3"]) -> Float[Array, "y x 3"]:
    """Solutions of symmetric 3 x 3 systems by cofactors: LAPACK's batches are slow, and need no pivoting here."""
    return jnp.einsum("yxab,yxb->yxa", _inverse_3(matrix), right)


def _inverse_3(matrix: Float[Array, "y x 3 3"]) -> Float[Array, "y x 3 3"]:
    # Scaled to a unit diagonal, so that determinants neither under- nor overflow in single precision.
    size = jnp.sqrt(jnp.maximum(jnp.einsum("yxaa->yxa", matrix), jnp.finfo(matrix.dtype).tiny))
    m = matrix / (size[..., :, None] * size[..., None, :])
    rows = [m[..., k, :] for k in range(3)]
    cofactors = jnp.stack([jnp.cross(rows[(k + 1) % 3], rows[(k + 2) % 3]) for k in range(3)], axis=-2)
    determinant = jnp.sum(rows[0] * cofactors[..., 0, :], axis=-1)
    safe = jnp.where(determinant > 1e-6, determinant, 1e-6)
    inverse = jnp.swapaxes(cofactors, -1, -2) / safe[..., None, None]
    return inverse / (size[..., :, None] * size[..., None, :])


def _leaning(u: Float[Array, "y x 3"]) -> tuple[Map, Map, Map]:
    """Slopes and brightness of u; what noise makes steeper than any surface is cut to grazing."""
    upward = u[..., 0]
    length = jnp.sqrt(u[..., 1] ** 2 + u[..., 2] ** 2)
    least = jnp.maximum(length / _STEEPEST, jnp.finfo(u.dtype).tiny)
    upward = jnp.maximum(upward, least)
    slope_x, slope_y = u[..., 1] / upward, u[..., 2] / upward
    return slope_x, slope_y, upward * jnp.sqrt(1.0 + slope_x**2 + slope_y**2)


def _at(slope_x, slope_y, pixel_size_nm) -> Facets:
    return Facets(jnp.zeros_like(slope_x), jnp.asarray(pixel_size_nm, slope_x.dtype), slope_x, slope_y)


def _signal(slope_x, slope_y, table, emission, pixel_size_nm, rounds, response):
    if rounds:
        return slope_response(_at(slope_x, slope_y, pixel_size_nm), table, _AZIMUTHS, emission, NoRelief())[0]
    upward = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    return upward[None] * (response[:, 0] + response[:, 1] * slope_x[None] + response[:, 2] * slope_y[None])


def _gauss_newton(slopes, measurement, precision, table, emission, pixel_size_nm):
    """One round on slopes and brightness together, at most half as steep again as before."""
    slope_x, slope_y, brightness = slopes
    signal, change = slope_response(_at(slope_x, slope_y, pixel_size_nm), table, _AZIMUTHS, emission, NoRelief())
    response = jnp.stack([signal, brightness[None] * change[0], brightness[None] * change[1]], axis=1)
    step, _ = _weighted_fit(response, precision, measurement.level - brightness[None] * signal)
    limit = 0.5 + 0.5 * jnp.sqrt(slope_x**2 + slope_y**2)
    size = jnp.sqrt(step[..., 1] ** 2 + step[..., 2] ** 2)
    shorter = jnp.minimum(1.0, limit / jnp.maximum(size, jnp.finfo(size.dtype).tiny))
    new = slope_x + shorter * step[..., 1], slope_y + shorter * step[..., 2], brightness + step[..., 0]
    marginal = level_precision(measurement.noise, brightness[None] * signal)
    response = change * brightness[None, None]
    information = jnp.einsum("ikyx,yxkl,jlyx->yxij", response, marginal, response)
    return new, information


def _covariance(slopes, information, of_slopes: bool) -> SlopeMatrix:
    """Covariance of (slope_x, slope_y) from the information of the slopes, or from that of u."""
    if of_slopes:
        xx, xy, yy = information[..., 0, 0], information[..., 0, 1], information[..., 1, 1]
        determinant = jnp.maximum(xx * yy - xy**2, jnp.finfo(xx.dtype).tiny)
        return jnp.stack([jnp.stack([yy, -xy], -1), jnp.stack([-xy, xx], -1)], -2) / determinant[..., None, None]
    slope_x, slope_y, brightness = slopes
    upward = brightness / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    one, none = jnp.ones_like(upward), jnp.zeros_like(upward)
    to_slopes = jnp.stack([jnp.stack([-slope_x, one, none], -1), jnp.stack([-slope_y, none, one], -1)], -2)
    to_slopes = to_slopes / upward[..., None, None]
    return jnp.einsum("yxia,yxab,yxjb->yxij", to_slopes, _inverse_3(information), to_slopes)
