"""Least squares, each mode then shrunk by how much of it is noise: spectra estimated from the slopes themselves.

A surface has no curl, noise has: of the two numbers per mode that the slopes give, one combination holds the height
and noise, the other only noise. Averaged over rings of equal wavelength they give the spectra of both.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eclipsjax._cosine import cosine_modes_2d, frequencies, from_cosine_modes_2d, inverse_or_zero
from eclipsjax._types import Map
from eclipsjax.inverse.integrators.links import cubic, divergence, laplacian_of_modes, poisson
from eclipsjax.inverse.integrators.spectral import slope_modes

Rings = Float[Array, "ring"]


class Wiener(eqx.Module):
    """Least squares on links of fourth order, then each mode times S / (S + N): S the height's estimated spectrum, N
    that of its noise.

    - `rings`: of equal wavelength, over which spectra are averaged (static).

    Noise may be white or correlated, but alike in all directions and all over the image; a bias that is smooth and
    free of curl looks like relief and stays. Gradient: exact (the estimated spectra included).
    """

    rings: int = eqx.field(static=True, default=48)

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        modes = cosine_modes_2d(poisson(divergence(cubic(slope_x, slope_y))))
        share = believed_share(*ring_spectra(slope_x, slope_y, self.rings), slope_x.shape)
        return from_cosine_modes_2d(modes * share)


def ring_spectra(slope_x: Map, slope_y: Map, rings: int) -> tuple[Rings, Rings]:
    """Mean squares of the slopes' modes in every ring: of all that could be height, and of the noise therein.

    In slope units spectra are flat enough to be averaged over a ring. Gradient: exact.
    """
    modes, gain = height_modes(slope_x, slope_y)
    noise = noise_spectrum(slope_x, slope_y, rings) * gain
    eigenvalue = laplacian_of_modes(slope_x.shape, slope_x.dtype)
    return ring_mean(eigenvalue * modes**2, rings), ring_mean(eigenvalue * noise, rings)


def believed_share(whole: Rings, noise: Rings, shape: tuple[int, int]) -> Map:
    """S / (S + N) of every cosine mode, from 0 to 1: 1 - noise / whole of its ring, less strict where a ring has few
    modes: those make a poor estimate, and the longest waves weigh most. Gradient: exact where it is neither."""
    ring, rings = rings_of(shape, whole.size), whole.size
    count = ring_counts(shape, rings).astype(whole.dtype)
    share = noise / jnp.where(whole > 0, whole, 1.0)
    return jnp.clip(1.0 - share * count / (count + 10.0), 0.0, 1.0)[ring]


def height_modes(slope_x: Map, slope_y: Map) -> tuple[Map, Map]:
    """Cosine modes of `Poisson`'s height (px), and their variance for white slope noise of variance 1."""
    (x, y), (cut_x, cut_y), (d_x, d_y) = _link_modes(slope_x, slope_y)
    inverse = inverse_or_zero(laplacian_of_modes(slope_x.shape, slope_x.dtype))
    gain = ((d_x * cut_x) ** 2 + (d_y * cut_y) ** 2) * inverse**2
    return (d_x * cut_x * x + d_y * cut_y * y) * inverse, gain


def noise_spectrum(slope_x: Map, slope_y: Map, rings: int) -> Map:
    """Variance of the slopes' noise in every mode, averaged over `rings` rings of wavelengths, from the curl alone."""
    (x, y), (cut_x, cut_y), (d_x, d_y) = _link_modes(slope_x, slope_y)
    curl, gain = d_y * cut_x * x - d_x * cut_y * y, (d_y * cut_x) ** 2 + (d_x * cut_y) ** 2
    total = ring_mean(gain, rings)
    return (ring_mean(curl**2, rings) / jnp.where(total > 0, total, 1.0))[rings_of(slope_x.shape, rings)]


def rings_of(shape: tuple[int, int], rings: int) -> Array:
    """Ring of every mode: narrow rings at long wavelengths, where spectra are steep."""
    ky, kx = (frequencies(n, jnp.result_type(float)) for n in shape)
    radius = jnp.sqrt(ky[:, None] ** 2 + kx[None, :] ** 2) / (jnp.pi * 2**0.5)
    return jnp.minimum((rings * jnp.sqrt(radius)).astype(jnp.int32), rings - 1)


def ring_counts(shape: tuple[int, int], rings: int) -> Int[Array, "{rings}"]:
    """How many modes each ring has."""
    return jnp.zeros(rings, jnp.int32).at[rings_of(shape, rings).ravel()].add(1)


def ring_mean(values: Map, rings: int) -> Float[Array, "{rings}"]:
    """Mean over the modes of each ring. Gradient: exact."""
    total = jnp.zeros(rings, values.dtype).at[rings_of(values.shape, rings).ravel()].add(values.ravel())
    return total / jnp.maximum(ring_counts(values.shape, rings).astype(values.dtype), 1.0)


def _link_modes(slope_x: Map, slope_y: Map):
    """Modes of the slopes; what averaging two neighbours leaves of each; and the difference operators' symbols."""
    ky, kx = (frequencies(n, slope_x.dtype) for n in slope_x.shape)
    kx, ky = kx[None, :], ky[:, None]
    cuts = jnp.cos(0.5 * kx), jnp.cos(0.5 * ky)
    return slope_modes(slope_x, slope_y), cuts, (2 * jnp.sin(0.5 * kx), 2 * jnp.sin(0.5 * ky))
