"""Pixels that an edge runs through: they show a mean normal, and its slope is not their mean slope.

Of a pixel that a wall of slope T (angle a) covers by the share f, and level ground for the rest, the mean normal has
the slope f sin a / (1 - f + f cos a): less than the mean slope f T, by far where walls are steep. Solved for f, with T
from the steepest pixel around, it gives the mean slope back.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax

from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.links import loop_noise
from eclipsjax.inverse.integrators.outlying import excess_over_surroundings, without_spikes


class Unmixed(eqx.Module):
    """`method`, after pixels that steep edges run through have got their mean slope instead of their mean normal's.

    For terraces and flat-topped islands whose walls are one to three pixels wide. Round things (particles) have no
    such pixels: what is steep in them is made steeper wrongly. Spikes are taken out first, as in `Despiked`.

    - `method`: any other; weights and masks are not taken.

    Gradient: that of the method and of the change, which pixels it concerns held fixed.
    """

    method: Any

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        noise = loop_noise(slope_x, slope_y)
        return self.method.height_px(*unmixed(*without_spikes(slope_x, slope_y, noise), noise), None, None)


def unmixed(slope_x: Map, slope_y: Map, noise: Scalar) -> tuple[Map, Map]:
    """Mean slopes of pixels whose mean normals' slopes are given. Gradient: exact, the pixels concerned held fixed."""
    around, excess, size, across = excess_over_surroundings(slope_x, slope_y, noise)
    steepest = lax.reduce_window(size, -jnp.inf, lax.max, (3, 3), (1, 1), "SAME")
    upright = 1.0 / jnp.sqrt(1.0 + steepest**2)
    share = size / (steepest * upright + size * (1.0 - upright))
    gain = jnp.where(across, share * steepest / size, 1.0)
    return around[0] + gain * excess[0], around[1] + gain * excess[1]
