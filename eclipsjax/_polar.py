"""The two polar integrals of the Lambertian law, in closed form.

Along one azimuth a Lambertian surface sends n_z (sin(theta) cos(theta) - slope sin(theta)^2) d theta / pi toward polar angle
theta. What a detector collects between two polar angles is a difference of these antiderivatives.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def polar_primitives(cot_theta: Array) -> tuple[Array, Array]:
    """`(b, a)`: the integrals from 0 to theta of sin cos and of sin^2, from cot(theta); theta in (0, pi).

    b = sin^2(theta) / 2, a = (theta - sin(theta) cos(theta)) / 2. Any shape. Gradient: exact for every real cot.
    """
    sin_squared = 1.0 / (1.0 + cot_theta * cot_theta)
    theta = (jnp.pi / 2) - jnp.arctan(cot_theta)
    return 0.5 * sin_squared, 0.5 * (theta - cot_theta * sin_squared)


def polar_primitives_of_angle(theta: Array) -> tuple[Array, Array]:
    """`(b, a)` as `polar_primitives`, from the polar angle theta itself, radians. Gradient: exact."""
    sine = jnp.sin(theta)
    return 0.5 * sine * sine, 0.5 * (theta - sine * jnp.cos(theta))
