"""Slopes to heights: one entry for every method, with the checks that all of them share.

A method is an object with `height_px(slope_x, slope_y, weights, mask)`: heights in pixels, up to a constant. One that
knows where slopes do not say how heights hang together has `height_and_undetermined(slope_x, slope_y)` besides.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from eclipsjax._types import InputError, Map, as_real, at_pixels, concrete, shown
from eclipsjax.inverse.integrators.auto import Auto
from eclipsjax.inverse.integrators.bilateral import Bilateral
from eclipsjax.inverse.integrators.despiked import Despiked
from eclipsjax.inverse.integrators.islands import centred, label_islands
from eclipsjax.inverse.integrators.least_absolute import LeastAbsolute
from eclipsjax.inverse.integrators.links import relative_weights
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.specimen.surface import check_pixel_size

WEIGHABLE = (Poisson, LeastAbsolute, Bilateral)


class Integration(eqx.Module):
    """Heights with what is known about how they came about.

    - `height_nm`: `(y, x)`, nm, mean 0 (on every island of the mask), NaN outside the mask.
    - `islands`: `(y, x)` one number per piece of the mask that hangs together, -1 outside; heights of different
      islands cannot be compared, nothing links them.
    - `undetermined`: `(y, x)` true where the method knows that slopes do not say how heights hang together: at the
      core of a dislocation without a visible step, and along a cut from there to the border.
    - `method`: what integrated (with `Auto`, what it picked); `why`: its reason, in words. Static.
    """

    height_nm: Map
    islands: Int[Array, "y x"]
    undetermined: Bool[Array, "y x"]
    method: Any
    why: str = eqx.field(static=True)

    @property
    def island_count(self) -> int:
        """How many pieces the mask falls into."""
        return int(np.unique(np.asarray(self.islands)[np.asarray(self.islands) >= 0]).size)


def integrate(
    slope_x: Any,
    slope_y: Any,
    pixel_size_nm: Any,
    method: Any = None,
    mask: Any = None,
    weights: Any = None,
) -> Map:
    """Heights whose slopes are the given ones, as nearly as `method` can: `(y, x)`, nm, mean 0.

    **Arguments:**

    - `slope_x`, `slope_y`: `(y, x)`, dz/dx and dz/dy (y down the rows), dimensionless.
    - `pixel_size_nm`: scalar, nm.
    - `method`: `Poisson()` and its like; `Auto()`, the default, looks at the slopes and picks (not while tracing).
    - `mask`: `(y, x)` true where slopes are to be used; elsewhere they may be NaN and the height is NaN. Each island
      gets mean 0 of its own: see `integration(...)` for which pixel belongs to which.
    - `weights`: `(y, x)`, not negative, how much each pixel's slopes count (1 / variance).

    Gradient: that of the method, in slopes, pixel size and weights.
    """
    return integration(slope_x, slope_y, pixel_size_nm, method, mask, weights).height_nm


def integration(
    slope_x: Any,
    slope_y: Any,
    pixel_size_nm: Any,
    method: Any = None,
    mask: Any = None,
    weights: Any = None,
) -> Integration:
    """As `integrate`, with the islands of the mask, the method that was used and why. Gradient: that of the method."""
    slope_x, slope_y = as_real(slope_x, "slope_x"), as_real(slope_y, "slope_y")
    pixel = as_real(pixel_size_nm, "pixel_size_nm")
    weights = None if weights is None else as_real(weights, "weights").astype(slope_x.dtype)
    mask = None if mask is None else jnp.asarray(mask)
    check_slopes(slope_x, slope_y, pixel, mask, weights)
    method, why = Auto() if method is None else method, "as asked for"
    if isinstance(method, Auto):
        method, why = method.pick(slope_x, slope_y, mask, weights)
    check_method(method)
    if (mask is not None or weights is not None) and not takes_weights(method):
        names = ", ".join(f"{m.__name__}()" for m in WEIGHABLE)
        raise InputError(
            f"method = {type(method).__name__}() takes no mask or weights: give one of {names}, or Despiked of one."
        )
    height, labels, undetermined = _integrate(slope_x, slope_y, pixel, method, mask, weights)
    return Integration(height, labels, undetermined, method, why)


def check_method(method: Any) -> None:
    """Raise `InputError` unless `method`, and whatever it wraps, is a method's object that integrates by itself."""
    if isinstance(method, type) or not hasattr(method, "height_px"):
        raise InputError(f"method is {shown(method)}: give a method such as Poisson() or Auto(), an object.")
    wrapped = getattr(method, "method", None)
    if isinstance(wrapped, Auto):
        raise InputError(
            f"method = {type(method).__name__}(Auto()) cannot pick: give Auto() alone, it wraps what it picks itself."
        )
    if wrapped is not None:
        check_method(wrapped)


def takes_weights(method: Any) -> bool:
    """Whether a method, or the one that it wraps, can take a mask or weights."""
    return takes_weights(method.method) if isinstance(method, Despiked) else isinstance(method, WEIGHABLE)


@jax.jit
def _integrate(slope_x, slope_y, pixel, method, mask, weights):
    labels = None if mask is None else label_islands(mask)
    if mask is not None:
        slope_x, slope_y = jnp.where(mask, slope_x, 0.0), jnp.where(mask, slope_y, 0.0)
    weights = relative_weights(weights, mask, slope_x)
    if hasattr(method, "height_and_undetermined"):
        height, undetermined = method.height_and_undetermined(slope_x, slope_y)
    else:
        height = method.height_px(slope_x, slope_y, weights, mask)
        undetermined = jnp.zeros(height.shape, bool)
    height = centred(height, labels) * pixel.astype(slope_x.dtype)
    if mask is None:
        return height, jnp.zeros(height.shape, jnp.int32), undetermined
    return jnp.where(mask, height, jnp.nan), labels, undetermined & mask


def check_slopes(slope_x, slope_y, pixel, mask, weights) -> None:
    """Raise `InputError` unless these are what `integrate` takes, `mask` and `weights` perhaps None."""
    if slope_x.ndim != 2 or slope_x.size == 0:
        raise InputError(f"slope_x has shape {slope_x.shape}: give a 2D array (y, x) with at least one pixel.")
    for name, array in (("slope_y", slope_y), ("mask", mask), ("weights", weights)):
        if array is not None and array.shape != slope_x.shape:
            raise InputError(f"{name} has shape {array.shape} but slope_x {slope_x.shape}: give them the same shape.")
    if mask is not None and mask.dtype != bool:
        raise InputError(f"mask is {mask.dtype}: give true and false, e.g. mask > 0.")
    if slope_y.dtype != slope_x.dtype:
        raise InputError(f"slope_y is {slope_y.dtype} but slope_x {slope_x.dtype}: give both in one precision.")
    check_pixel_size(pixel)
    inside = None if mask is None else concrete(mask)
    if inside is not None and not inside.any():
        raise InputError("mask is False everywhere: it must be True where the slopes are to be used.")
    for name, array in (("slope_x", slope_x), ("slope_y", slope_y), ("weights", weights)):
        values = None if array is None else concrete(array)
        if values is None or (mask is not None and inside is None):
            continue
        bad = ~np.isfinite(values) if inside is None else ~np.isfinite(values) & inside
        if bad.any():
            raise InputError(f"{name} is not finite {at_pixels(bad)}: mask them (mask=...) or repair them.")
    values = None if weights is None or (mask is not None and inside is None) else concrete(weights)
    values = values if inside is None or values is None else np.where(inside, values, 0.0)
    if values is not None and not (values > 0).any() and not (values < 0).any():
        raise InputError("weights is 0 everywhere: it must be positive where the slopes are to count.")
    if values is not None and (values < 0).any():
        raise InputError(
            f"weights is negative {at_pixels(values < 0)}: weights are 1 / variance, 0 for a pixel that is not to "
            "count."
        )
