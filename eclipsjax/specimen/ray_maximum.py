"""The largest mean slope along one ray from every pixel at once, with its own derivative rule.

All pixels share the ray's offsets, so each step is two shifted views of the map. Plain automatic differentiation would
keep every step and scatter them back one by one; instead the rule remembers where each maximum was reached and gathers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from eclipsjax._types import InputError, Map, Scalar
from eclipsjax.specimen.ray_steps import GROUP, RaySteps

# Far below any relief in pixels, yet far from overflow when scaled and subtracted in float32.
_VOID = -1e30

# The one thing that a checkpointed fold over azimuths keeps for the way back: horizons with their winning steps.
KEPT = "eclipsjax horizon"

# Pixels of one strip of rows: what all steps of a ray read and write for a strip stays in a processor's cache. A map of
# 4096 x 4096 pixels worked on as a whole takes 1.7 times as long a pixel as one of 1024 x 1024.
_STRIP_PX = 1 << 19


def _over_steps(steps: RaySteps, start: Any, advance: Callable[[Any, RaySteps, Any], Any]) -> Any:
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
    view = _padded_view(height_px, steps.reach, _VOID)

    def largest_in(strip):
        def higher(best, step, _):
            return jnp.maximum(best, _mean_slope(view, height_px, step, strip))

        return _over_steps(steps, strip.of(slope_along), higher)

    return _strip_by_strip(largest_in, height_px.shape)


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
    view = _padded_view(height_px, steps.reach, _VOID)

    def tagged(slope, k):
        # The same number, but its derivative is the slope's: JAX drops rules like this file's when it splits a scan
        # into its known and its linear part, and a second derivative then goes through here.
        return slope + lax.stop_gradient(_tag(slope, k, steps.count) - slope)

    def largest_in(strip):
        def higher(best, step, k):
            return jnp.maximum(best, tagged(_mean_slope(view, height_px, step, strip), k))

        return _over_steps(steps, tagged(strip.of(slope_along), jnp.int32(steps.count)), higher)

    best = checkpoint_name(_strip_by_strip(largest_in, height_px.shape), KEPT)
    return best, _tag_of(best, steps.count)


def _slope_of_winner(winner: Int[Array, "y x"], steps: RaySteps, d_height: Map, d_slope: Map) -> Map:
    """Mean slope of each pixel's winning step, linear in heights and own slopes, with a transpose that gathers."""

    def push(d_height, d_slope):
        view = _padded_view(d_height, steps.reach, 0.0)

        def pushed_to(strip):
            won = strip.of(winner)

            def add(total, step, k):
                return total + jnp.where(won == k, _mean_slope(view, d_height, step, strip), jnp.zeros_like(total))

            own = strip.of(d_slope)
            return _over_steps(steps, jnp.where(won == steps.count, own, jnp.zeros_like(own)), add)

        return _strip_by_strip(pushed_to, d_height.shape)

    def pull(cotangent):
        # The winner travels in the cotangent's last bits: one shifted view to read instead of two. Everything reads
        # that one view, or XLA would work the cotangent out anew for every reader.
        view = _padded_view(_tag(cotangent, winner, steps.count), steps.reach, 0.0)

        def won(offset, k, strip):
            values = view(offset, strip)
            return jnp.where(_tag_of(values, steps.count) == k, values, jnp.zeros_like(values))

        def pulled_to(strip):
            def add(total, step, k):
                near = (1.0 - step.far_weight) * won(-step.near, k, strip)
                far = step.far_weight * won(-step.far, k, strip)
                return total + step.inverse_length * (near + far - won(step.here, k, strip))

            return _over_steps(steps, jnp.zeros_like(strip.of(cotangent)), add)

        own = won(steps.here[0], steps.count, _Strip(0, cotangent.shape[0]))
        return _strip_by_strip(pulled_to, cotangent.shape), own

    return _with_transpose(push, pull, d_height, d_slope)


def _tag(values: Array, number: Array, largest: int) -> Array:
    """`values` with the integer `number` (0 to `largest`) written over the last bits of the mantissa."""
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    mask = (1 << largest.bit_length()) - 1
    kept = lax.bitcast_convert_type(values, whole) & whole(~mask)
    return lax.bitcast_convert_type(kept | jnp.asarray(number).astype(whole), values.dtype)


def _tag_of(values: Array, largest: int) -> Array:
    """The integer that `_tag` wrote."""
    whole = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    mask = (1 << largest.bit_length()) - 1
    return (lax.bitcast_convert_type(values, whole) & whole(mask)).astype(jnp.int32)


def _with_transpose(push: Callable, pull: Callable, d_height: Map, d_slope: Map) -> Map:
    """The linear map `push(d_height, d_slope)` with `pull` as its transpose, in a form that also batches.

    JAX has no public way to say this, but the "solve" of a trivial linear system (as many outputs as inputs) is one.
    """

    def solve(_, inputs):
        pushed = push(inputs[0], inputs[1])
        return jnp.stack([pushed, jnp.zeros_like(pushed)])

    def transpose_solve(_, outputs):
        return jnp.stack(pull(outputs[0]))

    # One array, not two: custom_linear_solve fails where JAX knows one of two tangents to be zero, as in second
    # derivatives. (A barrier around the two hides that only up to JAX 0.10.)
    inputs = jnp.stack([d_height, d_slope])
    return lax.custom_linear_solve(lambda x: x, inputs, solve, transpose_solve=transpose_solve)[0]


@jax.custom_jvp
def smooth_mean_slope(height_px: Map, slope_along: Map, softness: Scalar, steps: RaySteps) -> Map:
    """softness * log(sum of exp(slope / softness)) over `slope_along` and every step. Gradient: exact."""
    best = largest_mean_slope(height_px, slope_along, steps)
    view = _padded_view(height_px, steps.reach, _VOID)

    def summed_in(strip):
        peak = strip.of(best)

        def add(total, step, _):
            return total + jnp.exp((_mean_slope(view, height_px, step, strip) - peak) / softness)

        return _over_steps(steps, jnp.exp((strip.of(slope_along) - peak) / softness), add)

    return best + softness * jnp.log(_strip_by_strip(summed_in, height_px.shape))


@smooth_mean_slope.defjvp
def _smooth_mean_slope_jvp(primals, tangents):
    steps = primals[3]
    d_height, d_slope, d_softness, _ = tangents
    result = smooth_mean_slope(*primals)
    height_px, slope_along, softness = (_first_order_only(x) for x in primals[:3])
    weigher = _first_order_only(result)
    height_view = _padded_view(height_px, steps.reach, _VOID)
    result_view = _padded_view(weigher, steps.reach, -_VOID)

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

        return _over_steps(steps, strip.of(own * slope_along), add)

    def push(d_height, d_slope):
        view = _padded_view(d_height, steps.reach, 0.0)

        def pushed_to(strip):
            def add(total, step, _):
                return total + share(step, strip) * _mean_slope(view, d_height, step, strip)

            return _over_steps(steps, strip.of(own * d_slope), add)

        return _strip_by_strip(pushed_to, d_height.shape)

    def pull(cotangent):
        view = _padded_view(cotangent, steps.reach, 0.0)

        def pulled_to(strip):
            def add(total, step, _):
                near = (1.0 - step.far_weight) * share(step, strip, -step.near) * view(-step.near, strip)
                far = step.far_weight * share(step, strip, -step.far) * view(-step.far, strip)
                return total + step.inverse_length * (near + far - share(step, strip) * strip.of(cotangent))

            return _over_steps(steps, jnp.zeros_like(strip.of(cotangent)), add)

        return _strip_by_strip(pulled_to, cotangent.shape), own * cotangent

    mean = _strip_by_strip(mean_in, height_px.shape)
    return result, _with_transpose(push, pull, d_height, d_slope) + (weigher - mean) / softness * d_softness


@jax.custom_jvp
def _first_order_only(x: Array) -> Array:
    return x


@_first_order_only.defjvp
def _first_order_only_jvp(primals, tangents):
    raise InputError(
        "SmoothHorizon has first derivatives only: use HardHorizon for second ones, or finite differences of gradients."
    )


class _Strip(NamedTuple):
    """Some neighbouring rows of the map."""

    first: Any
    rows: int

    def of(self, array: Array) -> Array:
        """This strip's part of a map."""
        return lax.dynamic_slice_in_dim(array, self.first, self.rows)


def _strip_by_strip(work: Callable[[_Strip], Array], shape: tuple[int, int]) -> Map:
    """The map of `shape` whose strips `work` makes, one after the other; the last two may overlap."""
    rows, columns = shape
    count = -(-rows * columns // _STRIP_PX)
    height = -(-rows // count)
    if count == 1:
        return work(_Strip(0, rows))
    starts = jnp.minimum(jnp.arange(count, dtype=jnp.int32) * height, rows - height)
    made = jax.eval_shape(lambda first: work(_Strip(first, height)), starts[0])

    def body(whole, first):
        return lax.dynamic_update_slice_in_dim(whole, work(_Strip(first, height)), first, 0), None

    return lax.scan(body, jnp.zeros(shape, made.dtype), starts)[0]


def _mean_slope(view: Callable, height_px: Map, step: RaySteps, strip: _Strip) -> Float[Array, "row x"]:
    near, far = view(step.near, strip), view(step.far, strip)
    return (near + step.far_weight * (far - near) - strip.of(height_px)) * step.inverse_length


def _padded_view(array: Array, reach: int, fill: float) -> Callable[[Array, _Strip], Array]:
    """A function from an offset (row, column) to a strip of the map seen from its pixels plus that offset, `fill`
    outside the map."""
    rows, columns = array.shape
    around = jnp.full((rows + 2 * reach, columns + 2 * reach), fill, array.dtype)
    padded = lax.dynamic_update_slice(around, array, (reach, reach))

    def view(offset, strip):
        corner = (strip.first + offset[0] + reach, offset[1] + reach)
        return lax.dynamic_slice(padded, corner, (strip.rows, columns))

    return view
