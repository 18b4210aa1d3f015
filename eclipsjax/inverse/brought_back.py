"""What cleaning took of the relief, brought back.

Cleaned slopes lack noise, and with it some relief that looked like noise, most of it in long waves, which heights are
made of. What was taken away has curl where it is noise and none where it is relief: Wiener's filter parts the two.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.integrators.wiener import Wiener
from eclipsjax.nn.evidence import Evidence, slopes_along
from eclipsjax.specimen.surface import Surface


@jax.jit
def brought_back_px(slopes: Float[Array, "2 y x"], evidence: Evidence) -> Map:
    """Heights, in pixels, that `slopes` lack of what the images say, as far as these are no noise. Gradient: exact."""
    return Wiener().height_px(*(slopes_along(evidence.normals) - slopes), None, None)


@jax.jit
def slopes_of_relief(slopes: Float[Array, "2 y x"], evidence: Evidence) -> Float[Array, "2 y x"]:
    """Slopes of the heights by least squares, with what was brought back. Gradient: exact."""
    return slopes_of_px(Poisson().height_px(*slopes, None, None) + brought_back_px(slopes, evidence))


@jax.jit
def slopes_of_px(height_px: Map) -> Float[Array, "2 y x"]:
    """Slopes of heights in pixels. Gradient: exact."""
    return jnp.stack(Surface(height_px, jnp.ones((), height_px.dtype)).slopes())
