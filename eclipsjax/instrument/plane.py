"""Tilted planes: the detector plate's lower face and the stage, as frames in image axes (x right, y down, z up)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Scalar, as_real
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.tilt import tilted_axes

Vector = Float[Array, "3"]


class Plane(eqx.Module):
    """A plane through `origin_mm` with the orthonormal rows `axes` = (along its x, along its y, upward normal)."""

    origin_mm: Vector = eqx.field(converter=as_real)
    axes: Float[Array, "3 3"] = eqx.field(converter=as_real)

    @property
    def normal(self) -> Vector:
        """Unit normal, pointing up."""
        return self.axes[2]

    def to_local(self, position_mm: Vector) -> Vector:
        """Coordinates in the plane's frame, mm: along its x, along its y, height above it. Gradient: exact."""
        return self.axes @ (position_mm - self.origin_mm)

    def to_image(self, local_mm: Vector) -> Vector:
        """Position in image axes of a point given in the plane's frame, mm. Gradient: exact."""
        return self.origin_mm + self.axes.T @ local_mm

    def height_mm(self, position_mm: Vector) -> Scalar:
        """Height of a position above the plane, mm. Gradient: exact."""
        return jnp.vdot(self.normal, position_mm - self.origin_mm)


def level_plane(height_mm: Any) -> Plane:
    """The plane z = `height_mm`. Gradient: exact."""
    height = as_real(height_mm)
    return Plane(height * jnp.array([0.0, 0.0, 1.0], height.dtype), jnp.eye(3, dtype=height.dtype))


def detector_plane(scope: Microscope) -> Plane:
    """The plate's active face, its origin the plate's centre. Gradient: exact."""
    plate = scope.detector
    origin = jnp.stack([plate.offset_x_mm, plate.offset_y_mm, plate.distance_mm])
    return Plane(origin, tilted_axes(plate.tilt_x_deg, plate.tilt_y_deg))


def stage_plane(scope: Microscope) -> Plane:
    """The specimen's macroscopic plane, through the point where the optical axis meets it. Gradient: exact."""
    column = scope.column
    axes = tilted_axes(column.stage_tilt_x_deg, column.stage_tilt_y_deg)
    return Plane(jnp.zeros_like(axes[0]), axes)


def plate_radii(scope: Microscope) -> tuple[Scalar, Scalar]:
    """Radius of the plate's hole and of the plate, mm. Gradient: exact (shared where segments tie)."""
    segments = scope.detector.segments
    return jnp.min(segments.inner_radius_mm), jnp.max(segments.outer_radius_mm)
