"""Pixels whose slopes are free of the heights around them: what "the slope of this pixel" means in a derivative."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from eclipsjax._types import InputError, Map, as_real, real_named
from eclipsjax.specimen.surface import Surface


class Facets(Surface):
    """A surface whose slopes are given, not derived from its heights.

    The renderer takes the lean of each pixel from the slopes and what hides the detector from the heights, so a
    derivative with respect to `slope_x` or `slope_y` tilts every pixel by itself and leaves the relief around it
    as it is.

    - `height_nm`, `pixel_size_nm`: as in `Surface`.
    - `slope_x`, `slope_y`: `(y, x)`, dz/dx and dz/dy (y down), dimensionless.

    Gradient: exact in all fields.
    """

    slope_x: Map = eqx.field(converter=real_named("slope_x"))
    slope_y: Map = eqx.field(converter=real_named("slope_y"))

    def __check_init__(self):
        if not self.slope_x.shape == self.slope_y.shape == self.height_nm.shape:
            raise InputError(
                f"slope_x has shape {self.slope_x.shape}, slope_y {self.slope_y.shape} and height_nm "
                f"{self.height_nm.shape}: give three maps of one shape."
            )

    @classmethod
    def of(cls, surface: Surface) -> Facets:
        """The surface with its own slopes, freed from its heights. Gradient: exact."""
        return cls(surface.height_nm, surface.pixel_size_nm, *surface.slopes())

    @classmethod
    def isolated(cls, slope_x: Any, slope_y: Any) -> Facets:
        """Facets with no relief around them, `(y, x)` slopes: what closed-form photometric stereo assumes.

        Gradient: exact.
        """
        slope_x, slope_y = as_real(slope_x), as_real(slope_y)
        return cls(jnp.zeros_like(slope_x), jnp.ones((), slope_x.dtype), slope_x, slope_y)

    def slopes(self) -> tuple[Map, Map]:
        """`(slope_x, slope_y)` as given. Gradient: exact."""
        return self.slope_x, self.slope_y
