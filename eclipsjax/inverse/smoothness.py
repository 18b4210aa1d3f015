"""What is expected of a relief before any image: no structure finer than the noise lets the slopes tell, but edges."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp

from eclipsjax._types import InputError, Map, Scalar, as_real, concrete
from eclipsjax.inverse.integrators.links import Links


class EdgePreserving(eqx.Module):
    """Second differences of the height along rows and columns, in units of 2 pixels * standard deviation of a slope:

        energy = weight * cutoff^2 / 2 * sum log(1 + (d / cutoff)^2)

    A quadratic with weight 1 would make least squares on central differences the same estimate as Poisson integration
    of each pixel's slopes (modes answer by sin k / (sin^2 k + 4 sin^4(k/2)) = sin k / (4 sin^2(k/2))): the weight thus
    follows from the noise. Beyond `cutoff` the pull falls off, so that steps and facets keep their edges, and as the
    noise goes to 0 the whole of it vanishes beside the images.

    - `weight`, `cutoff`: as above, dimensionless; 2.5 and 0.7 were about best over islands, pits, particles, steps,
      rough and nearly flat surfaces at S/N 11 and 30.

    Gradient: exact.
    """

    weight: Scalar = eqx.field(converter=as_real, default=2.5)
    cutoff: Scalar = eqx.field(converter=as_real, default=0.7)

    def __check_init__(self):
        for name in ("weight", "cutoff"):
            value = concrete(getattr(self, name))
            if value is not None and not (value.ndim == 0 and 0 <= value < jnp.inf and (value > 0 or name == "weight")):
                raise InputError(f"{name} is {value}: give a positive number.")

    def energy(self, height_px: Map, slope_std: Scalar) -> Scalar:
        """The sum above, for heights in pixels. Gradient: exact."""
        curved = curvatures(height_px)
        scale = (2.0 * self.cutoff.astype(height_px.dtype) * slope_std) ** 2
        total = jnp.sum(jnp.log1p(curved.x**2 / scale)) + jnp.sum(jnp.log1p(curved.y**2 / scale))
        return 0.5 * (self.weight * self.cutoff**2).astype(height_px.dtype) * total

    def stiffness(self, height_px: Map, slope_std: Scalar) -> Links:
        """Weight of each second difference in the quadratic that touches the energy here from above."""
        curved = curvatures(height_px)
        scale = (2.0 * self.cutoff.astype(height_px.dtype) * slope_std) ** 2
        full = self.weight.astype(height_px.dtype) / (4.0 * slope_std**2)
        return Links(full / (1.0 + curved.x**2 / scale), full / (1.0 + curved.y**2 / scale))


def curvatures(height: Map) -> Links:
    """Second differences along x, `(y, x - 2)`, and along y, `(y - 2, x)`. Gradient: exact (linear)."""
    return Links(
        height[:, 2:] - 2.0 * height[:, 1:-1] + height[:, :-2],
        height[2:] - 2.0 * height[1:-1] + height[:-2],
    )
