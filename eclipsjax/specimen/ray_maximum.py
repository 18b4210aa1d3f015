"""The largest mean slope along one ray from every pixel at once, with its own derivative rule.

All pixels share the ray's offsets, so each step is two shifted views of the map. Plain automatic differentiation would
keep every step and scatter them back one by one; instead the rule remembers where each maximum was reached and gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from eclipsjax._linear import first_order_only
from eclipsjax._types import Map, Scalar
from eclipsjax.specimen.ray_steps import GROUP, RaySteps
from eclipsjax.specimen.ray_views import Strip, padded_view, slope_with_transpose, strip_by_strip, tag, tag_of

# Far below any relief in pixels, yet far from overflow when scaled and subtracted in float32.
VOID = -1e30

# The one thing that a checkpointed fold over azimuths keeps for the way back: horizons with their winning steps.
KEPT = "eclipsjax horizon"
_FIRST_ONLY = (
    "SmoothHorizon has first derivatives only: use HardHorizon for second ones, or finite differences of gradients."
)


def over_steps(steps: RaySteps, start: Any, advance: Callable[[Any, RaySteps, Any], Any]) -> Any:
    """Fold `advance(state, step, k)` over all steps in order, a few of them unrolled at a time."""

    def several(state, numbered):
        part, first = numbered
        for j in range(part.count):
            state = advance(state, jax.tree.map(lambda leaf: leaf[j], part), first + j)  # noqa: B023
        return state, None

    groups = jax.tree.map(lambda leaf: leaf.reshape(-1, GROUP, *leaf.shape[1:]), steps)
    return lax.scan(several, start, (groups, jnp.arange(0, steps.count, GROUP, dtype=jnp.int32)))[0]


@jax.custom_jvp
def largest_mean_slope(height_px: Map, slope_along: Map, steps: RaySteps) -> Map:
    """max(slope_along, max over steps of (z(step) - z(0)) / length). Gradient: exact almost everywhere."""
    view = padded_view(height_px, steps.reach, VOID)

    def largest_in(strip):
        def higher(best, step, _):
            return jnp.maximum(best, _mean_slope(view, height_px, step, strip))

        return over_steps(steps, strip.of(slope_along), higher)

    return strip_by_strip(largest_in, height_px.shape)


@largest_mean_slope.defjvp
def _largest_mean_slope_jvp(primals, tangents):
    d_height, d_slope, _ = tangents
    best, winner = _winning_step(*primals)
    return best, _slope_of_winner(winner, primals[2], d_height, d_slope)


def _winning_step(height_px: Map, slope_along: Map, steps: RaySteps) -> tuple[Map, Int[Array, "y x"]]:
    """The largest mean slope and the number of the step that reached it (the count of steps for the pixel's own slope).

    The number is kept in the last bits of the slope, so that one maximum finds both. In float32 the slope is then good
    to 15 bits at the default radius, which only enters derivatives.
    """
    view = padded_view(height_px, steps.reach, VOID)

    def tagged(slope, k):
        # The same number, but its derivative is the slope's: JAX drops rules like this file's when it splits a scan
        # into its known and its linear part, and a second derivative then goes through here.
        return slope + lax.stop_gradient(tag(slope, k, steps.count) - slope)

    def largest_in(strip):
        def higher(best, step, k):
            return jnp.maximum(best, tagged(_mean_slope(view, height_px, step, strip), k))

        return over_steps(steps, tagged(strip.of(slope_along), jnp.int32(steps.count)), higher)

    best = checkpoint_name(strip_by_strip(largest_in, height_px.shape), KEPT)
    return best, tag_of(best, steps.count)


def _slope_of_winner(winner: Int[Array, "y x"], steps: RaySteps, d_height: Map, d_slope: Map) -> Map:
    """Mean slope of each pixel's winning step, linear in heights and own slopes, with a transpose that gathers."""

    def push(d_height, d_slope):
        view = padded_view(d_height, steps.reach, 0.0)

        def pushed_to(strip):
            won = strip.of(winner)

            def add(total, step, k):
                return total + jnp.where(won == k, _mean_slope(view, d_height, step, strip), jnp.zeros_like(total))

            own = strip.of(d_slope)
            return over_steps(steps, jnp.where(won == steps.count, own, jnp.zeros_like(own)), add)

        return strip_by_strip(pushed_to, d_height.shape)

    def pull(cotangent):
        # The winner travels in the cotangent's last bits: one shifted view to read instead of two. Everything reads
        # that one view, or XLA would work the cotangent out anew for every reader.
        view = padded_view(tag(cotangent, winner, steps.count), steps.reach, 0.0)

        def won(offset, k, strip):
            values = view(offset, strip)
            return jnp.where(tag_of(values, steps.count) == k, values, jnp.zeros_like(values))

        def pulled_to(strip):
            def add(total, step, k):
                near = (1.0 - step.far_weight) * won(-step.near, k, strip)
                far = step.far_weight * won(-step.far, k, strip)
                return total + step.inverse_length * (near + far - won(step.here, k, strip))

            return over_steps(steps, jnp.zeros_like(strip.of(cotangent)), add)

        own = won(steps.here[0], steps.count, Strip(0, cotangent.shape[0]))
        return strip_by_strip(pulled_to, cotangent.shape), own

    return slope_with_transpose(push, pull, d_height, d_slope)


@jax.custom_jvp
def smooth_mean_slope(height_px: Map, slope_along: Map, softness: Scalar, steps: RaySteps) -> Map:
    """softness * log(sum of exp(slope / softness)) over `slope_along` and every step. Gradient: exact."""
    best = largest_mean_slope(height_px, slope_along, steps)
    view = padded_view(height_px, steps.reach, VOID)

    def summed_in(strip):
        peak = strip.of(best)

        def add(total, step, _):
            return total + jnp.exp((_mean_slope(view, height_px, step, strip) - peak) / softness)

        return over_steps(steps, jnp.exp((strip.of(slope_along) - peak) / softness), add)

    return best + softness * jnp.log(strip_by_strip(summed_in, height_px.shape))


@smooth_mean_slope.defjvp
def _smooth_mean_slope_jvp(primals, tangents):
    steps = primals[3]
    d_height, d_slope, d_softness, _ = tangents
    result = smooth_mean_slope(*primals)
    height_px, slope_along, softness, weigher = first_order_only((*primals[:3], result), _FIRST_ONLY)
    height_view = padded_view(height_px, steps.reach, VOID)
    result_view = padded_view(weigher, steps.reach, -VOID)

    def share(step, strip, offset=None):
        """exp((slope of this step - result) / softness) at every pixel, or as seen from `offset` away."""
        if offset is None:
            return jnp.exp((_mean_slope(height_view, height_px, step, strip) - strip.of(weigher)) / softness)
        near, far = height_view(offset + step.near, strip), height_view(offset + step.far, strip)
        ahead = near + step.far_weight * (far - near)
        slope = (ahead - height_view(offset, strip)) * step.inverse_length
        return jnp.exp((slope - result_view(offset, strip)) / softness)

    own = jnp.exp((slope_along - weigher) / softness)

    def mean_in(strip):
        def add(mean, step, _):
            # A weight of exactly 0 belongs to samples outside the map, whose slope is not a number to multiply with.
            weight, slope = share(step, strip), _mean_slope(height_view, height_px, step, strip)
            return mean + jnp.where(weight > 0, weight * slope, jnp.zeros_like(mean))

        return over_steps(steps, strip.of(own * slope_along), add)

    def push(d_height, d_slope):
        view = padded_view(d_height, steps.reach, 0.0)

        def pushed_to(strip):
            def add(total, step, _):
                return total + share(step, strip) * _mean_slope(view, d_height, step, strip)

            return over_steps(steps, strip.of(own * d_slope), add)

        return strip_by_strip(pushed_to, d_height.shape)

    def pull(cotangent):
        view = padded_view(cotangent, steps.reach, 0.0)

        def pulled_to(strip):
            def add(total, step, _):
                near = (1.0 - step.far_weight) * share(step, strip, -step.near) * view(-step.near, strip)
                far = step.far_weight * share(step, strip, -step.far) * view(-step.far, strip)
                return total + step.inverse_length * (near + far - share(step, strip) * strip.of(cotangent))

            return over_steps(steps, jnp.zeros_like(strip.of(cotangent)), add)

        return strip_by_strip(pulled_to, cotangent.shape), own * cotangent

    mean = strip_by_strip(mean_in, height_px.shape)
    return result, slope_with_transpose(push, pull, d_height, d_slope) + (weigher - mean) / softness * d_softness


def _mean_slope(view: Callable, height_px: Map, step: RaySteps, strip: Strip) -> Float[Array, "row x"]:
    near, far = view(step.near, strip), view(step.far, strip)
    return (near + step.far_weight * (far - near) - strip.of(height_px)) * step.inverse_length
