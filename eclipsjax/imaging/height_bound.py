"""How well heights can be known at all: the Cramer-Rao bound of a whole map, dense, for small maps.

The images of a pixel depend on its slopes and on the relief that hides the detector, so heights hang together: the
information is a matrix over all pixels. Adding a constant to all heights changes nothing; the bound is that of heights
relative to their mean.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map, as_real, concrete
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.fisher import LevelNoise, as_yield, level_precision
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.specimen.surface import Surface

MOST_PIXELS = 48 * 48


def height_information(
    surface: Surface,
    table: AcceptanceTable,
    noise: LevelNoise,
    yield_map: Any = 1.0,
    known_yield: bool = False,
    azimuths: int = 64,
    emission=None,
    horizon=None,
    chunk: int = 64,
) -> Float[Array, "y x y x"]:
    """Fisher information of all heights in all images: J' C^-1 J with J the Jacobian of `render`, per nm^2.

    Arguments as in `slope_information`; `chunk` columns of J are computed at once (static). At most 48 x 48 pixels.
    What is hidden counts: relief that moves a shadow is seen by the pixels in it. Returns `(y, x, y, x)`.
    Gradient: exact almost everywhere.
    """
    rows, columns = surface.height_nm.shape
    if rows * columns > MOST_PIXELS:
        raise InputError(
            f"height_nm has {rows} x {columns} pixels, and the bound of heights is worked out for at most "
            f"{MOST_PIXELS} (48 x 48): crop the map or bin its pixels, or take slope_bound, which works pixel by "
            "pixel at any size."
        )
    signal = render(surface, table, azimuths, None, emission, horizon)
    brightness = as_yield(yield_map, signal)
    precision = level_precision(noise, signal * brightness, known_yield)
    information = _height_information(surface, table, emission, horizon, brightness, precision, azimuths, chunk)
    return information.reshape(2 * surface.height_nm.shape)


@partial(jax.jit, static_argnames=("azimuths", "chunk"))
def _height_information(surface, table, emission, horizon, brightness, precision, azimuths, chunk):
    height = surface.height_nm

    def level(height):
        return brightness * render(Surface(height, surface.pixel_size_nm), table, azimuths, None, emission, horizon)

    def column(k):
        unit = (jnp.arange(height.size, dtype=jnp.int32) == k).astype(height.dtype).reshape(height.shape)
        return jax.jvp(level, (height,), (unit,))[1]

    jacobian = lax.map(column, jnp.arange(height.size, dtype=jnp.int32), batch_size=min(chunk, height.size))
    weighted = jnp.einsum("yxkl,jlyx->jkyx", precision, jacobian)
    return jacobian.reshape(height.size, -1) @ weighted.reshape(height.size, -1).T


def height_covariance(information: Float[Array, "y x y x"]) -> Float[Array, "y x y x"]:
    """Least covariance of any unbiased estimate of the heights about their mean, nm^2: `(y, x, y, x)`.

    The pseudo-inverse of `height_information(...)` without its constant mode. A linear read-out w (the difference of
    two terraces' means, say) has at least the variance w C w. Wants float64: neighbouring heights are far better
    known against each other than distant ones, and the matrix is badly conditioned.
    Gradient: exact.
    """
    information = as_real(information, "information")
    shape = information.shape
    if len(shape) != 4 or shape[:2] != shape[2:]:
        raise InputError(f"information has shape {shape}: give (y, x, y, x) from height_information.")
    count = shape[0] * shape[1]
    matrix = information.reshape(count, count)
    size = jnp.trace(matrix) / count
    constant = jnp.full((count, count), 1.0 / count, matrix.dtype)
    factor = jax.scipy.linalg.cho_factor(0.5 * (matrix + matrix.T) + size * constant)
    covariance = jax.scipy.linalg.cho_solve(factor, jnp.eye(count, dtype=matrix.dtype)) - constant / size
    values = concrete(jnp.diagonal(covariance))
    if values is not None and not (np.isfinite(values) & (values >= 0)).all():
        raise InputError(
            "the images leave some heights open (in this precision): use float64 heights, a table with at least three "
            "segments, and a map of at least three pixels each way that sees the detector."
        )
    return covariance.reshape(shape)


def height_bound(
    surface: Surface,
    table: AcceptanceTable,
    noise: LevelNoise,
    yield_map: Any = 1.0,
    known_yield: bool = False,
    azimuths: int = 64,
    emission=None,
    horizon=None,
    chunk: int = 64,
) -> Map:
    """Cramer-Rao bound of every height about the map's mean: least standard deviation, nm, `(y, x)`.

    No algorithm without outside knowledge (smoothness, facets) beats it. Arguments as in `height_information`.
    Gradient: exact almost everywhere.
    """
    information = height_information(surface, table, noise, yield_map, known_yield, azimuths, emission, horizon, chunk)
    count = surface.height_nm.size
    variance = jnp.diagonal(height_covariance(information).reshape(count, count))
    return jnp.sqrt(variance).reshape(surface.height_nm.shape)
