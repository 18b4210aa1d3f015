"""The visible angle along one azimuth: what a horizon leaves open of the valid solid angle, times the emission law.

Both integrals share one shape. `open_to(cot_horizon)` is what the horizon alone decides; `collect(opening, bands)`
turns it and one azimuth's bands into a map for every segment. Maps stay a tuple: of one stack, XLA on a CPU would work
everything above out anew for each slice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._polar import polar_primitives, polar_primitives_of_angle
from eclipsjax._types import Map, image_direction
from eclipsjax.instrument.bands import Bands
from eclipsjax.specimen.emission import EmissionLaw, Lambertian
from eclipsjax.specimen.horizon import azimuth_centres

# For laws without antiderivatives: polar bands between two rims, and Gauss points in each and in a rim's narrow band.
_BODY_BANDS, _BODY_POINTS, _RIM_POINTS = 5, 2, 2


def body_bands(emission: EmissionLaw) -> int:
    """Polar bands between two rims that the integral over a law needs."""
    return 1 if isinstance(emission, Lambertian) else _BODY_BANDS


class ClosedForm(eqx.Module):
    """The Lambertian law: differences of its two antiderivatives in the polar angle. Gradient: exact."""

    slope_x: Map
    slope_y: Map

    @property
    def scale(self) -> Map:
        """Common factor of all contributions: n_z / pi."""
        return 1.0 / (np.pi * jnp.sqrt(1.0 + self.slope_x**2 + self.slope_y**2))

    def per_azimuth(self, bands: Bands) -> Any:
        """What `collect` needs of the bands, every leaf `(position, azimuth, ...)`."""
        return polar_primitives_of_angle(bands.theta), (bands.measure, bands.measure_x, bands.measure_y)

    def open_to(self, cot_horizon: Map) -> tuple[Map, Map]:
        """Both antiderivatives at the horizon, at most at the horizontal."""
        return polar_primitives(jnp.maximum(cot_horizon, 0.0))

    def collect(self, opening: tuple[Map, Map], bands: Any) -> tuple[Map, ...]:
        """Contribution of one azimuth to every segment's signal, over `scale`."""
        (b, a), ((b_knots, a_knots), (measure, measure_x, measure_y)) = opening, bands
        segments, count = measure.shape
        open_b = [_between(b, b_knots[n], b_knots[n + 1]) - b_knots[n] for n in range(count)]
        open_a = [_between(a, a_knots[n], a_knots[n + 1]) - a_knots[n] for n in range(count)]
        signals = []
        for s in range(segments):
            upward = sum(measure[s, n] * open_b[n] for n in range(count))
            along_x = sum(measure_x[s, n] * open_a[n] for n in range(count))
            along_y = sum(measure_y[s, n] * open_a[n] for n in range(count))
            signals.append(upward - self.slope_x * along_x - self.slope_y * along_y)
        return tuple(signals)


class Quadrature(eqx.Module):
    """Any other law: Gauss points in what is left open of each polar band. Gradient: exact."""

    slope_x: Map
    slope_y: Map
    normal_z: Map
    law: EmissionLaw
    coefficients: Any

    @classmethod
    def of(cls, slope_x: Map, slope_y: Map, law: EmissionLaw) -> Quadrature:
        """The integral for one map of slopes and one law, in the slopes' precision."""
        normal_z = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
        law = jax.tree.map(lambda leaf: leaf.astype(normal_z.dtype), law)
        return cls(slope_x, slope_y, normal_z, law, law.coefficients(normal_z))

    @property
    def scale(self) -> Map:
        """Common factor of all contributions: none."""
        return jnp.ones_like(self.normal_z)

    def per_azimuth(self, bands: Bands) -> Any:
        """What `collect` needs of the bands, every leaf `(position, azimuth, ...)`."""
        positions, azimuths = bands.theta.shape[:2]
        centres = jnp.asarray(azimuth_centres(azimuths), bands.theta.dtype)
        return bands, jnp.broadcast_to(centres[None, :], (positions, azimuths))

    def open_to(self, cot_horizon: Map) -> Map:
        """Cosine of the horizon's polar angle, at least 0."""
        cot_horizon = jnp.maximum(cot_horizon, 0.0)
        return cot_horizon / jnp.sqrt(1.0 + cot_horizon * cot_horizon)

    def collect(self, opening: Map, bands: Any) -> tuple[Map, ...]:
        """Contribution of one azimuth to every segment's signal."""
        bands, azimuth = bands
        across_x, across_y = image_direction(azimuth + np.pi / 2)
        segments, count = bands.measure.shape
        signals = [jnp.zeros_like(opening)] * segments
        for n in range(count):
            # Every ring brings a rim, its body, a rim, and the gap before the next ring.
            is_body = 1 <= n % (_BODY_BANDS + 3) <= _BODY_BANDS
            top = jnp.cos(bands.theta[n])
            low = _between(opening, jnp.cos(bands.theta[n + 1]), top)
            flat, tilted = self._over_band(low, top, azimuth, _BODY_POINTS if is_body else _RIM_POINTS)
            for s in range(segments):
                # The azimuth the segment covers need not be centred in the bin: first-order correction.
                sideways = across_x * bands.measure_x[s, n] + across_y * bands.measure_y[s, n]
                signals[s] = signals[s] + bands.measure[s, n] * flat + sideways * tilted
        return tuple(signals)

    def _over_band(self, low: Map, top: Array, azimuth: Array, points: int) -> tuple[Map, Map]:
        """Integral of the law over cos(theta) from `low` to `top`, and its derivative in the azimuth."""
        nodes, weights = (v.tolist() for v in np.polynomial.legendre.leggauss(points))
        flat, tilted = jnp.zeros_like(low), jnp.zeros_like(low)
        for node, weight in zip(nodes, weights, strict=True):
            cos_polar = low + (top - low) * (0.5 + 0.5 * node)
            value, change = jax.jvp(partial(self._density, cos_polar), (azimuth,), (jnp.ones_like(azimuth),))
            flat, tilted = flat + weight * value, tilted + weight * change
        half = 0.5 * (top - low)
        return half * flat, half * tilted

    def _density(self, cos_polar: Map, azimuth: Array) -> Map:
        along_x, along_y = image_direction(azimuth)
        sin_polar = jnp.sqrt(1.0 - cos_polar * cos_polar)
        cos_emission = self.normal_z * (cos_polar - (self.slope_x * along_x + self.slope_y * along_y) * sin_polar)
        return self.law.density(self.coefficients, cos_emission, cos_polar, self.normal_z)


def _between(value: Map, low: Array, high: Array) -> Map:
    """`value` cut to [low, high] with selects, whose derivative XLA gets for nothing, unlike `clip`'s shared ties."""
    return jnp.where(value < low, low, jnp.where(value < high, value, high))
