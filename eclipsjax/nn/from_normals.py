"""What the simulators that start from normals share: the exact integral over what they say is seen."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from eclipsjax._types import InputError, Map, Number, Scalar, SignalStack, as_real, shown
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.nn.trained import Trained
from eclipsjax.specimen.emission import EmissionLaw
from eclipsjax.specimen.normals import slopes_of_unit_normals
from eclipsjax.specimen.surface import check_pixel_size


class FromNormals(Trained):
    """A network that says how the surroundings of every pixel stand, from normals."""

    def seen(self, slope_x: Map, slope_y: Map, pixel_nm: Scalar, table: AcceptanceTable) -> tuple[Facets, Any, int]:
        """The surface as `render` takes it, its `horizon`, and how many azimuths."""
        raise NotImplementedError

    def __call__(
        self,
        normals: Any,
        table: AcceptanceTable,
        emission: EmissionLaw | None = None,
        pixel_size_nm: Number | None = None,
    ) -> SignalStack:
        """Signal of every segment, `(segment, y, x)`, as `render` gives it of the surface with these normals.

        **Arguments:**

        - `normals`: `(y, x, 3)`, of unit length, image axes, as `Surface.normals()` gives them.
        - `table`: from `acceptance(scope)`.
        - `emission`: the angular law, `Lambertian()` unless given.
        - `pixel_size_nm`: scalar, nm; only needed where the table follows the beam across a wide field.

        Gradient: exact almost everywhere.
        """
        slope_x, slope_y = slopes_of_unit_normals(normals)
        pixel = _pixel_size(table, pixel_size_nm, slope_x.dtype)
        facets, horizon, azimuths = self.seen(slope_x, slope_y, pixel, table)
        return render(facets, table, azimuths, emission=emission, horizon=horizon)


def _pixel_size(table: Any, pixel_size_nm: Any, dtype: Any) -> Scalar:
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
