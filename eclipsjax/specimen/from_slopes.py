"""The relief that a map of slopes belongs to, and the plainest horizon of slopes: sums along each ray.

`Surface.slopes()` are central differences, which a pattern of alternating pixels does not show. In cosine modes they
are products with sin(k), so that least squares gives the heights back to rounding, but for those alternating modes,
where noise is all there is.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._cosine import frequencies, from_cosine_modes_2d, inverse_or_zero, slope_modes
from eclipsjax._types import Map, Scalar, image_direction
from eclipsjax.specimen.horizon import azimuth_centres
from eclipsjax.specimen.ray_steps import RaySteps
from eclipsjax.specimen.ray_views import Strip, padded_view


def relief_of_slopes(slope_x: Map, slope_y: Map, restraint: Scalar) -> Map:
    """Height in pixels, mean 0, whose central differences are the slopes, by least squares in cosine modes.

    `restraint`: the penalty on curvature squared, against slope squared: 0 inverts `Surface.slopes()` exactly, more
    holds down the shortest waves, which carry more noise than slope. Gradient: exact.
    """
    modes_x, modes_y = slope_modes(_mirrored(slope_x, 1), _mirrored(slope_y, 0))
    ky, kx = (frequencies(n, slope_x.dtype) for n in slope_x.shape)
    by_x, by_y = jnp.sin(kx)[None, :], jnp.sin(ky)[:, None]
    curvature = 2.0 - jnp.cos(kx)[None, :] - jnp.cos(ky)[:, None]
    penalised = by_x**2 + by_y**2 + restraint * curvature**2
    return from_cosine_modes_2d((by_x * modes_x + by_y * modes_y) * inverse_or_zero(penalised))


def cot_horizon_of_sums(slope_x: Map, slope_y: Map, azimuths: int, radius_px: int) -> Float[Array, "azimuth y x"]:
    """The plain ray formula: the largest mean slope along each ray, every pixel line summed up to `radius_px`.

    `(azimuth, y, x)`, cotangents as `horizon` gives them; beyond the border slopes are 0. What `relief_of_slopes`
    and `PeakHorizon` are measured against. Gradient: exact almost everywhere.
    """
    centres = azimuth_centres(azimuths)
    dtype = slope_x.dtype
    steps = RaySteps.on_lines(centres, np.arange(1.0, radius_px + 1), dtype)
    along = tuple(c.astype(dtype) for c in image_direction(jnp.asarray(centres)))
    whole = Strip(0, slope_x.shape[0])

    def of_one(ray):
        steps, (along_x, along_y) = ray
        own = slope_x * along_x + slope_y * along_y
        view = padded_view(own, steps.reach, 0.0)

        def further(state, step_and_number):
            total, last, best = state
            step, number = step_and_number
            near, far = view(step.near, whole), view(step.far, whole)
            here = near + step.far_weight * (far - near)
            total = total + 0.5 * (last + here)
            return (total, here, jnp.maximum(best, total / number)), None

        numbers = jnp.arange(1, radius_px + 1, dtype=dtype)
        return lax.scan(further, (jnp.zeros_like(own), own, own), (steps, numbers))[0][2]

    return lax.map(of_one, (steps, along))


def _mirrored(slope: Map, axis: int) -> Map:
    """Slopes at the border as those of a relief that is mirrored there, from `Surface`'s one-sided ones."""
    slope = jnp.moveaxis(slope, axis, 0)
    if slope.shape[0] > 1:
        first, last = (0.25 * (a + b) for a, b in ((slope[0], slope[1]), (slope[-1], slope[-2])))
        slope = jnp.concatenate([first[None], slope[1:-1], last[None]])
    return jnp.moveaxis(slope, 0, axis)
