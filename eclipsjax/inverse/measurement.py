"""What the images measure: levels (yield * signal) with their noise, and where the grey range cut them off."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from eclipsjax._types import InputError, PerSegment, Scalar, SignalStack, as_real, at_pixels, concrete, shown
from eclipsjax.imaging.bsesm import flat_signal
from eclipsjax.imaging.camera import Camera
from eclipsjax.imaging.fisher import LevelNoise
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import LEAST_SEGMENTS, Microscope
from eclipsjax.specimen.emission import EmissionLaw

# Median of |x| of a normal deviate; noise below which an image is taken as free of it, as a share of its mean level.
MEDIAN_OF_NORMAL, _NOISELESS = 0.6744897501960817, 1e-3
# Noise is read off detail within so many standard deviations, which leaves this share of a normal variance.
_CUT, _CUTS, _LEFT_OF_VARIANCE = 1.5, 12, 0.5515615
# Pixels that may lie at the end of the grey range before a channel says too little.
_MOST_CLIPPED = 0.5


class Measurement(eqx.Module):
    """Levels of all segments, `image / (counts_per_signal * gain) + pedestal`, and what is known of their errors.

    - `level`: `(segment, y, x)`, units of brightness * signal.
    - `noise`: of these levels.
    - `below`, `above`: `(segment, y, x)` true where the image sits at the lowest or highest grey level, so that the
      level is only known to be at most, or at least, the one given.
    - `counts`: `(segment,)` grey levels per unit of level.

    Gradient: exact in `level`.
    """

    level: SignalStack
    noise: LevelNoise
    below: Bool[Array, "segment y x"]
    above: Bool[Array, "segment y x"]
    counts: PerSegment

    @property
    def std(self) -> Float[Array, "segment"]:
        """Standard deviation of each channel's noise, but for the counting of electrons."""
        return jnp.broadcast_to(self.noise.additive_std, self.level.shape[:1]).astype(self.level.dtype)

    @property
    def measured(self) -> Bool[Array, "segment y x"]:
        """Where the level is known and not only bounded."""
        return ~(self.below | self.above)


def measure(
    images: Any,
    scope: Microscope,
    camera: Camera | None = None,
    grey_range: tuple[float | None, float | None] | None = None,
) -> Measurement:
    """The levels behind `images` `(segment, y, x)`: gain and pedestal of `scope` undone, noise estimated or given.

    - `camera`: as in `record`: its `counts_per_signal` (1 unless given: then the scope's gains hold the grey levels),
      its noise, and its `bits`, whose lowest and highest grey level are where the range ends. Noise that it does not
      tell is estimated from the images' finest diagonal detail.
    - `grey_range`: lowest and highest grey level of the digitiser, where that is not 0 and 2**bits - 1 (None: no end).

    Raises `InputError` for images that cannot be read as a measurement. Gradient: exact in images, gain and pedestal
    with the noise held fixed.
    """
    camera = Camera() if camera is None else camera
    if not isinstance(camera, Camera):
        raise InputError(f"camera is {shown(camera)}: give a Camera.")
    images = check_images(images, scope)
    # The scope and the camera may be in another precision than the images.
    scope, camera = jax.tree.map(lambda leaf: leaf.astype(images.dtype), (scope, camera))
    segments = scope.detector.segments
    scale = 1.0 if camera.counts_per_signal is None else camera.counts_per_signal
    counts = scale * segments.gain
    if grey_range is None:
        grey_range = (None, None) if camera.bits is None else (0.0, 2.0**camera.bits - 1.0)
    below, above = _cut_off(images, grey_range)
    _check_channels(images, below | above, segments.names)
    level = images / counts[:, None, None] + segments.pedestal[:, None, None]
    return Measurement(level, _noise(level, counts, scope, camera), below, above, counts)


def typical_counts(images: Any, scope: Microscope, emission: EmissionLaw | None = None) -> Scalar:
    """Grey levels per signal with which `images` `(segment, y, x)` are as bright as level ground by the scope's gains.

    For scopes whose gains only say how segments compare: pedestals are signals, so images need the scale. What it is
    off by is the brightness of the specimen over the one that the pedestals were stated for.
    Gradient: exact.
    """
    images = check_images(images, scope)
    segments = scope.detector.segments
    expected = jnp.mean(segments.gain * (flat_signal(acceptance(scope), emission) - segments.pedestal))
    value, lit = concrete(expected), concrete(jnp.mean(images))
    if value is not None and not value > 0:
        raise InputError(
            "detector.segments.pedestal is as large as the signal of level ground: a pedestal is a signal below which "
            "the image is black, so give less."
        )
    if lit is not None and not lit > 0:
        raise InputError(f"the images' mean is {lit:g}: grey levels are not negative, so give them as recorded.")
    return jnp.mean(images) / expected.astype(images.dtype)


def level_gains(
    images: SignalStack, signal: PerSegment, pedestal: PerSegment, reference: str
) -> Float[Array, "segment"]:
    """Grey levels per signal if every segment's mean is that of level ground, `signal`.

    Raises `InputError` where images are not brighter than what `reference` names. Gradient: exact.
    """
    grey = jnp.mean(images, axis=(1, 2)).astype(pedestal.dtype)
    gain = grey / (signal.astype(pedestal.dtype) - pedestal)
    values = concrete(gain)
    if values is not None and not (np.isfinite(values) & (values > 0)).all():
        means = ", ".join(f"{mean:.4g}" for mean in grey.tolist())
        raise InputError(
            f"the lit images' means ({means}) are not brighter than {reference}: give images of one setting of "
            "contrast and brightness."
        )
    return gain


def check_images(images: Any, scope: Microscope) -> SignalStack:
    """`images` as `(segment, y, x)` numbers, one for each segment of `scope`; `InputError` for anything else."""
    if not isinstance(scope, Microscope):
        raise InputError(f"scope is {shown(scope)}: give a Microscope.")
    if isinstance(images, (list, tuple)):
        shapes = {np.shape(image) for image in images}
        if len(shapes) > 1:
            raise InputError(f"the images differ in shape ({', '.join(map(str, shapes))}): give those of one scan.")
        dtypes = {str(getattr(image, "dtype", "float")) for image in images}
        if len(dtypes) > 1:
            raise InputError(f"the images differ in type ({', '.join(sorted(dtypes))}): give those of one scan.")
        images = np.stack([np.asarray(image) for image in images]) if images else np.zeros((0, 0, 0))
    images = as_real(images, "images")
    names = scope.detector.segments.names
    if images.ndim != 3 or images.size == 0:
        raise InputError(
            f"images has shape {images.shape}: give (segment, y, x), one grey image per segment and at least one pixel."
        )
    if images.shape[0] < LEAST_SEGMENTS:
        raise InputError(
            f"there are {images.shape[0]} images: heights need at least {LEAST_SEGMENTS} segments, whose azimuths "
            "differ."
        )
    if images.shape[0] != len(names):
        raise InputError(
            f"there are {images.shape[0]} images but the microscope has {len(names)} segments ({', '.join(names)}): "
            "give one image for each, in that order, or another microscope's file."
        )
    values = concrete(images)
    if values is not None and not np.isfinite(values).all():
        raise InputError(f"images is not finite {at_pixels(~np.isfinite(values).all(axis=0))}: fill or crop them.")
    return images


def _cut_off(images: SignalStack, grey_range: tuple[float | None, float | None]) -> tuple[Array, Array]:
    lowest, highest = grey_range
    nowhere = jnp.zeros(images.shape, bool)
    return nowhere if lowest is None else images <= lowest, nowhere if highest is None else images >= highest


def _check_channels(images: SignalStack, cut: Array, names: tuple[str, ...]) -> None:
    values, cut = concrete(images), concrete(cut)
    if values is None or cut is None:
        return
    for k, name in enumerate(names):
        if np.ptp(values[k]) == 0:
            raise InputError(
                f"the image of segment {name} is {values[k].flat[0]:g} everywhere: that channel recorded nothing, so "
                "check its contrast and brightness, or its file."
            )
        share = cut[k].mean()
        if share > _MOST_CLIPPED:
            raise InputError(
                f"{share:.0%} of the image of segment {name} lies at the end of the grey range: it is saturated, so "
                "lower its contrast or move its brightness and record again."
            )
        twin = next((j for j in range(k) if np.array_equal(values[j], values[k])), None)
        if twin is not None:
            raise InputError(
                f"the images of segments {names[twin]} and {name} are identical: one file was given twice or copied."
            )


def _noise(level: SignalStack, counts: PerSegment, scope: Microscope, camera: Camera) -> LevelNoise:
    rounding = 0.0 if camera.bits is None else 1.0 / (np.sqrt(12.0) * jnp.abs(counts))
    if camera.additive is None and camera.shot is None:
        least = jnp.maximum(_NOISELESS * jnp.mean(jnp.abs(level), axis=(1, 2)), rounding)
        return _in_precision(LevelNoise(jnp.maximum(detail_noise(level), least)), level.dtype)
    told = LevelNoise.of(camera, scope, level)
    told = LevelNoise(jnp.sqrt(told.additive_std**2 + rounding**2), told.electrons, told.common)
    return _in_precision(told, level.dtype)


def _in_precision(noise: LevelNoise, dtype: Any) -> LevelNoise:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), noise)


@jax.jit
def detail_noise(level: SignalStack) -> Float[Array, "segment"]:
    """Standard deviation of each channel's white noise, from its finest diagonal detail.

    (a - b - c + d) / 2 of every 2 x 2 pixels has the noise's own variance and hardly any of the relief's. Edges and
    shadows add tails: only detail within 1.5 standard deviations counts, whose mean square is that of a normal
    distribution cut there.
    Gradient: that of the detail counted (exact almost everywhere).
    """
    rows, columns = (n // 2 * 2 for n in level.shape[1:])
    if min(rows, columns) < 2:
        return jnp.std(level, axis=(1, 2))
    even = level[:, :rows, :columns]
    detail = 0.5 * (even[:, ::2, ::2] - even[:, 1::2, ::2] - even[:, ::2, 1::2] + even[:, 1::2, 1::2])
    detail = detail.reshape(level.shape[0], -1)
    std = jnp.median(jnp.abs(detail), axis=1) / MEDIAN_OF_NORMAL
    for _ in range(_CUTS):
        inside = (jnp.abs(detail) < _CUT * std[:, None]).astype(level.dtype)
        count = jnp.maximum(jnp.sum(inside, axis=1), 1.0)
        std = jnp.sqrt(jnp.sum(inside * detail**2, axis=1) / (count * _LEFT_OF_VARIANCE))
    return std
