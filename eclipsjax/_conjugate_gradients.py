"""Preconditioned conjugate gradients for symmetric positive (semi)definite systems."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int


def conjugate_gradients(
    matvec: Callable[[Array], Array],
    rhs: Array,
    precondition: Callable[[Array], Array],
    tolerance: float,
    max_iterations: int,
    start: Array | None = None,
) -> tuple[Array, Int[Array, ""]]:
    """Solution of `matvec(x) = rhs` and the iterations it took.

    Stops when the recursive residual falls below `tolerance` times the norm of `rhs`. A singular system must be
    consistent. Not differentiable by itself: wrap it in `lax.custom_linear_solve`.
    """
    target = tolerance**2 * jnp.vdot(rhs, rhs)

    def unfinished(state):
        _, residual, _, strength, count = state
        return (jnp.vdot(residual, residual) > target) & (strength > 0) & (count < max_iterations)

    def step(state):
        x, residual, direction, strength, count = state
        image = matvec(direction)
        alpha = strength / jnp.vdot(direction, image)
        x, residual = x + alpha * direction, residual - alpha * image
        scaled = precondition(residual)
        fresh = jnp.vdot(residual, scaled)
        return x, residual, scaled + (fresh / strength) * direction, fresh, count + 1

    first, residual = (jnp.zeros_like(rhs), rhs) if start is None else (start, rhs - matvec(start))
    scaled = precondition(residual)
    state = (first, residual, scaled, jnp.vdot(residual, scaled), jnp.zeros((), jnp.int32))
    x, _, _, _, count = lax.while_loop(unfinished, step, state)
    return x, count
