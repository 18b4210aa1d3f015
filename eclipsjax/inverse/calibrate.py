"""The instrument's numbers from frames of what is known: nothing, a level plane, a shape.

Every frame predicts its grey levels from the numbers; Gauss-Newton least squares with what is known beforehand finds
the numbers and their covariance. A dark frame gives pedestals, a flat field gains. A wide flat field alone gives both,
and the slope's scale: a pixel off the axis sees the detector from another place, by geometry that is known, so that a
level specimen looks like a dome of known radius (D J / 4 K).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, SignalStack, as_real, shown
from eclipsjax.imaging.bsesm import flat_signal, render, wide_field_mm
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibration import Calibration, calibrated
from eclipsjax.inverse.measurement import check_images, detail_noise, typical_counts
from eclipsjax.inverse.pipeline import reconstruct
from eclipsjax.inverse.reconstruction import Reconstruction
from eclipsjax.inverse.refine import Progress, Refined
from eclipsjax.inverse.uncertain import AZIMUTH, Instrument, Model
from eclipsjax.specimen.emission import EmissionLaw
from eclipsjax.specimen.horizon import HardHorizon, NoRelief
from eclipsjax.specimen.surface import Surface, check_pixel_size

_ROUNDS, _AZIMUTHS = 12, 64
# How far relief is searched for what hides the detector: pixels per pixel of height (detectors 63 deg wide), and most.
_STEEPEST_VIEW, _FARTHEST_PX = 2.0, 256
# A flat field is compared in so many blocks along each side; a share of its mean below which noise is not believed.
_BLOCKS, _LEAST_NOISE = 24, 1e-4
# A dark frame with more of its pixels at one extreme says nothing of its mean.
_MOST_CUT = 0.02
# Wide enough to leave everything to the frames: gains and pedestals as shares of themselves and of the flat signal.
_WIDE_GAIN, _WIDE_PEDESTAL = 1.0, 1.0
# What is believed of a microscope when nothing but images is at hand: likewise, and deg. Most steps with those.
_LIKELY_GAIN, _LIKELY_PEDESTAL, _LIKELY_AZIMUTH_DEG, _STEPS = 0.05, 0.2, 5.0, 80
_GAIN, _PEDESTAL = "detector.segments.gain", "detector.segments.pedestal"


class Frame(eqx.Module):
    """Segment images `(segment, y, x)` of something known, grey levels as stored."""

    images: SignalStack = eqx.field(converter=lambda v: as_real(v, "images"))

    @abc.abstractmethod
    def observed(self) -> tuple[Array, Array]:
        """Grey values `(segment, ...)` to compare, and their standard deviations."""

    @abc.abstractmethod
    def predicted(self, model: Model, numbers: Array) -> Array:
        """The same values by the model; `numbers` are the frame's own unknowns, in units of their deviations."""

    @property
    def own(self) -> int:
        """How many unknowns the frame brings along."""
        return 0


class Dark(Frame):
    """The beam blanked: grey = -gain * pedestal."""

    def observed(self) -> tuple[Array, Array]:
        """Mean of every channel. Gradient: exact."""
        return _block_means(self.images, 1, 1)

    def predicted(self, model: Model, numbers: Array) -> Array:
        """Gradient: exact."""
        segments = model.scope.detector.segments
        return (-segments.gain * segments.pedestal)[:, None, None]


class Flat(Frame):
    """A level specimen of one material without relief: grey = gain * (signal - pedestal).

    Its yield is what the gains then refer to.

    - `pixel_size_nm`: nm; a field wider than 10 um is followed across.
    - `tilt_std_deg`: how level it is: standard deviation of its tilt about either axis, deg; solved along.
    """

    pixel_size_nm: float = eqx.field(static=True, converter=float)
    tilt_std_deg: float = eqx.field(static=True, converter=float, default=0.1)

    @property
    def own(self) -> int:
        """Two tilts, where they are not known."""
        return 2 if self.tilt_std_deg > 0 else 0

    def observed(self) -> tuple[Array, Array]:
        """Means of blocks, `(segment, down, across)`. Gradient: exact."""
        down, across = self._blocks()
        return _block_means(self.images, down, across)

    def predicted(self, model: Model, numbers: Array) -> Array:
        """Gradient: exact."""
        down, across = self._blocks()
        dtype = model.scope.detector.distance_mm.dtype
        slopes = jnp.zeros(2, dtype)
        if self.own:
            slopes = jnp.tan(jnp.deg2rad(self.tilt_std_deg * numbers.astype(dtype)))
        field_mm = wide_field_mm(self.images.shape[1:], self.pixel_size_nm)
        table = acceptance(model.scope, field_mm=field_mm, field=NoField())
        if field_mm is not None:
            # Blocks are rendered as pixels of 1 mm: the field spans as many of them as fit into the image.
            rows, columns = self.images.shape[1:]
            spans = jnp.array([columns / (columns // across), rows / (rows // down)], dtype)
            table = eqx.tree_at(lambda t: t.field_mm, table, spans)
        flat = jnp.zeros((down, across), dtype)
        plane = Facets(flat, jnp.asarray(1e6, dtype), flat + slopes[0], flat + slopes[1])
        segments = model.scope.detector.segments
        signal = render(plane, table, _AZIMUTHS, None, model.emission, NoRelief())
        return segments.gain[:, None, None] * (signal - segments.pedestal[:, None, None])

    def _blocks(self) -> tuple[int, int]:
        return tuple(min(_BLOCKS, n) for n in self.images.shape[1:])


class Shape(Frame):
    """A known relief, such as an imprint, a sphere or a grating, of the flat's material: pixel by pixel.

    - `surface`: `(y, x)` heights in nm where the images are.
    - `offset_std_px`: how well its place is known: standard deviation of a shift along x and y, pixels; solved along.
    """

    surface: Surface
    offset_std_px: float = eqx.field(static=True)
    field_mm: tuple[float, float] | None = eqx.field(static=True)
    radius_px: int = eqx.field(static=True)

    def __init__(self, images: Any, surface: Surface, offset_std_px: float = 0.5):
        self.images, self.surface, self.offset_std_px = images, surface, float(offset_std_px)
        pixel = float(surface.pixel_size_nm)
        self.field_mm = wide_field_mm(surface.height_nm.shape, pixel)
        self.radius_px = min(int(np.ptp(np.asarray(surface.height_nm)) / pixel * _STEEPEST_VIEW) + 2, _FARTHEST_PX)

    @property
    def own(self) -> int:
        """Two shifts, where they are not known, and the brightness."""
        return 3 if self.offset_std_px > 0 else 1

    def observed(self) -> tuple[Array, Array]:
        """Every pixel. Gradient: exact."""
        noise = jnp.maximum(detail_noise(self.images), _LEAST_NOISE * jnp.mean(jnp.abs(self.images), axis=(1, 2)))
        return self.images, jnp.broadcast_to(noise[:, None, None], self.images.shape)

    def predicted(self, model: Model, numbers: Array) -> Array:
        """Gradient: exact."""
        height = self.surface.height_nm
        if self.own > 1:
            slope_x, slope_y = self.surface.slopes()
            shift = self.offset_std_px * numbers[1:] * self.surface.pixel_size_nm
            height = height - shift[0].astype(height.dtype) * slope_x - shift[1].astype(height.dtype) * slope_y
        surface = Surface(height, self.surface.pixel_size_nm)
        table = acceptance(model.scope, field_mm=self.field_mm, field=NoField())
        horizon = HardHorizon(radius_px=self.radius_px)
        signal = render(surface, table, _AZIMUTHS, None, model.emission, horizon)
        segments = model.scope.detector.segments
        brightness = jnp.exp(numbers[0])
        return segments.gain[:, None, None] * (brightness * signal - segments.pedestal[:, None, None])


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
    stems = {name.split("[")[0] for name in uncertain}
    _check_frames(frames, scope, _GAIN in stems)
    if _GAIN not in stems:
        scope = _roughly_scaled(scope, frames, emission)
    uncertain = _with_amplifier(scope, uncertain, stems)
    instrument = Instrument.of(scope, uncertain, emission=emission)
    problem = _Problem(instrument, frames, [frame.observed() for frame in frames])
    unknowns, covariance, chi_square = _gauss_newton(problem)
    count = len(instrument.names)
    return calibrated(instrument, unknowns[:count], covariance[:count, :count], chi_square)


def calibrate_from_images(
    images: Any,
    pixel_size_nm: Any,
    scope: Microscope,
    uncertain: Mapping[str, float] | None = None,
    emission: EmissionLaw | None = None,
    grey_range: tuple[float | None, float | None] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Reconstruction:
    """Numbers of the microscope from images of an unknown relief, jointly with its heights.

    - `images`, `pixel_size_nm`, `scope`, `emission`, `grey_range`, `report`: as in `reconstruct`. Gains come out in
      grey levels per signal of this specimen's material, whatever those of `scope` are in.
    - `uncertain`: numbers to solve for, dotted name -> standard deviation beforehand, in the number's unit. Gains,
      pedestals (20 % of the flat signal) and azimuths (5 deg) are always among them, unless given here. Gains start
      from a specimen that is level on average, known within 5 % besides the pedestals; where they are given here, from
      how those of `scope` compare.

    Returns a `Reconstruction`: its `calibration` holds the numbers; heights come without standard deviations.
    Gradient: none (a search).
    """
    given = dict(uncertain or {})
    stems = {name.split("[")[0] for name in given}
    segments, flat = scope.detector.segments, flat_signal(acceptance(scope), emission)
    if _GAIN in stems:
        gain = segments.gain * typical_counts(images, scope, emission).astype(segments.gain.dtype)
    else:
        gain = _level_gains(jnp.mean(check_images(images, scope), axis=(1, 2)), flat, segments.pedestal)
    scope = eqx.tree_at(lambda s: s.detector.segments.gain, scope, gain)
    # The images' means are what is known within 5 %: gains follow the pedestals.
    of_pedestal = _LIKELY_PEDESTAL * float(jnp.mean(flat / (flat - segments.pedestal.astype(flat.dtype))))
    believed = {
        _GAIN: float(np.hypot(_LIKELY_GAIN, of_pedestal) * jnp.mean(gain)),
        _PEDESTAL: _LIKELY_PEDESTAL * float(jnp.mean(flat)),
        AZIMUTH: _LIKELY_AZIMUTH_DEG,
    }
    believed = {name: std for name, std in believed.items() if name not in stems}
    method = Refined(iterations=_STEPS, draws=0, uncertain=believed | given)
    return reconstruct(images, pixel_size_nm, scope, method, None, emission, grey_range, report)


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


def _block_means(images: SignalStack, down: int, across: int) -> tuple[Float[Array, "segment d a"], Array]:
    """Means of equal blocks and their standard deviations; rows and columns beyond whole blocks are left out evenly."""
    segments, rows, columns = images.shape
    high, wide = rows // down, columns // across
    top, left = (rows - high * down) // 2, (columns - wide * across) // 2
    whole = images[:, top : top + high * down, left : left + wide * across]
    means = jnp.mean(whole.reshape(segments, down, high, across, wide), axis=(2, 4))
    noise = jnp.maximum(detail_noise(images), _LEAST_NOISE * jnp.mean(jnp.abs(images), axis=(1, 2)))
    return means, jnp.broadcast_to((noise / np.sqrt(high * wide))[:, None, None], means.shape)


def _level_gains(grey: Array, signal: PerSegment, pedestal: PerSegment) -> PerSegment:
    """Grey levels per signal if every segment's mean `grey` is that of level ground."""
    gain = grey.astype(pedestal.dtype) / (signal.astype(pedestal.dtype) - pedestal)
    if not bool(jnp.all(jnp.isfinite(gain) & (gain > 0))):
        raise InputError(
            f"the images' means are {np.asarray(grey)} and the pedestals {np.asarray(pedestal)}: grey levels must be "
            f"positive and pedestals below the signal of level ground, {np.asarray(signal)}."
        )
    return gain


def _roughly_scaled(scope: Microscope, frames: tuple[Frame, ...], emission: EmissionLaw | None) -> Microscope:
    """Gains of the right size to start from: grey levels per unit of signal."""
    lit = [frame for frame in frames if not isinstance(frame, Dark)]
    if not lit:
        return scope
    signal = np.asarray(flat_signal(acceptance(scope), emission))
    grey = np.asarray(jnp.mean(lit[0].images, axis=(1, 2)))
    dark = next((np.asarray(jnp.mean(f.images, axis=(1, 2))) for f in frames if isinstance(f, Dark)), None)
    segments = scope.detector.segments
    pedestal = np.asarray(segments.pedestal)
    gain = (grey - dark) / signal if dark is not None else grey / (signal - pedestal)
    if not (np.isfinite(gain) & (gain > 0)).all():
        reference = "the pedestals given" if dark is None else "the dark frame"
        raise InputError(
            f"the lit frame's means {grey} are not brighter than {reference}: give frames of one setting of contrast "
            "and brightness."
        )
    pedestal = -dark / gain if dark is not None else pedestal
    return eqx.tree_at(
        lambda s: (s.detector.segments.gain, s.detector.segments.pedestal),
        scope,
        (as_real(gain).astype(segments.gain.dtype), as_real(pedestal).astype(segments.gain.dtype)),
    )


def _with_amplifier(scope: Microscope, uncertain: dict[str, float], stems: set[str]) -> dict[str, float]:
    """`uncertain` with gains and pedestals of which nothing is known beforehand, unless it says so."""
    if _GAIN not in stems:
        uncertain[_GAIN] = _WIDE_GAIN * float(np.mean(np.asarray(scope.detector.segments.gain)))
    if _PEDESTAL not in stems:
        uncertain[_PEDESTAL] = _WIDE_PEDESTAL * float(jnp.mean(flat_signal(acceptance(scope))))
    return uncertain


def _check_frames(frames: tuple[Frame, ...], scope: Microscope, is_gain_known: bool) -> None:
    if not frames or not all(isinstance(frame, Frame) for frame in frames):
        raise InputError(f"frames is {shown(frames)}: give Dark, Flat or Shape frames, at least one.")
    if not is_gain_known and all(isinstance(frame, Dark) for frame in frames):
        raise InputError("dark frames alone tell no gain, and pedestals only in units of it: give a flat field too.")
    if scope.is_biased:
        raise InputError("calibrate does not fly electrons through a field yet: ground specimen and detector.")
    for frame in frames:
        images = check_images(frame.images, scope)
        if isinstance(frame, Dark):
            _check_dark(np.asarray(images), scope)
        if isinstance(frame, Flat):
            check_pixel_size(frame.pixel_size_nm)
        if isinstance(frame, Shape) and frame.surface.height_nm.shape != images.shape[1:]:
            raise InputError(
                f"the shape has {frame.surface.height_nm.shape} heights but its images {images.shape[1:]} pixels: give "
                "heights on the images' own pixels."
            )


def _check_dark(images: np.ndarray, scope: Microscope) -> None:
    """A frame that the grey range cut off has a mean that means nothing."""
    for k, name in enumerate(scope.detector.segments.names):
        cut = (images[k] <= 0).mean()
        if cut > _MOST_CUT and images[k].min() == 0:
            raise InputError(
                f"the dark frame of segment {name} is 0 at {cut:.0%} of its pixels: it is cut off at black, so raise "
                "the brightness until noise shows, and record all frames at that setting."
            )
