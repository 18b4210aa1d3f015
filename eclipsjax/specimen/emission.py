"""Into which directions a surface element emits: angular laws, each normalised to one emitted electron.

Every law is a record with the same two methods. `coefficients` holds what depends on the local tilt alone and
is worked out once per pixel; `density` is the probability per steradian and is evaluated for every direction
of every pixel. Directions enter by three cosines: to the local normal (emission), to the optical axis z
(polar), and of the tilt.
"""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, Scalar, concrete, real_named

# Chebyshev nodes behind the norm of the lobe: 7e-9 at 5 deg, 4e-13 from 8 deg on (against a fine quadrature).
_LOBE_NODES = 64
_NARROWEST_DEG, _WIDEST_DEG = 5.0, 90.0
_SHARPEST_EXPONENT = 50.0


class EmissionLaw(eqx.Module):
    """What the renderer asks of an angular law."""

    @abc.abstractmethod
    def coefficients(self, cos_tilt: Array) -> Any:
        """Per-pixel arrays of `cos_tilt`'s shape that `density` needs (a pytree, perhaps empty)."""

    @abc.abstractmethod
    def density(self, coefficients: Any, cos_emission: Array, cos_polar: Array, cos_tilt: Array) -> Array:
        """Probability per steradian of the direction d, 0 where `cos_emission` <= 0.

        `cos_emission` = n.d, `cos_polar` = d_z, `cos_tilt` = n_z; arrays that broadcast against each other.
        """


class Lambertian(EmissionLaw):
    """The cosine law: `n.d / pi`. Gradient: exact, a kink at grazing emission."""

    def coefficients(self, cos_tilt: Array) -> tuple[()]:
        """Nothing depends on the tilt. Gradient: none."""
        return ()

    def density(self, coefficients: Any, cos_emission: Array, cos_polar: Array, cos_tilt: Array) -> Array:
        """`max(n.d, 0) / pi`, per steradian. Gradient: exact where n.d is not 0."""
        return jnp.where(cos_emission > 0, cos_emission, 0.0) / math.pi


class CosinePower(EmissionLaw):
    """`(k + 1) / (2 pi) (n.d)^k`: more forward than the cosine law for exponents k > 1.

    - `exponent`: k, 0 to 50 (below 1 the density has an unbounded slope at grazing emission). The renderer's Gauss
      points resolve it to 7e-4 of the signal up to k = 20 and to 1e-3 at 50; narrower lobes slip between them.

    Gradient: exact in the exponent and in n.d > 0.
    """

    exponent: Scalar = eqx.field(converter=real_named("exponent"))

    def __check_init__(self):
        exponent = concrete(self.exponent)
        if exponent is not None and not 0 <= exponent <= _SHARPEST_EXPONENT:
            raise InputError(
                f"exponent is {exponent}: give the power of the cosine, 0 to {_SHARPEST_EXPONENT:g} (the renderer's "
                "quadrature does not resolve sharper emission)."
            )

    def coefficients(self, cos_tilt: Array) -> tuple[()]:
        """Nothing depends on the tilt. Gradient: none."""
        return ()

    def density(self, coefficients: Any, cos_emission: Array, cos_polar: Array, cos_tilt: Array) -> Array:
        """`(k + 1) / (2 pi) (n.d)^k`, per steradian, 0 for n.d <= 0. Gradient: exact where n.d > 0."""
        exponent = self.exponent.astype(cos_emission.dtype)
        outward = cos_emission > 0
        safe = jnp.where(outward, cos_emission, 1.0)
        return jnp.where(outward, (exponent + 1.0) / (2.0 * math.pi) * jnp.exp(exponent * jnp.log(safe)), 0.0)


class ForwardLobe(EmissionLaw):
    """A cosine part and a lobe around the specular direction that grows with tilt.

        (1 - w) n.d / pi + w exp(kappa (m.d - 1)) / N,   w = strength sin^2(tilt),   kappa = 1 / width^2,

    with m the mirror image of the beam (m.d = 2 n_z n.d - d_z), cut at the surface and normalised over what
    is left. Minimum usable parameterisation of forward scattering at tilted incidence (Reimer, Scanning
    Electron Microscopy).

    - `strength`: share of the lobe at grazing incidence, 0 to 1.
    - `width_deg`: the lobe's standard deviation along one direction, deg, from 5 to 90
      (a von Mises-Fisher lobe).

    Gradient: exact in strength, width, tilt and direction.
    """

    strength: Scalar = eqx.field(converter=real_named("strength"))
    width_deg: Scalar = eqx.field(converter=real_named("width_deg"), default=20.0)

    def __check_init__(self):
        strength, width = concrete(self.strength), concrete(self.width_deg)
        if strength is not None and not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}: the lobe's share of the electrons lies between 0 and 1.")
        if width is not None and not _NARROWEST_DEG <= width <= _WIDEST_DEG:
            raise InputError(
                f"width_deg is {width}: give a standard deviation of {_NARROWEST_DEG:g} to {_WIDEST_DEG:g} degrees."
            )

    def coefficients(self, cos_tilt: Array) -> Array:
        """`w / N` of every pixel, per steradian. Gradient: exact."""
        kappa, strength = self._numbers(cos_tilt)
        whole = 2.0 * math.pi * -jnp.expm1(-2.0 * kappa) / kappa
        return strength * (1.0 - cos_tilt**2) / (whole * lobe_fraction(kappa, cos_tilt))

    def density(self, coefficients: Any, cos_emission: Array, cos_polar: Array, cos_tilt: Array) -> Array:
        """The formula above, per steradian, 0 for n.d <= 0. Gradient: exact where n.d > 0."""
        kappa, strength = self._numbers(cos_emission)
        outward = cos_emission > 0
        lobe = coefficients * jnp.exp(kappa * (2.0 * cos_tilt * cos_emission - cos_polar - 1.0))
        cosine = (1.0 - strength * (1.0 - cos_tilt**2)) * cos_emission / math.pi
        return jnp.where(outward, cosine + lobe, 0.0)

    def _numbers(self, like: Array) -> tuple[Array, Array]:
        kappa = (180.0 / (math.pi * self.width_deg)) ** 2
        return kappa.astype(like.dtype), self.strength.astype(like.dtype)


def law_of(emission: Any) -> Any:
    """The law that is given, the cosine law where none is. Gradient: exact."""
    return Lambertian() if emission is None else emission


def lobe_fraction(kappa: Array, cos_tilt: Array) -> Array:
    """Share of the lobe exp(kappa m.d) that leaves the surface when its axis m lies `tilt` off the normal.

    With c = cos(tilt), s = sin(tilt), the share is 1/2 + F(c), and turning the half space about m shows that
    dF/dc = kappa I_1(kappa s) / (2 s sinh kappa): an even entire function of c, so F is an odd one, and a
    short Chebyshev series (coefficients from `kappa` alone) gives it to 1e-8 for lobes of 5 deg and to
    rounding for wider ones. `kappa`: scalar; `cos_tilt`: any shape, 0 to 1. Returns the share, 1/2 at grazing
    incidence. Gradient: exact.
    """
    cosines, integrate = _odd_integral(_LOBE_NODES)
    sines = jnp.asarray(np.sqrt(1.0 - cosines**2), cos_tilt.dtype)
    scale = kappa / -jnp.expm1(-2.0 * kappa)
    slope = scale * jax.scipy.special.i1e(kappa * sines) * jnp.exp(kappa * (sines - 1.0)) / sines
    series = jnp.asarray(integrate, cos_tilt.dtype) @ slope
    # Clenshaw's recurrence on the odd polynomials alone: T_(2j+1) = 2 T_2 T_(2j-1) - T_(2j-3).
    twice = 4.0 * cos_tilt**2 - 2.0
    last = before = jnp.zeros_like(cos_tilt)
    for j in range(series.shape[0] - 1, -1, -1):
        last, before = series[j] + twice * last - before, last
    return 0.5 + cos_tilt * (last - before)


@functools.cache
def _odd_integral(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Positive Chebyshev nodes; matrix from an even function there to the odd series of its integral."""
    half = nodes // 2
    angles = math.pi * (np.arange(half) + 0.5) / nodes
    orders = 2 * np.arange(half + 1)
    even = 4.0 / nodes * np.cos(np.outer(orders, angles))
    even[-1] = 0.0  # the order that equals the node count vanishes on every node
    # The integral of T_n is T_(n+1) / (2 (n+1)) - T_(n-1) / (2 (n-1)), of T_0 (halved in the series) T_1.
    odd = (even[:-1] - even[1:]) / (2.0 * (orders[:-1] + 1))[:, None]
    return np.cos(angles), odd
