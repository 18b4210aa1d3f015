"""How far to follow the depth network, and how far the robust height it starts from.

Two things speak against it, both seen in the slopes. Where hardly anything is noise the classical height is nearly
exact and a network's own errors are all that is left. And where the slopes' distribution is Gaussian so is the relief:
then the Wiener filter is the best estimate there is, and a network can only lose, unless noise is so strong that steep
slopes are biased.
"""

from __future__ import annotations

import jax.numpy as jnp

from eclipsjax._types import Scalar
from eclipsjax.inverse.belief import OFFERS, Clues, mean_slopes

# Standard deviations of the slopes' noise where the network counts by half: on any relief, on a Gaussian one.
_ANY, _GAUSSIAN = 0.02, 0.08
# Excess of the slopes' fourth moment beyond which a relief is not Gaussian; standard deviation of the mean, pixels.
_EXCESS, _REACH = 0.6, 2.0


def network_share(clues: Clues) -> Scalar:
    """How much of the network's change to take, 0 to 1. Gradient: exact."""
    variance = clues.noise**2
    of_any, of_gaussian = (variance / (variance + half**2) for half in (_ANY, _GAUSSIAN))
    gaussian = 1.0 / (1.0 + (excess_fourth_moment(clues) / _EXCESS) ** 4)
    return of_any * (1.0 - gaussian * (1.0 - of_gaussian))


def excess_fourth_moment(clues: Clues) -> Scalar:
    """Mardia's kurtosis of the mended slopes, lightly smoothed, less that of a Gaussian distribution (8)."""
    slopes = mean_slopes(clues.offers[OFFERS.index("mended")], _REACH)
    x, y = (slopes[..., k] - jnp.mean(slopes[..., k]) for k in (0, 1))
    xx, yy, xy = jnp.mean(x * x), jnp.mean(y * y), jnp.mean(x * y)
    # Slopes along one line only have no inverse: a little noise in both keeps it.
    least = 1e-2 * clues.noise**2 + 1e-6 * (xx + yy) + 1e-20
    xx, yy = xx + least, yy + least
    distance = (yy * x**2 - 2.0 * xy * x * y + xx * y**2) / (xx * yy - xy**2)
    return jnp.mean(distance**2) - 8.0
