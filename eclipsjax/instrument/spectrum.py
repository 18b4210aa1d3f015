"""The energies of backscattered electrons as a few weighted nodes."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Number, as_real, concrete, real_named, whole_number


class Spectrum(eqx.Module):
    """Number spectrum of the emitted electrons.

    - `fraction`: `(energy,)` emission energies over the landing energy, each in (0, 1].
    - `weight`: `(energy,)` share of the electrons at each, summing to 1.

    Gradient: exact in both.
    """

    fraction: Float[Array, "energy"] = eqx.field(converter=real_named("fraction"))
    weight: Float[Array, "energy"] = eqx.field(converter=real_named("weight"))

    def __check_init__(self):
        fraction, weight = concrete(self.fraction), concrete(self.weight)
        if fraction is None or weight is None:
            return
        if fraction.shape != weight.shape or fraction.ndim != 1 or fraction.size == 0:
            raise InputError(f"a spectrum needs as many weights as energies; got {weight.shape} and {fraction.shape}.")
        if not ((fraction > 0).all() and (fraction <= 1).all()):
            raise InputError(
                f"spectrum fractions are {fraction}: each is an energy over the landing energy, in (0, 1]."
            )
        if not ((weight >= 0).all() and abs(weight.sum() - 1) < 1e-4):
            raise InputError(f"spectrum weights are {weight}: they must be non-negative and sum to 1.")

    @classmethod
    def elastic(cls) -> Spectrum:
        """All electrons leave with the landing energy. Gradient: none (no number to differentiate)."""
        return cls(jnp.ones(1), jnp.ones(1))

    @classmethod
    def backscattered(cls, mean: Number = 0.75, spread: Number = 0.15, nodes: int = 5) -> Spectrum:
        """A bell of emission energies (fractions of the landing energy) cut at 0.05 and 1, on `nodes` Gauss points.

        `mean` and `spread` are the bell's centre and standard deviation before cutting; about 0.6 for light and 0.8 for
        heavy elements (physics of backscattering: broad for low Z, peaked near 0.8-0.95 for high Z). Gradient: exact.
        """
        nodes = whole_number("nodes", nodes, 1)
        centre, width = concrete(as_real(mean, "mean")), concrete(as_real(spread, "spread"))
        if centre is not None and not np.isfinite(centre):
            raise InputError(f"mean is {centre}: give the bell's centre as a fraction of the landing energy.")
        if width is not None and not (np.isfinite(width) and width > 0):
            raise InputError(f"spread is {width}: give the bell's standard deviation, a positive number.")
        nodes_unit, weights_unit = np.polynomial.legendre.leggauss(nodes)
        fraction = as_real(0.525 + 0.475 * nodes_unit)
        mean, spread = as_real(mean), as_real(spread)
        density = as_real(weights_unit) * jnp.exp(-0.5 * ((fraction - mean) / spread) ** 2)
        return cls(fraction, density / jnp.sum(density))

    def diode_share(self, energy_kev: Array, gained_kev: Array, threshold_kev: Array) -> Float[Array, "energy"]:
        """Share of a diode's current that each energy brings: proportional to `weight` (E - threshold) above the
        threshold.

        `energy_kev`: landing energy; `gained_kev`: what the field adds on the way to the diode; `threshold_kev` of the
        diode. Sums to the share of the electrons that the field lets reach the diode (1 unless it retards), because
        those that it turns back were emitted all the same; or is 0 everywhere when no electron passes the threshold.
        Gradient: exact except where an energy meets the threshold or just fails to arrive.
        """
        arriving = self.fraction * energy_kev + gained_kev
        current = self.weight * jax.nn.relu(arriving - threshold_kev)
        total = jnp.sum(current)
        landed = jnp.sum(jnp.where(arriving > 0, self.weight, 0.0))
        return jnp.where(total > 0, landed * current / jnp.where(total > 0, total, 1.0), 0.0)
