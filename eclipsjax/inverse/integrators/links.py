"""Links between neighbouring pixels: the height difference that the slopes ask for along each, and how much it weighs.

A link's difference is the mean of its two pixels' slopes (trapezoid rule, second order). Least squares over all links
is Poisson's equation with a Neumann border: diagonal in cosine modes where all links weigh the same, a sparse
system for conjugate gradients where not.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._conjugate_gradients import conjugate_gradients
from eclipsjax._cosine import cosine_modes_2d, frequencies, from_cosine_modes_2d, inverse_or_zero
from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.outlying import ONE, typical


class Links(eqx.Module):
    """A number per link: `x` between horizontal neighbours, `y` between vertical ones. Heights in pixels."""

    x: Float[Array, "y across"]
    y: Float[Array, "down x"]

    def __mul__(self, other: Links) -> Links:
        return Links(self.x * other.x, self.y * other.y)

    def __sub__(self, other: Links) -> Links:
        return Links(self.x - other.x, self.y - other.y)

    def __add__(self, other: Links) -> Links:
        return Links(self.x + other.x, self.y + other.y)


def differences(height: Map) -> Links:
    """Height differences along the links, toward growing x and y. Gradient: exact."""
    return Links(height[:, 1:] - height[:, :-1], height[1:] - height[:-1])


def divergence(links: Links) -> Map:
    """The transpose of `differences`: what comes in minus what goes out. Gradient: exact."""
    across = jnp.pad(links.x, ((0, 0), (1, 0))) - jnp.pad(links.x, ((0, 0), (0, 1)))
    return across + jnp.pad(links.y, ((1, 0), (0, 0))) - jnp.pad(links.y, ((0, 1), (0, 0)))


def trapezoid(slope_x: Map, slope_y: Map) -> Links:
    """Differences that the slopes ask for, both ends of a link counting alike. Gradient: exact."""
    return Links(0.5 * (slope_x[:, 1:] + slope_x[:, :-1]), 0.5 * (slope_y[1:] + slope_y[:-1]))


def cubic(slope_x: Map, slope_y: Map) -> Links:
    """As `trapezoid`, by the cubic through four slopes instead of the line through two: fourth order. Gradient: exact.

    Axes of fewer than four pixels keep the trapezoid.
    """

    def along(slope):
        if slope.shape[1] < 4:
            return 0.5 * (slope[:, 1:] + slope[:, :-1])
        inner = (13 * (slope[:, 1:-2] + slope[:, 2:-1]) - slope[:, :-3] - slope[:, 3:]) / 24
        first = 9 * slope[:, :1] + 19 * slope[:, 1:2] - 5 * slope[:, 2:3] + slope[:, 3:4]
        last = 9 * slope[:, -1:] + 19 * slope[:, -2:-1] - 5 * slope[:, -3:-2] + slope[:, -4:-3]
        return jnp.concatenate([first / 24, inner, last / 24], axis=1)

    return Links(along(slope_x), along(slope_y.T).T)


def relative_weights(weights: Map | None, mask: Array | None, slope: Map) -> Map | None:
    """`weights` inside `mask`, 0 outside, over the mean of those that are not 0: only ratios can matter to a height.

    With a mask alone 1 inside, in the precision of `slope`; None without either. Gradient: exact.
    """
    if weights is None:
        return None if mask is None else mask.astype(slope.dtype)
    weights = weights if mask is None else jnp.where(mask, weights, 0.0)
    largest = jnp.max(weights)
    weights = weights / jnp.where(largest > 0, largest, 1.0)
    counted = jnp.sum((weights > 0).astype(weights.dtype))
    return weights * counted / jnp.where(largest > 0, jnp.sum(weights), 1.0)


def weighted_trapezoid(slope_x: Map, slope_y: Map, weights: Map, mask: Array | None) -> tuple[Links, Links]:
    """Differences and weights of the links, each end counting by its pixel's weight: `(differences, weights)`.

    Links to a pixel outside `mask` weigh nothing. Gradient: exact.
    """

    def along(slope, weights, inside, axis):
        def low(a):
            return lax.slice_in_dim(a, 0, -1, axis=axis)

        def high(a):
            return lax.slice_in_dim(a, 1, None, axis=axis)

        total = low(weights) + high(weights)
        known = total > 0
        mean = (low(weights * slope) + high(weights * slope)) / jnp.where(known, total, 1.0)
        linked = known if inside is None else known & low(inside) & high(inside)
        return jnp.where(linked, mean, 0.0), jnp.where(linked, 0.5 * total, 0.0)

    step_x, weight_x = along(slope_x, weights, mask, 1)
    step_y, weight_y = along(slope_y, weights, mask, 0)
    return Links(step_x, step_y), Links(weight_x, weight_y)


def loop_sums(slope_x: Map, slope_y: Map, rule: Callable[[Map, Map], Links] = trapezoid) -> Float[Array, "y-1 x-1"]:
    """Sum of the links' differences around every square of four pixels: 0 for a surface, noise (of twice the slopes'
    variance) otherwise. `rule` makes links of slopes. Gradient: exact."""
    links = rule(slope_x, slope_y)
    return links.x[:-1] + links.y[:, 1:] - links.x[1:] - links.y[:, :-1]


def mean_of_loops(loops: Float[Array, "down across"]) -> Map:
    """On every pixel the mean of the four loops that it belongs to; 0 on a single line, which has none."""
    if 0 in loops.shape:
        return jnp.zeros((loops.shape[0] + 1, loops.shape[1] + 1), loops.dtype)
    around = jnp.pad(loops, 1, mode="edge")
    return 0.25 * (around[1:, 1:] + around[:-1, 1:] + around[1:, :-1] + around[:-1, :-1])


def box_sums(values: Map, half: int) -> Map:
    """Sum over the square of `2 half` a side around every value: how far a walk along its sides climbs."""
    for axis in (0, 1):
        pads = [(half, half) if a == axis else (0, 0) for a in (0, 1)]
        along = jnp.cumsum(jnp.pad(values, pads), axis=axis)
        size = values.shape[axis]
        along = jnp.pad(along, [(1, 0) if a == axis else (0, 0) for a in (0, 1)])
        width = 2 * half
        values = lax.slice_in_dim(along, width, width + size, axis=axis) - lax.slice_in_dim(along, 0, size, axis=axis)
    return values


def loop_noise(slope_x: Map, slope_y: Map) -> Scalar:
    """Standard deviation of the slopes' noise, from their loop sums' median; at least .001 of the slopes' rms.

    Gradient: none.
    """
    slope_x, slope_y = lax.stop_gradient((slope_x, slope_y))
    least = 1e-3 * jnp.sqrt(jnp.mean(slope_x**2 + slope_y**2)) + 1e-6
    if min(slope_x.shape) < 2:
        return least
    return least + typical(jnp.abs(loop_sums(slope_x, slope_y))) / (ONE * 2**0.5)


def laplacian_of_modes(shape: tuple[int, int], dtype) -> Map:
    """Eigenvalue of the 5-point Laplacian (positive) of every cosine mode."""
    rows, columns = (4 * jnp.sin(0.5 * frequencies(n, dtype)) ** 2 for n in shape)
    return rows[:, None] + columns[None, :]


def poisson(source: Map) -> Map:
    """Height, mean 0, whose `divergence(differences(height))` is `source` less its mean. Gradient: exact."""
    inverse = inverse_or_zero(laplacian_of_modes(source.shape, source.dtype))
    return from_cosine_modes_2d(inverse * cosine_modes_2d(source))


def least_squares(steps: Links, weights: Links, tolerance: float | None = None, max_iterations: int = 500) -> Map:
    """Height that fits the differences `steps` with `weights` best, up to a constant for each linked piece.

    Conjugate gradients with the equal-weight solution as preconditioner. `tolerance`: of the relative residual, 1e-10
    in float64 and 1e-6 in float32 unless given. Gradient: as exact as the tolerance (implicit differentiation), in
    `steps` and `weights`.
    """
    if tolerance is None:
        tolerance = 1e-10 if steps.x.dtype == jnp.float64 else 1e-6

    def matvec(height):
        return divergence(weights * differences(height))

    def solve(matvec, rhs):
        return conjugate_gradients(matvec, rhs, poisson, tolerance, max_iterations)[0]

    return lax.custom_linear_solve(matvec, divergence(weights * steps), solve, symmetric=True)
