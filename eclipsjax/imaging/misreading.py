"""What a wrong instrument costs: the tilt that the classical estimator reads off a plane when its instrument is not the
one that took the images.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._polar import polar_primitives_of_angle
from eclipsjax._types import InputError, PerSegment, Scalar, as_real, concrete, image_direction
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import record
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Detector, Microscope
from eclipsjax.specimen.horizon import NoRelief

_OPPOSITE_WITHIN_DEG = 20.0


def pair_constant(detector: Detector) -> PerSegment:
    """c / d of the classical estimator per segment: beta S / (2 sin(beta) J).

    beta is half the segment's span, S and J the integrals of 2 sin cos and sin^2 over its polar angles (seen from the
    axis; gap, offset and tilt are not the classical estimator's business). Gradient: exact.
    """
    segments = detector.segments
    half_span = jnp.radians(0.5 * (segments.stop_deg - segments.start_deg))
    b_inner, a_inner = polar_primitives_of_angle(jnp.arctan2(segments.inner_radius_mm, detector.distance_mm[None]))
    b_outer, a_outer = polar_primitives_of_angle(jnp.arctan2(segments.outer_radius_mm, detector.distance_mm[None]))
    return half_span * (b_outer - b_inner) / (jnp.sin(half_span) * (a_outer - a_inner))


def misread_slopes(
    true_scope: Microscope,
    assumed_scope: Microscope,
    tilt_deg: Any = 0.0,
    tilt_azimuth_deg: Any = 0.0,
    emission=None,
    azimuths: int = 64,
) -> Float[Array, "2"]:
    """Slopes (slope_x, slope_y) that the classical estimator reads off a tilted plane.

    The plane's images are made with `true_scope`; its gain and pedestal are undone with those of `assumed_scope`, and
    each pair of opposite segments k then says tan(tilt) cos(phi_k - azimuth) = (c/d) (F_k - F_opp) / (F_k + F_opp)
    with c/d and phi_k of `assumed_scope`; the pairs are joined by least squares. Equal to the plane's slopes where the
    scopes agree, the emission is Lambertian and no segment looks below the plane.

    **Arguments:**

    - `true_scope`, `assumed_scope`: microscopes with an even number of segments around one ring, at least four,
      numbered around it (so that k and k + half of them face each other).
    - `tilt_deg`: angle of the plane, deg, below 90.
    - `tilt_azimuth_deg`: where its normal leans, deg counter-clockwise as seen.
    - `emission`: the law of the true plane, Lambertian unless given. `azimuths`: as in `render`.

    Gradient: exact in all numbers of both scopes, the tilt and the law.
    """
    half = _check_pairs(true_scope, assumed_scope)
    tilt, azimuth = _check_plane(tilt_deg, tilt_azimuth_deg)
    slope = jnp.tan(jnp.radians(tilt))
    lean_x, lean_y = image_direction(jnp.radians(azimuth))
    plane = Facets.isolated((-slope * lean_x)[None, None], (-slope * lean_y)[None, None])
    signal = render(plane, acceptance(true_scope), azimuths, emission=emission, horizon=NoRelief())
    images = record(signal, true_scope)[:, 0, 0]
    segments = assumed_scope.detector.segments
    signal = images / segments.gain + segments.pedestal
    ratio = (signal[:half] - signal[half:]) / (signal[:half] + signal[half:])
    constant = pair_constant(assumed_scope.detector)
    read = 0.5 * (constant[:half] + constant[half:]) * ratio
    along_x, along_y = image_direction(jnp.radians(0.5 * (segments.start_deg + segments.stop_deg)))
    directions = 0.5 * jnp.stack([along_x[:half] - along_x[half:], along_y[:half] - along_y[half:]], axis=-1)
    return -jnp.linalg.solve(directions.T @ directions, directions.T @ read)


def misread_tilt(
    true_scope: Microscope,
    assumed_scope: Microscope,
    tilt_deg: Any = 0.0,
    tilt_azimuth_deg: Any = 0.0,
    emission=None,
    azimuths: int = 64,
) -> Scalar:
    """The tilt in degrees that the classical estimator reads: the angle of `misread_slopes`, arguments as there.

    Gradient: exact, except where 0 is read (a cone's tip: undefined; take `misread_slopes` there).
    """
    slopes = misread_slopes(true_scope, assumed_scope, tilt_deg, tilt_azimuth_deg, emission, azimuths)
    return jnp.degrees(jnp.arctan(jnp.linalg.norm(slopes)))


def _check_plane(tilt_deg: Any, tilt_azimuth_deg: Any) -> tuple[Scalar, Scalar]:
    tilt, azimuth = as_real(tilt_deg, "tilt_deg"), as_real(tilt_azimuth_deg, "tilt_azimuth_deg")
    angle, direction = concrete(tilt), concrete(azimuth)
    if angle is not None and not (angle.ndim == 0 and abs(angle) < 90):
        raise InputError(f"tilt_deg is {angle}: give one angle of the plane, below 90 degrees.")
    if direction is not None and not (direction.ndim == 0 and np.isfinite(direction)):
        raise InputError(f"tilt_azimuth_deg is {direction}: give one finite angle in degrees.")
    return tilt, azimuth


def _check_pairs(true_scope: Microscope, assumed_scope: Microscope) -> int:
    """Half the number of segments, if segment k + half is opposite segment k."""
    true, assumed = true_scope.detector.segments, assumed_scope.detector.segments
    if true.count != assumed.count:
        raise InputError(
            f"the true scope has {true.count} segments and the assumed one {assumed.count}: give equally many."
        )
    half = assumed.count // 2
    if assumed.count % 2 or half < 2:
        raise InputError(
            f"the classical estimator pairs opposite segments, but the scope has {assumed.count}: it needs an even "
            "number of at least four."
        )
    start, stop = concrete(assumed.start_deg), concrete(assumed.stop_deg)
    if start is not None and stop is not None:
        centre = 0.5 * (start + stop)
        off = (centre[half:] - centre[:half]) % 360.0 - 180.0
        if (abs(off) > _OPPOSITE_WITHIN_DEG).any() or len(set(assumed.rings)) > 1:
            raise InputError(
                f"segments at {centre} deg do not face each other in pairs (k and k + {half}): number the segments of "
                "one ring counter-clockwise."
            )
    return half
