"""The Vision Field Transformer: images straight from normals, through the exposed angle of every pixel.

Attention twice. Over the normals about a pixel, learned: which to believe where they are noisy. Then along rays: the
horizon is the largest mean slope, and each ray looks at 8 near places and at the peak of two stretches an octave. What
it looks at is the relief that all normals belong to, by least squares: a sum along each ray would add up their noise.
The visible angle is then the exact simulator's own integral, so one network serves any detector, bias and law.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map, NormalMap, Number, SignalStack
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.nn.from_normals import pixel_size
from eclipsjax.nn.trained import Trained
from eclipsjax.specimen.emission import EmissionLaw
from eclipsjax.specimen.from_slopes import relief_of_slopes
from eclipsjax.specimen.horizon import PeakHorizon, horizon
from eclipsjax.specimen.normals import slopes_of_unit_normals


class VisionFieldTransformer(Trained):
    """Signals from normals: `vft(normals, table)`, with `VisionFieldTransformer.shipped()` or `.load(path)`.

    - `parameters`: of the network, nested dictionaries of arrays; `config`: its shape (static).
    - `card`: how it was trained and what it reached, JSON text (static).

    Knows slopes and distances in pixels only, so any pixel size will do, and any image from 1 x 1 on: beyond the border
    nothing hides, and the last normals repeat. Turns and flips with its input. Gradient: exact almost everywhere, in
    normals, table, law and parameters.
    """

    kind: ClassVar[str] = "vision field transformer"
    name: ClassVar[str] = "vft"

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        from eclipsjax.nn.vision_field_network import VisionFieldConfig

        return VisionFieldConfig

    @staticmethod
    def shapes(config: Any) -> Any:
        """Shapes of the parameters of such a network."""
        from eclipsjax.nn.vision_field_network import parameter_shapes

        return parameter_shapes(config)

    def __call__(
        self,
        normals: Any,
        table: AcceptanceTable,
        emission: EmissionLaw | None = None,
        pixel_size_nm: Number | None = None,
    ) -> SignalStack:
        """Signal of every segment, `(segment, y, x)`, as `render` gives it of the surface with these normals.

        **Arguments:**

        - `normals`: `(y, x, 3)`, of unit length, image axes, as `Surface.normals()` gives them; noise is cleaned.
        - `table`: from `acceptance(scope)`.
        - `emission`: the angular law, `Lambertian()` unless given.
        - `pixel_size_nm`: scalar, nm; only needed where the table follows the beam across a wide field.

        Gradient: exact almost everywhere.
        """
        slope_x, slope_y = slopes_of_unit_normals(normals)
        pixel = pixel_size(table, pixel_size_nm, slope_x.dtype)
        facets, peaks = _seen(self.config, self.parameters, slope_x, slope_y, pixel)
        return render(facets, table, azimuths=self.config.azimuths, emission=emission, horizon=peaks)

    def exposed(self, normals: Any) -> Float[Array, "azimuth y x"]:
        """The horizons it sees, cotangents as `horizon` gives them, `(azimuth, y, x)`. Gradient: exact."""
        slopes = slopes_of_unit_normals(normals)
        facets, peaks = _seen(self.config, self.parameters, *slopes, jnp.ones((), slopes[0].dtype))
        return horizon(facets, self.config.azimuths, peaks)

    def cleaned(self, normals: Any) -> NormalMap:
        """The normals it believes, `(y, x, 3)`, of unit length. Gradient: exact."""
        slopes = slopes_of_unit_normals(normals)
        return _seen(self.config, self.parameters, *slopes, jnp.ones((), slopes[0].dtype))[0].normals()


@partial(jax.jit, static_argnums=0)
def _seen(config, parameters, slope_x: Map, slope_y: Map, pixel_nm: Array) -> tuple[Facets, PeakHorizon]:
    return facets_and_peaks(config, parameters, slope_x, slope_y, pixel_nm)


def facets_and_peaks(
    config: Any, parameters: Any, slope_x: Map, slope_y: Map, pixel_nm: Array
) -> tuple[Facets, PeakHorizon]:
    """The believed slopes, the relief of all given ones, and how rays look over it. Gradient: exact."""
    from eclipsjax.nn.vision_field_network import believe

    believed = believe(config, parameters, slope_x, slope_y)
    # Least squares over all given normals takes noise out by itself, and what cleaning does to a wall's few pixels
    # would change how tall it is.
    height_px = relief_of_slopes(slope_x, slope_y, believed.restraint)
    facets = Facets(height_px * pixel_nm, pixel_nm, believed.slope_x, believed.slope_y)
    return facets, PeakHorizon(config.octaves, believed.gain)
