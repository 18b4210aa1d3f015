"""Fields that electrons fly in: smooth potentials with E = -gradient, sampled one position at a time."""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from eclipsjax._types import Scalar, as_real
from eclipsjax.instrument.plane import Vector
from eclipsjax.instrument.spline import spline_sample


class Field(eqx.Module):
    """What electrons ask of a field."""

    @abc.abstractmethod
    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm, E = -gradient) at one position (mm, image axes). Gradient: exact."""

    def potential_v(self, position_mm: Vector) -> Scalar:
        """Potential at one position (mm, image axes), V. Gradient: exact."""
        return self.sample(position_mm)[0]

    def gradient_v_per_mm(self, position_mm: Vector) -> Vector:
        """Gradient of the potential, V/mm; the field strength is its negative. Gradient: exact."""
        return self.sample(position_mm)[1]


class UniformField(Field):
    """The field between two endless plates: potential = `gradient_z_v_per_mm` z, z in mm. Gradient: exact."""

    gradient_z_v_per_mm: Scalar = eqx.field(converter=as_real)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm) at a position in image axes (mm). Gradient: exact."""
        slope = self.gradient_z_v_per_mm.astype(position_mm.dtype)
        return slope * position_mm[2], slope * jnp.array([0.0, 0.0, 1.0], position_mm.dtype)


class AxisymmetricField(Field):
    """A field symmetric about the vertical through `centre_mm`; spline `coefficients` from specimen to plate."""

    coefficients: Float[Array, "z r"]
    centre_mm: Float[Array, "2"]
    height_mm: Scalar
    radius_mm: Scalar
    residual: Scalar
    iterations: Int[Array, ""]
    stretch: float = eqx.field(static=True)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm, E = -gradient) at one position (mm, image axes). Beyond the plate's
        face the last piece of the spline goes on. Gradient: exact."""
        rows, columns = (n - 3 for n in self.coefficients.shape)
        offset = position_mm[:2] - self.centre_mm
        # Rounds off the cone r = |offset|, whose tip has no slope; the potential is even in r: nothing is lost.
        small = 1e-3 * self.radius_mm / columns
        radius = jnp.sqrt(offset[0] ** 2 + offset[1] ** 2 + small**2)
        bend = float(np.sinh(self.stretch)) / self.radius_mm
        place_r = jnp.arcsinh(bend * radius) * (columns / self.stretch)
        slope_r = bend * (columns / self.stretch) / jnp.sqrt(1.0 + (bend * radius) ** 2)
        per_mm = rows / self.height_mm
        value, (along_z, along_r) = spline_sample(self.coefficients, (position_mm[2] * per_mm, place_r))
        lateral = (along_r * slope_r / radius) * offset
        return value, jnp.stack([lateral[0], lateral[1], along_z * per_mm])


class CartesianField(Field):
    """A field without symmetry, as spline coefficients `[x, y, z]` between `bottom_mm` and `top_mm`."""

    coefficients: Float[Array, "x y z"]
    bottom_mm: Scalar
    top_mm: Scalar
    radius_mm: Scalar
    residual: Scalar
    iterations: Int[Array, ""]
    stretch: float = eqx.field(static=True)

    def sample(self, position_mm: Vector) -> tuple[Scalar, Vector]:
        """Potential (V) and its gradient (V/mm, E = -gradient) at one position (mm, image axes). Gradient: exact."""
        columns, rows = self.coefficients.shape[0] - 3, self.coefficients.shape[2] - 3
        bend = float(np.sinh(self.stretch)) / self.radius_mm
        lateral = bend * position_mm[:2]
        scale = 0.5 * columns / self.stretch
        place = jnp.arcsinh(lateral) * scale + 0.5 * columns
        slope = bend * scale / jnp.sqrt(1.0 + lateral**2)
        per_mm = rows / (self.top_mm - self.bottom_mm)
        height = (position_mm[2] - self.bottom_mm) * per_mm
        value, partial = spline_sample(self.coefficients, (place[0], place[1], height))
        return value, jnp.stack([partial[0] * slope[0], partial[1] * slope[1], partial[2] * per_mm])
