"""What a microscope does to normals, drawn at random: white and correlated noise, a bias, outlying pixels."""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map, NormalMap, Scalar, as_real

# Estimates steeper than this (87 deg) would be refused by whoever made them.
_LEAST_NZ = 0.05


class SlopeErrors(eqx.Module):
    """Standard deviations of the angle, per tangent direction, by which normals are off, deg, all scalars.

    - `white_deg`: from pixel to pixel. - `correlated_deg`: smooth over `correlation_px`.
    - `bias_deg`: smooth over the whole image. - `outliers`: share of pixels that are off by `outlier_deg`.

    Gradient: exact, but zero in `outliers`.
    """

    white_deg: Scalar = eqx.field(converter=as_real, default=0.0)
    correlated_deg: Scalar = eqx.field(converter=as_real, default=0.0)
    correlation_px: Scalar = eqx.field(converter=as_real, default=3.0)
    bias_deg: Scalar = eqx.field(converter=as_real, default=0.0)
    outliers: Scalar = eqx.field(converter=as_real, default=0.0)
    outlier_deg: Scalar = eqx.field(converter=as_real, default=40.0)

    def apply(self, normals: NormalMap, key: Array) -> NormalMap:
        """Unit normals `(y, x, 3)` as they would be estimated."""
        shape, dtype = normals.shape[:2], normals.dtype
        numbers = jax.tree.map(lambda n: n.astype(dtype), self)
        keys = jax.random.split(key, 5)
        white = jax.random.normal(keys[0], (2, *shape), dtype)
        smooth = _smooth(jax.random.normal(keys[1], (2, *shape), dtype), numbers.correlation_px)
        bias = _smooth(jax.random.normal(keys[2], (2, *shape), dtype), jnp.asarray(0.25 * max(shape), dtype))
        off = numbers.white_deg * white + numbers.correlated_deg * smooth + numbers.bias_deg * bias
        hit = jax.random.uniform(keys[3], shape, dtype) < numbers.outliers
        off = off + jnp.where(hit, numbers.outlier_deg, 0.0)[None] * jax.random.normal(keys[4], (2, *shape), dtype)
        return _lean(normals, jnp.deg2rad(off))


def estimated_slopes(slope_x: Map, slope_y: Map, errors: SlopeErrors, key: Array) -> tuple[Map, Map]:
    """Slopes of the normals that `errors` make of the true ones'. Nothing is steeper than 87 deg."""
    upright = jnp.stack([-slope_x, -slope_y, jnp.ones_like(slope_x)], axis=-1)
    normals = errors.apply(upright / jnp.linalg.norm(upright, axis=-1, keepdims=True), key)
    down = jnp.maximum(normals[..., 2], _LEAST_NZ)
    return -normals[..., 0] / down, -normals[..., 1] / down


@partial(jax.vmap, in_axes=(0, None))
def _smooth(noise: Map, length_px: Scalar) -> Map:
    """Periodic Gaussian smoothing by `length_px`, standard deviation kept at 1."""
    ky, kx = (2 * jnp.pi * jnp.fft.fftfreq(n).astype(noise.dtype) for n in noise.shape)
    window = jnp.exp(-0.5 * length_px**2 * (ky[:, None] ** 2 + kx[None, :] ** 2))
    smooth = jnp.fft.ifft2(jnp.fft.fft2(noise) * window.astype(jnp.fft.fft2(noise).dtype)).real
    return smooth / jnp.sqrt(jnp.mean(window**2))


def _lean(normals: NormalMap, off: Float[Array, "2 y x"]) -> NormalMap:
    """Normals turned by `off` (rad) along two tangent directions."""
    x = jnp.zeros_like(normals).at[..., 0].set(1.0)
    first = x - normals * normals[..., :1]
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    second = jnp.cross(normals, first)
    angle = jnp.sqrt(jnp.sum(off**2, axis=0) + 1e-20)[..., None]
    way = (off[0][..., None] * first + off[1][..., None] * second) / angle
    return normals * jnp.cos(angle) + way * jnp.sin(angle)
