"""How far heights and normals are from the truth, in the numbers that every benchmark of this package uses."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from eclipsjax._types import InputError, Map, Scalar, as_real, at_pixels, concrete
from eclipsjax.inverse.integrators.islands import label_islands
from eclipsjax.metrology._planes import fit_planes, huber_weights, label_sums
from eclipsjax.specimen.synthetic import Scene

_ROUNDS = 10


class Removed(eqx.Module):
    """A figure with nothing, the mean, a plane, or a parabola (full quadratic) removed by least squares."""

    nothing: Scalar
    mean: Scalar
    plane: Scalar
    parabola: Scalar


class HeightError(eqx.Module):
    """Root mean square of measured less true heights, inside the mask.

    - `rms_nm`: nm. `percent`: the same in % of the truth's peak to valley inside the mask (inf or NaN on a flat truth).

    `error.percent.plane` is the figure of the benchmarks: constants and tilts are not in a map of slopes' noise.
    """

    rms_nm: Removed
    percent: Removed


class AngularError(eqx.Module):
    """Angles between measured and true normals, deg, inside the mask. `map_deg`: `(y, x)`, NaN outside the mask."""

    rms_deg: Scalar
    mean_deg: Scalar
    median_deg: Scalar
    percentile95_deg: Scalar
    map_deg: Map


class StepError(eqx.Module):
    """Step heights against the known ones, `(step,)` each, NaN for steps that the image does not show whole.

    - `height_nm`: measured. `error_nm`: measured less true. `percent`: the error in % of the true height.
    - `rms_percent`: root mean square over the steps that were measured; `count`: how many those are.
    """

    height_nm: Float[Array, " step"]
    error_nm: Float[Array, " step"]
    percent: Float[Array, " step"]
    rms_percent: Scalar
    count: Int[Array, ""]


class FacetError(eqx.Module):
    """Inclinations of facets against the known ones, `(facet,)` in the order of `truth.facet_names`, NaN where none.

    - `angle_deg`: measured, the mean over a facet's patches weighted by their area. `error_deg`: measured less true.
    - `rms_deg`: root mean square of the patches' errors. `pixels`: how many pixels the planes rest on.
    """

    angle_deg: Float[Array, " facet"]
    error_deg: Float[Array, " facet"]
    rms_deg: Float[Array, " facet"]
    pixels: Int[Array, " facet"]


def height_error(height_nm: Any, truth_nm: Any, mask: Any = None) -> HeightError:
    """Root mean square height error with nothing, mean, plane and parabola removed.

    **Arguments:** `height_nm`, `truth_nm`: `(y, x)`, nm. `mask`: `(y, x)`, true where heights count; outside, they may
    be NaN.

    Gradient: exact in both maps, except where an error is exactly 0 (there 0).
    """
    height, truth = as_real(height_nm), as_real(truth_nm)
    mask = _checked({"height_nm": height, "truth_nm": truth}, mask)
    return _height_error(height, truth.astype(height.dtype), mask)


def angular_error(normals: Any, truth_normals: Any, mask: Any = None) -> AngularError:
    """Angle between two fields of normals `(y, x, 3)` of any length, pixel by pixel: atan2(|a x b|, a . b).

    `mask`: `(y, x)`, true where normals count. Gradient: exact, except where an angle is exactly 0 (there 0).
    """
    normals, truth = as_real(normals), as_real(truth_normals)
    if normals.ndim != 3 or normals.shape[-1] != 3:
        raise InputError(f"normals has shape {normals.shape}: give (y, x, 3), the components last.")
    mask = _checked({"normals": normals, "truth_normals": truth}, mask)
    return _angular_error(normals, truth.astype(normals.dtype), mask)


def step_error(
    height_nm: Any,
    scene: Scene,
    mask: Any = None,
    margin_px: int = 2,
    reach_px: int = 12,
) -> StepError:
    """Heights of the steps that a synthetic scene is built from, after ISO 5436-1 with the true profile as template.

    Around each step (its pixels in `truth.step`, and those within `reach_px` of them that belong to none), `margin_px`
    or more away from every edge, the map is fitted by  plane + factor * true height  in robust least squares (Huber).
    The measured height is factor * `truth.step_height_nm`: tilts and curvature of the whole map do not count, walls and
    edges do not either. NaN where the pixels used show too little of a step: less than 5 % of its height (rms) is
    left of the true profile once a plane is taken off.

    `height_nm`: `(y, x)`, nm. Gradient: exact for the rounds of the robust fit as run, weights held fixed.
    """
    height = as_real(height_nm)
    mask = _checked({"height_nm": height, "scene.surface.height_nm": scene.surface.height_nm}, mask)
    return _step_error(height, scene, mask, margin_px, reach_px)


def facet_error(
    height_nm: Any,
    scene: Scene,
    mask: Any = None,
    margin_px: int = 2,
    least_pixels: int = 30,
) -> FacetError:
    """Inclinations of a synthetic scene's facets.

    Every patch of `truth.facet` that hangs together, less the pixels within `margin_px` of an edge, gets a plane by
    robust least squares (Huber), in the measured and in the true heights (which agree with `truth.facet_deg` on plane
    facets; wandering or curved ones have a mean plane). Patches of fewer than `least_pixels` do not count.

    `height_nm`: `(y, x)`, nm. Gradient: exact with the robust weights held fixed, except where a patch is level.
    """
    height = as_real(height_nm)
    mask = _checked({"height_nm": height, "scene.surface.height_nm": scene.surface.height_nm}, mask)
    return _facet_error(height, scene, mask, margin_px, least_pixels)


@jax.jit
def _height_error(height, truth, mask):
    inside = mask.astype(height.dtype)
    count = jnp.sum(inside)
    error = jnp.where(mask, height - truth, 0.0)
    span = jnp.max(jnp.where(mask, truth, -jnp.inf)) - jnp.min(jnp.where(mask, truth, jnp.inf))
    y, x = (jnp.linspace(-1.0, 1.0, n, dtype=height.dtype) for n in height.shape)
    x, y = jnp.broadcast_to(x[None, :], height.shape), jnp.broadcast_to(y[:, None], height.shape)
    basis = jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y]) * inside[None]

    def rms(terms):
        part = basis[:terms]
        gram = jnp.einsum("ayx,byx->ab", part, part) / count
        # A map of one row or a mask of few pixels leaves terms undetermined: the pseudo-inverse drops them.
        inverse = jnp.linalg.pinv(gram, rtol=1e-5, hermitian=True)

        def less_fit(e):
            return e - jnp.einsum("a,ayx->yx", inverse @ jnp.einsum("ayx,yx->a", part, e) / count, part)

        # The second pass takes out what rounding left of large tilts.
        rest = less_fit(less_fit(error)) if terms else error
        return _root(jnp.sum(rest**2) / count)

    rms_nm = Removed(*(rms(terms) for terms in (0, 1, 3, 6)))
    return HeightError(rms_nm, jax.tree.map(lambda r: 100.0 * r / span, rms_nm))


@jax.jit
def _angular_error(normals, truth, mask):
    normals, truth = (jnp.where(mask[..., None], n, 1.0) for n in (normals, truth))
    sine = _root(jnp.sum(jnp.cross(normals, truth) ** 2, axis=-1))
    angle = jnp.rad2deg(jnp.arctan2(sine, jnp.sum(normals * truth, axis=-1)))
    count = jnp.sum(mask.astype(angle.dtype))
    inside = jnp.where(mask, angle, 0.0)
    of_mask = jnp.where(mask, angle, jnp.nan)
    median, high = jnp.nanpercentile(of_mask, jnp.asarray([50.0, 95.0], angle.dtype))
    return AngularError(_root(jnp.sum(inside**2) / count), jnp.sum(inside) / count, median, high, of_mask)


@eqx.filter_jit
def _step_error(height, scene, mask, margin, reach):
    true_nm = scene.surface.height_nm.astype(height.dtype)
    heights = scene.truth.step_height_nm.astype(height.dtype)
    count = heights.shape[0]
    nearest = scene.truth.step
    for _ in range(reach):
        nearest = jnp.where(nearest < 0, _highest_around(nearest), nearest)
    used = mask & (nearest >= 0) & ~_widened(scene.truth.edge, margin)
    inside, label = used.astype(height.dtype), jnp.maximum(nearest, 0)
    height = jnp.where(used, height, 0.0)

    def factors(weights):
        template = fit_planes(true_nm, label, count, weights).residual
        rest = fit_planes(height, label, count, weights).residual
        own = label_sums(weights * template**2, label, count)
        factor = label_sums(weights * template * rest, label, count) / jnp.where(own > 0, own, 1.0)
        return factor, rest - factor[label] * template, own

    def reweigh(weights, _):
        return lax.stop_gradient(huber_weights(factors(weights)[1], label, count, inside)), None

    weights, _ = lax.scan(reweigh, inside, None, length=_ROUNDS)
    factor, _, own = factors(weights)
    shown = jnp.sqrt(own / jnp.maximum(label_sums(weights, label, count), 1.0)) > 0.05 * jnp.abs(heights)
    measured = jnp.where(shown, factor * heights, jnp.nan)
    percent = 100.0 * jnp.where(shown, factor - 1.0, jnp.nan)
    seen = jnp.sum(shown, dtype=jnp.int32)
    square = jnp.sum(jnp.where(shown, percent, 0.0) ** 2) / jnp.maximum(seen, 1).astype(height.dtype)
    return StepError(measured, measured - heights, percent, jnp.where(seen > 0, _root(square), jnp.nan), seen)


@eqx.filter_jit
def _facet_error(height, scene, mask, margin, least):
    truth, pixel = scene.truth, scene.surface.pixel_size_nm.astype(height.dtype)
    facets, patches = truth.facet_deg.shape[0], height.size
    used = mask & ~_widened(truth.edge, margin)
    label = jnp.full(height.shape, -1, jnp.int32)
    for k in range(facets):
        label = jnp.maximum(label, label_islands(used & (truth.facet == k)))
    label = jnp.maximum(label, 0)
    inside = used.astype(height.dtype)
    height = jnp.where(used, height, 0.0)

    def inclination(values):
        def reweigh(weights, _):
            return huber_weights(fit_planes(values, label, patches, weights).residual, label, patches, inside), None

        weights, _ = lax.scan(reweigh, inside, None, length=_ROUNDS)
        planes = fit_planes(values, label, patches, lax.stop_gradient(weights))
        return jnp.rad2deg(jnp.arctan(_root(planes.slope_x**2 + planes.slope_y**2) / pixel))

    measured = inclination(height)
    error = measured - inclination(scene.surface.height_nm.astype(height.dtype))
    counted = inside * (label_sums(inside, label, patches) >= least)[label].astype(height.dtype)
    pixels = label_sums(counted, truth.facet, facets)

    def mean(per_patch):
        return label_sums(counted * per_patch[label], truth.facet, facets) / jnp.where(pixels > 0, pixels, jnp.nan)

    return FacetError(mean(measured), mean(error), _root(mean(error**2)), pixels.astype(jnp.int32))


def _checked(maps: dict[str, Array], mask: Any) -> Array:
    (first, one), (second, other) = maps.items()
    if one.shape != other.shape:
        raise InputError(f"{first} has shape {one.shape} but {second} {other.shape}: give them the same shape.")
    if one.ndim < 2 or one.size == 0:
        raise InputError(f"{first} has shape {one.shape}: give a map (y, x) with at least one pixel.")
    if mask is None:
        mask = jnp.ones(one.shape[:2], bool)
    mask = jnp.asarray(mask, bool)
    if mask.shape != one.shape[:2]:
        raise InputError(f"mask has shape {mask.shape} but {first} {one.shape}: give one value per pixel.")
    inside = concrete(mask)
    if inside is not None and not inside.any():
        raise InputError("mask is False everywhere: it must be True where the maps are to be compared.")
    for name, array in maps.items():
        values = concrete(array)
        if values is None or inside is None:
            continue
        bad = ~np.isfinite(values).reshape(*inside.shape, -1).all(axis=-1) & inside
        if bad.any():
            raise InputError(f"{name} is not finite {at_pixels(bad)}: mask them (mask=...).")
    return mask


def _root(square: Array) -> Array:
    """Square root whose gradient at 0 is 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), jnp.where(square == 0, 0.0, jnp.nan))


def _highest_around(values: Array) -> Array:
    around = jnp.pad(values, 1, mode="edge")
    rows, columns = values.shape
    shifted = [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return jnp.max(jnp.stack(shifted), axis=0)


def _widened(edge: Array, margin: int) -> Array:
    """True within `margin` pixels of `edge` (whose own pixels lie right at the edge)."""
    wide = edge.astype(jnp.int32)
    for _ in range(margin - 1):
        wide = _highest_around(wide)
    return wide > 0
