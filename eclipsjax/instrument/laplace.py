"""Laplace's equation between electrodes of any shape on a tensor grid.

Electrodes are signed-distance functions; the discretisation is finite volumes whose links stop at the electrode's
surface: a link of length h and area A that is cut at the fraction t carries the conductance A / (t h) (Gibou, Fedkiw,
Cheng and Kang 2002). The matrix stays symmetric positive definite, the potential is second order, and it is
differentiable in the geometry, because t is. Edges of the grid that no electrode covers are insulating; r = 0 is the
axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from eclipsjax._conjugate_gradients import conjugate_gradients
from eclipsjax.instrument.block_solve import factorise, substitute

# The potential jumps by about this share of a cell's voltage where a surface passes a node.
SMALLEST_FRACTION = 1e-6


class Electrode(eqx.Module):
    """A conductor. `distance` maps coordinate arrays (one per grid axis, mm) to a signed distance, not positive inside;
    `potential_v` is its potential, a scalar or a function of the same coordinates."""

    distance: Callable[..., Array]
    potential_v: Any

    def potential_at(self, *position: Array) -> Array:
        """Potential where the surface is met, V, of the shape of the coordinates."""
        value = self.potential_v(*position) if callable(self.potential_v) else self.potential_v
        return jnp.broadcast_to(jnp.asarray(value, position[0].dtype), position[0].shape)


class Cut(eqx.Module):
    """Where the links along one axis meet a surface: the `fraction` of the link from its free end, in (0, 1], and the
    potential found there. 1 and 0 V where the link is not cut."""

    fraction: Array
    potential_v: Array


class Network(eqx.Module):
    """The grid as resistors: `diagonal` and `source` on the nodes, `links[k]` and `cuts[k]` between them on axis k."""

    diagonal: Float[Array, "*grid"]
    links: tuple[Array, ...]
    source: Float[Array, "*grid"]
    solid: Bool[Array, "*grid"]
    cuts: tuple[Cut, ...]

    def apply(self, potential: Array) -> Array:
        """The symmetric matrix times `potential`."""
        out = self.diagonal * potential
        for axis, link in enumerate(self.links):
            low, high = _ends(axis, potential.ndim)
            out = out.at[low].add(-link * potential[high]).at[high].add(-link * potential[low])
        return out


class Solution(eqx.Module):
    """`potential_v` on the nodes, the linear system's true relative residual, the iterations it took (0: direct)."""

    potential_v: Float[Array, "*grid"]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]


def polar_areas(radius: Array, height: Array) -> tuple[Array, Array]:
    """Face areas over 2 pi of the links along z and along r, indexed `[z, r]`, of an axisymmetric grid from r = 0."""
    middle = _middles(radius)
    edges = jnp.concatenate([radius[:1], middle, radius[-1:]])
    ring = 0.5 * (edges[1:] ** 2 - edges[:-1] ** 2)
    return ring[None, :], middle[None, :] * _cell_lengths(height)[:, None]


def cartesian_areas(*axes: Array) -> tuple[Array, ...]:
    """Face areas of the links along each axis of a Cartesian tensor grid."""
    lengths = [_along(_cell_lengths(axis), k, len(axes)) for k, axis in enumerate(axes)]
    ones = jnp.ones((1,) * len(axes), axes[0].dtype)
    areas = []
    for k in range(len(axes)):
        area = ones
        for j, length in enumerate(lengths):
            area = area if j == k else area * length
        areas.append(area)
    return tuple(areas)


def connect(axes: Sequence[Array], areas: Sequence[Array], electrodes: Sequence[Electrode]) -> Network:
    """The resistor network of the space between `electrodes` on the tensor grid `axes` (mm, one array per axis).

    `areas[k]` broadcasts against the links along axis k. Gradient: exact for the discrete system in voltages, electrode
    geometry and grid, except where a surface crosses a node (the potential is continuous there, its derivative jumps
    by a relative O(h)).
    """
    shape = tuple(axis.shape[0] for axis in axes)
    nodes = [jnp.broadcast_to(_along(axis, k, len(axes)), shape) for k, axis in enumerate(axes)]
    solid = _union_distance(electrodes, nodes) <= 0
    diagonal = jnp.zeros_like(nodes[0])
    source = jnp.where(solid, _surface_potential(electrodes, nodes), 0.0)
    links, cuts = [], _cuts(electrodes, nodes, solid)
    for k, (axis, area, cut) in enumerate(zip(axes, areas, cuts, strict=True)):
        low, high = _ends(k, len(axes))
        conductance = jnp.broadcast_to(area / _along(jnp.diff(axis), k, len(axes)), solid[low].shape)
        link = jnp.where(solid[low] | solid[high], 0.0, conductance)
        to_surface = jnp.where(solid[low] != solid[high], conductance / cut.fraction, 0.0)
        to_high, to_low = jnp.where(solid[low], 0.0, to_surface), jnp.where(solid[low], to_surface, 0.0)
        diagonal = diagonal.at[low].add(link + to_high).at[high].add(link + to_low)
        source = source.at[low].add(to_high * cut.potential_v).at[high].add(to_low * cut.potential_v)
        links.append(link)
    # A node inside an electrode keeps its potential; one that is cut off from everything gets 0 V instead of 0/0.
    diagonal = jnp.where(solid | (diagonal == 0), 1.0, diagonal)
    return Network(diagonal, tuple(links), source, solid, tuple(cuts))


def solve_direct(network: Network) -> Solution:
    """Potential on a two-dimensional network by block elimination along its first axis: exact, also in float32.

    Gradient: exact (implicit differentiation; derivatives reuse the factorisation).
    """
    fixed = lax.stop_gradient(network)
    down, across = fixed.links
    inverses = factorise(fixed.diagonal, across, down)

    def solve(_, rhs):
        return substitute(inverses, down, rhs)

    potential = lax.custom_linear_solve(network.apply, network.source, solve, symmetric=True)
    return Solution(potential, _residual(network, potential), jnp.zeros((), jnp.int32))


def solve_iterative(network: Network, tolerance: float | None = None, max_iterations: int = 5000) -> Solution:
    """Potential on a network of any dimension by conjugate gradients with a diagonal preconditioner.

    Stops when the recursive relative residual falls below `tolerance` (default 1e-10 in float64, 1e-6 in float32, below
    which float32 stalls); the residual reported is recomputed from the solution.
    Gradient: as accurate as the tolerance (implicit differentiation, one more solve of the same kind).
    """
    if tolerance is None:
        tolerance = 1e-10 if network.source.dtype == jnp.float64 else 1e-6
    inverse_diagonal = 1.0 / lax.stop_gradient(network.diagonal)

    def solve(matvec, rhs):
        return conjugate_gradients(matvec, rhs, lambda r: inverse_diagonal * r, tolerance, max_iterations)

    potential, iterations = lax.custom_linear_solve(network.apply, network.source, solve, symmetric=True, has_aux=True)
    return Solution(potential, _residual(network, potential), iterations)


def two_sections(low: Array, middle: Array, high: Array, below: int, above: int) -> Array:
    """Uniform nodes from `low` to `middle`, then to `high`; both ends and the middle are met exactly."""
    first = jnp.asarray(np.linspace(0, 1, below + 1), low.dtype)
    second = jnp.asarray(np.linspace(0, 1, above + 1)[1:], low.dtype)
    lower = low * (1.0 - first) + middle * first
    return jnp.concatenate([lower, middle * (1.0 - second) + high * second])


def deepest(*distances: Array) -> Array:
    """Signed distance to what lies inside all of several surfaces."""
    out = distances[0]
    for distance in distances[1:]:
        out = jnp.maximum(out, distance)
    return out


def _residual(network: Network, potential: Array) -> Array:
    wanted = jnp.linalg.norm(network.source.ravel())
    miss = jnp.linalg.norm((network.source - network.apply(potential)).ravel())
    return lax.stop_gradient(miss / jnp.where(wanted > 0, wanted, 1.0))


def _union_distance(electrodes: Sequence[Electrode], position: Sequence[Array]) -> Array:
    distance = electrodes[0].distance(*position)
    for electrode in electrodes[1:]:
        distance = jnp.minimum(distance, electrode.distance(*position))
    return distance


def _surface_potential(electrodes: Sequence[Electrode], position: Sequence[Array]) -> Array:
    """Potential of the electrode that is nearest to (or deepest around) each position."""
    best = electrodes[0].distance(*position)
    potential = electrodes[0].potential_at(*position)
    for electrode in electrodes[1:]:
        distance = electrode.distance(*position)
        nearer = distance < best
        best = jnp.where(nearer, distance, best)
        potential = jnp.where(nearer, electrode.potential_at(*position), potential)
    return potential


def _cuts(electrodes: Sequence[Electrode], nodes: Sequence[Array], solid: Array) -> list[Cut]:
    """The links of every axis, cut where they meet a surface.

    Bisection finds the root; one Newton step on the signed distance makes it accurate to second order and
    differentiable. All axes go through one list, which halves the time to compile.
    """
    ends = [_ends(k, solid.ndim) for k in range(solid.ndim)]
    shapes = [solid[low].shape for low, _ in ends]

    def listed(values, side):
        return jnp.concatenate([values[pair[side]].ravel() for pair in ends])

    flip, cut = listed(solid, 0), listed(solid, 0) != listed(solid, 1)
    lows, highs = [listed(x, 0) for x in nodes], [listed(x, 1) for x in nodes]
    start = [jnp.where(flip, b, a) for a, b in zip(lows, highs, strict=True)]
    span = [jnp.where(flip, a - b, b - a) for a, b in zip(lows, highs, strict=True)]

    def distance(fraction, start, span):
        return _union_distance(electrodes, [s + fraction * d for s, d in zip(start, span, strict=True)])

    fixed = lax.stop_gradient((start, span))

    def halve(_, bracket):
        free, inside = bracket
        middle = 0.5 * (free + inside)
        outside = distance(middle, *fixed) > 0
        return jnp.where(outside, middle, free), jnp.where(outside, inside, middle)

    zero = jnp.zeros_like(span[0])
    # The free end of the bracket: just inside, another face may rule the distance, along which nothing changes.
    root, _ = lax.stop_gradient(lax.fori_loop(0, 16, halve, (zero, zero + 1.0)))
    value, slope = jax.jvp(lambda t: distance(t, start, span), (root,), (jnp.ones_like(root),))
    usable = cut & (jnp.abs(slope) > 0)
    root = root - jnp.where(usable, value / lax.stop_gradient(jnp.where(usable, slope, 1.0)), 0.0)
    fraction = jnp.where(cut, jnp.maximum(root, SMALLEST_FRACTION), 1.0)
    met = _surface_potential(electrodes, [s + fraction * d for s, d in zip(start, span, strict=True)])
    met = jnp.where(cut, met, 0.0)
    bounds = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    parts = zip(jnp.split(fraction, bounds), jnp.split(met, bounds), shapes, strict=True)
    return [Cut(part.reshape(shape), volts.reshape(shape)) for part, volts, shape in parts]


def _ends(axis: int, ndim: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the low and of the high node of every link along `axis`."""
    whole = [slice(None)] * ndim
    low, high = list(whole), list(whole)
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    return tuple(low), tuple(high)


def _along(values: Array, axis: int, ndim: int) -> Array:
    return values.reshape([-1 if k == axis else 1 for k in range(ndim)])


def _middles(nodes: Array) -> Array:
    return 0.5 * (nodes[1:] + nodes[:-1])


def _cell_lengths(nodes: Array) -> Array:
    """Length of the cell around each node; half cells at the ends."""
    edges = jnp.concatenate([nodes[:1], _middles(nodes), nodes[-1:]])
    return jnp.diff(edges)
