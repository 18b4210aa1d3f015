"""The largest mean slope along one ray from every pixel at once, with its own derivative rule.

All pixels share the ray's offsets, so each step is two shifted views of the map. Plain automatic differentiation would
keep every step and scatter them back one by one; instead the rule remembers where each maximum was reached and gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from eclipsjax._types import Map, Scalar

# Far below any relief in pixels, yet far from overflow when scaled and subtracted in float32.
_VOID = -1e30


class RaySteps(eqx.Module):
    """Where a ray samples the map: two neighbouring pixels a step, and how to weigh them. Offsets are (row, column)."""

    near: Int[Array, "*azimuth step 2"]
    far: Int[Array, "*azimuth step 2"]
    far_weight: Float[Array, "*azimuth step"]
    inverse_length: Float[Array, "*azimuth step"]
    reach: int = eqx.field(static=True)

    @classmethod
    def along(cls, azimuths_rad: np.ndarray, radius_px: int, growth: float, dtype) -> RaySteps:
        """Steps of rays along `azimuths_rad` (radians, counter-clockwise as seen in the image), one row per azimuth."""
        along_x, along_y = np.cos(azimuths_rad), -np.sin(azimuths_rad)
        major = np.maximum(abs(along_x), abs(along_y))
        distance = step_distances(radius_px, growth)
        x = np.outer(along_x / major, distance)
        y = np.outer(along_y / major, distance)
        x_is_major = (abs(along_x) >= abs(along_y))[:, None]
        minor = np.where(x_is_major, y, x)
        below = np.floor(minor + 1e-9)
        whole = np.rint(np.where(x_is_major, x, y))
        near = np.where(x_is_major[..., None], np.stack([below, whole], -1), np.stack([whole, below], -1))
        step_aside = np.where(x_is_major[..., None], np.array([1, 0]), np.array([0, 1]))
        return cls(
            near=jnp.asarray(near, dtype=jnp.int32),
            far=jnp.asarray(near + step_aside, dtype=jnp.int32),
            far_weight=jnp.asarray(np.clip(minor - below, 0.0, 1.0), dtype=dtype),
            inverse_length=jnp.asarray(major[:, None] / distance[None, :], dtype=dtype),
            reach=radius_px + 1,
        )

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.far_weight.shape[-1]


def step_distances(radius_px: int, growth: float) -> np.ndarray:
    """Distances in whole pixels along the major axis: every pixel at first, then growing, ending at `radius_px`."""
    distances, r = [], 1.0
    while r < radius_px:
        distances.append(round(r))
        r = max(distances[-1] + 1.0, distances[-1] * growth)
    return np.array(distances + ([radius_px] if radius_px > 0 else []), dtype=np.float64)


# Steps unrolled into one compiled loop over the map. With more, XLA breaks the loop apart or stops vectorising it
# (measured on a CPU: 16 at a time make an image up to 3 times slower, 128 more than 20 times).
_GROUP = 4


def _over_steps(steps: RaySteps, start: Any, advance: Callable[[Any, RaySteps, Any], Any]) -> Any:
    """Fold `advance(state, step, k)` over all steps in order, a few of them unrolled at a time."""

    def several(state, numbered):
        part, first = numbered
        for j in range(part.count):
            state = advance(state, jax.tree.map(lambda leaf: leaf[j], part), first + j)  # noqa: B023
        return state, None

    whole = steps.count // _GROUP * _GROUP
    batches = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, _GROUP, *leaf.shape[1:]), steps)
    state = lax.scan(several, start, (batches, jnp.arange(0, whole, _GROUP, dtype=jnp.int32)))[0] if whole else start
    return several(state, (jax.tree.map(lambda leaf: leaf[whole:], steps), jnp.int32(whole)))[0]


@jax.custom_jvp
def largest_mean_slope(height_px: Map, slope_along: Map, steps: RaySteps) -> Map:
    """max(slope_along, max over steps of (z(step) - z(0)) / length). Gradient: exact almost everywhere."""
    view = _padded_view(height_px, steps.reach, _VOID)

    def higher(best, step, _):
        return jnp.maximum(best, _mean_slope(view, height_px, step))

    return _over_steps(steps, slope_along, higher)


@largest_mean_slope.defjvp
def _largest_mean_slope_jvp(primals, tangents):
    height_px, slope_along, steps = primals
    d_height, d_slope, _ = tangents
    view = _padded_view(height_px, steps.reach, _VOID)

    def higher(state, step, k):
        best, winner = state
        slope = _mean_slope(view, height_px, step)
        return jnp.maximum(best, slope), jnp.where(slope > best, k, winner)

    start = (slope_along, jnp.full(height_px.shape, -1, jnp.int32))
    best, winner = _over_steps(steps, start, higher)
    winner_view = _padded_view(winner, steps.reach, -1)

    def share(step, k, offset):
        return ((winner if offset is None else winner_view(offset)) == k).astype(height_px.dtype)

    d_best = _weighted_rays(d_height, steps, share) + jnp.where(winner < 0, d_slope, jnp.zeros_like(d_slope))
    return best, d_best


@jax.custom_jvp
def smooth_mean_slope(height_px: Map, slope_along: Map, softness: Scalar, steps: RaySteps) -> Map:
    """softness * log(sum of exp(slope / softness)) over `slope_along` and every step. Gradient: exact."""
    best = largest_mean_slope(height_px, slope_along, steps)
    view = _padded_view(height_px, steps.reach, _VOID)

    def add(total, step, _):
        return total + jnp.exp((_mean_slope(view, height_px, step) - best) / softness)

    total = _over_steps(steps, jnp.exp((slope_along - best) / softness), add)
    return best + softness * jnp.log(total)


@smooth_mean_slope.defjvp
def _smooth_mean_slope_jvp(primals, tangents):
    height_px, slope_along, softness, steps = primals
    d_height, d_slope, d_softness, _ = tangents
    result = smooth_mean_slope(height_px, slope_along, softness, steps)
    height_view = _padded_view(height_px, steps.reach, _VOID)
    result_view = _padded_view(result, steps.reach, -_VOID)

    def share(step, k, offset):
        """exp((slope of this step - result) / softness) at every pixel, or as seen from `offset` away."""
        if offset is None:
            return jnp.exp((_mean_slope(height_view, height_px, step) - result) / softness)
        near, far = height_view(offset + step.near), height_view(offset + step.far)
        ahead = near + step.far_weight * (far - near)
        return jnp.exp(((ahead - height_view(offset)) * step.inverse_length - result_view(offset)) / softness)

    def add(mean, step, k):
        # A weight of exactly 0 belongs to samples outside the map, whose slope is not a number to multiply with.
        weight = share(step, k, None)
        return mean + jnp.where(weight > 0, weight * _mean_slope(height_view, height_px, step), jnp.zeros_like(mean))

    own = jnp.exp((slope_along - result) / softness)
    mean = _over_steps(steps, own * slope_along, add)
    d_result = _weighted_rays(d_height, steps, share) + own * d_slope
    return result, d_result + (result - mean) / softness * d_softness


def _weighted_rays(d_height: Map, steps: RaySteps, share: Callable) -> Map:
    """Sum over steps of share * (derivative of the step's mean slope), linear in `d_height` with a fast transpose.

    `share(step, k, None)` is the step's weight at every pixel; `share(step, k, offset)` the same map seen from `offset`
    away, which is what gathering the transpose needs.
    """
    zero = jnp.zeros_like(d_height)

    def push(_, d_height):
        view = _padded_view(d_height, steps.reach, 0.0)

        def add(total, step, k):
            return total + share(step, k, None) * _mean_slope(view, d_height, step)

        return _over_steps(steps, zero, add)

    def pull(_, cotangent):
        view = _padded_view(cotangent, steps.reach, 0.0)

        def add(total, step, k):
            total = total - step.inverse_length * share(step, k, None) * cotangent
            for offset, weight in ((-step.near, 1.0 - step.far_weight), (-step.far, step.far_weight)):
                total = total + weight * step.inverse_length * share(step, k, offset) * view(offset)
            return total

        return _over_steps(steps, zero, add)

    # A linear map with a hand-written transpose that also batches: the "solve" of a trivial linear system.
    return lax.custom_linear_solve(lambda x: x, d_height, push, transpose_solve=pull)


def _mean_slope(view: Callable, height_px: Map, step: RaySteps) -> Map:
    near, far = view(step.near), view(step.far)
    return (near + step.far_weight * (far - near) - height_px) * step.inverse_length


def _padded_view(array: Array, reach: int, fill: float) -> Callable[[Array], Array]:
    """A function from an offset (row, column) to the map seen from every pixel plus that offset, `fill` outside."""
    padded = jnp.pad(array, reach, constant_values=fill)
    return lambda offset: lax.dynamic_slice(padded, (offset[0] + reach, offset[1] + reach), array.shape)
