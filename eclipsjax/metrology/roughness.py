"""Roughness of a levelled height map, in the areal parameters of ISO 25178-2."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, Scalar, as_real, concrete
from eclipsjax.metrology._planes import fit_planes
from eclipsjax.specimen.surface import Surface


class Roughness(eqx.Module):
    """Areal parameters of ISO 25178-2 of the heights less their least-squares plane, unfiltered.

    - `sa_nm`, `sq_nm`: mean and root mean square of the heights' size, nm. `sz_nm`: highest less lowest, nm.
    - `ssk`, `sku`: skewness and kurtosis (Gaussian heights have 0 and 3), dimensionless; NaN on a plane.
    - `sdq`: root mean square slope, dimensionless. `sdr_percent`: surface in excess of its projection, %.
    """

    sa_nm: Scalar
    sq_nm: Scalar
    sz_nm: Scalar
    ssk: Scalar
    sku: Scalar
    sdq: Scalar
    sdr_percent: Scalar


def roughness(height_nm: Any, pixel_size_nm: Any, mask: Any = None) -> Roughness:
    """Roughness of the whole map, or of the part inside the mask, after removing a least-squares plane.

    With z the heights less the plane:  Sa = mean |z|,  Sq^2 = mean z^2,  Sz = max z - min z,  Ssk = mean z^3 / Sq^3,
    Sku = mean z^4 / Sq^4.  Stencil of the slopes: differences of neighbouring pixels, p, q, at the four corners of
    every cell of 2 x 2 pixels (the two ways to cut a cell into two triangles, averaged):
    Sdq^2 = mean (p^2 + q^2),  Sdr = mean (sqrt(1 + p^2 + q^2) - 1).  It shows a wave of wavelength l with
    sin(pi pixel / l) / (pi pixel / l) of its slope. No filter is applied: noise of the heights counts in full.

    **Arguments:**

    - `height_nm`: `(y, x)`, nm. `pixel_size_nm`: scalar, nm.
    - `mask`: `(y, x)`, true where heights count; outside, they may be NaN. Cells count if all four pixels do; NaN for
      `sdq` and `sdr_percent` where there is no such cell.

    Gradient: exact, of Sa except where z = 0, of Sz in the highest and the lowest pixel only (ties share it).
    """
    height, pixel = as_real(height_nm, "height_nm"), as_real(pixel_size_nm, "pixel_size_nm")
    inside = jnp.ones(height.shape, bool) if mask is None else jnp.asarray(mask, bool)
    if inside.shape != height.shape:
        raise InputError(f"mask has shape {inside.shape} but height_nm {height.shape}: give one value per pixel.")
    known = concrete(inside)
    if known is not None and not known.any():
        raise InputError("mask is False everywhere: it must be True where the heights count.")
    if known is None or concrete(height) is None:
        return _roughness(height, pixel.astype(height.dtype), inside)
    # The record refuses what is no height map; outside the mask anything may stand.
    Surface(np.where(known, np.asarray(height), np.mean(np.asarray(height)[known])), pixel)
    return _roughness(height, pixel.astype(height.dtype), inside)


@jax.jit
def _roughness(height: Array, pixel: Array, mask: Array) -> Roughness:
    inside = mask.astype(height.dtype)
    count = jnp.sum(inside)
    height = jnp.where(mask, height, 0.0)
    label = jnp.zeros(height.shape, jnp.int32)
    # The second pass takes out what rounding left of large tilts and offsets.
    z = fit_planes(fit_planes(height, label, 1, inside).residual, label, 1, inside).residual

    def mean(values):
        return jnp.sum(inside * values) / count

    square = mean(z**2)
    size = _root(square)
    high, low = jnp.max(jnp.where(mask, z, -jnp.inf)), jnp.min(jnp.where(mask, z, jnp.inf))
    slope = _corner_slopes(z / pixel)
    cells = mask[1:, 1:] & mask[1:, :-1] & mask[:-1, 1:] & mask[:-1, :-1]
    slope = jnp.where(cells, slope, 0.0)
    corners = 4.0 * jnp.sum(cells).astype(height.dtype)
    # sqrt(1 + s) - 1 without the cancellation.
    excess = jnp.sum(slope / (1.0 + jnp.sqrt(1.0 + slope))) / corners
    return Roughness(
        sa_nm=mean(jnp.abs(z)),
        sq_nm=size,
        sz_nm=high - low,
        ssk=mean(z**3) / size**3,
        sku=mean(z**4) / square**2,
        sdq=_root(jnp.sum(slope) / corners),
        sdr_percent=100.0 * excess,
    )


def _corner_slopes(z_px: Array) -> Array:
    """p^2 + q^2 at the four corners of every cell, `(4, y - 1, x - 1)`."""
    across, down = jnp.diff(z_px, axis=1) ** 2, jnp.diff(z_px, axis=0) ** 2
    return jnp.stack([a + d for a in (across[:-1], across[1:]) for d in (down[:, :-1], down[:, 1:])])


def _root(square: Array) -> Array:
    """Square root whose gradient at 0 is 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), square)
