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
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map, SignalStack, concrete
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import SlopeMatrix, Weigher, level_precision, slope_response
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.specimen.emission import EmissionLaw, Lambertian, law_of
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
    emission = law_of(emission)
    if rounds is None:
        rounds = 0 if isinstance(emission, Lambertian) else 3
    check_directions(table, emission)
    return _photometric_slopes(measurement, table, emission, pixel_size_nm, rounds)


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
    return _flat_response(table, emission, shape, jnp.asarray(pixel_size_nm, table.theta.dtype), azimuths)


@partial(jax.jit, static_argnames=("shape", "azimuths"))
def _flat_response(table, emission, shape, pixel_nm, azimuths) -> Float[Array, "segment 3 y x"]:
    level = jnp.zeros(shape, table.theta.dtype)
    facets = Facets(level, pixel_nm, level, level)
    signal, response = slope_response(facets, table, azimuths, emission, NoRelief())
    return jnp.concatenate([signal[:, None], jnp.moveaxis(response, 0, 1)], axis=1)


def check_directions(table: AcceptanceTable, emission: EmissionLaw) -> None:
    """Raise `InputError` where the segments look from too few sides (skipped while tracing)."""
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
    weigher = measurement.noise.weigher(level)
    reader, covariance = linear_reader(response, weigher)
    slopes = leaning(read(reader, level))
    slope_covariance = _covariance(slopes, covariance)
    for _ in range(rounds):
        slopes, slope_covariance = _gauss_newton(slopes, measurement, weigher, table, emission, pixel_size_nm)
    slope_x, slope_y, brightness = slopes
    left = level - brightness[None] * _signal(slope_x, slope_y, table, emission, pixel_size_nm, rounds, response)
    chi_square = jnp.sum(left * weigher(left), axis=0)
    residual = left / measurement.std[:, None, None]
    return Slopes(slope_x, slope_y, slope_covariance, brightness, chi_square, residual)


def linear_reader(
    response: Float[Array, "segment 3 ..."], weigher: Weigher
) -> tuple[Float[Array, "3 segment y x"], Float[Array, "3 3 y x"]]:
    """What to multiply levels with for the u that explain them best by `response` . u, and the covariance of u.

    `response`: `(segment, 3, y, x)`, or `(segment, 3, 1, 1)` for all pixels. Gradient: exact.
    """
    pulled = [weigher(jnp.broadcast_to(response[:, a], weigher.own.shape)) for a in range(3)]
    upper = {(a, b): jnp.sum(pulled[a] * response[:, b], axis=0) for a in range(3) for b in range(a, 3)}
    covariance = _inverse_3([[upper[min(a, b), max(a, b)] for b in range(3)] for a in range(3)])
    reader = [sum(covariance[a][b][None] * pulled[b] for b in range(3)) for a in range(3)]
    return jnp.stack(reader), jnp.stack([jnp.stack(row) for row in covariance])


def read(reader: Float[Array, "3 segment y x"], level: SignalStack) -> Float[Array, "3 y x"]:
    """u of every pixel. Gradient: exact."""
    return jnp.stack([jnp.sum(of_one * level, axis=0) for of_one in reader])


def _inverse_3(matrix: list[list[Map]]) -> list[list[Map]]:
    """Inverses of symmetric positive 3 x 3 matrices, by cofactors: LAPACK's batches are slow, and need no pivoting."""
    # Scaled to a unit diagonal, so that determinants neither under- nor overflow in single precision.
    size = [jnp.sqrt(jnp.maximum(matrix[a][a], jnp.finfo(matrix[a][a].dtype).tiny)) for a in range(3)]
    m = [[matrix[a][b] / (size[a] * size[b]) for b in range(3)] for a in range(3)]

    def cofactor(a, b):
        (i, j), (k, n) = ([(x + 1) % 3, (x + 2) % 3] for x in (a, b))
        return m[i][k] * m[j][n] - m[i][n] * m[j][k]

    cofactors = [[cofactor(a, b) for b in range(3)] for a in range(3)]
    determinant = sum(m[0][b] * cofactors[0][b] for b in range(3))
    safe = jnp.where(determinant > 1e-6, determinant, 1e-6)
    return [[cofactors[b][a] / (safe * size[a] * size[b]) for b in range(3)] for a in range(3)]


def leaning(u: Float[Array, "3 y x"]) -> tuple[Map, Map, Map]:
    """Slopes and brightness of u; what noise makes steeper than any surface is cut to grazing. Gradient: exact."""
    length = jnp.sqrt(u[1] ** 2 + u[2] ** 2)
    least = jnp.maximum(length / _STEEPEST, jnp.finfo(u.dtype).tiny)
    upward = jnp.maximum(u[0], least)
    slope_x, slope_y = u[1] / upward, u[2] / upward
    return slope_x, slope_y, upward * jnp.sqrt(1.0 + slope_x**2 + slope_y**2)


def _at(slope_x, slope_y, pixel_size_nm) -> Facets:
    return Facets(jnp.zeros_like(slope_x), jnp.asarray(pixel_size_nm, slope_x.dtype), slope_x, slope_y)


def _signal(slope_x, slope_y, table, emission, pixel_size_nm, rounds, response):
    if rounds:
        return slope_response(_at(slope_x, slope_y, pixel_size_nm), table, _AZIMUTHS, emission, NoRelief())[0]
    upward = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    return upward[None] * (response[:, 0] + response[:, 1] * slope_x[None] + response[:, 2] * slope_y[None])


def _gauss_newton(slopes, measurement, weigher, table, emission, pixel_size_nm):
    """One round on slopes and brightness together, at most half as steep again as before; the slopes' covariance."""
    slope_x, slope_y, brightness = slopes
    signal, change = slope_response(_at(slope_x, slope_y, pixel_size_nm), table, _AZIMUTHS, emission, NoRelief())
    response = jnp.stack([signal, brightness[None] * change[0], brightness[None] * change[1]], axis=1)
    step = read(linear_reader(response, weigher)[0], measurement.level - brightness[None] * signal)
    limit = 0.5 + 0.5 * jnp.sqrt(slope_x**2 + slope_y**2)
    size = jnp.sqrt(step[1] ** 2 + step[2] ** 2)
    shorter = jnp.minimum(1.0, limit / jnp.maximum(size, jnp.finfo(size.dtype).tiny))
    new = slope_x + shorter * step[1], slope_y + shorter * step[2], brightness + step[0]
    marginal = level_precision(measurement.noise, brightness[None] * signal)
    response = change * brightness[None, None]
    information = jnp.einsum("ikyx,yxkl,jlyx->ijyx", response, marginal, response)
    xx, xy, yy = information[0, 0], information[0, 1], information[1, 1]
    determinant = jnp.maximum(xx * yy - xy**2, jnp.finfo(xx.dtype).tiny)
    return new, _matrix(yy / determinant, -xy / determinant, xx / determinant)


def _covariance(slopes, of_u: Float[Array, "3 3 y x"]) -> SlopeMatrix:
    """Covariance of (slope_x, slope_y) from that of u."""
    slope_x, slope_y, brightness = slopes
    upward = brightness / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    xx, yy = (
        of_u[k, k] - 2.0 * slope * of_u[0, k] + slope**2 * of_u[0, 0] for k, slope in ((1, slope_x), (2, slope_y))
    )
    xy = of_u[1, 2] - slope_x * of_u[0, 2] - slope_y * of_u[0, 1] + slope_x * slope_y * of_u[0, 0]
    return _matrix(*(part / upward**2 for part in (xx, xy, yy)))


def _matrix(xx: Map, xy: Map, yy: Map) -> SlopeMatrix:
    return jnp.stack([jnp.stack([xx, xy], -1), jnp.stack([xy, yy], -1)], -2)
