"""The instrument's numbers from frames of what is known: nothing, a level plane, a shape.

Every frame predicts its grey levels from the numbers; Gauss-Newton least squares with what is known beforehand finds
the numbers and their covariance. A dark frame gives pedestals, a flat field gains. A wide flat field alone gives both,
and the slope's scale: a pixel off the axis sees the detector from another place, by geometry that is known, so that a
level specimen looks like a dome of known radius (D J / 4 K).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Scalar, SignalStack, as_real, shown
from eclipsjax.imaging.bsesm import NARROW_UM, render
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibration import Calibration, calibrated
from eclipsjax.inverse.measurement import check_images, detail_noise
from eclipsjax.inverse.uncertain import Instrument, Model
from eclipsjax.specimen.emission import EmissionLaw
from eclipsjax.specimen.horizon import HardHorizon, NoRelief
from eclipsjax.specimen.surface import Surface, check_pixel_size

_ROUNDS, _AZIMUTHS = 12, 64
# A flat field is compared in so many blocks along each side; a share of its mean below which noise is not believed.
_BLOCKS, _LEAST_NOISE = 24, 1e-4
# A dark frame with more of its pixels at one extreme says nothing of its mean.
_MOST_CUT = 0.02
# Wide enough to leave everything to the frames: gains and pedestals as shares of themselves and of the flat signal.
_WIDE_GAIN, _WIDE_PEDESTAL = 1.0, 1.0


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

    pixel_size_nm: Scalar = eqx.field(converter=lambda v: as_real(v, "pixel_size_nm"))
    tilt_std_deg: Scalar = eqx.field(converter=lambda v: as_real(v, "tilt_std_deg"), default=0.1)

    @property
    def own(self) -> int:
        """Two tilts, where they are not known."""
        return 2 if float(self.tilt_std_deg) > 0 else 0

    @property
    def field_mm(self) -> tuple[float, float]:
        """Width and height of the field of view, mm."""
        rows, columns = self.images.shape[1:]
        return tuple(n * float(self.pixel_size_nm) * 1e-6 for n in (columns, rows))

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
            slopes = jnp.tan(jnp.deg2rad(self.tilt_std_deg.astype(dtype) * numbers))
        width, height = self.field_mm
        is_wide = max(width, height) > 1e-3 * NARROW_UM
        table = acceptance(model.scope, field_mm=(width, height) if is_wide else None, field=NoField())
        if is_wide:
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
    offset_std_px: Scalar = eqx.field(converter=lambda v: as_real(v, "offset_std_px"), default=0.5)

    @property
    def own(self) -> int:
        """Two shifts, where they are not known, and the brightness."""
        return 3 if float(self.offset_std_px) > 0 else 1

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
        table = acceptance(model.scope, field=NoField())
        radius = int(np.ptp(np.asarray(self.surface.height_nm)) / float(self.surface.pixel_size_nm) * 2.0) + 2
        horizon = HardHorizon(radius_px=min(radius, 256))
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
    _check_frames(frames, scope)
    scope = _roughly_scaled(scope, frames, emission)
    uncertain = _with_amplifier(scope, dict(uncertain or {}))
    instrument = Instrument.of(scope, uncertain, emission=emission)
    observed = [frame.observed() for frame in frames]
    values = jnp.concatenate([value.ravel() for value, _ in observed])
    inverse = 1.0 / jnp.concatenate([std.ravel() for _, std in observed])
    own = [frame.own for frame in frames]
    count = len(instrument.names)

    def residual(unknowns):
        model = instrument.shifted(unknowns[:count])
        parts, first = [], count
        for frame, size in zip(frames, own, strict=True):
            parts.append(frame.predicted(model, unknowns[first : first + size]).ravel())
            first += size
        return (jnp.concatenate(parts) - values) * inverse

    unknowns, covariance, chi_square = _gauss_newton(residual, jnp.zeros(count + sum(own), values.dtype))
    return calibrated(instrument, unknowns[:count], covariance[:count, :count], chi_square)


def _gauss_newton(residual: Any, start: Array) -> tuple[Array, Array, Array]:
    """Least squares of `residual` and of the unknowns themselves; stops when steps are small beside their errors."""
    value_and_jacobian = jax.jit(lambda v: (residual(v), jax.jacfwd(residual)(v)))
    value = jax.jit(lambda v: jnp.sum(residual(v) ** 2) + jnp.sum(v**2))
    unknowns, eye = start, jnp.eye(start.size, dtype=start.dtype)
    best = float(value(unknowns))
    for _ in range(_ROUNDS):
        left, jacobian = value_and_jacobian(unknowns)
        covariance = jnp.linalg.inv(jacobian.T @ jacobian + eye)
        step = -covariance @ (jacobian.T @ left + unknowns)
        length = 1.0
        while length > 1e-3 and not (new := float(value(unknowns + length * step))) <= best * (1 + 1e-6):
            length *= 0.3
        if length <= 1e-3:
            break
        unknowns, best = unknowns + length * step, new
        if float(jnp.max(jnp.abs(step) / jnp.sqrt(jnp.diag(covariance)))) < 1e-2:
            break
    left, jacobian = value_and_jacobian(unknowns)
    information = jacobian.T @ jacobian
    covariance = jnp.linalg.inv(information + eye)
    freedom = max(left.size - float(jnp.trace(covariance @ information)), 1.0)
    return unknowns, covariance, jnp.sum(left**2) / freedom


def _block_means(images: SignalStack, down: int, across: int) -> tuple[Float[Array, "segment d a"], Array]:
    """Means of equal blocks and their standard deviations; rows and columns beyond whole blocks are left out evenly."""
    segments, rows, columns = images.shape
    high, wide = rows // down, columns // across
    top, left = (rows - high * down) // 2, (columns - wide * across) // 2
    whole = images[:, top : top + high * down, left : left + wide * across]
    means = jnp.mean(whole.reshape(segments, down, high, across, wide), axis=(2, 4))
    noise = jnp.maximum(detail_noise(images), _LEAST_NOISE * jnp.mean(jnp.abs(images), axis=(1, 2)))
    return means, jnp.broadcast_to((noise / np.sqrt(high * wide))[:, None, None], means.shape)


def flat_signal(scope: Microscope, emission: EmissionLaw | None) -> np.ndarray:
    """Signal of a level pixel in every segment."""
    level = jnp.zeros((1, 1))
    table = acceptance(scope)
    return np.asarray(render(Facets.isolated(level, level), table, _AZIMUTHS, None, emission, NoRelief())[:, 0, 0])


def _roughly_scaled(scope: Microscope, frames: tuple[Frame, ...], emission: EmissionLaw | None) -> Microscope:
    """Gains of the right size to start from: grey levels per unit of signal."""
    lit = [frame for frame in frames if not isinstance(frame, Dark)]
    if not lit:
        return scope
    signal = flat_signal(scope, emission)
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


def _with_amplifier(scope: Microscope, uncertain: dict[str, float]) -> dict[str, float]:
    """`uncertain` with gains and pedestals of which nothing is known beforehand, unless it says so."""
    stems = {name.split("[")[0] for name in uncertain}
    gain, pedestal = "detector.segments.gain", "detector.segments.pedestal"
    if gain not in stems:
        uncertain[gain] = _WIDE_GAIN * float(np.mean(np.asarray(scope.detector.segments.gain)))
    if pedestal not in stems:
        uncertain[pedestal] = _WIDE_PEDESTAL * float(np.mean(flat_signal(scope, None)))
    return uncertain


def _check_frames(frames: tuple[Frame, ...], scope: Microscope) -> None:
    if not frames or not all(isinstance(frame, Frame) for frame in frames):
        raise InputError(f"frames is {shown(frames)}: give Dark, Flat or Shape frames, at least one.")
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
