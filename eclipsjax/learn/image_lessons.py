"""Lessons for the normal network: random reliefs in random microscopes, recorded as a user's images are.

The microscope that the lesson hands on is the one its owner believes in; the images come from one that is a little
otherwise, half of the time: gains, pedestals, distance, azimuths and centring are off.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from eclipsjax._types import Map
from eclipsjax.imaging.blur import GaussianBlur
from eclipsjax.imaging.bsesm import flat_signal, render
from eclipsjax.imaging.camera import Camera, SignalToNoise, exposure, record
from eclipsjax.instrument.acceptance import AcceptanceTable, NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.measurement import Measurement, measure
from eclipsjax.nn.unet import LEAST_RATIO
from eclipsjax.specimen.emission import ForwardLobe
from eclipsjax.specimen.horizon import HardHorizon
from eclipsjax.specimen.surface import Surface

# Directions of the exact simulator, and how far it looks, pixels.
_AZIMUTHS, _RADIUS_PX = 48, 64
# S/N of the stored images, log-uniform; the largest pedestal, over the signal of level ground.
_RATIOS, _PEDESTAL = (LEAST_RATIO, 100.0), 0.6
# Largest errors of what is believed: gains, pedestals (of level ground), distance, azimuths (deg), centring (mm).
_GAIN_OFF, _PEDESTAL_OFF, _DISTANCE_OFF, _TURN_OFF_DEG, _CENTRE_OFF_MM = 0.05, 0.02, 0.1, 5.0, 0.3
# Widest blur, standard deviation in pixels; largest share of the forward lobe, which half have.
_BLUR_PX, _LOBE = 0.7, 0.1


class ImageLesson(eqx.Module):
    """What was measured, what the microscope's owner believes to accept which directions, and the true slopes."""

    measurement: Measurement
    table: AcceptanceTable
    slope_x: Map
    slope_y: Map


@partial(jax.jit, static_argnames="segments")
def image_lessons(heights: Array, key: Array, segments: int) -> ImageLesson:
    """Of a batch of reliefs `(b, y, x)`, in pixels, with so many segments."""
    keys = jax.random.split(key, heights.shape[0])
    return jax.vmap(partial(_lesson, segments=segments))(heights, keys)


def _lesson(height: Map, key: Array, segments: int) -> ImageLesson:
    k = jax.random.split(key, 6)
    believed, true = _microscopes(k[0], segments)
    surface = Surface(height, jnp.ones((), height.dtype))
    emission = ForwardLobe(jnp.maximum(_LOBE * jax.random.uniform(k[1], minval=-1.0), 0.0))
    table = acceptance(true, field=NoField())
    signal = render(surface, table, _AZIMUTHS, emission=emission, horizon=HardHorizon(radius_px=_RADIUS_PX))
    ratio = _RATIOS[0] * (_RATIOS[1] / _RATIOS[0]) ** jax.random.uniform(k[2])
    blur = GaussianBlur(_BLUR_PX * jax.random.uniform(k[3]))
    counts = exposure(signal, true, target=0.45)
    camera = Camera(counts, blur=blur, additive=SignalToNoise(ratio, 0.065), bits=8)
    images = record(signal, true, k[4], camera, pixel_size_nm=1.0)
    measurement = measure(images, believed, Camera(counts, bits=8))
    return ImageLesson(measurement, acceptance(believed, field=NoField()), *surface.slopes())


def _microscopes(key: Array, segments: int) -> tuple[Microscope, Microscope]:
    """As its owner believes, and as it is. Rims lie 4 to 62 degrees off the axis."""
    k = jax.random.split(key, 12)
    distance, inner, outer, turned, pedestal, trust = (jax.random.uniform(each) for each in k[:6])
    distance_mm = 4.0 + 5.0 * distance
    inner_mm = distance_mm * jnp.tan(jnp.deg2rad(4.0 + 16.0 * inner))
    outer_mm = distance_mm * jnp.tan(jnp.deg2rad(32.0 + 30.0 * outer))

    def annular(distance_mm, start_deg):
        return Microscope.annular(
            segments,
            inner_radius_mm=inner_mm,
            outer_radius_mm=outer_mm,
            distance_mm=distance_mm,
            start_deg=start_deg,
            probe_fwhm_nm=0.01,
        )

    believed = annular(distance_mm, 360.0 * turned)
    flat = flat_signal(acceptance(believed, field=NoField()))
    pedestals = _PEDESTAL * pedestal * flat
    believed = _with(believed, jnp.ones(segments), pedestals)
    wrong = jnp.where(trust < 0.5, 0.0, 2.0 * trust - 1.0)
    off = lambda key, shape=(): wrong * jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)  # noqa: E731
    true = annular(distance_mm * (1.0 + _DISTANCE_OFF * off(k[6])), 360.0 * turned + _TURN_OFF_DEG * off(k[7]))
    true = _with(
        true, 1.0 + _GAIN_OFF * off(k[8], (segments,)), pedestals + _PEDESTAL_OFF * flat * off(k[9], (segments,))
    )
    centre = _CENTRE_OFF_MM * off(k[10], (2,))
    where = lambda m: (m.detector.offset_x_mm, m.detector.offset_y_mm)  # noqa: E731
    return believed, eqx.tree_at(where, true, (centre[0], centre[1]))


def _with(scope: Microscope, gain: Array, pedestal: Array) -> Microscope:
    return eqx.tree_at(lambda m: (m.detector.segments.gain, m.detector.segments.pedestal), scope, (gain, pedestal))
