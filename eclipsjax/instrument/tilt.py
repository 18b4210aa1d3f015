"""The frame of a tilted plane: the one place where the signs of tilts live."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def tilted_axes(tilt_x_deg: Any, tilt_y_deg: Any, numpy: ModuleType = jnp) -> Float[Array | np.ndarray, "3 3"]:
    """Rows (e_x, e_y, normal) of a plane tilted about the image's x axis (lifting +y) and then y axis (lifting +x).

    e_x = (cos ty, 0, sin ty), e_y = (-sin tx sin ty, cos tx, sin tx cos ty). Tilts in deg; `numpy` is the module that
    computes: checks take NumPy, which nothing traces. Gradient: exact.
    """
    tilt_x, tilt_y = numpy.deg2rad(tilt_x_deg), numpy.deg2rad(tilt_y_deg)
    cos_x, sin_x, cos_y, sin_y = numpy.cos(tilt_x), numpy.sin(tilt_x), numpy.cos(tilt_y), numpy.sin(tilt_y)
    along_x = numpy.stack([cos_y, numpy.zeros_like(cos_y), sin_y])
    along_y = numpy.stack([-sin_x * sin_y, cos_x, sin_x * cos_y])
    normal = numpy.stack([-cos_x * sin_y, -sin_x, cos_x * cos_y])
    return numpy.stack([along_x, along_y, normal])
