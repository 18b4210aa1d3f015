"""The shape vocabulary, and the one sign that ties azimuths to arrays.

Arrays are `[y, x]` as the image is seen: x along columns, y down the rows, z up to the detector. Azimuths are
counter-clockwise from +x as seen in the image. Lengths in the chamber are millimetres, on the specimen nanometres.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Number = float | int | np.number | Array
Scalar = Float[Array, ""]
PerSegment = Float[Array, "segment"]
Map = Float[Array, "y x"]
NormalMap = Float[Array, "y x 3"]
SignalStack = Float[Array, "segment y x"]


class InputError(ValueError):
    """A user's mistake, told in one sentence: which field, which value, what to do."""


def as_real(value: Any) -> Array:
    """A floating-point array; Python and NumPy numbers get JAX's default precision, JAX arrays keep their own."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        # With an explicit dtype the type is never weak, so a changed number does not trace anew.
        return jnp.asarray(value, dtype=value.dtype)
    return jnp.asarray(value, dtype=jnp.result_type(float))


def concrete(value: Any) -> np.ndarray | None:
    """The numbers behind `value`, or None while JAX is tracing (then nothing can be checked)."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def image_direction(azimuth: Any) -> tuple[Array, Array]:
    """Components along the array axes (x, y) of an azimuth in radians: (cos, -sin), because rows run down."""
    return jnp.cos(azimuth), -jnp.sin(azimuth)
