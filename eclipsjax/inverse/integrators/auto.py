"""A method picked from what the slopes themselves tell: noise, spikes, edges, walls and dislocations."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eclipsjax._types import InputError, Map, Scalar, as_real, concrete
from eclipsjax.inverse.integrators.closed_walls import ClosedWalls, Mended
from eclipsjax.inverse.integrators.despiked import Despiked, weighted_spikes
from eclipsjax.inverse.integrators.dislocations import Dislocated, hidden_dislocations
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute
from eclipsjax.inverse.integrators.links import (
    box_sums,
    cubic,
    divergence,
    loop_sums,
    mean_of_loops,
    poisson,
    relative_weights,
)
from eclipsjax.inverse.integrators.mixed_pixels import Unmixed
from eclipsjax.inverse.integrators.outlying import excess_over_surroundings, typical
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.integrators.robust import Robust, gradient
from eclipsjax.inverse.integrators.wiener import Wiener

# Limits read off benchmarks/integration.py with other seeds than its own. Of spikes: a share of the pixels.
_SPIKES = 0.008
# Root mean square over median of what least squares leaves: 1.2 for Gaussian noise.
_GAUSSIAN, _WALLS, _EDGES, _EXACT = 1.25, 3.0, 10.0, 18.0
# Where pixels do not resolve an edge: how much steeper than noise alone (8 times) steep pixels are on average, and
# the share of that slope by which loops there do not close (.15; .007 on a hill of 1.5 pixels' standard deviation).
_UNRESOLVED, _GAPS = 1.6, 0.03
# Loop sums over 12 x 12 pixels in those of one: 5 for white noise, 60 for correlated, 144 for a smooth bias.
_CORRELATED, _SMOOTH = 30.0, 55.0
# Slope noise above which the network is better than all others but where walls close; and even than unmixing.
_NOISY, _VERY_NOISY = 0.008, 0.04


class Look(eqx.Module):
    """What the slopes tell, all scalars.

    - `noise`: standard deviation of a slope, from the curl. - `spikes`: share of the pixels. - `walls`: share of the
      pixels that closing loops makes steeper. - `dislocations`: how many without a visible step. - `tail`: rms over
      median of what least squares leaves, spikes and walls mended. - `steep`: mean excess slope of the pixels that
      stand out from their surroundings, less 8 times the noise. - `gaps`: by how much loops there do not close, over
      that slope. - `smooth`: how the curl adds up over 12 x 12 pixels.
    """

    noise: Scalar
    spikes: Scalar
    walls: Scalar
    dislocations: Scalar
    tail: Scalar
    steep: Scalar
    gaps: Scalar
    smooth: Scalar


class Auto(eqx.Module):
    """Looks at the slopes and picks another method by what it sees.

    Edges that no pixel resolves ask for `Unmixed`, noise for the network (`DepthNet.shipped()`). Where there is hardly
    any, or walls must close: sharp edges and long tails ask for `Robust`, a smooth bias for `Poisson`; spikes,
    walls whose loops do not close and hidden dislocations are mended first. With a mask or weights: `Poisson`,
    `LeastAbsolute` or `Despiked(LeastAbsolute())`.

    - `network`: whether the network may be picked (static).
    """

    network: bool = eqx.field(static=True, default=True)

    def pick(self, slope_x: Any, slope_y: Any, mask: Any = None, weights: Any = None) -> tuple[Any, str]:
        """The method for these slopes, and why, in a sentence. `mask` and `weights` as in `integrate`.

        Looks at numbers, so it cannot be traced. Gradient: none.
        """
        if any(concrete(a) is None for a in (slope_x, slope_y, mask, weights) if a is not None):
            raise InputError(
                "method = Auto() looks at numbers but the slopes are being traced: pick outside of jit, grad or vmap, "
                "method, why = Auto().pick(slope_x, slope_y), and pass that method."
            )
        slope_x, slope_y = as_real(slope_x), as_real(slope_y)
        if mask is not None or weights is not None:
            weights = None if weights is None else as_real(weights).astype(slope_x.dtype)
            mask = jnp.ones(slope_x.shape, bool) if mask is None else jnp.asarray(mask, bool)
            return _weighable(slope_x, slope_y, mask, weights)
        look = jax.tree.map(float, _look(slope_x, slope_y))
        found = (
            f"noise of {math.degrees(math.atan(look.noise)):.2g} deg by the curl, tails {look.tail:.3g} (1.2: Gaussian)"
        )
        beyond_unmixing = self.network and look.noise > _VERY_NOISY
        unresolved = look.steep > _UNRESOLVED and look.gaps > _GAPS and look.tail > _WALLS
        if unresolved and not look.walls and not beyond_unmixing:
            return Unmixed(Robust(cutoff=1.0)), f"{found}: edges that no pixel resolves"
        if self.network and look.noise > _NOISY and not look.walls:
            from eclipsjax.inverse.pinn import DepthNet

            return DepthNet.shipped(), f"{found}: the network knows noise best"
        method, reason = _classical(look)
        if look.spikes > _SPIKES:
            method, reason = Despiked(method), f"{reason}; {100 * look.spikes:.1f} % of the pixels stand out alone"
        if look.walls:
            method, reason = ClosedWalls(method), f"{reason}; walls steeper than they look, or loops would not close"
        if look.dislocations:
            count = int(look.dislocations)
            method, reason = Dislocated(method), f"{reason}; dislocations without a visible step: {count}"
        return method, f"{found}: {reason}"


def _classical(look: Look) -> tuple[Any, str]:
    if look.smooth > _SMOOTH and look.spikes < _SPIKES and not look.walls:
        return (Robust(), "a smooth bias, and sharp edges") if look.tail > _EXACT else (Poisson(), "a smooth bias")
    if look.walls and look.noise > _NOISY and look.smooth < _CORRELATED:
        return Wiener(), "noise"
    if look.tail > _EDGES:
        return Robust(cutoff=1.0), "sharp edges in little noise"
    if look.tail > _GAUSSIAN:
        return Robust(), "noise with edges or long tails"
    return Wiener(), "noise"


def _weighable(slope_x: Map, slope_y: Map, mask: Any, weights: Map | None) -> tuple[Any, str]:
    tail, spikes = (float(v) for v in _weighted_look(slope_x, slope_y, mask, weights))
    found = f"tails {tail:.3g} (1.2: Gaussian)"
    if spikes > _SPIKES:
        return Despiked(LeastAbsolute()), f"{found}: {100 * spikes:.1f} % of the pixels stand out alone"
    if tail > 2.0:
        return LeastAbsolute(), f"{found}: edges or long tails, with a mask or weights"
    return Poisson(), f"{found}: noise, with a mask or weights"


@jax.jit
def _look(slope_x: Map, slope_y: Map) -> Look:
    mended = Mended.of(slope_x, slope_y)
    noise, closed = mended.noise, (mended.slope_x, mended.slope_y)
    spikes, walls = (jnp.mean(changed.astype(noise.dtype)) for changed in (mended.spikes, mended.walls))
    hidden = jnp.sum((hidden_dislocations(mended).rise_px != 0).astype(noise.dtype))
    fitted = gradient(poisson(divergence(cubic(*closed))))
    tail = _tail(jnp.hypot(closed[0] - fitted[0], closed[1] - fitted[1]), fitted)
    excess = excess_over_surroundings(*closed, noise).size
    stands_out = (excess > 8.0 * noise + 0.3).astype(noise.dtype)
    steepness = jnp.sum(stands_out * excess)
    steep = steepness / jnp.maximum(jnp.sum(stands_out), 1.0) - 8.0 * noise
    # Of fourth order: the trapezoid rule's own error would look like a smooth bias.
    sums = loop_sums(*closed, cubic)
    gaps = jnp.sum(stands_out * mean_of_loops(jnp.abs(sums))) / jnp.maximum(steepness, 1e-20)
    smooth = jnp.zeros_like(noise)
    if min(slope_x.shape) > 2:
        own = typical(jnp.abs(sums))
        # Where slopes close but for rounding there is no bias to speak of.
        smooth = jnp.where(own > 1e-5, typical(jnp.abs(box_sums(sums, 6))) / jnp.maximum(own, 1e-5), 0.0)
    return Look(noise, spikes, walls, hidden, tail, steep, gaps, smooth)


def _tail(miss: Map, fitted: tuple[Map, Map], inside: Any = None) -> Scalar:
    """Root mean square of `miss` over its median; slopes that agree to the last digit have no tails to speak of."""
    inside = jnp.ones(miss.shape, bool) if inside is None else inside
    count = jnp.maximum(jnp.sum(inside.astype(miss.dtype)), 1.0)
    square = jnp.sum(jnp.where(inside, miss, 0.0) ** 2) / count
    rounding = 30 * jnp.finfo(miss.dtype).eps * (1.0 + jnp.max(jnp.abs(fitted[0])) + jnp.max(jnp.abs(fitted[1])))
    return jnp.sqrt(square) / jnp.maximum(typical(miss, inside), rounding)


@jax.jit
def _weighted_look(slope_x: Map, slope_y: Map, mask: Any, weights: Map | None) -> tuple[Scalar, Scalar]:
    """Tail of what weighted least squares leaves, and the share of spikes."""
    slope_x, slope_y = jnp.where(mask, slope_x, 0.0), jnp.where(mask, slope_y, 0.0)
    weights = relative_weights(weights, mask, slope_x)
    fitted = gradient(Poisson(1e-3).height_px(slope_x, slope_y, weights, mask))
    # Only pixels whose four neighbours are inside: others' central differences cross the mask's border.
    padded = jnp.pad(weights > 0, 1)
    inside = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    miss = jnp.hypot(slope_x - fitted[0], slope_y - fitted[1])
    tail = _tail(miss * jnp.sqrt(jnp.where(inside, weights, 0.0)), fitted, inside)
    found = weighted_spikes(slope_x, slope_y, weights, mask, Despiked.threshold).astype(weights.dtype)
    return tail, jnp.sum(found) / jnp.maximum(jnp.sum((weights > 0).astype(weights.dtype)), 1.0)
