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


class _Pair(NamedTuple):
    """A pixel and a neighbour that it asks: how far off that is, what it counts, and what that follows from: the
    derivatives of the weight in the squared distance and in the squared reach."""

    off: Normals
    weight: Map
    by_distance: Map
    by_reach: Map

    @classmethod
    def of(cls, asking: Normals, asked: Normals, far: Map, share: float) -> _Pair:
        """Of normals, the squared reach of the one asked, and the neighbour's share where all are alike."""
        off = asked - asking
        apart = _dot(off, off)
        inverse = 1.0 / (far + apart)
        alike = far * inverse
        weight = share * alike**2
        return cls(off, weight, -2.0 * weight * inverse, 2.0 * share * alike * apart * inverse**2)


def _neighbours(stride: int, normals: Normals, far: Map, *others: Array):
    """For every neighbour: its share, and normals, squared reaches and other maps as seen from there."""
    rows, columns = far.shape
    width = [(stride, stride)] * 2
    around = [jnp.pad(normals, [(0, 0), *width], constant_values=_NOWHERE), jnp.pad(far, width)]
    around += [jnp.pad(m, [(0, 0)] * (m.ndim - 2) + width) for m in others]
    for y, x in _AROUND:
        at = slice(stride * (1 + y), stride * (1 + y) + rows), slice(stride * (1 + x), stride * (1 + x) + columns)
        yield 0.5 ** (abs(y) + abs(x)), *(m[(..., *at)] for m in around)


def _mean_offset(normals: Normals, far: Map, stride: int) -> tuple[Normals, Map]:
    """How far the mean lies from a pixel's own lean, and the sum of weights."""
    moved, weights = jnp.zeros_like(normals), jnp.ones_like(far)
    for share, there, far_there in _neighbours(stride, normals, far):
        pair = _Pair.of(normals, there, far_there, share)
        moved, weights = moved + pair.weight[None] * pair.off, weights + pair.weight
    return moved / weights[None], weights


def _pushed(stride: int, at: tuple, changes: Float[Array, "m y x"]) -> Float[Array, "m y x"]:
    """What changes of normals and squared reaches do to the means, and a map of zeros."""
    normals, far, offset, weights = at
    d_normals, d_far = changes[:-1], changes[-1]
    moved = jnp.zeros_like(normals)
    for share, there, far_there, d_there, d_far_there in _neighbours(stride, normals, far, d_normals, d_far):
        pair = _Pair.of(normals, there, far_there, share)
        apart = d_there - d_normals
        d_weight = 2.0 * pair.by_distance * _dot(pair.off, apart) + pair.by_reach * d_far_there
        moved = moved + pair.weight[None] * apart + d_weight[None] * (pair.off - offset)
    return jnp.concatenate([d_normals + moved / weights[None], jnp.zeros_like(far)[None]])


def _pulled(stride: int, at: tuple, cotangent: Normals) -> Float[Array, "m y x"]:
    """The transpose of `_pushed`: what every pixel is to its neighbours' means, less what they are to its own."""
    normals, far, offset, weights = at
    per_weight = cotangent / weights[None]
    total, total_far = cotangent, jnp.zeros_like(far)
    for share, there, far_there, per_weight_there, offset_there in _neighbours(
        stride, normals, far, per_weight, offset
    ):
        asks = _Pair.of(normals, there, far_there, share)
        is_asked = _Pair.of(there, normals, far, share)
        told = _dot(per_weight_there, is_asked.off - offset_there)
        total = total - _along(asks, per_weight, offset) + _along(is_asked, per_weight_there, offset_there)
        total_far = total_far + is_asked.by_reach * told
    return jnp.concatenate([total, total_far[None]])


def _along(pair: _Pair, per_weight: Normals, offset: Normals) -> Normals:
    """What a cotangent asks of the way from a pixel to a neighbour."""
    told = 2.0 * pair.by_distance * _dot(per_weight, pair.off - offset)
    return pair.weight[None] * per_weight + told[None] * pair.off


def _dot(one: Normals, other: Normals) -> Map:
    return sum(a * b for a, b in zip(one, other, strict=True))
