"""The Vision Field Transformer: images straight from normals, through the exposed angle of every pixel.

Attention twice. Over the normals about a pixel, learned: which to believe where they are noisy. Then along rays: the
horizon is the largest mean slope, and each ray looks at 8 near places and at the peak of two stretches an octave. What
it looks at is the relief that the normals belong to, by least squares: a sum along each ray would add up their noise.
The visible angle is then the exact simulator's own integral, so one network serves any detector, bias and law.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map, NormalMap
from eclipsjax.imaging.facets import Facets
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.specimen.from_slopes import relief_of_slopes
from eclipsjax.specimen.horizon import PeakHorizon, horizon
from eclipsjax.specimen.normals import slopes_of_unit_normals


class VisionFieldTransformer(FromNormals):
    """Signals from normals: `vft(normals, table)`, with `VisionFieldTransformer.shipped()` or `.load(path)`.

    - `parameters`: of the network, nested dictionaries of arrays; `config`: its shape (static).
    - `card`: how it was trained and what it reached, JSON text (static).

    Noise of the normals is cleaned. Knows slopes and distances in pixels only, so any pixel size will do, and any image
    from 1 x 1 on: beyond the border nothing hides, and the last normals repeat. Turns and flips with its input.
    Gradient: exact almost everywhere, of first order, in normals, table, law and parameters.
    """

    kind: ClassVar[str] = "vision field transformer"
    name: ClassVar[str] = "vft"

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        from eclipsjax.nn.vision_field_network import VisionFieldConfig

        return VisionFieldConfig

    def seen(self, slope_x: Map, slope_y: Map, pixel_nm: Any, table: Any = None) -> tuple[Facets, PeakHorizon, int]:
        """The believed slopes with their relief, how rays look over it, and how many azimuths."""
        return *_seen(self.config, self.parameters, slope_x, slope_y, pixel_nm), self.config.azimuths

    def exposed(self, normals: Any) -> Float[Array, "azimuth y x"]:
        """The horizons it sees, cotangents as `horizon` gives them, `(azimuth, y, x)`. Gradient: exact."""
        facets, peaks, azimuths = self._seen_from(normals)
        return horizon(facets, azimuths, peaks)

    def cleaned(self, normals: Any) -> NormalMap:
        """The normals it believes, `(y, x, 3)`, of unit length. Gradient: exact."""
        return self._seen_from(normals)[0].normals()

    def _seen_from(self, normals: Any) -> tuple[Facets, PeakHorizon, int]:
        slopes = slopes_of_unit_normals(normals)
        return self.seen(*slopes, jnp.ones((), slopes[0].dtype))


@partial(jax.jit, static_argnums=0)
def _seen(config, parameters, slope_x: Map, slope_y: Map, pixel_nm: Array) -> tuple[Facets, PeakHorizon]:
    return facets_and_peaks(config, parameters, slope_x, slope_y, pixel_nm)


def facets_and_peaks(
    config: Any, parameters: Any, slope_x: Map, slope_y: Map, pixel_nm: Array
) -> tuple[Facets, PeakHorizon]:
    """The believed slopes, the relief of those believed for it, and how rays look over it. Gradient: exact."""
    from eclipsjax.nn.vision_field_network import believe

    believed = believe(config, parameters, slope_x, slope_y)
    height_px = relief_of_slopes(*believed.relief, believed.restraint)
    facets = Facets(height_px * pixel_nm, pixel_nm, *believed.facets)
    return facets, PeakHorizon(config.octaves)
