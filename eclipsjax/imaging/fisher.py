"""What the images can tell about slopes, whoever reads them: Fisher information and the Cramer-Rao bound per pixel.

A pixel's levels (yield * signal, one per segment) have the covariance C = diag(additive + shot) + common part. With
the levels' response G to the two slopes the information is G' C^-1 G; an unknown yield, which scales all levels of
the pixel alike, takes away its share (Schur complement). Known gains and pedestals only relabel grey levels: they drop
out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map, Scalar, SignalStack, as_real, concrete
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import Camera, check_yield, primary_dose
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.specimen.horizon import NoRelief, check_choices
from eclipsjax.specimen.surface import Surface

SlopeMatrix = Float[Array, "y x 2 2"]
Precision = Float[Array, "y x segment segment"]


class Weigher(eqx.Module):
    """The inverse covariance of every pixel's levels: a diagonal less one direction, never written out as matrices.

    `own`: `(segment, y, x)` the diagonal; `along`: `(segment, y, x)` the direction, `scale`: `(y, x)` how much of it.
    """

    own: SignalStack
    along: SignalStack
    scale: Map

    def __call__(self, values: SignalStack) -> SignalStack:
        """P v of every pixel. Gradient: exact."""
        return self.own * values - self.along * (self.scale * jnp.sum(self.along * values, axis=0))[None]


class LevelNoise(eqx.Module):
    """Noise of the levels: variance additive_std^2 + level / electrons, part of the former common to all segments.

    - `additive_std`: scalar or `(segment,)`, standard deviation of the amplifier noise, units of the level.
    - `electrons`: electrons that a level of 1 counts as: dose * detective efficiency; infinite for no counting noise.
    - `common`: share of the additive variance that all segments have in common, from 0 to below 1.

    Gradient: exact.
    """

    additive_std: Float[Array, "..."] = eqx.field(converter=as_real, default=0.0)
    electrons: Scalar = eqx.field(converter=as_real, default=np.inf)
    common: Scalar = eqx.field(converter=as_real, default=0.0)

    def __check_init__(self):
        std, electrons, common = concrete(self.additive_std), concrete(self.electrons), concrete(self.common)
        if std is not None and not (std.ndim <= 1 and np.isfinite(std).all() and (std >= 0).all()):
            raise InputError(f"additive_std is {std}: give one finite number of at least 0, or one per segment.")
        if electrons is not None and not electrons > 0:
            raise InputError(f"electrons is {electrons}: give a positive number of electrons per pixel.")
        if common is not None and not 0 <= common < 1:
            raise InputError(f"common is {common}: give a share from 0 to below 1.")
        if std is not None and electrons is not None and np.isinf(electrons) and not (std > 0).all():
            raise InputError(
                f"additive_std is {std} and electrons is {electrons}: there is no noise to bound anything; give one."
            )

    @classmethod
    def of(cls, camera: Camera, scope: Microscope, level: SignalStack) -> LevelNoise:
        """The noise that `record(..., scope, camera=camera)` adds to `level` (its rounding, blur and jitter left out).

        Gradient: exact.
        """
        pedestal = scope.detector.segments.pedestal.astype(level.dtype)
        std, common = jnp.zeros_like(pedestal), 0.0
        if camera.additive is not None:
            std, common = camera.additive.deviation(level, pedestal), camera.additive.common
        electrons = np.inf if camera.shot is None else primary_dose(scope.beam) * camera.shot.detective_efficiency
        return cls(std, electrons, common)

    def weigher(self, level: SignalStack) -> Weigher:
        """The inverse covariance of a pixel's levels, to multiply with. A segment without any noise (counting noise
        alone, and nothing to count) says nothing and gets 0. Gradient: exact where the level is positive.
        """
        noise = jax.tree.map(lambda leaf: leaf.astype(level.dtype), self)
        std = jnp.broadcast_to(noise.additive_std, level.shape[:1])
        counted = jnp.where(level > 0, level, 0.0) / noise.electrons
        own = ((1.0 - noise.common) * std**2)[:, None, None] + counted
        inverse = jnp.where(own > 0, 1.0 / jnp.where(own > 0, own, 1.0), 0.0)
        # Sherman-Morrison, the common part being of rank one: no matrix is inverted per pixel.
        along = inverse * std[:, None, None]
        scale = noise.common / (1.0 + noise.common * jnp.sum(along * std[:, None, None], axis=0))
        return Weigher(inverse, along, scale)

    def precision(self, level: SignalStack) -> Precision:
        """The same as matrices, `(y, x, segment, segment)`. Gradient: exact where the level is positive."""
        weigher = self.weigher(level)
        eye = jnp.eye(level.shape[0], dtype=level.dtype)
        diagonal = jnp.einsum("kyx,kl->yxkl", weigher.own, eye)
        return diagonal - jnp.einsum("kyx,lyx,yx->yxkl", weigher.along, weigher.along, weigher.scale)


@partial(jax.jit, static_argnames="known_yield")
def level_precision(noise: LevelNoise, level: SignalStack, known_yield: bool = False) -> Precision:
    """What one pixel's levels say about anything but the yield: P, or P - P g g' P / (g' P g) with g = level.

    `(y, x, segment, segment)`; the second form (yield unknown, pixel by pixel) is the Schur complement of the yield.
    Gradient: exact where a level is positive.
    """
    precision = noise.precision(level)
    if known_yield:
        return precision
    pulled = jnp.einsum("yxkl,lyx->kyx", precision, level)
    whole = jnp.sum(pulled * level, axis=0)
    inverse = jnp.where(whole > 0, 1.0 / jnp.where(whole > 0, whole, 1.0), 0.0)
    return precision - jnp.einsum("kyx,lyx,yx->yxkl", pulled, pulled, inverse)


def slope_response(
    surface: Surface, table: AcceptanceTable, azimuths: int = 64, emission=None, horizon=None
) -> tuple[SignalStack, Float[Array, "2 segment y x"]]:
    """The signal, and its derivative with respect to each pixel's own two slopes.

    The relief around the pixel is held fixed: what it hides stays hidden while the pixel leans. Arguments as in
    `render`; `Facets.isolated(slope_x, slope_y)` serves as a surface without relief.
    Returns `(signal, response)`: `(segment, y, x)` and `(2, segment, y, x)`, per unit of slope_x and slope_y.
    Gradient: exact almost everywhere, as that of `render`.
    """
    check_choices(surface, azimuths, NoRelief() if horizon is None else horizon)
    facets = Facets.of(surface) if not isinstance(surface, Facets) else surface

    def signal(lean_x: Array, lean_y: Array) -> SignalStack:
        leaning = (facets.slope_x + lean_x, facets.slope_y + lean_y)
        return render(
            Facets(facets.height_nm, facets.pixel_size_nm, *leaning), table, azimuths, None, emission, horizon
        )

    upright, unit = jnp.zeros_like(facets.slope_x), jnp.ones_like(facets.slope_x)
    leans = jnp.stack([unit, upright]), jnp.stack([upright, unit])
    responses = jax.vmap(lambda *lean: jax.jvp(signal, (upright, upright), lean), out_axes=(None, 0))
    return responses(*leans)


def slope_information(
    surface: Surface,
    table: AcceptanceTable,
    noise: LevelNoise,
    yield_map: Any = 1.0,
    known_yield: bool = False,
    azimuths: int = 64,
    emission=None,
    horizon=None,
) -> SlopeMatrix:
    """Fisher information of each pixel's slopes (slope_x, slope_y) in its own images: G' C^-1 G.

    **Arguments:**

    - `surface`: a `Surface` (its relief hides what it hides, and is held fixed while the pixel leans) or
      `Facets.isolated(slope_x, slope_y)`.
    - `table`, `azimuths`, `emission`, `horizon`: as in `render`.
    - `noise`: `LevelNoise(...)`, or `LevelNoise.of(camera, scope, level)`.
    - `yield_map`: scalar or `(y, x)`, electrons emitted per primary electron; its dependence on tilt is not counted as
      information.
    - `known_yield`: whether the yield is known; where not (the default) each pixel's brightness is fitted along.

    Returns `(y, x, 2, 2)`. What the strength of the noise itself tells is left out: that is exact for additive and for
    (Poisson) counting noise alone, and too small by a share of at most about 1 / (2 electrons per segment) for both.
    Gradient: exact almost everywhere.
    """
    signal, response = slope_response(surface, table, azimuths, emission, horizon)
    brightness = as_yield(yield_map, signal)
    return _marginal(noise, signal * brightness, response * brightness[None], known_yield)


@partial(jax.jit, static_argnames="known_yield")
def _marginal(noise, level, response, known_yield) -> SlopeMatrix:
    whole = _information(response, noise.precision(level))
    if known_yield:
        return whole
    left = _information(response, level_precision(noise, level))
    # Where the yield takes all of it, what is left is rounding, not information.
    tells = jnp.einsum("yxii->yxi", left) > 32 * jnp.finfo(left.dtype).eps * jnp.einsum("yxii->yxi", whole)
    return jnp.where(tells[..., None, :] & tells[..., None], left, 0.0)


@jax.jit
def _information(response, precision) -> SlopeMatrix:
    return jnp.einsum("ikyx,yxkl,jlyx->yxij", response, precision, response)


def as_yield(yield_map: Any, signal: SignalStack) -> Float[Array, "1 y x"]:
    """`yield_map`, a scalar or a map, as an array that multiplies `signal`. Gradient: exact."""
    brightness = as_real(yield_map, "yield_map").astype(signal.dtype)
    check_yield(brightness, signal.shape[1:])
    return jnp.broadcast_to(brightness, signal.shape[1:])[None]


def slope_bound(information: SlopeMatrix) -> Float[Array, "2 y x"]:
    """Cramer-Rao bound: least standard deviation of any unbiased estimate of slope_x and slope_y from one pixel.

    From `slope_information(...)`, or from a sum of several. Returns `(2, y, x)`, dimensionless (times 180 / pi and
    cos(tilt)^2: degrees), infinite where the images do not tell. Gradient: exact where finite.
    """
    information = as_real(information, "information")
    if information.ndim != 4 or information.shape[2:] != (2, 2):
        raise InputError(f"information has shape {information.shape}: give (y, x, 2, 2) from slope_information.")
    xx, xy, yy = information[..., 0, 0], information[..., 0, 1], information[..., 1, 1]
    return jnp.stack([_deviation(xx, xy, yy), _deviation(yy, xy, xx)])


def _deviation(own, shared, other):
    """1 / sqrt of what is left of `own` when the other slope is unknown too."""
    rounding = 32 * jnp.finfo(own.dtype).eps * (own + other)
    told = other > rounding
    left = own - jnp.where(told, shared**2 / jnp.where(told, other, 1.0), 0.0)
    tells = left > rounding
    return jnp.where(tells, 1.0 / jnp.sqrt(jnp.where(tells, left, 1.0)), jnp.inf)


def slope_error(
    derivative: SignalStack,
    surface: Surface,
    table: AcceptanceTable,
    noise: LevelNoise,
    known_yield: bool = False,
    azimuths: int = 64,
    emission=None,
    horizon=None,
) -> Float[Array, "2 y x"]:
    """Slopes that the best estimator wrongly reports per unit of error in an instrument number.

    To first order a signal off by `derivative` (one of `derivative_maps`, `(segment, y, x)`) is read as the slopes
    (G' C^-1 G)^-1 G' C^-1 derivative. Other arguments as in `slope_information`, for a yield of 1.
    Returns `(2, y, x)`: slope_x and slope_y per unit of the number, infinite or NaN where the images do not tell.
    Gradient: exact almost everywhere.
    """
    derivative = as_real(derivative, "derivative")
    signal, response = slope_response(surface, table, azimuths, emission, horizon)
    if derivative.shape != signal.shape:
        raise InputError(
            f"derivative has shape {derivative.shape}: give one of derivative_maps, {signal.shape} (segment, y, x)."
        )
    precision = level_precision(noise, signal, known_yield)
    pull = jnp.einsum("ikyx,yxkl,lyx->yxi", response, precision, derivative.astype(signal.dtype))
    error = jnp.linalg.solve(_information(response, precision), pull[..., None])[..., 0]
    return jnp.moveaxis(error, -1, 0)
