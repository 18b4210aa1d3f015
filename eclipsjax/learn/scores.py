"""How far heights and normals are off, as losses count it."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map, Scalar
from eclipsjax.nn.evidence import unit_normals


def without_plane(height: Map) -> Map:
    """`height` less its best plane."""
    rows, columns = height.shape
    y, x = (jnp.linspace(-1.0, 1.0, n, dtype=height.dtype) for n in (rows, columns))
    height = height - jnp.mean(height)
    across = jnp.sum(height * x[None, :]) / (rows * jnp.sum(x**2))
    down = jnp.sum(height * y[:, None]) / (columns * jnp.sum(y**2))
    return height - across * x[None, :] - down * y[:, None]


def rms(values: Array) -> Scalar:
    """Root mean square, whose derivative is finite at 0."""
    return jnp.sqrt(jnp.mean(values**2) + 1e-16)


def square_angle(one: Float[Array, "2 y x"], other: Float[Array, "2 y x"]) -> Map:
    """Squared angle between the normals of two maps of slopes, by the chord, radians^2."""
    return jnp.sum((unit_normals(one) - unit_normals(other)) ** 2, axis=0)
