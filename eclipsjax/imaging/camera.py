"""From signal to stored image: yield, blur, scan errors, dose, noise, gain and pedestal, grey levels.

`level` is the signal times the yield: electrons that a segment collects per primary electron. Its noise has
the measured form var = a + b * level: `a` from the amplifier (`AdditiveNoise`, `SignalToNoise`), `b` from
counting electrons (`GaussianShot`).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, Scalar, SignalStack, as_real, concrete, shown
from eclipsjax.imaging.blur import GaussianBlur, LineDrift, LineJitter, shift_lines
from eclipsjax.imaging.noise import (
    AdditiveNoise as AdditiveNoise,
    GaussianShot as GaussianShot,
    PoissonShot as PoissonShot,
    SignalToNoise as SignalToNoise,
)
from eclipsjax.instrument.microscope import Beam, Microscope
from eclipsjax.specimen.surface import check_pixel_size

AnyShape = Float[Array | np.ndarray, "..."]

ELECTRONS_PER_NA_US = 1e-15 / 1.602176634e-19


def _optional_real(value: Any) -> Array | None:
    return None if value is None else as_real(value)


def primary_dose(beam: Beam) -> Scalar:
    """Primary electrons per pixel: current_na * dwell_us * 6241.509. Gradient: exact."""
    return beam.current_na * beam.dwell_us * ELECTRONS_PER_NA_US


class Camera(eqx.Module):
    """What happens between the electrons and the file. Every part is a choice; left out, it does not happen.

    - `counts_per_signal`: grey levels per unit of (signal * gain); 1 where left out, and needed with `bits`.
    - `blur`, `jitter`, `drift`: the spot's size and the scan's errors, from `imaging/blur.py`.
    - `shot`: `GaussianShot()` or `PoissonShot()`. `additive`: `AdditiveNoise(std)` or `SignalToNoise(ratio)`.
    - `bits` (static): 8 or 16: whole grey levels 0 to 2**bits - 1, the rest clipped; None: as computed.

    Gradient: exact in every number with `bits=None` (but see `PoissonShot`); zero with 8 or 16 bits.
    """

    counts_per_signal: Scalar | None = eqx.field(converter=_optional_real, default=None)
    blur: GaussianBlur | None = None
    jitter: LineJitter | None = None
    drift: LineDrift | None = None
    shot: GaussianShot | PoissonShot | None = None
    additive: AdditiveNoise | SignalToNoise | None = None
    bits: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if self.bits not in (None, 8, 16):
            raise InputError(
                f"bits is {self.bits}: give 8, 16, or None for values that are neither rounded nor clipped."
            )
        if self.counts_per_signal is None:
            if self.bits is not None:
                raise InputError(
                    f"bits is {self.bits} but counts_per_signal is missing: say how many grey levels a "
                    "signal of 1 makes; exposure(signal, scope) finds a number."
                )
            return
        counts = concrete(self.counts_per_signal)
        if counts is not None and not (np.isfinite(counts) and counts > 0):
            raise InputError(f"counts_per_signal is {counts}: give a positive number of grey levels.")

    @classmethod
    def measured(cls, counts_per_signal: float | Array = 1200.0, bits: int | None = 8) -> Camera:
        """The noise of real segment images (0.525 nA, 20 us, 7 kV): amplifier noise at S/N 12 in grey levels,
        0.065 of its variance common to all segments, counting noise for a yield of 0.3. Gradient: as above.
        """
        return cls(counts_per_signal, shot=GaussianShot(0.3), additive=SignalToNoise(12.0, 0.065), bits=bits)

    @property
    def is_random(self) -> bool:
        """Whether recording draws random numbers, and so needs a key."""
        return not (self.jitter is None and self.shot is None and self.additive is None)


class Recorded(eqx.Module):
    """Images and what the grey range cut off.

    - `images`: `(segment, y, x)`, grey levels (whole numbers where the camera has bits) as floating-point
      numbers, so that differences of channels do not wrap around.
    - `clipped_low`, `clipped_high`: `(segment,)` share of pixels below grey level 0 or above the highest.

    Gradient: as `record_with_clipping`.
    """

    images: SignalStack
    clipped_low: PerSegment
    clipped_high: PerSegment


def record(
    signal: AnyShape,
    scope: Microscope,
    key: Any = None,
    camera: Camera | None = None,
    pixel_size_nm: Any = None,
    yield_map: Any = None,
) -> SignalStack:
    """What the microscope would store: counts_per_signal * gain * (level - pedestal).

    The level is yield * signal, then blurred, displaced line by line, and noisy.

    **Arguments:**

    - `signal`: `(segment, y, x)`, fraction of the emitted electrons each segment collects.
    - `scope`: its beam gives dose and probe, its segments gain and pedestal.
    - `key`: a `jax.random` key, needed wherever the camera draws random numbers.
    - `camera`: by default noise as measured (`Camera.measured(1.0, bits=None)`) where a key is given and none
      at all (`Camera()`) where not; values then are in units of the signal.
    - `pixel_size_nm`: scalar, nm; needed by `camera.blur`.
    - `yield_map`: scalar or `(y, x)`: backscattered per primary electron, or relative (1, the default).

    Returns `(segment, y, x)` in the signal's precision. `record_with_clipping` also counts what was clipped.
    Gradient: exact in signal, scope, camera, pixel size and yield with `bits=None`; zero where rounded.
    """
    return record_with_clipping(signal, scope, key, camera, pixel_size_nm, yield_map).images


def record_with_clipping(
    signal: AnyShape,
    scope: Microscope,
    key: Any = None,
    camera: Camera | None = None,
    pixel_size_nm: Any = None,
    yield_map: Any = None,
) -> Recorded:
    """As `record`, with the share of clipped pixels per segment. Gradient: as `record`; zero in shares."""
    signal = as_real(signal, "signal")
    if camera is None:
        camera = Camera() if key is None else Camera.measured(1.0, bits=None)
    _check_signal(signal, scope, yield_map)
    if camera.is_random and key is None:
        raise InputError("the camera draws random numbers (jitter, shot, additive) but key is missing: give one.")
    if key is not None:
        _check_key(key)
    if camera.blur is not None and pixel_size_nm is None:
        raise InputError("camera.blur is in nanometres but pixel_size_nm is missing: give the nanometres per pixel.")
    if pixel_size_nm is not None:
        check_pixel_size(pixel_size_nm)
    numbers = (scope, camera, _optional_real(pixel_size_nm), as_real(1.0 if yield_map is None else yield_map))
    return _record(signal, key, *jax.tree.map(lambda leaf: leaf.astype(signal.dtype), numbers))


@jax.jit
def _record(signal, key, scope, camera, pixel_size_nm, yield_map) -> Recorded:
    segments = scope.detector.segments
    level = signal * jnp.broadcast_to(yield_map, signal.shape)
    if camera.blur is not None:
        level = camera.blur(level, scope.beam.probe_fwhm_nm, pixel_size_nm)
    level = _displace(level, camera, key)
    if camera.shot is not None:
        level = camera.shot(level, primary_dose(scope.beam), jax.random.fold_in(key, 1))
    if camera.additive is not None:
        level = level + _amplifier(level, camera.additive, segments.pedestal, jax.random.fold_in(key, 2))
    counts = _per_channel(segments.gain) * (level - _per_channel(segments.pedestal))
    if camera.counts_per_signal is not None:
        counts = camera.counts_per_signal * counts
    if camera.bits is None:
        none = jnp.zeros(signal.shape[0], signal.dtype)
        return Recorded(counts, none, none)
    highest = 2**camera.bits - 1
    grey = jnp.round(counts)
    low, high = (jnp.mean(outside.astype(signal.dtype), axis=(1, 2)) for outside in (grey < 0, grey > highest))
    return Recorded(jnp.clip(grey, 0, highest), low, high)


def _displace(level: Array, camera: Camera, key: Any) -> Array:
    """One scan makes all segments' images, so they share their line shifts."""
    lines = level.shape[-2]
    shifts = [] if camera.drift is None else [camera.drift.shifts(lines)]
    if camera.jitter is not None:
        shifts.append(camera.jitter.shifts(lines, jax.random.fold_in(key, 0)))
    return shift_lines(level, sum(shifts[1:], shifts[0])) if shifts else level


def _amplifier(level: Array, noise: AdditiveNoise | SignalToNoise, pedestal: Array, key: Array) -> Array:
    deviates = jax.random.normal(key, (level.shape[0] + 1, *level.shape[1:]), level.dtype)
    std = _per_channel(noise.deviation(level, pedestal))
    # Weights of own and common part; the square root's slope at 0 is infinite, so 0 goes around it.
    own, common = (
        jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1.0)), 0.0) for v in (1.0 - noise.common, noise.common)
    )
    return std * (own * deviates[:-1] + common * deviates[-1:])


def _per_channel(values: Array) -> Array:
    return values[:, None, None]


def _check_signal(signal: Array, scope: Microscope, yield_map: Any) -> None:
    count = scope.detector.segments.count
    if signal.ndim != 3 or signal.shape[0] != count or signal.size == 0:
        raise InputError(f"signal has shape {signal.shape}: give (segment, y, x) with the scope's {count} segments.")
    if not _is_finite(signal):
        raise InputError("signal holds values that are not finite: look for what made them (render gives finite ones).")
    if yield_map is not None:
        check_yield(as_real(yield_map, "yield_map"), signal.shape[1:])


def check_yield(yield_map: Array, shape: tuple[int, ...]) -> None:
    """Raise `InputError` unless `yield_map` is one number, or a map of `shape`, of at least 0 and finite."""
    if yield_map.shape not in ((), shape):
        raise InputError(
            f"yield_map has shape {yield_map.shape}: give one number or a map of the image's shape {shape}."
        )
    values = concrete(yield_map)
    if values is not None and not (np.isfinite(values) & (values >= 0)).all():
        wrong = values[~(np.isfinite(values) & (values >= 0))].flat[0]
        raise InputError(f"yield_map holds {wrong:g}: a yield is a finite number of at least 0.")


def _is_finite(values: Array) -> bool:
    """Whether all are, or nobody can know; found where the array lives, so that only the answer travels."""
    finite = concrete(jnp.isfinite(values).all())
    return finite is None or bool(finite)


def _check_key(key: Any) -> None:
    dtype, shape = getattr(key, "dtype", None), jnp.shape(key) if hasattr(key, "shape") else None
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    raw = dtype is not None and not typed and dtype == np.uint32 and shape is not None and len(shape) == 1
    if not (typed or raw):
        raise InputError(f"key is {shown(key)}: give one key of JAX's, jax.random.key(0) or any other seed.")


def exposure(
    signal: AnyShape,
    scope: Microscope,
    bits: int = 8,
    target: float | Array = 0.5,
    yield_map: Any = None,
) -> Scalar:
    """The `counts_per_signal` that puts the mean of all channels at `target`, a share of the grey range.

    What an operator does with the contrast knob; the pedestals stay as they are. `bits` is 8 or 16, `target` above
    0 and up to 1. Gradient: exact.
    """
    if bits not in (8, 16):
        raise InputError(f"bits is {shown(bits)}: give 8 or 16, as in Camera.")
    target = as_real(target, "target")
    wanted = concrete(target)
    if wanted is not None and not (wanted.ndim == 0 and 0 < wanted <= 1):
        raise InputError(f"target is {wanted}: give the mean as a share of the grey range, above 0 and up to 1.")
    signal = as_real(signal, "signal")
    _check_signal(signal, scope, yield_map)
    gain, pedestal = (v.astype(signal.dtype) for v in (scope.detector.segments.gain, scope.detector.segments.pedestal))
    level = signal * jnp.broadcast_to(
        as_real(1.0 if yield_map is None else yield_map).astype(signal.dtype), signal.shape
    )
    mean = jnp.mean(_per_channel(gain) * (level - _per_channel(pedestal)))
    average = concrete(mean)
    if average is not None and not average > 0:
        raise InputError(
            f"gain * (signal - pedestal) averages {average:g}: nothing is brighter than its pedestal; "
            "lower detector.segments.pedestal, or give a positive detector.segments.gain."
        )
    return target.astype(mean.dtype) * (2**bits - 1) / mean
