"""A method picked from what the slopes themselves tell: noise, edges, outlying pixels."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from eclipsjax._types import InputError, Scalar, as_real, concrete
from eclipsjax.inverse.integrators.bilateral import Bilateral
from eclipsjax.inverse.integrators.despiked import Despiked, find_spikes
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute
from eclipsjax.inverse.integrators.links import cubic, divergence, loop_noise, poisson
from eclipsjax.inverse.integrators.outlying import TWO, lone_spikes, typical
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.integrators.robust import Robust, gradient
from eclipsjax.inverse.integrators.wiener import Wiener

# Root mean square over median of what least squares leaves: 1.2 for Gaussian noise. Limits read off
# benchmarks/integration.py.
_GAUSSIAN, _TAILS, _EDGES, _LOST_EDGES = 1.25, 2.0, 11.5, 50.0
_SPIKES = 0.008


class Auto(eqx.Module):
    """Looks at what plain least squares leaves of the slopes, and picks another method by it.

    Gaussian residuals ask for `Wiener`, long tails for `Robust`, sharp edges in little noise for `Robust` with a lower
    cutoff, edges that no pixel resolves for `Bilateral`, spikes for `Despiked`. With a mask or weights: `Poisson`,
    `LeastAbsolute` or `Despiked(LeastAbsolute())`.
    """

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
            weights = jnp.ones_like(slope_x) if weights is None else as_real(weights).astype(slope_x.dtype)
            mask = jnp.ones(slope_x.shape, bool) if mask is None else jnp.asarray(mask, bool)
        noise, tail = (float(v) for v in _residual(slope_x, slope_y, mask, weights))
        spikes = float(_spike_share(slope_x, slope_y, mask, weights)) if tail > _TAILS else 0.0
        found = f"slopes disagree by {noise:.2g}, with tails {tail:.3g} times that (1.2 for white noise)"
        if spikes > _SPIKES:
            inner = Robust() if weights is None else LeastAbsolute()
            return Despiked(inner), f"{found}, and {100 * spikes:.1f} % of the pixels stand out alone"
        if weights is not None:
            if tail > _TAILS:
                return LeastAbsolute(), f"{found}: edges or long tails, with a mask or weights"
            return Poisson(), f"{found}: noise, with a mask or weights"
        if tail > _LOST_EDGES:
            return Bilateral(), f"{found}: hardly any noise, edges that no pixel resolves"
        if tail > _EDGES:
            return Robust(cutoff=1.0), f"{found}: sharp edges in little noise"
        if tail > _GAUSSIAN:
            return Robust(), f"{found}: noise with edges or long tails"
        return Wiener(), f"{found}: noise"


@jax.jit
def _residual(slope_x, slope_y, mask, weights) -> tuple[Scalar, Scalar]:
    """What least squares leaves of the slopes, per direction (from the median), and its rms over its median."""
    if weights is None:
        height = poisson(divergence(cubic(slope_x, slope_y)))
    else:
        slope_x, slope_y = jnp.where(mask, slope_x, 0.0), jnp.where(mask, slope_y, 0.0)
        height = Poisson(1e-3).height_px(slope_x, slope_y, jnp.where(mask, weights, 0.0), mask)
    fitted_x, fitted_y = gradient(height)
    miss = jnp.hypot(slope_x - fitted_x, slope_y - fitted_y)
    inside = jnp.ones(miss.shape, bool)
    if weights is not None:
        # Only pixels whose four neighbours are inside: others' central differences cross the mask's border.
        padded = jnp.pad(mask & (weights > 0), 1)
        inside = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        mean = jnp.sum(jnp.where(inside, weights, 0.0)) / jnp.maximum(jnp.sum(inside.astype(miss.dtype)), 1.0)
        miss = miss * jnp.sqrt(jnp.where(inside, weights, 0.0) / jnp.where(mean > 0, mean, 1.0))
    middle = typical(miss, inside)
    square = jnp.sum(jnp.where(inside, miss, 0.0) ** 2) / jnp.maximum(jnp.sum(inside.astype(miss.dtype)), 1.0)
    # Slopes that agree to the last digit have no tails to speak of.
    rounding = 30 * jnp.finfo(miss.dtype).eps * (1.0 + jnp.max(jnp.abs(fitted_x)) + jnp.max(jnp.abs(fitted_y)))
    return middle / TWO, jnp.sqrt(square) / jnp.maximum(middle, rounding)


@jax.jit
def _spike_share(slope_x, slope_y, mask, weights) -> Scalar:
    if weights is None:
        return jnp.mean(lone_spikes(slope_x, slope_y, loop_noise(slope_x, slope_y)).astype(slope_x.dtype))
    slope_x, slope_y = jnp.where(mask, slope_x, 0.0), jnp.where(mask, slope_y, 0.0)
    inside = mask & (weights > 0)
    height = LeastAbsolute(iterations=20).height_px(slope_x, slope_y, jnp.where(mask, weights, 0.0), mask)
    spikes = find_spikes(slope_x, slope_y, gradient(height), 5.0, inside).astype(slope_x.dtype)
    return jnp.sum(spikes) / jnp.maximum(jnp.sum(inside.astype(slope_x.dtype)), 1.0)
