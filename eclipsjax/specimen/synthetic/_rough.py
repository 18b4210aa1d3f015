"""Self-affine roughness by Fourier synthesis."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.synthetic import _scene as s


def rough(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    key: Any = None,
    hurst: Any = 0.8,
    rms_height_nm: Any = None,
    rms_slope: Any = None,
    longest_nm: Any = None,
    shortest_nm: Any = None,
) -> s.Scene:
    """A periodic Gaussian surface with power spectrum `C(q) ~ max(q, 2 pi / longest)^(-2 - 2 H)`, cut at q =
    2 pi / shortest.

    - `hurst`: H, 0 to 1. `key`: of `jax.random`.
    - `rms_height_nm` or `rms_slope` (root mean square of the gradient's length): exactly this in every draw;
      give one, or neither for 5 nm rms height.
    - `longest_nm`: wavelength beyond which the spectrum is flat, by default the image's longer side.
    - `shortest_nm`: shortest wavelength, by default four pixels; at least two.

    The slopes are the derivatives of the Fourier series. Gradient: exact, zero in `shortest_nm` (a sharp
    cut).
    """
    if rms_height_nm is not None and rms_slope is not None:
        raise InputError(f"rms_height_nm = {rms_height_nm} and rms_slope = {rms_slope} exclude each other: give one.")
    by_slope = rms_slope is not None
    shape = s.image_shape(shape)
    pixel = s.positive("pixel_size_nm", pixel_size_nm)
    longest = max(shape) * pixel if longest_nm is None else s.positive("longest_nm", longest_nm)
    shortest = 4.0 * pixel if shortest_nm is None else s.positive("shortest_nm", shortest_nm)
    s.at_most("2 pixel_size_nm", 2 * pixel, shortest, "shortest_nm must span at least two pixels")
    s.at_most("shortest_nm", shortest, longest, "the shortest wavelength cannot exceed the longest")
    if (n := concrete(shortest)) is not None and (p := concrete(pixel)) is not None and n > min(shape) * p:
        raise InputError(f"shortest_nm is {n:g} but the image is only {min(shape) * p:g} nm high: nothing is left.")
    default = 5.0 if rms_height_nm is None else rms_height_nm
    size = s.not_negative("rms_slope", rms_slope) if by_slope else s.not_negative("rms_height_nm", default)
    numbers = {
        "hurst": s.within("hurst", hurst, 0.0, 1.0),
        "size": size,
        "longest": longest,
        "shortest": shortest,
    }
    return s.assemble(_rough, shape, pixel, (by_slope,), key=s.random_key(key), **numbers)


def _rough(shape, pixel, by_slope, key, hurst, size, longest, shortest):
    rows, columns = shape
    qx, qy = (2 * math.pi / pixel * f.astype(pixel.dtype) for f in (jnp.fft.rfftfreq(columns), jnp.fft.fftfreq(rows)))
    qx, qy = qx[None, :], qy[:, None]
    q = jnp.sqrt((qx**2 + qy**2).at[0, 0].set(1.0))
    amplitude = jnp.maximum(q, 2 * math.pi / longest) ** (-1.0 - hurst)
    # The wave of two pixels has no derivative of its own on the grid, and the mean is no roughness.
    keep = (q <= 2 * math.pi / shortest * (1 + 1e-6)) & (
        jnp.maximum(jnp.abs(qx), jnp.abs(qy)) < math.pi / pixel * (1 - 1e-6)
    )
    amplitude = jnp.where(keep, amplitude, 0.0).at[0, 0].set(0.0)
    noise = jax.random.normal(key, shape, pixel.dtype)
    noise = jnp.fft.rfft2(noise)
    waves = amplitude.astype(noise.dtype) * noise

    def on_grid(spectrum):
        return jnp.fft.irfft2(spectrum, s=shape).astype(pixel.dtype)

    height, slope_x, slope_y = (
        on_grid(waves),
        on_grid(_derivative(qx, waves)),
        on_grid(_derivative(qy, waves)),
    )
    power = slope_x**2 + slope_y**2 if by_slope else height**2
    scale = size / jnp.sqrt(jnp.mean(power))
    one = jnp.zeros(shape, jnp.int32)
    steepest = jnp.rad2deg(jnp.arctan(scale * jnp.sqrt(jnp.max(slope_x**2 + slope_y**2))))
    none = jnp.zeros(0, pixel.dtype)
    return s.Relief(scale * height, scale * slope_x, scale * slope_y, one, one, [steepest], none, ("rough",))


def _derivative(q, waves):
    return 1j * q.astype(waves.dtype) * waves
