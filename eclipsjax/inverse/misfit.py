"""How badly heights explain the images: residuals through the exact simulator, and what is expected beforehand.

    value = 1/2 sum over pixels huber(r' P r) + smoothness + k/2 (|numbers|^2 + |mean slope / level|^2),

with r = level measured - level simulated.

The levels of a pixel share its brightness, one number for the image times 1 + e for the pixel with e of standard
deviation `spread`; e is fitted in closed form, which leaves r' P r - (r' P g)^2 / (g' P g + 1 / spread^2) with g the
simulated levels. Instrument numbers that are not known exactly shift by their own standard deviations. They must win
k times more than noise alone would ask for: errors of the model (what was expected of the relief first of all) are the
same in many pixels, which therefore are no independent witnesses of the instrument. Where there are such numbers, how
level the specimen lies counts among them: unequal gains and a lean of the whole field look alike.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map, Scalar, SignalStack
from eclipsjax.imaging.blur import GaussianBlur
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import Precision, slope_response
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.inverse.linear_acceptance import LinearAcceptance
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.photometric import flat_response
from eclipsjax.inverse.smoothness import EdgePreserving
from eclipsjax.inverse.tiles import Tile, centre_mm
from eclipsjax.inverse.uncertain import Instrument, Model
from eclipsjax.specimen.horizon import NoRelief
from eclipsjax.specimen.surface import Surface

# k above: on step bunches and rough surfaces numbers came out by up to 6 of the standard deviations for k = 1.
DISCOUNT = 25.0


class Unknowns(eqx.Module):
    """What is solved for.

    - `height_nm`: `(y, x)`.
    - `overall`: `(1 + number,)`: logarithm of the brightness, then shifts of the uncertain instrument numbers in units
      of their standard deviations.
    """

    height_nm: Map
    overall: Float[Array, "overall"]


class Problem(eqx.Module):
    """What the heights are to explain, and by which model.

    - `measurement`, `pixel_size_nm`: the images.
    - `instrument`: microscope and emission with their uncertain numbers; `acceptance`: from `acceptance_near`.
    - `horizon`, `azimuths`: as in `render`.
    - `blur`: of the camera, or None.
    - `spread`: relative standard deviation of the brightness from pixel to pixel; 0 for a uniform one, inf for none
      known.
    - `outlier`: residuals (root of r' P r) beyond which a pixel pulls no harder; inf for never.
    - `smoothness`: what is expected of the relief, in units of the noise of a level pixel's slope, which follows from
      `precision`, `(segment, segment)`, the inverse covariance of a level pixel's levels, taken for every pixel's.
    - `level_information`: of the mean slope along either axis, beforehand; 0 for none.
    - `window` (static): rows and columns that are worked on at once.
    """

    measurement: Measurement
    pixel_size_nm: Scalar
    instrument: Instrument
    acceptance: AcceptanceTable | LinearAcceptance
    horizon: Any
    blur: GaussianBlur | None
    spread: Scalar
    outlier: Scalar
    smoothness: EdgePreserving
    precision: Float[Array, "segment segment"]
    level_information: Scalar
    azimuths: int = eqx.field(static=True)
    window: tuple[int, int] = eqx.field(static=True)

    def table(self, unknowns: Unknowns) -> AcceptanceTable:
        """What the detector accepts. Gradient: exact."""
        known = self.acceptance
        return known.at(unknowns.overall[1:]) if isinstance(known, LinearAcceptance) else known


@jax.jit
def tile_value_and_gradient(unknowns: Unknowns, problem: Problem, tile: Tile) -> tuple[Array, Array, Unknowns]:
    """The images' part of the value from a tile's own pixels, their chi-square, and the gradient."""

    def value(unknowns):
        part = _Window.of(unknowns, problem, tile)
        misfit, chi_square = part.misfit(part.simulated(unknowns))
        return misfit, chi_square

    (value_, chi_square), gradient = jax.value_and_grad(value, has_aux=True)(unknowns)
    return value_, chi_square, gradient


@jax.jit
def expected_value_and_gradient(unknowns: Unknowns, problem: Problem) -> tuple[Array, Unknowns]:
    """The rest of the value: smoothness, how far the instrument's numbers have moved, how far the field leans."""

    def value(unknowns):
        height_px = unknowns.height_nm / problem.pixel_size_nm
        moved = DISCOUNT * jnp.sum(unknowns.overall[1:] ** 2)
        lean = [jnp.mean(slope) ** 2 for slope in Surface(unknowns.height_nm, problem.pixel_size_nm).slopes()]
        leans = problem.level_information * sum(lean)
        return problem.smoothness.energy(height_px, slope_noise(unknowns, problem)) + 0.5 * (moved + leans)

    return jax.value_and_grad(value)(unknowns)


def slope_noise(unknowns: Unknowns, problem: Problem) -> Scalar:
    """Standard deviation of a level pixel's slope, root mean square of both directions, by the model as it stands.

    Heights are smooth or not in this unit: numbers of the instrument that would make all slopes smaller make their
    noise smaller alike, and win nothing by it.
    """
    model = problem.instrument.shifted(unknowns.overall[1:])
    table = problem.table(unknowns)
    flat = flat_response(table, model.emission, azimuths=problem.azimuths)[:, 1:, 0, 0]
    dtype = problem.precision.dtype
    gain = jnp.exp(unknowns.overall[0]) * problem.instrument.relative_gain(model).astype(dtype)
    response = flat.astype(dtype) * gain[:, None]
    information = response.T @ problem.precision @ response
    return jnp.sqrt(0.5 * jnp.trace(jnp.linalg.inv(information)))


class LocalFit(eqx.Module):
    """What one tile's pixels tell about their slopes and the overall numbers, heights elsewhere held fixed.

    - `slopes`: `(2, 2, y, x)` information of the slopes.
    - `mixed`: `(overall, 2, y, x)` and `overall`: `(overall, overall)` the other blocks.
    """

    slopes: Float[Array, "2 2 y x"]
    mixed: Float[Array, "overall 2 y x"]
    overall: Float[Array, "overall overall"]


@jax.jit
def tile_information(unknowns: Unknowns, problem: Problem, tile: Tile) -> LocalFit:
    """Fisher information of a tile's own pixels, put in place on maps of the whole image."""
    part = _Window.of(unknowns, problem, tile)
    level, change = part.slope_change(unknowns)
    by_overall = jax.vmap(
        lambda direction: jax.jvp(
            lambda v: part.simulated(Unknowns(unknowns.height_nm, v)), (unknowns.overall,), (direction,)
        )[1]
    )(jnp.eye(unknowns.overall.size, dtype=level.dtype))
    precision = part.information_precision(level)
    own = part.own.astype(level.dtype)
    pulled = jnp.einsum("ikyx,yxkl,yx->ilyx", change, precision, own)
    slopes = jnp.einsum("ilyx,jlyx->ijyx", pulled, change)
    mixed = jnp.einsum("ilyx,alyx->aiyx", pulled, by_overall)
    overall = jnp.einsum("akyx,yxkl,blyx,yx->ab", by_overall, precision, by_overall, own)
    shape = unknowns.height_nm.shape
    return LocalFit(*(_placed(v, part.own, tile, shape) for v in (slopes, mixed)), overall)


@jax.jit
def tile_residual(unknowns: Unknowns, problem: Problem, tile: Tile) -> tuple[SignalStack, Map, SignalStack]:
    """Measured less simulated levels with each pixel's own brightness, that brightness, and the hidden share.

    The last is 1 - (signal with the relief / signal without). All `(..., y, x)` of the whole image, 0 outside the tile.
    """
    part = _Window.of(unknowns, problem, tile)
    level = part.simulated(unknowns)
    residual = part.one_sided(level)
    share = part.own_brightness(level, residual)
    shape = unknowns.height_nm.shape
    hidden = part.hidden(unknowns)
    left = residual - share[None] * level
    return tuple(_placed(v, part.own, tile, shape) for v in (left, share, hidden))


def _placed(values: Array, own: Array, tile: Tile, shape: tuple[int, int]) -> Array:
    """`values` `(..., y, x)` of the tile's own pixels on a map of the whole image, 0 elsewhere."""
    values = jnp.where(jnp.broadcast_to(own, values.shape), values, 0.0)
    whole = jnp.zeros((*values.shape[:-2], *shape), values.dtype)
    zeros = (jnp.zeros((), tile.start.dtype),) * (values.ndim - 2)
    return lax.dynamic_update_slice(whole, values, (*zeros, tile.start[0], tile.start[1]))


class _Window(eqx.Module):
    """The part of a problem that one tile sees."""

    problem: Problem
    tile: Tile
    measurement: Measurement
    own: Array
    centre_mm: Array

    @classmethod
    def of(cls, unknowns: Unknowns, problem: Problem, tile: Tile):
        tile = Tile(*(jnp.asarray(v) for v in tile))
        shape = unknowns.height_nm.shape
        rows, columns = (jnp.arange(n, dtype=jnp.int32) for n in problem.window)
        own_rows = (rows >= tile.first[0]) & (rows < tile.last[0])
        own_columns = (columns >= tile.first[1]) & (columns < tile.last[1])
        cut = partial(_cut, tile=tile, window=problem.window)
        m = problem.measurement
        measurement = Measurement(cut(m.level), m.noise, cut(m.below), cut(m.above), m.counts)
        dtype = unknowns.height_nm.dtype
        centre = centre_mm(tile.start.astype(dtype), problem.window, shape, problem.pixel_size_nm)
        own = own_rows[:, None] & own_columns[None, :]
        return cls(problem, tile, measurement, own, centre)

    def _scene(self, unknowns: Unknowns) -> tuple[Surface, Model, AcceptanceTable]:
        """The window's relief, the instrument, and what of the detector it sees from there."""
        model = self.problem.instrument.shifted(unknowns.overall[1:])
        height = _cut(unknowns.height_nm, self.tile, self.problem.window)
        table = self.problem.table(unknowns).of_part(self.centre_mm)
        return Surface(height, self.problem.pixel_size_nm), model, table

    def _recorded(self, signal: SignalStack, unknowns: Unknowns, model: Model) -> SignalStack:
        p = self.problem
        level = jnp.exp(unknowns.overall[0]) * signal
        if p.blur is not None:
            level = p.blur(level, model.scope.beam.probe_fwhm_nm.astype(level.dtype), p.pixel_size_nm)
        return p.instrument.as_if_nominal(level, model)

    def simulated(self, unknowns: Unknowns) -> SignalStack:
        """Levels of the window, as the nominal gain and pedestal would give them."""
        p = self.problem
        surface, model, table = self._scene(unknowns)
        signal = render(surface, table, p.azimuths, None, model.emission, p.horizon)
        return self._recorded(signal, unknowns, model)

    def slope_change(self, unknowns: Unknowns) -> tuple[SignalStack, Float[Array, "2 segment y x"]]:
        """Simulated levels, and how they answer to each pixel's own slopes (blur left out of the answer)."""
        p = self.problem
        surface, model, table = self._scene(unknowns)
        signal, change = slope_response(surface, table, p.azimuths, model.emission, p.horizon)
        gain = jnp.exp(unknowns.overall[0]) * p.instrument.relative_gain(model).astype(signal.dtype)
        return self._recorded(signal, unknowns, model), change * gain[None, :, None, None]

    def hidden(self, unknowns: Unknowns) -> SignalStack:
        """Share of each segment's signal that the relief around a pixel takes away."""
        p = self.problem
        surface, model, table = self._scene(unknowns)
        seen = render(surface, table, p.azimuths, None, model.emission, p.horizon)
        free = render(Facets.of(surface), table, p.azimuths, None, model.emission, NoRelief())
        return 1.0 - seen / jnp.where(free > 0, free, 1.0)

    def one_sided(self, level: SignalStack) -> SignalStack:
        """Residuals; where the image was cut off, the one whose square is twice the bound's negative log likelihood.

        That is -2 log Phi((level - bound) / std) for a level known to be at least the bound: 0 far on the right side,
        the plain residual far on the wrong one.
        """
        m = self.measurement
        residual = m.level - level
        std = self._std(level)
        residual = jnp.where(m.above, std * _bounded(-residual / std), residual)
        return jnp.where(m.below, -std * _bounded(residual / std), residual)

    def misfit(self, level: SignalStack) -> tuple[Scalar, Scalar]:
        """Half the sum over the tile's own pixels of the robust squared residual, and the sum of the plain one."""
        residual = self.one_sided(level)
        share = self.own_brightness(level, residual)
        left = residual - share[None] * level
        spread = self.problem.spread.astype(level.dtype)
        taken = jnp.where(spread > 0, share / jnp.where(spread > 0, spread, 1.0), 0.0)
        # A sum of squares, where the difference above would cancel and could come out negative.
        square = self._product(left, left) + taken**2
        square = jnp.where(self.own, square, 0.0)
        return 0.5 * jnp.sum(held_back(square, self.problem.outlier)), jnp.sum(square)

    def _product(self, a: SignalStack, b: SignalStack) -> Map:
        """a' P b of every pixel."""
        return jnp.einsum("kyx,kl,lyx->yx", a, self.problem.precision, b)

    def _variance_of_share(self, told: Map) -> Map:
        """1 / (g' P g + 1 / spread^2) for the first of them `told`: of a pixel's own brightness, given its levels."""
        spread = self.problem.spread.astype(told.dtype)
        unknown = jnp.isinf(spread)
        variance = jnp.where(unknown, 1.0, spread) ** 2
        from_levels = 1.0 / jnp.where(told > 0, told, 1.0)
        return jnp.where(unknown, from_levels, variance / (1.0 + variance * told))

    def own_brightness(self, level: SignalStack, residual: SignalStack) -> Map:
        """By which share a pixel is brighter than the image as a whole, as its own levels tell."""
        return self._product(residual, level) * self._variance_of_share(self._product(level, level))

    def information_precision(self, level: SignalStack) -> Precision:
        """What the levels say about anything but the pixel's own brightness."""
        told = jnp.sqrt(self._told(level))
        precision = jnp.einsum("kyx,kl,lyx->yxkl", told, self.problem.precision, told)
        pulled = jnp.einsum("yxkl,lyx->kyx", precision, level)
        variance = self._variance_of_share(jnp.einsum("kyx,kyx->yx", level, pulled))
        return precision - jnp.einsum("kyx,lyx,yx->yxkl", pulled, pulled, variance)

    def _told(self, level: SignalStack) -> SignalStack:
        """Share of a level's information that is left where it was cut off: curvature of the bound's log likelihood."""
        m, std = self.measurement, self._std(level)
        ahead = (level - m.level) / std
        ahead = jnp.where(m.below, -ahead, ahead)
        hazard = jnp.exp(jax.scipy.stats.norm.logpdf(ahead) - jax.scipy.special.log_ndtr(ahead))
        return jnp.where(m.measured, 1.0, jnp.clip(hazard * (hazard + ahead), 0.0, 1.0))

    def _std(self, level: SignalStack) -> Array:
        return jnp.maximum(self.measurement.std, jnp.finfo(level.dtype).tiny)[:, None, None]


def held_back(square: Array, outlier: Any) -> Array:
    """Squares that beyond `outlier`, a deviation or inf, grow only as the deviation does. Gradient: exact."""
    beyond = square > outlier**2
    limit = jnp.where(beyond, outlier, 0.0)
    return jnp.where(beyond, 2.0 * limit * jnp.sqrt(jnp.where(beyond, square, 1.0)) - limit**2, square)


def _bounded(inside: Array) -> Array:
    """Root of -2 log Phi(inside): the deviation that is as unlikely as a normal one beyond the bound."""
    unlikely = -2.0 * jax.scipy.special.log_ndtr(inside)
    some = unlikely > 1e-12
    return jnp.where(some, jnp.sqrt(jnp.where(some, unlikely, 1.0)), 0.0)


def _cut(values: Array, tile: Tile, window: tuple[int, int]) -> Array:
    zeros = (jnp.zeros((), tile.start.dtype),) * (values.ndim - 2)
    starts = (*zeros, tile.start[0], tile.start[1])
    return lax.dynamic_slice(values, starts, (*values.shape[:-2], *window))
