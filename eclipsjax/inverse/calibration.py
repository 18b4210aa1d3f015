"""What a calibration found: the microscope, how well each number is known, and what that leaves open in angles."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import as_real
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import LevelNoise
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.photometric import photometric_slopes
from eclipsjax.inverse.uncertain import Instrument, Model
from eclipsjax.specimen.horizon import NoRelief

# A combination of numbers counts as not determined where the data leave more than this share of its variance.
_OPEN = 0.5
_AZIMUTHS = 64


class Calibration(eqx.Module):
    """A calibrated instrument.

    - `instrument`: with its numbers as found, and their names; `std` in it are what was known beforehand.
    - `covariance`: `(number, number)` of what was found, in units of those standard deviations.
    - `chi_square`: mean squared residual per degree of freedom: 1 where the model explains the frames.

    Gradient: exact in the fields.
    """

    instrument: Instrument
    covariance: Float[Array, "number number"]
    chi_square: Float[Array, ""]

    @property
    def scope(self) -> Microscope:
        """The microscope with its numbers as found."""
        return self.instrument.scope

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation of each number that was solved for, in its unit."""
        deviation = np.sqrt(np.maximum(np.diag(np.asarray(self.covariance)), 0.0)) * np.asarray(self.instrument.std)
        return dict(zip(self.instrument.names, deviation.tolist(), strict=True))

    @property
    def solved(self) -> dict[str, tuple[float, float]]:
        """Value and standard deviation of each number that was solved for, in its unit."""
        return {name: (self.instrument.value(name), deviation) for name, deviation in self.std.items()}

    def sentences(self) -> list[str]:
        """What the frames do not tell: each combination of numbers whose error they leave (nearly) as it was.

        With the error of a slope that it leaves on a level plane, in degrees.
        """
        values, vectors = np.linalg.eigh(np.asarray(self.covariance, float))
        said = []
        for k in np.argsort(values)[::-1]:
            if values[k] < _OPEN:
                break
            vector = vectors[:, k]
            main = np.argsort(-np.abs(vector))[:4]
            parts = [f"{vector[j]:+.2f} x {self.instrument.names[j]}" for j in main if abs(vector[j]) > 0.2]
            left = float(np.hypot(*self._misread(jnp.asarray(vector * np.sqrt(values[k])), 0.0, 0.0)))
            said.append(
                f"not determined beyond what was known ({100 * np.sqrt(values[k]):.0f} % of it left): "
                f"{' '.join(parts)} (each in units of its standard deviation); it leaves {np.degrees(left):.2g} deg on "
                "a level plane."
            )
        return said

    def angle_std_deg(self, tilt_deg: Any, azimuth_deg: Any = 0.0) -> float:
        """Standard deviation of the inclination that is read off a plane, from the calibration alone, deg.

        - `tilt_deg`, `azimuth_deg`: of the plane and of its normal's lean (counter-clockwise as seen).
        """
        tilt, azimuth = np.radians(float(tilt_deg)), np.radians(float(azimuth_deg))
        lean = np.array([-np.cos(azimuth), np.sin(azimuth)]) * np.tan(tilt)
        numbers = jnp.zeros(len(self.instrument.names), self.covariance.dtype)
        jacobian = np.asarray(jax.jacfwd(lambda v: self._misread(v, *lean))(numbers), float)
        spread = jacobian @ np.asarray(self.covariance, float) @ jacobian.T
        if tilt == 0.0:
            return float(np.degrees(np.sqrt(np.trace(spread))))
        along = lean / np.linalg.norm(lean)
        return float(np.degrees(np.cos(tilt) ** 2 * np.sqrt(along @ spread @ along)))

    def _misread(self, numbers: Array, slope_x: float, slope_y: float) -> Array:
        """Slopes read with the numbers as found off a plane imaged with them moved, less the plane's own."""
        model = self.instrument.shifted(numbers)
        plane = Facets.isolated(*(as_real(s)[None, None] for s in (slope_x, slope_y)))
        dtype = plane.slope_x.dtype
        signal = render(plane, self.instrument.table(model), _AZIMUTHS, None, model.emission, NoRelief())
        level = self.instrument.as_if_nominal(signal, model)
        nowhere = jnp.zeros(level.shape, bool)
        measured = Measurement(level, LevelNoise(jnp.ones((), dtype)), nowhere, nowhere, jnp.ones(len(level), dtype))
        read = photometric_slopes(measured, self.instrument.nominal, self.instrument.model.emission)
        return jnp.stack([read.slope_x[0, 0] - plane.slope_x[0, 0], read.slope_y[0, 0] - plane.slope_y[0, 0]])


def calibrated(instrument: Instrument, numbers: Array, covariance: Array, chi_square: Array) -> Calibration:
    """The calibration that found `numbers` (in standard deviations) with their `covariance`."""
    model: Model = instrument.shifted(numbers)
    found = dataclasses.replace(instrument, model=model, nominal=instrument.table(model))
    return Calibration(found, covariance, chi_square)
