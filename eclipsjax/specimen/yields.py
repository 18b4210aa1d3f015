"""How many electrons come back: the backscatter coefficient eta(Z, E, tilt) by the published laws.

The laws differ by 2 to 8 % from copper up and by up to 40 % for carbon: ratios are metrology, absolute values
are not.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, as_real, concrete


class YieldLaw(eqx.Module):
    """eta at normal incidence, for Z of 1 to 100 and 0.1 to 100 keV wherever it comes out between 0 and 1.

    Gradient: as each law's.
    """

    @abc.abstractmethod
    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """Backscattered electrons per primary electron at normal incidence, for energies in keV."""


class TiltLaw(eqx.Module):
    """How eta grows with tilt."""

    @abc.abstractmethod
    def ratio(self, normal_yield: Array, atomic_number: Array, cos_tilt: Array) -> Array:
        """eta(tilt) / eta(0)."""


class Reimer(YieldLaw):
    """`-0.0254 + 0.016 Z - 1.86e-4 Z^2 + 8.3e-7 Z^3` (Reimer), at 20 keV.

    For Z from 2: it is below 0 for hydrogen, which is refused. Gradient: exact, zero in the energy.
    """

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence. Gradient: exact, zero in the energy."""
        z = atomic_number
        return -0.0254 + z * (0.016 + z * (-1.86e-4 + z * 8.3e-7)) + 0.0 * energy_kev


class PouchouPichoir(YieldLaw):
    """`1.75e-3 Z + 0.37 (1 - exp(-0.015 Z^1.3))`, the energy ignored (Pouchou and Pichoir)."""

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence. Gradient: exact, zero in the energy."""
        return 1.75e-3 * atomic_number - 0.37 * jnp.expm1(-0.015 * atomic_number**1.3) + 0.0 * energy_kev


class LoveScott(YieldLaw):
    """`eta20 (1 + H ln(E / 20 keV))` with polynomials eta20 and H of Z (Love and Scott 1978)."""

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence. Gradient: exact."""
        z = atomic_number
        at_20 = 1e-4 * (-52.3791 + z * (150.48371 + z * (-1.67373 + z * 0.00716)))
        growth = 1e-4 * (-1112.8 + z * (30.289 - z * 0.15498))
        return at_20 * (1.0 + growth * jnp.log(energy_kev / 20.0))


class HungerKuechler(YieldLaw):
    """`C(Z) E^m`, `m = 0.1382 - 0.9211 / sqrt(Z)`, C a cubic in ln Z (Hunger and Kuechler 1979).

    It diverges for hydrogen at low energy: above 1 below 0.12 keV, which is refused. Gradient: exact.
    """

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence. Gradient: exact."""
        log_z = jnp.log(atomic_number)
        factor = 0.1904 + log_z * (-0.2235 + log_z * (0.1292 - log_z * 0.01491))
        return factor * energy_kev ** (0.1382 - 0.9211 / jnp.sqrt(atomic_number))


class Staub(YieldLaw):
    """`b (1 - exp(-6.6e-3 b^-2.5 Z))` with `b = 0.40 + 0.065 ln E` (Staub 1994)."""

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence. Gradient: exact."""
        plateau = 0.40 + 0.065 * jnp.log(energy_kev)
        return -plateau * jnp.expm1(-6.6e-3 * plateau**-2.5 * atomic_number)


class Arnal(YieldLaw, TiltLaw):
    """`(1 + cos(tilt))^(-9 / sqrt(Z))` (Arnal), no energy in it: a law of tilt, and of Z at tilt 0."""

    def normal(self, atomic_number: Array, energy_kev: Array) -> Array:
        """eta at normal incidence, `2^(-9 / sqrt(Z))`. Gradient: exact, zero in the energy."""
        return jnp.exp2(-9.0 / jnp.sqrt(atomic_number)) + 0.0 * energy_kev

    def ratio(self, normal_yield: Array, atomic_number: Array, cos_tilt: Array) -> Array:
        """eta(tilt) / eta(0). Gradient: exact, zero in the normal yield."""
        return jnp.exp(-9.0 / jnp.sqrt(atomic_number) * jnp.log1p(0.5 * (cos_tilt - 1.0)))


class DrescherReimerSeidel(TiltLaw):
    """`0.89 (eta0 / 0.89)^cos(tilt)` (Drescher, Reimer and Seidel)."""

    def ratio(self, normal_yield: Array, atomic_number: Array, cos_tilt: Array) -> Array:
        """eta(tilt) / eta(0). Gradient: exact."""
        return jnp.exp((cos_tilt - 1.0) * jnp.log(normal_yield / 0.89))


class Untilted(TiltLaw):
    """eta(tilt) = eta(0)."""

    def ratio(self, normal_yield: Array, atomic_number: Array, cos_tilt: Array) -> Array:
        """1. Gradient: zero."""
        return jnp.ones_like(cos_tilt)


def backscatter_yield(
    atomic_number: Any,
    energy_kev: Any,
    cos_tilt: Any = 1.0,
    law: YieldLaw = PouchouPichoir(),  # noqa: B008 (records are immutable)
    tilt_law: TiltLaw = Arnal(),  # noqa: B008
) -> Array:
    """Backscattered electrons per primary electron, `law(Z, E) * tilt_law(tilt) / tilt_law(0)`.

    - `atomic_number`: Z, above 0 and at most 100; a scalar or a map.
    - `energy_kev`: landing energy, 0.1 to 100 keV; a scalar or a map.
    - `cos_tilt`: cosine of the local tilt, n_z, above 0 and at most 1; a scalar or a map.
    - `law`, `tilt_law`: the choice of laws (see their docstrings for formulas and sources).

    Returns eta of the arguments' common shape. A law outside its range (eta at normal incidence not between 0 and 1) is
    an `InputError`. Next to grazing incidence two laws of different authors may multiply to a little above 1.
    Gradient: exact in all three numbers.
    """
    z, energy, cosine = _alike(atomic_number, energy_kev, cos_tilt)
    _check("atomic_number", z, 0.0, 100.0, "the atomic number of an element")
    _check("energy_kev", energy, 0.0999999, 100.0, "a landing energy of 0.1 to 100 keV")
    _check("cos_tilt", cosine, 0.0, 1.000001, "the cosine of a tilt below 90 degrees (n_z of the normal)")
    normal = law.normal(z, energy)
    _check_law(law, normal)
    return normal * tilt_law.ratio(normal, z, cosine)


def compound_yield(
    mass_fraction: Any,
    atomic_number: Any,
    energy_kev: Any,
    cos_tilt: Any = 1.0,
    law: YieldLaw = PouchouPichoir(),  # noqa: B008
    tilt_law: TiltLaw = Arnal(),  # noqa: B008
) -> Array:
    """eta of a compound: the mean over its elements, weighted by mass (Heinrich).

    `mass_fraction`, `atomic_number`: `(element,)`, the fractions summing to 1; the other arguments as in
    `backscatter_yield`. Gradient: exact in all numbers.
    """
    fraction, z, energy, cosine = _alike(mass_fraction, atomic_number, energy_kev, cos_tilt)
    _check("atomic_number", z, 0.0, 100.0, "the atomic number of an element")
    if z.ndim != 1 or fraction.shape != z.shape:
        raise InputError(
            f"mass_fraction and atomic_number have shapes {fraction.shape} and {z.shape}: give one of each per element."
        )
    values = concrete(fraction)
    if values is not None and not ((values >= 0).all() and abs(values.sum() - 1) < 1e-3):
        raise InputError(f"mass_fraction is {values}: fractions by mass are non-negative and sum to 1.")
    _check_law(law, jax.vmap(lambda one: law.normal(one, energy))(z))
    each = jax.vmap(lambda one: backscatter_yield(one, energy, cosine, law, tilt_law))(z)
    return jnp.tensordot(fraction, each, axes=1)


def mean_atomic_number(mass_fraction: Any, atomic_number: Any) -> Array:
    """`(sum of w sqrt(Z))^2`: what stands for a compound in the Pouchou-Pichoir law. Gradient: exact."""
    fraction, z = _alike(mass_fraction, atomic_number)
    return jnp.sum(fraction * jnp.sqrt(z)) ** 2


def _alike(*values: Any) -> list[Array]:
    """The arguments in one floating dtype: the widest of the JAX arrays given, else JAX's default."""
    given = [v.dtype for v in values if isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jnp.floating)]
    widest = max(given, key=lambda d: jnp.finfo(d).bits, default=jnp.result_type(float))
    return [as_real(v).astype(widest) for v in values]


def _check_law(law: YieldLaw, normal: Array) -> None:
    values = concrete(normal)
    if values is None:
        return
    wrong = ~((values > 0) & (values < 1))
    if np.any(wrong):
        worst = np.atleast_1d(values)[np.atleast_1d(wrong)].flat[0]
        raise InputError(
            f"law {type(law).__name__} gives a yield of {worst:.3g} for an atomic_number and energy_kev outside its "
            "range: yields lie between 0 and 1, so take another law, such as PouchouPichoir()."
        )


def _check(name: str, value: Array, above: float, most: float, meaning: str) -> None:
    numbers = concrete(value)
    if numbers is None:
        return
    wrong = ~((numbers > above) & (numbers <= most))
    if np.any(wrong):
        raise InputError(f"{name} holds {np.atleast_1d(numbers)[np.atleast_1d(wrong)][0]:g}: give {meaning}.")
