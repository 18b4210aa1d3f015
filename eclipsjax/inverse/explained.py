"""How much of the images a simulated signal explains: what is left, in the brightness that leaves least."""

from __future__ import annotations

import jax.numpy as jnp

from eclipsjax._types import Map, Scalar, SignalStack
from eclipsjax.inverse.measurement import Measurement


def left_by(seen: SignalStack, measurement: Measurement, spread: Scalar) -> tuple[SignalStack, Map]:
    """Levels less brightness * `seen`, `(segment, y, x)`, and the brightness, `(y, x)`.

    One brightness for all pixels, and beside it every pixel's own share with the relative standard deviation `spread`
    beforehand. Levels that were cut off leave nothing on the far side of the cut. Gradient: exact almost everywhere.
    """
    m = measurement
    known = m.measured.astype(seen.dtype) / m.std[:, None, None] ** 2
    told, of_seen = jnp.sum(known * m.level * seen, axis=0), jnp.sum(known * seen**2, axis=0)
    overall = jnp.sum(told) / jnp.sum(of_seen)
    # spread = inf: nothing known beforehand.
    held = 1.0 / jnp.maximum(spread, jnp.finfo(seen.dtype).tiny) ** 2
    information = overall**2 * of_seen + jnp.minimum(held, 1e30)
    share = overall * (told - overall * of_seen) / jnp.where(information > 0, information, 1.0)
    brightness = overall * (1.0 + share)
    left = m.level - brightness[None] * seen
    left = jnp.where(m.above, jnp.maximum(left, 0.0), left)
    return jnp.where(m.below, jnp.minimum(left, 0.0), left), brightness
