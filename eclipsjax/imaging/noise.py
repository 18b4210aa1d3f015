"""What counting electrons and the amplifier add to the level: var = a + b * level, `a` additive, `b` from counting."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, PerSegment, Scalar, as_real, concrete


def _number(**kwargs):
    return eqx.field(converter=as_real, **kwargs)


def _check_share(name: str, leaf: Array, may_be_zero: bool) -> None:
    value = concrete(leaf)
    if value is not None and not (0 <= value <= 1 and (value > 0 or may_be_zero)):
        raise InputError(f"{name} is {value}: give a share {'from 0' if may_be_zero else 'above 0 and up'} to 1.")


class GaussianShot(eqx.Module):
    """Counting noise as a normal deviate of variance level / (dose * detective_efficiency).

    - `detective_efficiency`: detective quantum efficiency, the share of the collected electrons that counts;
      where `yield_map` is relative (1 for the reference material), times that material's yield.

    Gradient: exact for a fixed key (reparameterised) where the level is positive; dark pixels have no
    counting noise.
    """

    detective_efficiency: Scalar = _number(default=1.0)

    def __check_init__(self):
        _check_share("detective_efficiency", self.detective_efficiency, may_be_zero=False)

    def __call__(self, level: Array, dose: Array, key: Array) -> Array:
        """`level` with counting noise for `dose` primary electrons per pixel. Gradient: as the class."""
        lit = level > 0
        variance = jnp.where(lit, level, 1.0) / (dose * self.detective_efficiency)
        deviate = jax.random.normal(key, level.shape, level.dtype)
        return level + jnp.where(lit, jnp.sqrt(variance) * deviate, 0.0)


class PoissonShot(eqx.Module):
    """Counting noise as whole electrons: Poisson(n * level) / n with n = dose * detective_efficiency.

    For fewer than about 20 electrons per pixel, where a normal deviate has the wrong shape. A negative level
    counts as 0. Gradient: zero in all that comes before it (level, dose, efficiency): counts are whole.
    """

    detective_efficiency: Scalar = _number(default=1.0)

    def __check_init__(self):
        _check_share("detective_efficiency", self.detective_efficiency, may_be_zero=False)

    def __call__(self, level: Array, dose: Array, key: Array) -> Array:
        """`level` as counted electrons over the expected number for level 1. Gradient: zero."""
        electrons = jax.lax.stop_gradient(dose * self.detective_efficiency)
        mean = electrons * jax.lax.stop_gradient(jnp.maximum(level, 0.0))
        return jax.random.poisson(key, mean).astype(level.dtype) / electrons


class AdditiveNoise(eqx.Module):
    """White amplifier noise of one strength.

    - `std`: standard deviation in every channel, units of the signal.
    - `common`: share of its variance that all segments have in common (their correlation), 0 to 1; 0.065 was
      measured.

    Gradient: exact for a fixed key.
    """

    std: Scalar = _number()
    common: Scalar = _number(default=0.0)

    def __check_init__(self):
        _check_share("common", self.common, may_be_zero=True)
        std = concrete(self.std)
        if std is not None and not (np.isfinite(std) and std >= 0):
            raise InputError(f"std is {std}: give a finite noise of zero or more, in units of the signal.")

    def deviation(self, level: Array, pedestal: Array) -> PerSegment:
        """Standard deviation per segment, units of the signal. Gradient: exact."""
        return jnp.broadcast_to(self.std, pedestal.shape)


class SignalToNoise(eqx.Module):
    """White amplifier noise given as the S/N read off an image: mean grey level over its standard deviation.

    In units of the signal that is |mean(level) - pedestal| / ratio, so a large pedestal means little noise
    for the same ratio.

    - `ratio`: S/N of each stored channel; 11 to 13 was measured on 0.5 nA, 20 us images.
    - `common`: as in `AdditiveNoise`.

    Gradient: exact for a fixed key, the frame's mean included.
    """

    ratio: Scalar = _number()
    common: Scalar = _number(default=0.0)

    def __check_init__(self):
        _check_share("common", self.common, may_be_zero=True)
        ratio = concrete(self.ratio)
        if ratio is not None and not ratio > 0:
            raise InputError(f"ratio is {ratio}: give a positive signal-to-noise ratio.")

    def deviation(self, level: Array, pedestal: Array) -> PerSegment:
        """Standard deviation per segment, units of the signal. Gradient: exact."""
        return jnp.abs(jnp.mean(level, axis=(1, 2)) - pedestal) / self.ratio
