"""What a network that makes normals of segment images is shown of them, and what it answers."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map, SignalStack

# Of 80 deg: what noise makes steeper is believed to be no steeper, as hardly any detector sees such a wall.
_STEEPEST = 5.7


class Evidence(eqx.Module):
    """What physics makes of the images, all `(3, y, x)` normals along (dz/dx, dz/dy, 1).

    - `normals`: with what the relief hides taken out, not cleaned; length: brightness over the typical one.
    - `closed_form`: nothing taken out. `facets`, `relief`: of the simulator that said what is hidden.
    - `waves`: of the heights of `normals`, each wave shrunk by how much of it is noise.
    - `noise`: `(y, x)` standard deviation of the first two components of `normals`.
    - `hidden`: `(segment, y, x)` signal that is missing, over that of a level pixel.
    - `left`: `(segment, y, x)` what the fit leaves, in units of its noise.
    - `cut`: `(segment, y, x)` -1 where the level is at most the one given, 1 where at least, 0 where measured.
    - `lean`: `(segment, 2)` relative change of a level pixel's signal with its two slopes.
    """

    normals: Float[Array, "3 y x"]
    closed_form: Float[Array, "3 y x"]
    facets: Float[Array, "3 y x"]
    relief: Float[Array, "3 y x"]
    waves: Float[Array, "3 y x"]
    noise: Map
    hidden: SignalStack
    left: SignalStack
    cut: SignalStack
    lean: Float[Array, "segment 2"]


class Answer(NamedTuple):
    """Slopes `(2, y, x)`, x and y, and the standard deviation of the normal's angle `(y, x)`, radians, per tangent
    direction."""

    slopes: Float[Array, "2 y x"]
    doubt: Map


def slopes_along(normals: Float[Array, "3 y x"]) -> Float[Array, "2 y x"]:
    """dz/dx and dz/dy of vectors along (dz/dx, dz/dy, 1) of any length, at most 80 deg. Gradient: exact."""
    length = jnp.sqrt(normals[0] ** 2 + normals[1] ** 2 + jnp.finfo(normals.dtype).tiny)
    return normals[:2] / jnp.maximum(normals[2], length / _STEEPEST)[None]


@jax.jit
def unit_normals(slopes: Float[Array, "2 y x"]) -> Float[Array, "3 y x"]:
    """Along (dz/dx, dz/dy, 1), of length 1. Gradient: exact."""
    upright = lax.rsqrt(1.0 + slopes[0] ** 2 + slopes[1] ** 2)
    return jnp.stack([slopes[0] * upright, slopes[1] * upright, upright])
