"""How far noise in the slopes throws the height: standard deviations, in closed form where the modes allow it."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from eclipsjax._cosine import frequencies
from eclipsjax._types import InputError, Map, as_real, concrete, shown, whole_number
from eclipsjax.inverse.integrate import check_method, check_slopes, takes_weights
from eclipsjax.inverse.integrators.auto import Auto
from eclipsjax.inverse.integrators.islands import centred, label_islands
from eclipsjax.inverse.integrators.links import laplacian_of_modes, relative_weights
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.integrators.spectral import FrankotChellappa, SpectralPoisson


def height_std(
    method: Any,
    shape: Any,
    slope_std: Any,
    pixel_size_nm: Any,
    slope_x: Any = None,
    slope_y: Any = None,
    mask: Any = None,
    weights: Any = None,
    key: Any = None,
    draws: Any = 256,
) -> Map:
    """Standard deviation of each height from white noise of both slopes: `(y, x)`, nm, heights of mean 0.

    Closed form, the sum over cosine modes of mode(y, x)^2 * gain, for `Poisson()`, `SpectralPoisson()` and
    `FrankotChellappa()` on whole maps: two matrix products. Any other method, and any with a mask or weights, is
    sampled: `draws` pairs of noise are integrated, which leaves a relative error of 1 / sqrt(2 draws).

    **Arguments:**

    - `method`: as in `integrate`, not `Auto()`. `shape`: `(rows, columns)`, static.
    - `slope_std`: scalar, of each slope of each pixel, dimensionless. `pixel_size_nm`: scalar, nm.
    - `slope_x`, `slope_y`: `(y, x)`, slopes to which the noise is added, for methods that adapt (`Wiener`, `Robust`,
      `LeastAbsolute`, `Bilateral`, `Despiked`); 0 unless given.
    - `mask`, `weights`: as in `integrate`; NaN outside the mask.
    - `key`, `draws` (static): of the sampled estimate.

    Gradient: exact in `slope_std` and pixel size in closed form; of the sample as drawn otherwise.
    """
    std, pixel = as_real(slope_std, "slope_std"), as_real(pixel_size_nm, "pixel_size_nm")
    shape, draws = _checked_shape(shape), whole_number("draws", draws, 2)
    _check(method, std, mask, weights)
    given = (None if s is None else as_real(s).astype(std.dtype) for s in (slope_x, slope_y, weights))
    slope_x, slope_y, weights = given
    base = tuple(jnp.zeros(shape, std.dtype) if s is None else s for s in (slope_x, slope_y))
    mask = None if mask is None else jnp.asarray(mask)
    if base[0].shape != shape:
        raise InputError(f"slope_x has shape {base[0].shape} but shape is {shape}: give them the same.")
    check_slopes(*base, pixel, mask, weights)
    pixel = pixel.astype(std.dtype)
    if mask is None and weights is None:
        if isinstance(method, Poisson):
            return std * pixel * _from_modes(shape, std.dtype, True)
        if isinstance(method, SpectralPoisson):
            return std * pixel * _from_modes(shape, std.dtype, False)
        if isinstance(method, FrankotChellappa):
            return jnp.full(shape, std * pixel * _of_fourier(shape, std.dtype))
    key = jax.random.key(0) if key is None else key
    return pixel * _sampled(method, base, std, mask, weights, key, draws)


def _from_modes(shape: tuple[int, int], dtype, stencil: bool) -> Map:
    """Square root of the sum over modes of mode^2 * gain, for slopes of unit variance."""
    rows, columns = shape
    ky, kx = frequencies(rows, dtype)[:, None], frequencies(columns, dtype)[None, :]
    if stencil:
        # Averaging two neighbours leaves cos(k / 2) of a mode's slope, the difference has the symbol 2 sin(k / 2).
        square = laplacian_of_modes(shape, dtype)
        own = jnp.sin(kx) ** 2 + jnp.sin(ky) ** 2
    else:
        square = kx**2 + ky**2
        own = square
    gain = jnp.where(square > 0, own / jnp.where(square > 0, square, 1.0) ** 2, 0.0)
    return jnp.sqrt(_squared_modes(rows, dtype) @ gain @ _squared_modes(columns, dtype).T)


def _squared_modes(count: int, dtype) -> Array:
    """Square of the orthonormal cosine modes, `(pixel, mode)`."""
    phase = np.pi * (np.arange(count)[:, None] + 0.5) * np.arange(count)[None, :] / count
    norm = np.where(np.arange(count) > 0, 2.0, 1.0) / count
    return jnp.asarray(norm[None, :] * np.cos(phase) ** 2, dtype)


def _of_fourier(shape: tuple[int, int], dtype) -> Array:
    ky, kx = (2 * np.pi * np.fft.fftfreq(n) for n in shape)
    ky, kx = (np.where(np.abs(k) < np.pi * (1 - 1e-6), k, 0.0) for k in (ky, kx))
    square = ky[:, None] ** 2 + kx[None, :] ** 2
    inverse = np.where(square > 0, 1.0 / np.where(square > 0, square, 1.0), 0.0)
    return jnp.asarray(np.sqrt(inverse.sum() / square.size), dtype)


@partial(jax.jit, static_argnames=("draws",))
def _sampled(method, base, std, mask, weights, key, draws):
    shape = base[0].shape
    labels = None if mask is None else label_islands(mask)
    weights = relative_weights(weights, mask, base[0])

    def height(noise):
        slopes = [s + std * e for s, e in zip(base, noise, strict=True)]
        if mask is not None:
            slopes = [jnp.where(mask, s, 0.0) for s in slopes]
        return centred(method.height_px(*slopes, weights, mask), labels)

    without = height(jnp.zeros((2, *shape), std.dtype))

    def add(total, key):
        # Each draw counts with its opposite, so that odd powers of the noise cancel in the mean.
        noise = jax.random.normal(key, (2, *shape), std.dtype)
        both = (height(noise) - without) ** 2 + (height(-noise) - without) ** 2
        return total + 0.5 * both, None

    total, _ = lax.scan(add, jnp.zeros(shape, std.dtype), jax.random.split(key, draws))
    spread = jnp.sqrt(total / draws)
    return spread if mask is None else jnp.where(mask, spread, jnp.nan)


def _checked_shape(shape: Any) -> tuple[int, int]:
    try:
        rows, columns = (operator.index(n) for n in shape)
    except (TypeError, ValueError):
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise InputError(f"shape is {shown(shape)}: give (rows, columns), two positive whole numbers.")
    return rows, columns


def _check(method, std, mask, weights) -> None:
    if isinstance(method, Auto):
        raise InputError(
            "method is Auto(): pick first, method, why = Auto().pick(slope_x, slope_y), and give that one."
        )
    check_method(method)
    value = concrete(std)
    if value is not None and not (value.ndim == 0 and np.isfinite(value) and value >= 0):
        raise InputError(f"slope_std is {value}: give one number of at least 0.")
    if (mask is not None or weights is not None) and not takes_weights(method):
        raise InputError(f"method = {type(method).__name__}() takes no mask or weights: give Poisson() or another.")
