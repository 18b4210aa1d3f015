"""The largest mean slope along one ray from a few looks: single places nearby, peaks of whole stretches farther out.

Every pixel knows the highest place of the stretch that begins at it, and how far away that is. The peak of a stretch
twice as long is the higher of two such peaks, one looked up at the far half's first pixel. A ray then looks up one peak
where each of its stretches begins. With its own derivative rule: all looks are shifted views of one map, which
transpose into shifted views the other way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from eclipsjax._types import Map, Scalar
from eclipsjax.specimen.ray_maximum import KEPT, VOID, over_steps
from eclipsjax.specimen.ray_steps import RaySteps
from eclipsjax.specimen.ray_views import Strip, padded_view, slope_with_transpose, tag, tag_of

# Lines up to which each is looked at; stretches begin beyond. Stretches are half as long as they are far away.
NEAR = 8
_FIRST_STRETCH = NEAR // 2
_DOUBLINGS = _FIRST_STRETCH.bit_length() - 1
# Octaves that a record has bits for: up to 256 pixels.
MOST_OCTAVES = 5
_WINNER_BITS, _LINE_BITS = 5, 9


class PeakSteps(eqx.Module):
    """Where a ray looks: `near` places, the first line of both stretches of each octave, and `half`, how far the second
    half of a stretch lies from the first, for the doublings that lead to each octave's stretches."""

    near: RaySteps
    far: RaySteps
    half: RaySteps
    octaves: int = eqx.field(static=True)

    @classmethod
    def along(cls, azimuths_rad: np.ndarray, octaves: int, dtype) -> PeakSteps:
        """Of rays along `azimuths_rad` (radians, counter-clockwise as seen in the image), one row per azimuth."""
        starts = np.array([[NEAR * 2**o, 3 * NEAR // 2 * 2**o] for o in range(octaves)]).reshape(-1)
        halves = 2.0 ** np.arange(_DOUBLINGS + octaves)
        near, far, half = (
            RaySteps.on_lines(azimuths_rad, lines, dtype)
            for lines in (np.arange(1.0, NEAR + 1), starts if octaves else np.ones(1), halves)
        )
        return cls(near, far, half, octaves)

    @property
    def line_length(self) -> Scalar:
        """Length of the way from one line to the next, pixels."""
        return 1.0 / self.near.inverse_length[..., 0]


@jax.custom_jvp
def largest_peak_slope(height_px: Map, slope_along: Map, gain: Scalar, steps: PeakSteps) -> Map:
    """max(slope_along, mean slopes to the near places and to the peaks of the stretches). Gradient: exact in the first
    two, almost everywhere; none in `gain`."""
    return _search(height_px, slope_along, gain, steps, with_record=False)[0]


@largest_peak_slope.defjvp
def _largest_peak_slope_jvp(primals, tangents):
    best, record = _search(*primals, with_record=True)
    best, record = checkpoint_name(best, KEPT), checkpoint_name(record, KEPT)
    return best, _slope_of_record(record, primals[3], *tangents[:2])


def _search(height_px: Map, slope_along: Map, gain: Scalar, steps: PeakSteps, with_record: bool) -> tuple[Map, Any]:
    """The largest slope and, if asked for, how it was found: see `_Record`."""
    above = height_px - jnp.min(height_px)
    line = steps.line_length.astype(above.dtype)
    whole = Strip(0, above.shape[0])
    largest = 2 ** (_DOUBLINGS + steps.octaves)

    def better(found, slope, number, lines):
        best, record = found
        is_higher = slope > best
        code = None if record is None else jnp.where(is_higher, _Record.code(number, lines), record)
        return jnp.where(is_higher, slope, best), code

    view = padded_view(above, steps.near.reach, VOID)

    def look_near(found, step, k):
        return better(found, (_look(view, step, whole) - above) * step.inverse_length, k + 1, k + 1)

    record = jnp.zeros(above.shape, jnp.int32) if with_record else None
    found = over_steps(steps.near, (slope_along, record), look_near)
    if not steps.octaves:
        return found

    def double(ranked, took_far, half, number):
        """Stretches twice as long: the higher of two peaks, ranked, with the lines to it in its last bits."""
        view = padded_view(ranked, steps.half.reach, VOID)
        near, far = view(half.near, whole), view(half.far, whole)
        length = jnp.left_shift(1, number)
        beyond = near + half.far_weight * (far - near) - gain * line * length.astype(line.dtype)
        lines = tag_of(jnp.where(half.far_weight > 0.5, far, near), largest) + length
        is_far = beyond > ranked
        ranked = jnp.where(is_far, tag(beyond, lines, largest), ranked)
        if with_record:
            took_far = took_far | jnp.left_shift(is_far.astype(jnp.int32), number)
        return ranked, took_far

    def grow(state, half_and_number):
        return double(*state, *half_and_number), None

    def octave(state, xs):
        (ranked, took_far, found), (part, half, number) = state, xs
        view = padded_view(ranked, steps.far.reach, VOID)
        for j in range(2):
            step = jax.tree.map(lambda leaf: leaf[j], part)  # noqa: B023
            near, far = view(step.near, whole), view(step.far, whole)
            lines = tag_of(jnp.where(step.far_weight > 0.5, far, near), largest)
            away = lines.astype(line.dtype) * line
            top = near + step.far_weight * (far - near) + gain * away
            start = jnp.left_shift(2 + j, number)
            slope = (top - above) / (start.astype(line.dtype) * line + away)
            found = better(found, slope, _first_of_octave(number) + j, start + lines)
        return (*double(ranked, took_far, half, number), found), None

    numbers = _numbers(steps)
    took_far = record
    start = tag(above, jnp.zeros((), jnp.int32), largest), took_far
    first, later = _first_and_later((steps.half, numbers))
    start = lax.scan(grow, start, first)[0]
    _, took_far, (best, record) = lax.scan(octave, (*start, found), (_by_octave(steps.far), *later))[0]
    return best, None if record is None else _Record.with_choices(record, took_far)


class _Record(NamedTuple):
    """How a maximum was found, one integer a pixel: the number of the winning look (0 the pixel's own slope, then near,
    then far), the lines to the place it found, and for each doubling whether the far half was taken."""

    winner: Int[Array, "y x"]
    lines: Int[Array, "y x"]
    choices: Int[Array, "y x"]

    @staticmethod
    def code(winner: Array, lines: Array) -> Array:
        """What `of` reads, without choices."""
        return winner | jnp.left_shift(lines, _WINNER_BITS)

    @staticmethod
    def with_choices(code: Array, choices: Array) -> Array:
        """The code with bits for every doubling."""
        return code | jnp.left_shift(choices, _WINNER_BITS + _LINE_BITS)

    @classmethod
    def of(cls, code: Array) -> _Record:
        """The three parts of a code."""
        lines = jnp.right_shift(code, _WINNER_BITS) & (2**_LINE_BITS - 1)
        return cls(code & (2**_WINNER_BITS - 1), lines, jnp.right_shift(code, _WINNER_BITS + _LINE_BITS))

    def took_far(self, number: Array) -> Bool[Array, "y x"]:
        """Whether the far half was taken by a doubling."""
        return (jnp.right_shift(self.choices, number) & 1) == 1

    def inverse_length(self, steps: PeakSteps, dtype: Any) -> Map:
        """1 / length of the way to what won; 0 where that is the pixel's own slope."""
        lines = jnp.maximum(self.lines, 1).astype(dtype)
        return jnp.where(self.winner == 0, 0.0, 1.0 / (lines * steps.line_length.astype(dtype)))


def _slope_of_record(code: Int[Array, "y x"], steps: PeakSteps, d_height: Map, d_slope: Map) -> Map:
    """The mean slope to where each maximum was found: linear in heights and own slopes, with its transpose."""
    return slope_with_transpose(
        lambda height, slope: _pushed(_Record.of(code), steps, height, slope),
        lambda cotangent: _pulled(_Record.of(code), steps, cotangent),
        d_height,
        d_slope,
    )


def _pushed(record: _Record, steps: PeakSteps, d_height: Map, d_slope: Map) -> Map:
    """The mean slope to where each maximum was found."""
    whole, numbers = Strip(0, d_height.shape[0]), _numbers(steps)
    view = padded_view(d_height, steps.near.reach, 0.0)
    top = over_steps(
        steps.near,
        jnp.zeros_like(d_height),
        lambda total, step, k: jnp.where(record.winner == k + 1, _look(view, step, whole), total),
    )

    def grow(peak, xs):
        half, number = xs
        beyond = _look(padded_view(peak, steps.half.reach, 0.0), half, whole)
        return jnp.where(record.took_far(number), beyond, peak), None

    def octave(state, xs):
        (peak, top), (part, half, number) = state, xs
        view = padded_view(peak, steps.far.reach, 0.0)
        for j in range(2):
            step = jax.tree.map(lambda leaf: leaf[j], part)  # noqa: B023
            top = jnp.where(record.winner == _first_of_octave(number) + j, _look(view, step, whole), top)
        return (grow(peak, (half, number))[0], top), None

    if steps.octaves:
        first, later = _first_and_later((steps.half, numbers))
        peak = lax.scan(grow, d_height, first)[0]
        top = lax.scan(octave, (peak, top), (_by_octave(steps.far), *later))[0][1]
    return jnp.where(record.winner == 0, d_slope, (top - d_height) * record.inverse_length(steps, d_height.dtype))


def _pulled(record: _Record, steps: PeakSteps, cotangent: Map) -> tuple[Map, Map]:
    """The transpose of `_pushed`: of heights and of own slopes. All looks go the other way."""
    whole, numbers = Strip(0, cotangent.shape[0]), _numbers(steps)
    largest = NEAR + 2 * steps.octaves
    share = cotangent * record.inverse_length(steps, cotangent.dtype)
    tagged = tag(share, record.winner, largest)

    def looked_from(view, step, k):
        return sum(
            weight * jnp.where(tag_of(values, largest) == k, values, 0.0)
            for weight, offset in ((1.0 - step.far_weight, step.near), (step.far_weight, step.far))
            for values in [view(-offset, whole)]
        )

    view = padded_view(tagged, steps.near.reach, 0.0)
    total = over_steps(steps.near, -share, lambda total, step, k: total + looked_from(view, step, k + 1))

    def shrink(peak, xs):
        half, number = xs
        took_far, none = record.took_far(number), jnp.zeros_like(peak)
        view = padded_view(jnp.where(took_far, peak, none), steps.half.reach, 0.0)
        back = (1.0 - half.far_weight) * view(-half.near, whole) + half.far_weight * view(-half.far, whole)
        return jnp.where(took_far, none, peak) + back, None

    def octave(peak, xs):
        part, half, number = xs
        peak = shrink(peak, (half, number))[0]
        for j in range(2):
            step = jax.tree.map(lambda leaf: leaf[j], part)  # noqa: B023
            peak = peak + looked_from(far_view, step, _first_of_octave(number) + j)
        return peak, None

    if steps.octaves:
        far_view = padded_view(tagged, steps.far.reach, 0.0)
        first, later = _first_and_later((steps.half, numbers))
        peak = lax.scan(octave, jnp.zeros_like(total), (_by_octave(steps.far), *later), reverse=True)[0]
        total = total + lax.scan(shrink, peak, first, reverse=True)[0]
    return total, jnp.where(record.winner == 0, cotangent, 0.0)


def _numbers(steps: PeakSteps) -> Int[Array, "doubling"]:
    """All doublings, counted."""
    return jnp.arange(steps.half.count, dtype=jnp.int32)


def _first_and_later(per_doubling: Any) -> tuple[Any, Any]:
    """What belongs to the doublings before the first octave, and to one in each octave."""
    return tuple(
        jax.tree.map(lambda leaf, cut=cut: leaf[cut], per_doubling)
        for cut in (slice(None, _DOUBLINGS), slice(_DOUBLINGS, None))
    )


def _by_octave(far: RaySteps) -> RaySteps:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), far)


def _first_of_octave(number: Array) -> Array:
    """The number of the first look of the octave with this doubling."""
    return NEAR + 1 + 2 * (number - _DOUBLINGS)


def _look(view, step: RaySteps, strip: Strip) -> Float[Array, "row x"]:
    near, far = view(step.near, strip), view(step.far, strip)
    return near + step.far_weight * (far - near)
