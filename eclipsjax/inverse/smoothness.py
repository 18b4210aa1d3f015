"""What is expected of a relief before any image: no structure finer than the noise lets the slopes tell, but edges."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._cosine import frequencies
from eclipsjax._types import InputError, Map, Scalar, as_real, concrete

Bends = tuple[Float[Array, "..."], ...]


class EdgePreserving(eqx.Module):
    """Second differences d of the height along rows and columns, and a quarter of the fourth ones e, both in units of
    2 pixels * standard deviation of a slope:

        energy = cutoff^2 / 2 * (weight * sum log(1 + (d / cutoff)^2) + grain * sum log(1 + (e / cutoff)^2))

    A quadratic in d with weight 1 would make least squares on central differences the same estimate as Poisson
    integration of each pixel's slopes (modes answer by sin k / (sin^2 k + 4 sin^4(k/2)) = sin k / (4 sin^2(k/2))): the
    weights thus follow from the noise. Beyond `cutoff` the pull falls off, so that steps and facets keep their edges,
    and as the noise goes to 0 the whole of it vanishes beside the images. Where the relief is curved all over d does
    not pull either; e does, and keeps neighbouring pixels from alternating, which central differences do not see.

    - `weight`, `grain`, `cutoff`: as above, dimensionless; the defaults were about best over islands, pits, particles,
      steps, rough and nearly flat surfaces at S/N 11 and 30.

    Gradient: exact.
    """

    weight: Scalar = eqx.field(converter=as_real, default=4.0)
    grain: Scalar = eqx.field(converter=as_real, default=4.0)
    cutoff: Scalar = eqx.field(converter=as_real, default=0.25)

    def __check_init__(self):
        for name in ("weight", "grain", "cutoff"):
            value = concrete(getattr(self, name))
            if value is not None and not (value.ndim == 0 and 0 <= value < jnp.inf and (value > 0 or name != "cutoff")):
                raise InputError(f"{name} is {value}: give a positive number.")

    def energy(self, height_px: Map, slope_std: Scalar) -> Scalar:
        """The sum above, for heights in pixels. Gradient: exact."""
        scale, cutoff = self._scale(slope_std), self.cutoff.astype(height_px.dtype)
        sums = [jnp.sum(jnp.log1p(bend**2 / scale)) for bend in bends(height_px)]
        return 0.5 * cutoff**2 * sum(w * s for w, s in zip(self._weights(height_px), sums, strict=True))

    def stiffness(self, height_px: Map, slope_std: Scalar) -> Bends:
        """Weight of each of `bends` in the quadratic that touches the energy here from above."""
        scale, unit = self._scale(slope_std), 4.0 * slope_std**2
        found = zip(self._weights(height_px), bends(height_px), strict=True)
        return tuple(weight / (unit * (1.0 + bend**2 / scale)) for weight, bend in found)

    def _scale(self, slope_std: Scalar) -> Scalar:
        return (2.0 * self.cutoff.astype(slope_std.dtype) * slope_std) ** 2

    def _weights(self, height_px: Map) -> tuple[Scalar, ...]:
        weight, grain = self.weight.astype(height_px.dtype), self.grain.astype(height_px.dtype)
        return weight, weight, grain, grain


def bends(height: Map) -> Bends:
    """Second differences along x, `(y, x - 2)`, and y, then a quarter of the fourth ones, `(y, x - 4)` and so on.

    Empty where the map is too small. Gradient: exact (linear).
    """
    along_x, along_y = _second(height), _second(height.T).T
    return along_x, along_y, 0.25 * _second(along_x), 0.25 * _second(along_y.T).T


def _second(rows: Map) -> Float[Array, "y fewer"]:
    if rows.shape[1] < 3:
        return jnp.zeros((rows.shape[0], 0), rows.dtype)
    return rows[:, 2:] - 2.0 * rows[:, 1:-1] + rows[:, :-2]


def stiffness_of_modes(stiffness: Bends, shape: tuple[int, int]) -> Map:
    """What uniform weights, the means of `stiffness`, make of each cosine mode's square. Heights in pixels."""
    dtype = stiffness[0].dtype
    mean = [jnp.mean(weight) if weight.size else jnp.zeros((), dtype) for weight in stiffness]
    y, x = (4.0 * jnp.sin(0.5 * frequencies(count, dtype)) ** 2 for count in shape)
    along_x = mean[0] * x**2 + mean[2] * x**4 / 16.0
    along_y = mean[1] * y**2 + mean[3] * y**4 / 16.0
    return along_y[:, None] + along_x[None, :]
