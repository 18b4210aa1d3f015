"""From normals to slopes, and what is not a normal of a surface."""

from __future__ import annotations

from typing import Any

import numpy as np

from eclipsjax._types import InputError, Map, as_real, at_pixels, concrete

# Rounding of float32, of files with three digits, and of means over noise stay below.
_UNIT_LENGTH = 0.01


def slopes_of_normals(normals: Any) -> tuple[Map, Map]:
    """`(slope_x, slope_y)` of normals `(y, x, 3)` of any length: -n_x / n_z and -n_y / n_z. Gradient: exact."""
    normals = as_real(normals, "normals")
    if normals.ndim != 3 or normals.shape[-1] != 3:
        raise InputError(f"normals has shape {normals.shape}: give (y, x, 3), the components last.")
    values = concrete(normals)
    if values is not None and not np.isfinite(values).all():
        where = at_pixels(~np.isfinite(values).all(axis=-1))
        raise InputError(f"normals is not finite {where}: mask these pixels and put (0, 0, 1) there.")
    if values is not None and (values[..., 2] <= 0).any():
        raise InputError(
            f"normals[..., 2] is not positive {at_pixels(values[..., 2] <= 0)}: such a surface faces away from the "
            "beam; mask these pixels and put (0, 0, 1) there, or turn the normals up."
        )
    return -normals[..., 0] / normals[..., 2], -normals[..., 1] / normals[..., 2]


def slopes_of_unit_normals(normals: Any) -> tuple[Map, Map]:
    """`slopes_of_normals` for `(y, x, 3)` of length 1, to 1 %: others are refused, as they may not be normals at all.

    Gradient: exact.
    """
    normals = as_real(normals, "normals")
    if normals.size == 0:
        raise InputError(f"normals has shape {normals.shape}: give (y, x, 3) with at least one pixel.")
    if normals.dtype.itemsize < 4:
        raise InputError(f"normals is {normals.dtype}: give float32 or float64, as less is noise of its own.")
    values = concrete(normals)
    if values is not None and values.ndim == 3 and values.shape[-1] == 3 and np.isfinite(values).all():
        wrong = np.abs(np.linalg.norm(values, axis=-1) - 1.0) > _UNIT_LENGTH
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"normals is not of unit length {at_pixels(wrong)} ({np.linalg.norm(values[row, column]):.4g}): divide "
                "by the length, or check that these are normals (n_x, n_y, n_z)."
            )
    return slopes_of_normals(normals)
