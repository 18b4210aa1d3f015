"""Means over neighbouring normals of the same facet: they stop at an edge and run along it.

With its own derivative rule, in which every pixel gathers from its neighbours both ways: XLA would add up as many
shifted maps as there are neighbours, three times slower on a CPU.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._linear import first_order_only, with_transpose
from eclipsjax._types import Map
from eclipsjax.nn.neighbours import held, in_one_loop

_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
# Nothing that a normal has, so that what lies beyond the border is like nothing.
_NOWHERE = 4.0
_FIRST_ONLY = (
    "the Vision Field Transformer has first derivatives only: use render for second ones, or finite differences of "
    "gradients."
)

Normals = Float[Array, "n y x"]


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def mean_within_facet(normals: Normals, reach_squared: Map, stride: int) -> Normals:
    """Means over 3 by 3 pixels, `stride` apart, in which a neighbour counts the less the farther off it is; a quarter
    as much at its `reach`. What lies beyond the border counts nothing. Gradient: exact, of first order."""
    return normals + _mean_offset(normals, reach_squared, stride)[0]


@mean_within_facet.defjvp
def _mean_within_facet_jvp(stride, primals, tangents):
    offset, weights = _mean_offset(*primals, stride)
    at = first_order_only((*primals, offset, weights), _FIRST_ONLY)
    changes = with_transpose(
        lambda changes: _pushed(stride, at, changes),
        lambda cotangents: _pulled(stride, at, cotangents[:-1]),
        jnp.concatenate([tangents[0], tangents[1][None]]),
    )
    return primals[0] + offset, changes[:-1]


class _Weight(NamedTuple):
    """What a neighbour counts, and its derivatives in the squared distance and in the squared reach."""

    value: Map
    by_distance: Map
    by_reach: Map

    @classmethod
    def of(cls, apart: Map, far: Map, share: float) -> _Weight:
        """Of the squared distance, the squared reach of the one asked, and the share where all are alike."""
        inverse = 1.0 / (far + apart)
        alike = far * inverse
        value = share * alike**2
        return cls(value, -2.0 * value * inverse, 2.0 * share * alike * apart * inverse**2)


def _around(stride: int, normals: Normals, far: Map, *others: Array) -> list[Array]:
    """Normals, squared reaches and other maps with a border."""
    width = [(stride, stride)] * 2
    around = [jnp.pad(normals, [(0, 0), *width], constant_values=_NOWHERE), jnp.pad(far, width)]
    return [held(m) for m in around + [jnp.pad(m, [(0, 0)] * (m.ndim - 2) + width) for m in others]]


def _neighbours(stride: int, around: list[Array]):
    """For every neighbour: its share, and maps with a border as seen from there."""
    rows, columns = (n - 2 * stride for n in around[0].shape[-2:])
    for y, x in _AROUND:
        at = slice(stride * (1 + y), stride * (1 + y) + rows), slice(stride * (1 + x), stride * (1 + x) + columns)
        yield 0.5 ** (abs(y) + abs(x)), *(m[(..., *at)] for m in around)


def _mean_offset(normals: Normals, far: Map, stride: int) -> tuple[Normals, Map]:
    """How far the mean lies from a pixel's own lean, and the sum of weights."""
    around = _around(stride, normals, far)

    def pairs():
        for share, there, far_there in _neighbours(stride, around):
            off = there - normals
            yield off, _Weight.of(_dot(off, off), far_there, share).value

    weights = in_one_loop(lambda: 1.0 + sum(weight for _, weight in pairs()), far)
    return jnp.stack(
        [in_one_loop(lambda k=k: sum(w * off[k] for off, w in pairs()) / weights, far) for k in range(len(normals))]
    ), weights


def _pushed(stride: int, at: tuple, changes: Float[Array, "m y x"]) -> Float[Array, "m y x"]:
    """What changes of normals and squared reaches do to the means, and a map of zeros."""
    normals, far, offset, weights = at
    d_normals, d_far = changes[:-1], changes[-1]
    moved = jnp.zeros_like(normals)
    for share, there, far_there, d_there, d_far_there in _neighbours(
        stride, _around(stride, normals, far, d_normals, d_far)
    ):
        off, d_off = there - normals, d_there - d_normals
        weight = _Weight.of(_dot(off, off), far_there, share)
        d_weight = 2.0 * weight.by_distance * _dot(off, d_off) + weight.by_reach * d_far_there
        moved = moved + weight.value[None] * d_off + d_weight[None] * (off - offset)
    return jnp.concatenate([d_normals + moved / weights[None], jnp.zeros_like(far)[None]])


def _pulled(stride: int, at: tuple, cotangent: Normals) -> Float[Array, "m y x"]:
    """The transpose of `_pushed`: what every pixel is to its neighbours' means, less what they are to its own."""
    normals, far, offset, weights = at
    per_weight = held(cotangent / weights[None])
    at_mean = held(_dot(per_weight, normals + offset))
    around = _around(stride, normals, far, per_weight, at_mean)

    def pairs():
        for share, there, far_there, per_weight_there, at_mean_there in _neighbours(stride, around):
            off = there - normals
            apart = _dot(off, off)
            asked, asking = (_Weight.of(apart, reach, share) for reach in (far_there, far))
            told = _dot(per_weight_there, normals) - at_mean_there
            by_distance = asked.by_distance * (_dot(per_weight, there) - at_mean) + asking.by_distance * told
            yield off, asked, asking, per_weight_there, told, by_distance

    def of_normals(k: int) -> Map:
        total = cotangent[k]
        for off, asked, asking, per_weight_there, _, by_distance in pairs():
            total = (
                total - asked.value * per_weight[k] + asking.value * per_weight_there[k] - 2.0 * by_distance * off[k]
            )
        return total

    def of_reach() -> Map:
        return sum(asking.by_reach * told for _, _, asking, _, told, _ in pairs())

    return jnp.stack(
        [*(in_one_loop(partial(of_normals, k), far) for k in range(len(normals))), in_one_loop(of_reach, far)]
    )


def _dot(one: Normals, other: Normals) -> Map:
    return sum(a * b for a, b in zip(one, other, strict=True))
