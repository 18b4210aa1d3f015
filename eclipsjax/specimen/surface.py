"""A height map with its pixel size: what every other room means by "surface"."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, Map, NormalMap, Scalar, concrete, real_named


class Surface(eqx.Module):
    """Heights of a surface on a square pixel grid.

    **Arguments:**

    - `height_nm`: `(y, x)`, nanometres, z up to the detector, row 0 at the top of the image.
    - `pixel_size_nm`: scalar, nanometres, field of view / number of pixels; samples lie at pixel centres.

    Only differences of height matter, and float32 has seven digits for them: heights that lie so far from 0 that their
    rounding shows (a share of 1e-3 of a pixel, or of the relief) are refused. Subtract their mean before, in float64.

    Gradient: exact in both fields.
    """

    height_nm: Map = eqx.field(converter=real_named("height_nm"))
    pixel_size_nm: Scalar = eqx.field(converter=real_named("pixel_size_nm"))

    def __check_init__(self):
        check_height(self.height_nm)
        check_pixel_size(self.pixel_size_nm)
        _check_offset(self.height_nm, concrete(self.pixel_size_nm))

    def slopes(self) -> tuple[Map, Map]:
        """`(slope_x, slope_y)` = (dz/dx, dz/dy with y down), each `(y, x)`, dimensionless.

        Central differences inside, second-order one-sided differences on the border (first order where an axis has
        two samples, zero where it has one). Gradient: exact.
        """
        return (
            _derivative(self.height_nm, axis=1) / self.pixel_size_nm,
            _derivative(self.height_nm, axis=0) / self.pixel_size_nm,
        )

    def normals(self) -> NormalMap:
        """Unit normals `(y, x, 3)`: (-slope_x, -slope_y, 1) / norm, image axes (x right, y down). Gradient: exact."""
        slope_x, slope_y = self.slopes()
        normal = jnp.stack([-slope_x, -slope_y, jnp.ones_like(slope_x)], axis=-1)
        return normal / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)[..., None]


def check_height(height: Array, name: str = "height_nm") -> None:
    """Raise `InputError` unless `height` is a non-empty 2D map of finite numbers (skipped while tracing)."""
    if height.ndim != 2:
        raise InputError(f"{name} has shape {height.shape}: give a 2D array (y, x) of heights in nanometres.")
    if height.size == 0:
        raise InputError(f"{name} has shape {height.shape} and holds no pixel: give at least one.")
    values = concrete(height)
    if values is None or np.isfinite(values).all():
        return
    bad = ~np.isfinite(values)
    row, column = np.argwhere(bad)[0]
    raise InputError(
        f"{name} holds {int(bad.sum())} values that are not finite, the first ({values[row, column]}) at row {row}, "
        f"column {column}: fill or crop them before use."
    )


def check_pixel_size(pixel_size_nm: Any) -> None:
    """Raise `InputError` unless `pixel_size_nm` is one positive finite number (skipped while tracing)."""
    pixel = concrete(pixel_size_nm)
    if pixel is not None and not (pixel.ndim == 0 and np.isfinite(pixel) and pixel > 0):
        raise InputError(f"pixel_size_nm is {pixel}: give one positive number of nanometres per pixel.")


# Rounding of the heights as a share of the pixel (a slope) or of the relief that passes; errors of slope that nothing
# can measure; and how much of the rounding must be the offset's, so that subtracting it helps.
_ROUNDING, _UNSEEN_SLOPE, _WORTHWHILE = 1e-3, 1e-5, 4.0


def _check_offset(height: Array, pixel_nm: np.ndarray | None) -> None:
    """Raise `InputError` where an offset of the heights costs digits that the relief needs."""
    values = concrete(height)
    if values is None or pixel_nm is None:
        return
    low, high = float(values.min()), float(values.max())
    relief, step = high - low, _spacing(max(abs(low), abs(high)), values.dtype)
    if relief == 0 or step < _WORTHWHILE * _spacing(relief, values.dtype):
        return
    shows = step > _UNSEEN_SLOPE * pixel_nm and step > _ROUNDING * relief
    if shows or step > _ROUNDING * pixel_nm:
        raise InputError(
            f"height_nm lies between {low:.8g} and {high:.8g} nm, where {values.dtype} rounds to {step:.2g} nm, too "
            f"coarse for {relief:.3g} nm of relief and pixels of {pixel_nm:.4g} nm: subtract the mean height in "
            "float64 before (only differences matter)."
        )


def _spacing(size: float, dtype: np.dtype) -> float:
    """Distance of floating-point numbers of `size`."""
    return float(jnp.finfo(dtype).eps) * 2.0 ** np.floor(np.log2(size)) if size > 0 else 0.0


def _derivative(height: Array, axis: int) -> Array:
    """d height / d index along `axis`, second order wherever the axis has three samples."""
    h = jnp.moveaxis(height, axis, 0)
    if h.shape[0] == 1:
        return jnp.zeros_like(height)
    if h.shape[0] == 2:
        d = jnp.repeat(h[1:] - h[:1], 2, axis=0)
    else:
        first = -1.5 * h[:1] + 2.0 * h[1:2] - 0.5 * h[2:3]
        last = 1.5 * h[-1:] - 2.0 * h[-2:-1] + 0.5 * h[-3:-2]
        d = jnp.concatenate([first, 0.5 * (h[2:] - h[:-2]), last], axis=0)
    return jnp.moveaxis(d, 0, axis)
