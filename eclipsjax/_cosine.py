"""Cosine and sine transforms along an axis, orthonormal, and the frequencies of their modes.

A height map that is flat across its border is a sum of cosines cos(k (j + 1/2)), its slope a sum of sines: in these
transforms differentiation, and least squares against it, is diagonal (Neumann border).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def frequencies(count: int, dtype) -> Float[Array, "{count}"]:
    """k = pi m / count of the cosine modes m = 0 .. count - 1, radians per pixel."""
    return jnp.asarray(np.pi * np.arange(count) / count, dtype)


def cosine_modes(values: Float[Array, "y x"], axis: int) -> Float[Array, "y x"]:
    """Orthonormal DCT-II along `axis`: amplitudes of cos(k (j + 1/2)). Gradient: exact."""
    values = jnp.moveaxis(values, axis, -1)
    count = values.shape[-1]
    folded = jnp.fft.rfft(jnp.concatenate([values[:, ::2], values[:, 1::2][:, ::-1]], axis=-1))
    cosine, sine = _turn(count, values.dtype)
    first = folded.real * cosine + folded.imag * sine
    last = folded.real * sine - folded.imag * cosine
    modes = jnp.concatenate([first, last[:, 1 : (count + 1) // 2][:, ::-1]], axis=-1)
    return jnp.moveaxis(modes * _norm(count, values.dtype), -1, axis)


def from_cosine_modes(modes: Float[Array, "y x"], axis: int) -> Float[Array, "y x"]:
    """The inverse (and transpose) of `cosine_modes`. Gradient: exact."""
    modes = jnp.moveaxis(modes, axis, -1)
    count = modes.shape[-1]
    modes = modes / _norm(count, modes.dtype)
    half = count // 2 + 1
    first = modes[:, :half]
    last = jnp.concatenate([jnp.zeros_like(modes[:, :1]), modes[:, 1:][:, ::-1]], axis=-1)[:, :half]
    cosine, sine = _turn(count, modes.dtype)
    folded = jnp.fft.irfft(lax.complex(first * cosine + last * sine, first * sine - last * cosine), count)
    even = (count + 1) // 2
    values = jnp.zeros_like(folded).at[:, ::2].set(folded[:, :even])
    values = values.at[:, 1::2].set(folded[:, even:][:, ::-1])
    return jnp.moveaxis(values, -1, axis)


def sine_modes(values: Float[Array, "y x"], axis: int) -> Float[Array, "y x"]:
    """Orthonormal DST-II along `axis`: amplitudes of sin(k (j + 1/2)) for k = pi m / count, m = 1 .. count.

    Gradient: exact.
    """
    return jnp.flip(cosine_modes(values * _signs(values.shape[axis], values.dtype, axis), axis), axis)


def from_sine_modes(modes: Float[Array, "y x"], axis: int) -> Float[Array, "y x"]:
    """The inverse (and transpose) of `sine_modes`. Gradient: exact."""
    return from_cosine_modes(jnp.flip(modes, axis), axis) * _signs(modes.shape[axis], modes.dtype, axis)


def cosine_modes_2d(values: Float[Array, "y x"]) -> Float[Array, "y x"]:
    """`cosine_modes` along both axes."""
    return cosine_modes(cosine_modes(values, 1), 0)


def from_cosine_modes_2d(modes: Float[Array, "y x"]) -> Float[Array, "y x"]:
    """The inverse of `cosine_modes_2d`."""
    return from_cosine_modes(from_cosine_modes(modes, 0), 1)


def slope_modes(slope_x: Float[Array, "y x"], slope_y: Float[Array, "y x"]) -> tuple[Array, Array]:
    """Amplitudes of the slopes for each cosine mode of the height: mode (l, m) of height 1 has the slope amplitudes
    (k_m, k_l). The alternating sine, which no cosine has for a slope, is left out. Gradient: exact.
    """
    along_x = jnp.pad(sine_modes(slope_x, 1)[:, :-1], ((0, 0), (1, 0)))
    along_y = jnp.pad(sine_modes(slope_y, 0)[:-1], ((1, 0), (0, 0)))
    return -cosine_modes(along_x, 0), -cosine_modes(along_y, 1)


def inverse_or_zero(eigenvalue: Array) -> Array:
    """1 / `eigenvalue`, 0 where that is 0: modes that an operator does not see stay out. Gradient: exact, 0 there."""
    seen = eigenvalue > 0
    return jnp.where(seen, 1.0 / jnp.where(seen, eigenvalue, 1.0), 0.0)


def _turn(count: int, dtype) -> tuple[Array, Array]:
    angle = 0.5 * np.pi * np.arange(count // 2 + 1)[None, :] / count
    return jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype)


def _norm(count: int, dtype) -> Array:
    return jnp.asarray(np.sqrt(np.where(np.arange(count) > 0, 2.0, 1.0) / count)[None, :], dtype)


def _signs(count: int, dtype, axis: int) -> Array:
    signs = jnp.asarray((-1.0) ** np.arange(count), dtype)
    return jnp.expand_dims(signs, 1 - axis)
