"""The two polar integrals of the Lambertian law, in closed form.

Along one azimuth a Lambertian surface sends n_z (sin(theta) cos(theta) - slope sin(theta)^2) d theta / pi toward polar
angle theta. What a detector collects between two polar angles is a difference of these antiderivatives.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def polar_primitives_of_angle(theta: Array) -> tuple[Array, Array]:
    """`(b, a)` as `polar_primitives`, from the polar angle theta itself, radians. Gradient: exact."""
    sine = jnp.sin(theta)
    return 0.5 * sine * sine, 0.5 * (theta - sine * jnp.cos(theta))


@jax.custom_jvp
def polar_primitives(cot_theta: Array) -> tuple[Array, Array]:
    """Antiderivatives of the Lambertian law along one azimuth, up to theta = acot(cot_theta) in (0, pi).

    `b`, the integral of sin cos, is sin^2(theta) / 2; `a`, the integral of sin^2, is
    (theta - sin(theta) cos(theta)) / 2; both from 0. `cot_theta`: finite, any shape. Returns `(b, a)`, to a
    relative 5e-7 in float32 and 1e-14 in float64. Gradient: exact and finite.
    """
    # With w = 1 - |cos theta|, a = w^(3/2) p(w), and p is analytic on [0, 1]: a short polynomial, four times
    # as fast as XLA's arctan on a CPU, and free of the difference of two nearly equal terms at small theta.
    root = jax.lax.rsqrt(1.0 + cot_theta * cot_theta)
    square = root * root
    w = square / (1.0 + jnp.abs(cot_theta) * root)
    weights = _segment_polynomial(18 if cot_theta.dtype == jnp.float64 else 7)
    series = jnp.full_like(w, weights[-1])
    for weight in weights[-2::-1]:
        series = series * w + weight
    a = w * jnp.sqrt(w) * series
    return 0.5 * square, jnp.where(cot_theta < 0, math.pi / 2 - a, a)


@polar_primitives.defjvp
def _polar_primitives_jvp(primals, tangents):
    (cot_theta,), (tangent,) = primals, tangents
    b, a = polar_primitives(cot_theta)
    da = -4.0 * b * b * tangent
    return (b, a), (cot_theta * da, da)


@functools.cache
def _segment_polynomial(degree: int) -> tuple[float, ...]:
    """Power series of p(w), the integral of 2 v^2 sqrt(2 - w v^2) over v in [0, 1], for w in [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    v, dv = 0.5 * (nodes + 1.0), 0.5 * weights

    def p(w):
        return (2.0 * v**2 * np.sqrt(2.0 - np.asarray(w)[..., None] * v**2)) @ dv

    fit = np.polynomial.Chebyshev.interpolate(p, degree, domain=[0.0, 1.0])
    return tuple(float(c) for c in fit.convert(kind=np.polynomial.Polynomial).coef)
