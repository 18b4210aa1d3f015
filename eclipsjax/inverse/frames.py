"""Frames of what is known, to calibrate from: nothing (the beam blanked), a level plane, a shape.

Every frame predicts its grey levels from the instrument's numbers.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, SignalStack, as_real
from eclipsjax.imaging.bsesm import render, wide_field_mm
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.measurement import check_images, detail_noise
from eclipsjax.inverse.uncertain import Model
from eclipsjax.specimen.horizon import HardHorizon, NoRelief
from eclipsjax.specimen.surface import Surface, check_pixel_size

_AZIMUTHS = 64
# How far relief is searched for what hides the detector: pixels per pixel of height (detectors 63 deg wide), and most.
_STEEPEST_VIEW, _FARTHEST_PX = 2.0, 256
# A flat field is compared in so many blocks along each side; a share of its mean below which noise is not believed.
_BLOCKS, _LEAST_NOISE = 24, 1e-4
# A dark frame with more of its pixels at one extreme says nothing of its mean.
_MOST_CUT = 0.02


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

    def check(self, scope: Microscope) -> None:
        """Raise `InputError` for images that cannot be what they are said to be."""
        check_images(self.images, scope)

    def noise(self) -> Float[Array, "segment"]:
        """Standard deviation of a grey value in every channel. Gradient: that of `detail_noise`."""
        return jnp.maximum(detail_noise(self.images), _LEAST_NOISE * jnp.mean(jnp.abs(self.images), axis=(1, 2)))

    def _block_means(self, down: int, across: int) -> tuple[Float[Array, "segment d a"], Array]:
        """Means of equal blocks and their deviations; rows and columns beyond whole blocks are left out evenly."""
        segments, rows, columns = self.images.shape
        high, wide = rows // down, columns // across
        top, left = (rows - high * down) // 2, (columns - wide * across) // 2
        whole = self.images[:, top : top + high * down, left : left + wide * across]
        means = jnp.mean(whole.reshape(segments, down, high, across, wide), axis=(2, 4))
        return means, jnp.broadcast_to((self.noise() / np.sqrt(high * wide))[:, None, None], means.shape)


class Dark(Frame):
    """The beam blanked: grey = -gain * pedestal."""

    def observed(self) -> tuple[Array, Array]:
        """Mean of every channel. Gradient: exact."""
        return self._block_means(1, 1)

    def predicted(self, model: Model, numbers: Array) -> Array:
        """Gradient: exact."""
        segments = model.scope.detector.segments
        return (-segments.gain * segments.pedestal)[:, None, None]

    def check(self, scope: Microscope) -> None:
        """Besides: a frame that the grey range cut off has a mean that means nothing."""
        super().check(scope)
        images = np.asarray(self.images)
        for k, name in enumerate(scope.detector.segments.names):
            cut = (images[k] <= 0).mean()
            if cut > _MOST_CUT and images[k].min() == 0:
                raise InputError(
                    f"the dark frame of segment {name} is 0 at {cut:.0%} of its pixels: it is cut off at black, so "
                    "raise the brightness until noise shows, and record all frames at that setting."
                )


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

    def check(self, scope: Microscope) -> None:
        """Besides: the size of a pixel."""
        super().check(scope)
        check_pixel_size(self.pixel_size_nm)

    def observed(self) -> tuple[Array, Array]:
        """Means of blocks, `(segment, down, across)`. Gradient: exact."""
        return self._block_means(*self._blocks())

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
        return _stored(render(plane, table, _AZIMUTHS, None, model.emission, NoRelief()), model)

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
        return self.images, jnp.broadcast_to(self.noise()[:, None, None], self.images.shape)

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
        return _stored(jnp.exp(numbers[0]) * signal, model)

    def check(self, scope: Microscope) -> None:
        """Besides: heights where the images are."""
        super().check(scope)
        if self.surface.height_nm.shape != self.images.shape[1:]:
            raise InputError(
                f"the shape has {self.surface.height_nm.shape} heights but its images {self.images.shape[1:]} pixels: "
                "give heights on the images' own pixels."
            )


def _stored(level: SignalStack, model: Model) -> SignalStack:
    """Grey values of levels: gain * (level - pedestal)."""
    segments = model.scope.detector.segments
    return segments.gain[:, None, None] * (level - segments.pedestal[:, None, None])
