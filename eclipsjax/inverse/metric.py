"""How much each change of the heights matters where they are now: the local quadratic model of the value.

Each pixel's own slopes answer to its images with what the relief hides held fixed; neighbours are tied by the slopes'
differences and by what is expected of the relief. Walls, which images tell least about, thus move freely, and level
ground stiffly. It serves as the descent's metric (a step is one sparse solve, no rays) and, at the optimum, as the
information from which standard deviations follow.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._conjugate_gradients import conjugate_gradients
from eclipsjax._cosine import cosine_modes_2d, frequencies, from_cosine_modes_2d, inverse_or_zero
from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.misfit import DISCOUNT, LocalFit, Problem, Unknowns, slope_noise
from eclipsjax.inverse.smoothness import Bends, bends, stiffness_of_modes
from eclipsjax.specimen.surface import Surface

_TOLERANCE, _MOST_ROUNDS = 1e-3, 25
# Information that no pixel goes below, as a share of the mean: what nothing is known of must not move at will.
_FLOOR = 1e-7


class Metric(eqx.Module):
    """The quadratic model's blocks: heights, and the overall numbers (brightness, instrument).

    - `slopes`: `(2, 2, y, x)` information of each pixel's slopes; `level`: of the field's mean slope, beforehand;
      `stiffness`: of the height's `bends`, pixels.
    - `modes`: `(y, x)` inverse of the heights' block for uniform pixels, per cosine mode: the preconditioner.
    - `carried`: `(overall, y, x)` how far heights follow when a number moves; `covariance`: `(overall, overall)`.
    """

    slopes: Float[Array, "2 2 y x"]
    level: Scalar
    stiffness: Bends
    modes: Map
    pixel_size_nm: Scalar
    carried: Float[Array, "overall y x"]
    covariance: Float[Array, "overall overall"]

    @property
    def credible(self) -> Float[Array, "overall overall"]:
        """Covariance of the overall numbers with the discount on the pixels' evidence taken into account."""
        root = jnp.full(len(self.covariance), DISCOUNT**0.5, self.covariance.dtype).at[0].set(1.0)
        return self.covariance * root[:, None] * root[None, :]

    def times(self, height: Map) -> Map:
        """The heights' block times a change of heights."""
        pixel = self.pixel_size_nm
        leans, back = jax.vjp(lambda h: jnp.stack(Surface(h, pixel).slopes()), height)
        of_field = self.level / height.size * jnp.mean(leans, axis=(1, 2), keepdims=True)
        from_slopes = back(jnp.einsum("ijyx,jyx->iyx", self.slopes, leans) + of_field)[0]
        bent, back = jax.vjp(lambda h: bends(h / pixel), height)
        return from_slopes + back(tuple(b * w for b, w in zip(bent, self.stiffness, strict=True)))[0]

    def heights_for(self, force: Map) -> Map:
        """Heights (mean 0) on which the heights' block is `force`."""

        def precondition(residual):
            return from_cosine_modes_2d(self.modes * cosine_modes_2d(residual))

        force = force - jnp.mean(force)
        return conjugate_gradients(self.times, force, precondition, _TOLERANCE, _MOST_ROUNDS)[0]


@jax.jit
def metric_at(unknowns: Unknowns, problem: Problem, fit: LocalFit) -> Metric:
    """The quadratic model at `unknowns`; `fit` is the sum of `tile_information` over all tiles."""
    pixel, height_px = problem.pixel_size_nm, unknowns.height_nm / problem.pixel_size_nm
    stiffness = problem.smoothness.stiffness(height_px, slope_noise(unknowns, problem))
    floor = _FLOOR * 0.5 * jnp.mean(fit.slopes[0, 0] + fit.slopes[1, 1])
    eye = jnp.eye(2, dtype=height_px.dtype)[:, :, None, None]
    slopes = fit.slopes + floor * eye
    modes = _inverse_of_modes(slopes, stiffness, pixel)
    nothing = jnp.zeros((len(fit.overall), *height_px.shape), height_px.dtype)
    level = problem.level_information
    start = Metric(slopes, level, stiffness, modes, pixel, nothing, fit.overall)
    force = jax.vmap(lambda mixed: _force_of_slopes(mixed, height_px, pixel))(fit.mixed)
    carried = jax.lax.map(start.heights_for, force)
    # Numbers are in units of what is known of them beforehand; of the brightness nothing is.
    known = jnp.full(len(fit.overall), DISCOUNT, height_px.dtype).at[0].set(0.0)
    left = fit.overall + jnp.diag(known) - jnp.einsum("ayx,byx->ab", carried, force)
    left = 0.5 * (left + left.T) + 1e-6 * jnp.diag(jnp.diag(fit.overall))
    return Metric(slopes, level, stiffness, modes, pixel, carried, jnp.linalg.inv(left))


def _force_of_slopes(slopes: Float[Array, "2 y x"], height: Map, pixel: Scalar) -> Map:
    """The transpose of taking slopes."""
    back = jax.linear_transpose(lambda h: jnp.stack(Surface(h, pixel).slopes()), height)
    return back(slopes)[0]


def _inverse_of_modes(slopes: Array, stiffness: Bends, pixel: Scalar) -> Map:
    rows, columns = slopes.shape[-2:]
    ky, kx = frequencies(rows, slopes.dtype)[:, None], frequencies(columns, slopes.dtype)[None, :]
    of_slopes = jnp.mean(slopes[0, 0]) * jnp.sin(kx) ** 2 + jnp.mean(slopes[1, 1]) * jnp.sin(ky) ** 2
    return inverse_or_zero((of_slopes + stiffness_of_modes(stiffness, (rows, columns))) / pixel**2)


@jax.jit
def metric_solve(metric: Metric, gradient: Unknowns) -> Unknowns:
    """The step that the quadratic model asks for against `gradient` (its sign left to the caller)."""
    heights = metric.heights_for(gradient.height_nm)
    left = gradient.overall - jnp.einsum("ayx,yx->a", metric.carried, gradient.height_nm)
    overall = metric.covariance @ left
    return Unknowns(heights - jnp.einsum("a,ayx->yx", overall, metric.carried), overall)


@partial(jax.jit, static_argnames="draws")
def posterior_std(metric: Metric, key: Array, draws: int = 32) -> tuple[Map, Float[Array, "2 y x"]]:
    """Standard deviations of heights (nm, about their mean) and slopes under the quadratic model.

    `draws` forces whose covariance is the model itself are each answered by one solve; what the overall numbers are
    uncertain by adds what heights and slopes follow them. Relative error of each: 1 / sqrt(2 draws). Gradient: none.
    """
    shape, dtype, pixel = metric.modes.shape, metric.modes.dtype, metric.pixel_size_nm
    root = _root(metric.slopes)

    def slopes_of(height):
        return jnp.stack(Surface(height, pixel).slopes())

    def add(total, key):
        of_slopes, of_field, of_bends = jax.random.split(key, 3)
        pull = jnp.einsum("ijyx,jyx->iyx", root, jax.random.normal(of_slopes, (2, *shape), dtype))
        pull = pull + jnp.sqrt(metric.level) / metric.modes.size * jax.random.normal(of_field, (2, 1, 1), dtype)
        force = _force_of_slopes(pull, metric.modes, pixel)
        keys = jax.random.split(of_bends, len(metric.stiffness))
        drawn = zip(metric.stiffness, keys, strict=True)
        bent = tuple(jnp.sqrt(weight) * jax.random.normal(k, weight.shape, dtype) for weight, k in drawn)
        back = jax.linear_transpose(lambda h: bends(h / pixel), metric.modes)
        height = metric.heights_for(force + back(bent)[0])
        height = height - jnp.mean(height)
        return (total[0] + height**2, total[1] + slopes_of(height) ** 2), None

    nothing = jnp.zeros(shape, dtype), jnp.zeros((2, *shape), dtype)
    (height, slope), _ = jax.lax.scan(add, nothing, jax.random.split(key, draws))
    covariance = metric.credible
    follow = metric.carried - jnp.mean(metric.carried, axis=(1, 2), keepdims=True)
    lean = jax.vmap(slopes_of)(follow)
    height = height / draws + jnp.einsum("ayx,ab,byx->yx", follow, covariance, follow)
    slope = slope / draws + jnp.einsum("aiyx,ab,biyx->iyx", lean, covariance, lean)
    return jnp.sqrt(height), jnp.sqrt(slope)


def _root(matrix: Float[Array, "2 2 y x"]) -> Float[Array, "2 2 y x"]:
    """Cholesky factor (lower) of each pixel's 2 x 2 matrix."""
    xx, xy, yy = matrix[0, 0], matrix[0, 1], matrix[1, 1]
    first = jnp.sqrt(jnp.maximum(xx, jnp.finfo(xx.dtype).tiny))
    across = xy / first
    last = jnp.sqrt(jnp.maximum(yy - across**2, 0.0))
    return jnp.stack([jnp.stack([first, jnp.zeros_like(first)]), jnp.stack([across, last])])
