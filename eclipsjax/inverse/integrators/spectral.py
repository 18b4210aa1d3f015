"""Integration in modes: derivatives taken as those of the modes themselves, of infinite order on smooth surfaces."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from eclipsjax._cosine import frequencies, from_cosine_modes_2d, inverse_or_zero, slope_modes
from eclipsjax._types import Map


class SpectralPoisson(eqx.Module):
    """Least squares with the cosine modes' own derivatives instead of differences between neighbours.

    Exact on sums of cosines, that is on surfaces that are flat across their border; others ring there, by the order of
    (slope at the border) x (pixel size). Gradient: exact (linear).
    """

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        modes_x, modes_y = slope_modes(slope_x, slope_y)
        ky, kx = (frequencies(n, slope_x.dtype) for n in slope_x.shape)
        kx, ky = kx[None, :], ky[:, None]
        return from_cosine_modes_2d((kx * modes_x + ky * modes_y) * inverse_or_zero(kx**2 + ky**2))


class FrankotChellappa(eqx.Module):
    """Least squares in Fourier modes: the surface taken as one period of a periodic one.

    Exact on band-limited periodic surfaces; on others the jump across the border is spread over the image. No constant
    tilt survives. Gradient: exact (linear).
    """

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        dtype = slope_x.dtype
        rows, columns = slope_x.shape
        ky = jnp.asarray(2 * np.pi * np.fft.fftfreq(rows), dtype)[:, None]
        kx = jnp.asarray(2 * np.pi * np.fft.rfftfreq(columns), dtype)[None, :]
        # The slope of the alternating mode vanishes on every pixel.
        kx = jnp.where(jnp.abs(kx) < np.pi * (1 - 1e-6), kx, 0.0)
        ky = jnp.where(jnp.abs(ky) < np.pi * (1 - 1e-6), ky, 0.0)
        inverse = inverse_or_zero(kx**2 + ky**2)
        real, imaginary = _divided(jnp.fft.rfft2(slope_x), kx * inverse), _divided(jnp.fft.rfft2(slope_y), ky * inverse)
        return jnp.fft.irfft2(real + imaginary, s=(rows, columns))


def _divided(modes: Complex[Array, "y k"], factor: Array) -> Complex[Array, "y k"]:
    """-i * factor * modes."""
    return jnp.asarray(-1j, modes.dtype) * modes * factor.astype(modes.dtype)
