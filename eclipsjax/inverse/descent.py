"""Descent by limited-memory BFGS in a metric that the caller gives: a generator of ever better points.

The caller stops when it likes, also by an exception: every point yielded is the best so far.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_REMEMBERED = 6
# Backtracking: the least share of the promised decrease, how much shorter at once, and how often.
_SUFFICIENT, _SHORTEST, _LONGEST_CUT, _TRIES = 1e-4, 0.1, 0.5, 7
# Differences of values below this share of the value are rounding (single precision).
_ROUNDING = 3e-7


class Point(NamedTuple):
    """Where the descent is.

    - `unknowns`: any pytree of arrays; `value`, `chi_square`: there; `gradient`: like `unknowns`.
    - `promised`: decrease that the last step was expected to bring; `decrease`: what it brought.
    - `steps`: so far. `stuck`: whether no step along the last direction led down.
    """

    unknowns: Any
    value: float
    chi_square: float
    gradient: Any
    promised: float = math.inf
    decrease: float = math.inf
    steps: int = 0
    stuck: bool = False


Evaluate = Callable[[Any], tuple[float, float, Any]]
Solve = Callable[[Any], Any]


def descend(evaluate: Evaluate, metric: Callable[[Any], Solve], start: Any, renew: int = 6) -> Iterator[Point]:
    """Points of falling value, the start first; ends when no direction leads down any more.

    - `evaluate(unknowns)`: value, chi-square and gradient.
    - `metric(unknowns)`: a function that turns a gradient into a step (the inverse of a model of the Hessian); asked
      for anew every `renew` steps, and where the descent is stuck.
    """
    point = Point(start, *evaluate(start))
    yield point
    memory: deque[tuple[Any, Any, float]] = deque(maxlen=_REMEMBERED)
    while True:
        solve = metric(point.unknowns)
        fresh = True
        for _ in range(renew):
            step = _direction(solve, memory, point.gradient)
            new = _line_search(evaluate, point, step)
            if new.stuck and fresh and not memory:
                yield new
                return
            if new.stuck:
                memory.clear()
                break
            _remember(memory, point, new)
            point, fresh = new, False
            yield point


def _direction(solve: Solve, memory: Any, gradient: Any) -> Any:
    """The two loops of L-BFGS around `solve`, pointing down."""
    shares = []
    for moved, changed, inverse in reversed(memory):
        share = inverse * _dot(moved, gradient)
        shares.append(share)
        gradient = _plus(gradient, -share, changed)
    step = solve(gradient)
    for (moved, changed, inverse), share in zip(memory, reversed(shares), strict=True):
        step = _plus(step, share - inverse * _dot(changed, step), moved)
    return jax.tree.map(jnp.negative, step)


def _line_search(evaluate: Evaluate, point: Point, step: Any) -> Point:
    slope, length = _dot(point.gradient, step), 1.0
    if not slope < 0:
        return point._replace(stuck=True)
    for _ in range(_TRIES):
        unknowns = _plus(point.unknowns, length, step)
        value, chi_square, gradient = evaluate(unknowns)
        if value <= point.value + _SUFFICIENT * length * slope + _ROUNDING * abs(point.value):
            return Point(unknowns, value, chi_square, gradient, -0.5 * slope, point.value - value, point.steps + 1)
        length *= _shorter(value - point.value, slope * length)
    return point._replace(stuck=True)


def _shorter(rise: float, slope: float) -> float:
    """The lowest point of the parabola through value and slope at 0 and the value at 1, kept within bounds."""
    if not math.isfinite(rise):
        return _SHORTEST
    return min(max(-0.5 * slope / (rise - slope), _SHORTEST), _LONGEST_CUT)


def _remember(memory: Any, old: Point, new: Point) -> None:
    moved, changed = _plus(new.unknowns, -1.0, old.unknowns), _plus(new.gradient, -1.0, old.gradient)
    curvature = _dot(moved, changed)
    if curvature > 1e-10 * abs(_dot(moved, old.gradient)):
        memory.append((moved, changed, 1.0 / curvature))


@jax.jit
def _dot_of(a: Any, b: Any) -> Any:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _dot(a: Any, b: Any) -> float:
    return float(_dot_of(a, b))


@jax.jit
def _plus_of(a: Any, factor: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: x + factor.astype(x.dtype) * y, a, b)


def _plus(a: Any, factor: float, b: Any) -> Any:
    return _plus_of(a, jnp.asarray(factor, jnp.result_type(float)), b)
