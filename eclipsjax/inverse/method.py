"""What a method of `reconstruct` is given, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp

from eclipsjax._types import Map, Scalar, SignalStack
from eclipsjax.imaging.blur import GaussianBlur
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.integrate import integrate
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.measurement import MEDIAN_OF_NORMAL, Measurement
from eclipsjax.inverse.photometric import Slopes, photometric_slopes
from eclipsjax.inverse.reconstruction import Found
from eclipsjax.specimen.emission import EmissionLaw, law_of

# Pixels that vary in brightness by less than this many standard errors of it are taken as alike.
_ALIKE = 1.0


class Progress(NamedTuple):
    """What a step of a search reports: number, chi-square per degree of freedom, seconds since the start."""

    step: int
    chi_square: float
    seconds: float


class Task(eqx.Module):
    """One set of images, read and checked, with all that is known of how it was taken.

    - `measurement`: levels and their noise. `table`: what the detector accepts. `scope`: the microscope.
    - `emission`: the angular law, or None for the cosine law. `blur`: of the camera, or None.
    - `pixel_size_nm`: scalar, nm. `field_mm`: of the acceptance for wide images, or None.
    """

    measurement: Measurement
    table: AcceptanceTable
    scope: Microscope
    emission: EmissionLaw | None
    blur: GaussianBlur | None
    pixel_size_nm: Scalar
    field_mm: Any

    @property
    def law(self) -> EmissionLaw:
        """The angular law, the cosine law where none was given."""
        return law_of(self.emission)

    def closed_form(self, rounds: int | None = None) -> Slopes:
        """Slopes pixel by pixel. Gradient: exact in the levels."""
        return photometric_slopes(self.measurement, self.table, self.emission, rounds, self.pixel_size_nm)

    def height_of(self, slopes: Slopes, integrator: Any = None) -> Map:
        """Heights in nm, by least squares unless another method of `integrate` is given. Gradient: as the method's."""
        return integrate(slopes.slope_x, slopes.slope_y, self.pixel_size_nm, integrator or Poisson())

    def blurred(self, level: SignalStack) -> SignalStack:
        """As the spot blurs it, if the camera says so. Gradient: exact."""
        if self.blur is None:
            return level
        return self.blur(level, self.scope.beam.probe_fwhm_nm.astype(level.dtype), self.pixel_size_nm)

    def spread_of(self, brightness: Map) -> Scalar:
        """By what share the closed form's brightness, in any unit, varies from pixel to pixel beyond its own noise,
        robustly: 0 where that noise explains it. Gradient: none."""
        relative = brightness / jnp.median(brightness) - 1.0
        varies = jnp.median(jnp.abs(relative)) / MEDIAN_OF_NORMAL
        noise = _brightness_noise(self.measurement)
        beyond = jnp.maximum(varies**2 - noise**2, 0.0)
        return jnp.where(beyond > (_ALIKE * noise) ** 2, jnp.sqrt(beyond), 0.0)


class Method(eqx.Module):
    """A way from images to heights."""

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """Heights with all that belongs to them; a search calls `report` after every step."""
        raise NotImplementedError


def _brightness_noise(measurement: Measurement) -> Scalar:
    """Relative standard deviation of one pixel's brightness, level and unhidden."""
    mean = jnp.mean(measurement.level, axis=(1, 2))
    counted = jnp.maximum(mean, 0.0) / measurement.noise.electrons
    return 1.0 / jnp.sqrt(jnp.sum(mean**2 / (measurement.std**2 + counted)))
