"""What the simulators that start from normals share: how big a pixel is, and that the table does not need to know."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from eclipsjax._types import InputError, Scalar, as_real, shown
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.specimen.surface import check_pixel_size


def pixel_size(table: Any, pixel_size_nm: Any, dtype: Any) -> Scalar:
    """`pixel_size_nm`, or 1 where none is given and the table does not follow the beam across the image."""
    if not isinstance(table, AcceptanceTable):
        raise InputError(f"table is {shown(table)}: give what acceptance(scope) returns.")
    if pixel_size_nm is not None:
        pixel = as_real(pixel_size_nm, "pixel_size_nm")
        check_pixel_size(pixel)
        return pixel.astype(dtype)
    if table.follows_beam:
        raise InputError(
            "pixel_size_nm is not given, but the table follows the beam across a field of view: give the nanometres "
            "per pixel."
        )
    return jnp.ones((), dtype)
