"""Tensor-product cubic B-splines on uniform knots: potentials twice differentiable, their gradients conservative."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

OPEN, EVEN = "open", "even"


def spline_coefficients(values: Array, starts: Sequence[str]) -> Array:
    """Coefficients of the cubic spline that interpolates `values`; each axis grows by two.

    `starts` says per axis how the spline begins: `OPEN` (not-a-knot: the first two pieces are one polynomial) or
    `EVEN` (mirror-symmetric about the first sample). It ends open. Gradient: exact (linear).
    """
    for axis, start in enumerate(starts):
        matrix = jnp.asarray(_interpolation_matrix(values.shape[axis], start), values.dtype)
        values = jnp.moveaxis(jnp.tensordot(matrix, values, axes=(1, axis)), 0, axis)
    return values


def spline_sample(coefficients: Array, place: Sequence[Array]) -> tuple[Array, list[Array]]:
    """Value and partial derivatives (per sample spacing) at the fractional sample index `place`, one scalar per axis.

    The first and last pieces go on for one spacing beyond the samples, then linearly: the steps of an integrator that
    overshoots its plane see no kink, and the gradient is everywhere that of the value.
    Gradient: exact.
    """
    cells = [spline_weights(count - 3, u) for count, u in zip(coefficients.shape, place, strict=True)]
    first, values, slopes = ([cell[k] for cell in cells] for k in range(3))
    patch = lax.dynamic_slice(coefficients, first, (4,) * len(first))
    partial = [
        _contract(patch, [slopes[j] if j == k else values[j] for j in range(len(first))]) for k in range(len(first))
    ]
    return _contract(patch, values), partial


def spline_weights(intervals: int, place: Array) -> tuple[Array, Float[Array, "4"], Float[Array, "4"]]:
    """First of the four coefficients that matter at the fractional sample index `place`, their weights, the weights'
    slopes. `intervals`: between the samples of the axis. Gradient: exact."""
    cell = jnp.clip(jnp.floor(lax.stop_gradient(place)), 0, intervals - 1).astype(jnp.int32)
    return cell, *_basis(place - cell.astype(place.dtype))


def _contract(patch: Array, weights: Sequence[Array]) -> Array:
    for weight in reversed(weights):
        patch = patch @ weight
    return patch


def _basis(t: Array) -> tuple[Float[Array, "4"], Float[Array, "4"]]:
    """The four cubic B-splines alive in a cell at 0 <= t <= 1 and their slopes: the same cubics for one more cell on
    either side (the first and last pieces need it), linear beyond."""
    inside = jnp.where(t < -1, -1.0, jnp.where(t > 2, 2.0, t))
    s, over = 1.0 - inside, t - inside
    value = jnp.stack([s**3, 4 - 6 * inside**2 + 3 * inside**3, 4 - 6 * s**2 + 3 * s**3, inside**3]) / 6
    slope = jnp.stack([-(s**2), inside * (3 * inside - 4), s * (4 - 3 * s), inside**2]) / 2
    return value + over * slope, slope


@lru_cache(maxsize=64)
def _interpolation_matrix(count: int, start: str) -> np.ndarray:
    """`(count + 2, count)`: from samples to coefficients along one axis."""
    system = np.zeros((count + 2, count + 2))
    rows = np.arange(count)
    for offset, weight in enumerate((1 / 6, 4 / 6, 1 / 6)):
        system[rows + 1, rows + offset] = weight
    if start == EVEN:
        system[0, [0, 2]] = 1.0, -1.0
    else:
        system[0, :5] = 1.0, -4.0, 6.0, -4.0, 1.0
    system[-1, -5:] = 1.0, -4.0, 6.0, -4.0, 1.0
    return np.linalg.inv(system)[:, 1:-1]
