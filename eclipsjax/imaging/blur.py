"""Where the beam really looks: the finite interaction spot, and lines that start too early or too late.

Borders are mirrored about the outer pixel edges (half-sample symmetric): nothing enters from outside.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.fft import dctn, idctn
from jax.scipy.special import erf
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Scalar, as_real, concrete

PerLine = Float[Array, "y"]

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
# Below this the pixel-integrated Gaussian is a delta to the last bit of float64 (erf(17) = 1).
_SMALLEST_SIGMA_PX = 0.02


def _check(name: str, leaf: Array) -> None:
    value = concrete(leaf)
    if value is not None and not (np.isfinite(value).all() and (value >= 0).all()):
        raise InputError(f"{name} is {value}: give a finite number, zero or more.")


class GaussianBlur(eqx.Module):
    """The probe (`beam.probe_fwhm_nm`) and the interaction volume, both Gaussian, variances added.

    - `interaction_sigma_nm`: standard deviation of the spot that backscattered electrons leave from, nm; of
      the order of 0.2 to 0.3 of the Kanaya-Okayama range.

    Gradient: exact.
    """

    interaction_sigma_nm: Scalar = eqx.field(converter=as_real, default=0.0)

    def __check_init__(self):
        _check("interaction_sigma_nm", self.interaction_sigma_nm)

    def __call__(self, level: Array, probe_fwhm_nm: Array, pixel_size_nm: Array) -> Array:
        """`level` `(..., y, x)` as the blunt beam sees it. Gradient: exact in all three."""
        variance = self.interaction_sigma_nm**2 + (probe_fwhm_nm / FWHM_PER_SIGMA) ** 2
        return _blur(level, variance / pixel_size_nm**2)


class LineJitter(eqx.Module):
    """Every line starts at a random place.

    - `std_px`: standard deviation of its shift along x, pixels.

    Gradient: exact.
    """

    std_px: Scalar = eqx.field(converter=as_real)

    def __check_init__(self):
        _check("std_px", self.std_px)

    def shifts(self, lines: int, key: Array) -> PerLine:
        """One shift per line, pixels to the right. Gradient: exact for a fixed key."""
        return self.std_px * jax.random.normal(key, (lines,), self.std_px.dtype)


class LineDrift(eqx.Module):
    """A steady drift along x during the frame.

    - `total_px`: how far to the right the last line is displaced against the first, pixels; negative is left.

    Gradient: exact.
    """

    total_px: Scalar = eqx.field(converter=as_real)

    def __check_init__(self):
        value = concrete(self.total_px)
        if value is not None and not np.isfinite(value).all():
            raise InputError(f"total_px is {value}: give a finite number of pixels.")

    def shifts(self, lines: int) -> PerLine:
        """One shift per line, pixels to the right: 0 for the first, `total_px` for the last. Gradient: exact."""
        return self.total_px * jnp.linspace(0.0, 1.0, lines, dtype=self.total_px.dtype)


@jax.jit
def gaussian_blur(image: Float[Array, "*stack y x"], sigma_px: Scalar) -> Float[Array, "*stack y x"]:
    """Convolve with a Gaussian of standard deviation `sigma_px`, each pixel a square of constant value.

    The weight at offset k is (erf((k+1/2)/s) - erf((k-1/2)/s)) / 2 with s = sqrt(2) sigma: the Gaussian's
    integral over that pixel, so weights are positive, sum to 1 at any sigma and leave the image alone at
    sigma = 0. Applied as a product in the cosine transform, whose mirror border conserves the mean and which
    needs no kernel size, so sigma may be traced. Weights further away than the image is long are dropped:
    keep sigma below a quarter of the image. Gradient: exact in both.
    """
    return _blur(image, jnp.asarray(sigma_px, image.dtype) ** 2)


def _blur(image: Array, variance_px: Array) -> Array:
    floor = _SMALLEST_SIGMA_PX**2
    sigma = jnp.sqrt(jnp.where(variance_px > floor, variance_px, floor))
    transfer = jnp.outer(_transfer(image.shape[-2], sigma), _transfer(image.shape[-1], sigma))
    spectrum = dctn(image, type=2, axes=(-2, -1), norm="ortho")
    return idctn(spectrum * jnp.broadcast_to(transfer, image.shape), type=2, axes=(-2, -1), norm="ortho")


def _transfer(size: int, sigma: Array) -> Array:
    """What a cosine of each of the `size` frequencies is multiplied by; 1 at frequency zero."""
    edges = (jnp.arange(size + 2, dtype=sigma.dtype) - 0.5) / (math.sqrt(2.0) * sigma)
    weights = 0.5 * jnp.diff(erf(edges))
    # The mirrored image repeats every 2 * size pixels; offsets +size and -size fall on the same sample.
    ring = jnp.concatenate([weights[:-1], 2.0 * weights[-1:], weights[-2:0:-1]])
    response = jnp.real(jnp.fft.rfft(ring))[:size]
    return response / response[0]


@jax.jit
def shift_lines(image: Float[Array, "*stack y x"], shift_px: PerLine) -> Float[Array, "*stack y x"]:
    """Move every line to the right by its own `shift_px` (pixels and fractions), alike in a whole stack.

    Cubic convolution (Keys, a = -1/2): exact for straight and parabolic lines, continuous slope in the shift;
    next to a one-pixel step it overshoots by up to 7 % of the step. Gradient: exact in both.
    """
    size = image.shape[-1]
    whole = jnp.floor(shift_px)
    t = 1.0 - (shift_px - whole)  # a pixel at x reads at x - shift = (x - whole - 1) + t
    taps = (
        -0.5 * t + t**2 - 0.5 * t**3,
        1.0 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2.0 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )
    start = jnp.arange(size)[None, :] - whole.astype(int)[:, None] - 2
    lines = jnp.moveaxis(image, -2, 0)  # (y, ..., x)
    shifted = jnp.zeros_like(lines)
    for k, weight in enumerate(taps):
        index = (start + k) % (2 * size)
        index = jnp.where(index < size, index, 2 * size - 1 - index)
        read = jax.vmap(lambda line, i: line[..., i])(lines, index)
        shifted = shifted + read * weight.reshape(-1, *(1,) * (lines.ndim - 1))
    return jnp.moveaxis(shifted, 0, -2)
