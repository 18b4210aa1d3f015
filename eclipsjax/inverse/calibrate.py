"""The instrument's numbers from frames of what is known: nothing, a level plane, a shape.

Every frame predicts its grey levels from the numbers; Gauss-Newton least squares with what is known beforehand finds
the numbers and their covariance. A dark frame gives pedestals, a flat field gains. A wide flat field alone gives both,
and the slope's scale: a pixel off the axis sees the detector from another place, by geometry that is known, so that a
level specimen looks like a dome of known radius (D J / 4 K).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, PerSegment, shown
from eclipsjax.imaging.bsesm import flat_signal
from eclipsjax.imaging.sensitivity import stem
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibration import Calibration, calibrated
from eclipsjax.inverse.frames import Dark, Frame
from eclipsjax.inverse.measurement import level_gains
from eclipsjax.inverse.uncertain import GAIN, PEDESTAL, Instrument
from eclipsjax.specimen.emission import EmissionLaw

_ROUNDS = 12


def calibrate(
    scope: Microscope,
    frames: Sequence[Frame],
    uncertain: Mapping[str, float] | None = None,
    emission: EmissionLaw | None = None,
) -> Calibration:
    """Numbers of the microscope from `frames` of known things, with their covariance.

    **Arguments:**

    - `scope`: the microscope as it is believed to be.
    - `frames`: `Dark(images)`, `Flat(images, pixel_size_nm)`, `Shape(images, surface)`, in any number.
    - `uncertain`: numbers to solve for, dotted name -> standard deviation beforehand, in the number's unit (see
      `Instrument`). Gains and pedestals are always among them, with nothing known beforehand unless given here.
    - `emission`: the angular law, `Lambertian()` unless given; its numbers may be uncertain too.

    Returns a `Calibration`. What frames cannot tell apart keeps what was known beforehand: see its `sentences()`.
    Gradient: none (a search).
    """
    frames = tuple(frames)
    uncertain = dict(uncertain or {})
    stems = {stem(name) for name in uncertain}
    _check_frames(frames, scope, GAIN in stems)
    flat = flat_signal(acceptance(scope), emission)
    if GAIN not in stems:
        scope = _roughly_scaled(scope, frames, flat)
    # What is not given is left to the frames.
    wide = {GAIN: float(jnp.mean(scope.detector.segments.gain)), PEDESTAL: float(jnp.mean(flat))}
    uncertain |= {name: std for name, std in wide.items() if name not in stems}
    instrument = Instrument.of(scope, uncertain, emission=emission)
    problem = _Problem(instrument, frames, [frame.observed() for frame in frames])
    unknowns, covariance, chi_square = _gauss_newton(problem)
    count = len(instrument.names)
    return calibrated(instrument, unknowns[:count], covariance[:count, :count], chi_square)


class _Problem(eqx.Module):
    """An instrument, frames, and for each the grey values observed and their standard deviations."""

    instrument: Instrument
    frames: tuple[Frame, ...]
    observed: list[tuple[Array, Array]]

    @property
    def start(self) -> Array:
        """Unknowns: shifts of the instrument's numbers, then each frame's own."""
        count = len(self.instrument.names) + sum(frame.own for frame in self.frames)
        return jnp.zeros(count, self.observed[0][0].dtype)

    def residual(self, unknowns: Array) -> Array:
        """Predicted less observed, in standard deviations."""
        first = len(self.instrument.names)
        model, parts = self.instrument.shifted(unknowns[:first]), []
        for frame, (value, std) in zip(self.frames, self.observed, strict=True):
            predicted = frame.predicted(model, unknowns[first : first + frame.own])
            parts.append(((predicted - value) / std).ravel())
            first += frame.own
        return jnp.concatenate(parts)


@jax.jit
def _residual_and_jacobian(unknowns: Array, problem: _Problem) -> tuple[Array, Array]:
    return problem.residual(unknowns), jax.jacfwd(problem.residual)(unknowns)


@jax.jit
def _value(unknowns: Array, problem: _Problem) -> Array:
    return jnp.sum(problem.residual(unknowns) ** 2) + jnp.sum(unknowns**2)


def _gauss_newton(problem: _Problem) -> tuple[Array, Array, Array]:
    """Least squares of residuals and of the unknowns themselves; stops when steps are small beside their errors."""
    unknowns = problem.start
    best = float(_value(unknowns, problem))
    for _ in range(_ROUNDS):
        gradient, _, covariance, _ = _normal_equations(unknowns, problem)
        move = -covariance @ gradient
        step = jnp.asarray(move, unknowns.dtype)
        length = 1.0
        while length > 1e-3 and not (new := float(_value(unknowns + length * step, problem))) <= best * (1 + 1e-6):
            length *= 0.3
        if length <= 1e-3:
            break
        unknowns, best = unknowns + length * step, new
        if np.max(np.abs(move) / np.sqrt(np.diag(covariance))) < 1e-2:
            break
    _, information, covariance, square = _normal_equations(unknowns, problem)
    count = sum(value.size for value, _ in problem.observed)
    freedom = max(count - float(np.trace(covariance @ information)), 1.0)
    dtype = unknowns.dtype
    return unknowns, jnp.asarray(covariance, dtype), jnp.asarray(square / freedom, dtype)


def _normal_equations(unknowns: Array, problem: _Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Gradient of half the value, information, covariance, sum of squares; in double precision.

    What frames hardly tell apart makes the information singular: in single precision its inverse would be anything.
    """
    left, jacobian = (np.asarray(v, np.float64) for v in _residual_and_jacobian(unknowns, problem))
    information = jacobian.T @ jacobian
    covariance = np.linalg.inv(information + np.eye(unknowns.size))
    return jacobian.T @ left + np.asarray(unknowns, np.float64), information, covariance, float(np.sum(left**2))


def _roughly_scaled(scope: Microscope, frames: tuple[Frame, ...], flat: PerSegment) -> Microscope:
    """Gains of the right size to start from: grey levels per unit of signal."""
    lit = next((frame.images for frame in frames if not isinstance(frame, Dark)), None)
    if lit is None:
        return scope
    segments = scope.detector.segments
    dark = next((frame.images for frame in frames if isinstance(frame, Dark)), None)
    if dark is None:
        gain, pedestal = level_gains(lit, flat, segments.pedestal, "the pedestals given"), segments.pedestal
    else:
        black = jnp.mean(dark, axis=(1, 2), keepdims=True)
        gain = level_gains(lit - black, flat, jnp.zeros_like(segments.pedestal), "the dark frame")
        pedestal = -black[:, 0, 0].astype(gain.dtype) / gain
    return eqx.tree_at(lambda s: (s.detector.segments.gain, s.detector.segments.pedestal), scope, (gain, pedestal))


def _check_frames(frames: tuple[Frame, ...], scope: Microscope, is_gain_known: bool) -> None:
    if not frames or not all(isinstance(frame, Frame) for frame in frames):
        raise InputError(f"frames is {shown(frames)}: give Dark, Flat or Shape frames, at least one.")
    if not is_gain_known and all(isinstance(frame, Dark) for frame in frames):
        raise InputError("dark frames alone tell no gain, and pedestals only in units of it: give a flat field too.")
    if scope.is_biased:
        raise InputError("calibrate does not fly electrons through a field yet: ground specimen and detector.")
    for frame in frames:
        frame.check(scope)
