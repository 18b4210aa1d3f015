"""Whether images were given for each other's segments, two of them or all around: rightly, they hang together better.

Two things betray a swap: levels that no slope explains (the closed form's residual), and slopes whose sums around
four pixels do not close. Opposite segments of a four-quadrant detector leave the residual alone and mirror one slope,
so that only the loops tell; so do they where all images are one place on.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError
from eclipsjax.imaging.fisher import LevelNoise
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.inverse.integrators.links import loop_sums
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.photometric import flat_response, photometric_slopes
from eclipsjax.specimen.emission import EmissionLaw, law_of

# Pixels along each side that are looked at. A swap is believed if it takes away this share of what exceeds the noise,
# which must be so many standard deviations of a sum of squares and so much of what noise alone leaves.
_SIDE, _TAKEN, _SIGMAS, _LEAST = 128, 0.5, 10.0, 0.03
# More orders than these that do equally well are no swap but something else.
_AMBIGUOUS = 2
# What hidden parts of the detector do to levels, as a share: noise below that is no measure.
_MODEL_ERROR = 0.03
# Residuals beyond so many standard deviations count no more: what the relief hides is no swap.
_OUTLIER = 4.0


def check_swapped(
    measurement: Measurement, table: AcceptanceTable, emission: EmissionLaw | None = None, pixel_size_nm: Any = 1.0
) -> None:
    """Raise `InputError` where another order of the images explains them far better, naming it. Gradient: none."""
    rows, columns = measurement.level.shape[1:]
    top, left = max((rows - _SIDE) // 2, 0), max((columns - _SIDE) // 2, 0)
    part = jax.tree.map(lambda v: v[:, top : top + _SIDE, left : left + _SIDE] if v.ndim == 3 else v, measurement)
    part = _equalised(part, flat_response(table, law_of(emission))[:, 0, 0, 0])
    part = dataclasses.replace(part, noise=_at_least(part, _MODEL_ERROR))
    count = len(table.names)
    exchanged, turned = _other_orders(table.names)
    others = exchanged | turned
    orders = np.array([tuple(range(count)), *others.values()])
    scores = np.asarray(_misfits(part, orders, table, emission, pixel_size_nm), float)
    best = int(np.argmin(scores))
    pixels = part.level[0].size
    of_noise = pixels * (count - 2)
    taken = scores[0] - scores[best]
    clear = taken > max(_SIGMAS * np.sqrt(2.0 * of_noise), _LEAST * of_noise)
    if best and clear and taken > _TAKEN * (scores[0] - of_noise):
        alike = [said for said, score in zip(others, scores[1:], strict=True) if score - scores[best] < 0.1 * taken]
        if len(alike) > _AMBIGUOUS or 0 < len(turned.keys() & alike) < len(alike):
            return
        said = " or ".join(alike)
        looks = f"the images of segments {said} look swapped: exchanged"
        if alike[0] in turned:
            looks = f"the images look as if given for segments {said} (all of them places on): so taken"
        raise InputError(
            f"{looks} they disagree {taken / (scores[0] - of_noise):.0%} less beyond the noise; give the files in the "
            "microscope's order, or correct the azimuths in its file."
        )


def _other_orders(names: tuple[str, ...]) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """What is said of an order -> which image belongs to each segment in it: two exchanged, and all turned around."""
    count = len(names)
    exchanged = {}
    for j, k in itertools.combinations(range(count), 2):
        order = list(range(count))
        order[j], order[k] = k, j
        exchanged[f"{names[j]} and {names[k]}"] = tuple(order)
    turned = {}
    for places in range(1, count):
        order = tuple((k + places) % count for k in range(count))
        # Image i is segment s where order[s] == i.
        turned[", ".join(names[order.index(k)] for k in range(count))] = order
    return exchanged, turned


def _equalised(measurement: Measurement, flat: Array) -> Measurement:
    """Channels scaled to the means that level ground would give them: gains that are off are no swap."""
    mean = jnp.mean(measurement.level, axis=(1, 2))
    factor = flat.astype(mean.dtype) * jnp.mean(mean) / jnp.where(mean > 0, mean, 1.0)
    noise = LevelNoise(measurement.noise.additive_std * factor, measurement.noise.electrons, measurement.noise.common)
    return dataclasses.replace(measurement, level=measurement.level * factor[:, None, None], noise=noise)


def _at_least(measurement: Measurement, share: float) -> LevelNoise:
    noise = measurement.noise
    least = share * jnp.mean(jnp.abs(measurement.level), axis=(1, 2))
    return LevelNoise(jnp.maximum(noise.additive_std, least), noise.electrons, noise.common)


@jax.jit
def _misfits(measurement: Measurement, orders: Array, table: AcceptanceTable, emission: Any, pixel: Any) -> Array:
    """Of every order, one after the other."""
    return jax.lax.map(lambda order: _misfit(_ordered(measurement, order), table, emission, pixel), orders)


def _ordered(measurement: Measurement, order: Array) -> Measurement:
    """As if the images had been given in another order; their noise goes with them."""
    return jax.tree.map(lambda v: v[order] if v.ndim and v.shape[0] == len(order) else v, measurement)


def _misfit(measurement: Measurement, table: AcceptanceTable, emission: Any, pixel_size_nm: Any) -> Array:
    slopes = photometric_slopes(measurement, table, emission, 0, pixel_size_nm)
    return _score(slopes.chi_square, slopes.slope_x, slopes.slope_y, slopes.covariance)


def _score(chi_square, slope_x, slope_y, covariance) -> Float[Array, ""]:
    loops = loop_sums(slope_x, slope_y)
    variance = jnp.median(covariance[..., 0, 0] + covariance[..., 1, 1])
    # A loop sums half of each of eight slopes.
    of_loops = loops**2 / variance
    limit = _OUTLIER**2
    return jnp.sum(jnp.minimum(chi_square, limit)) + jnp.sum(jnp.minimum(of_loops, limit))
