"""Least-squares planes of many patches at once, each patch the pixels of one label."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eclipsjax._types import Map


class Planes(eqx.Module):
    """The plane of every label, and the maps less their pixel's plane.

    - `slope_x`, `slope_y`: `(label,)` of the planes per pixel, 0 where a patch is too small or too thin to have one.
    - `residual`: `(y, x)`, 0 where nothing counts.
    """

    slope_x: Float[Array, " label"]
    slope_y: Float[Array, " label"]
    residual: Map


def fit_planes(values: Map, label: Int[Array, "y x"], count: int, weights: Map) -> Planes:
    """Weighted least squares of a plane on each of `count` labels (static); weights 0 leave a pixel out.

    Gradient: exact in `values`.
    """

    def total(a):
        return label_sums(a, label, count)

    def less_mean(a):
        return jnp.where(weights > 0, a - (total(weights * a) / mass)[label], 0.0)

    rows, columns = values.shape
    mass = jnp.maximum(total(weights), jnp.finfo(values.dtype).tiny)
    x = less_mean(jnp.broadcast_to(jnp.arange(columns, dtype=values.dtype)[None, :], (rows, columns)))
    y = less_mean(jnp.broadcast_to(jnp.arange(rows, dtype=values.dtype)[:, None], (rows, columns)))
    z = less_mean(values)
    xx, xy, yy = total(weights * x * x), total(weights * x * y), total(weights * y * y)
    xz, yz = total(weights * x * z), total(weights * y * z)
    determinant = xx * yy - xy**2
    # A patch one pixel wide has no plane: the slope across it is not known.
    wide = determinant > 1e-4 * (xx + yy) ** 2
    inverse = jnp.where(wide, 1.0 / jnp.where(wide, determinant, 1.0), 0.0)
    slope_x, slope_y = (yy * xz - xy * yz) * inverse, (xx * yz - xy * xz) * inverse
    return Planes(slope_x, slope_y, jnp.where(weights > 0, z - slope_x[label] * x - slope_y[label] * y, 0.0))


def label_sums(values: Map, label: Int[Array, "y x"], count: int) -> Float[Array, " label"]:
    """Sum over the pixels of each label. Gradient: exact."""
    return jnp.zeros(count, values.dtype).at[label.ravel()].add(values.ravel())


def huber_weights(residual: Map, label: Int[Array, "y x"], count: int, inside: Map) -> Map:
    """1 for residuals up to twice their label's mean size, falling as 1 / size beyond it; 0 outside."""
    size = jnp.abs(residual) * inside
    usual = 2.0 * (label_sums(size, label, count) / jnp.maximum(label_sums(inside, label, count), 1.0))[label]
    return inside * jnp.where(size > usual, usual / jnp.where(size > usual, size, 1.0), 1.0)
