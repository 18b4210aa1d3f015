"""Twelve specimens with known heights, and the microscopes that look at them: what reconstruction is measured on.

All seeded. Sizes in pixels do not depend on the image's size: a larger image shows more of the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import eclipsjax as ej
from eclipsjax.imaging.bsesm import wide_field_mm
from eclipsjax.specimen import synthetic

PIXEL_NM = 2.0
AFM = Path(__file__).resolve().parents[2] / "shared" / "data" / "afm"
# Widths at which the numbers below hold; counts of scattered things grow with the area.
_COUNTED_PX = 128
# Directions around a pixel behind the images: four times as many as reconstruction takes.
AZIMUTHS = 128


class Specimen(NamedTuple):
    """True heights (nm, float64), nm per pixel, and the scene that knows its steps and facets, if there is one."""

    height_nm: np.ndarray
    pixel_nm: float
    scene: synthetic.Scene | None = None

    @property
    def surface(self) -> ej.Surface:
        """In JAX's default precision."""
        return ej.Surface(real(self.height_nm), real(self.pixel_nm))


def real(values: Any) -> jax.Array:
    """An array in JAX's default precision."""
    return jnp.asarray(values, jnp.result_type(float))


def _of(scene: synthetic.Scene, with_truth: bool = True) -> Specimen:
    height = np.asarray(scene.surface.height_nm, np.float64)
    return Specimen(height - height.mean(), PIXEL_NM, scene if with_truth else None)


def _key(seed: int):
    return jax.random.key(200 + seed)


def _direction(seed: int) -> float:
    return float(np.random.default_rng(seed).uniform(0.0, 360.0))


def _count(shape, at_128: int) -> int:
    return max(1, round(at_128 * shape[0] * shape[1] / _COUNTED_PX**2))


def step_bunch(shape, seed: int) -> Specimen:
    """Terraces and facets of 20 degrees, edges that wander."""
    return _of(synthetic.step_bunch(shape, PIXEL_NM, key=_key(seed), direction_deg=_direction(seed)))


def spiral(shape, seed: int) -> Specimen:
    """A growth spiral of steps 12 nm high, 70 nm apart, its facets 25 degrees steep."""
    numbers = {"direction_deg": _direction(seed), "step_height_nm": 12.0, "spacing_nm": 70.0}
    return _of(synthetic.spiral(shape, PIXEL_NM, handedness=(1, -1)[seed % 2], sides=(0, 6)[seed % 2], **numbers))


def _random(shape, seed: int, rms_slope: float) -> Specimen:
    # Made periodic over a wider field, so that it is not so within the image.
    wide = synthetic.rough(tuple(3 * n // 2 for n in shape), PIXEL_NM, key=_key(seed), rms_slope=rms_slope)
    height = np.asarray(wide.surface.height_nm, np.float64)[: shape[0], : shape[1]]
    return Specimen(height - height.mean(), PIXEL_NM)


def rough(shape, seed: int) -> Specimen:
    """Self-affine, slopes of .35 (rms)."""
    return _random(shape, seed, 0.35)


def nearly_flat(shape, seed: int) -> Specimen:
    """The same with slopes of .02 (rms): a degree."""
    return _random(shape, seed, 0.02)


def islands(shape, seed: int) -> Specimen:
    """Hexagons 12 pixels tall and 12 in (median) radius, walls of 76 degrees."""
    return _of(_islands(shape, seed))


def _islands(shape, seed: int) -> synthetic.Scene:
    return synthetic.islands(
        shape, PIXEL_NM, key=_key(seed), count=_count(shape, 12), radius_nm=12 * PIXEL_NM, height_nm=12 * PIXEL_NM,
        wall_deg=76.0, direction_deg=_direction(seed),
    )  # fmt: skip


def pits(shape, seed: int) -> Specimen:
    """Flat-bottomed pits: other islands upside down."""
    scene = _islands(shape, seed)
    turned = (-scene.surface.height_nm, -scene.truth.slope_x, -scene.truth.slope_y)
    return _of(eqx.tree_at(lambda s: (s.surface.height_nm, s.truth.slope_x, s.truth.slope_y), scene, turned))


def particles(shape, seed: int) -> Specimen:
    """Spherical caps, 80 degrees steep at the rim."""
    return _of(synthetic.particles(shape, PIXEL_NM, key=_key(seed), count=_count(shape, 14), contact_deg=80.0))


def grating(shape, seed: int) -> Specimen:
    """Lines 20 pixels tall with walls of 75 degrees, 64 pixels apart."""
    return _of(synthetic.grating(shape, PIXEL_NM, direction_deg=_direction(seed)))


def imprint(shape, seed: int) -> Specimen:
    """A Vickers indenter's, as wide as 7/10 of the image."""
    diagonal = 0.7 * min(shape) * PIXEL_NM
    return _of(synthetic.vickers(shape, PIXEL_NM, diagonal_nm=diagonal, diagonal_azimuth_deg=_direction(seed)))


def _measured(name: str) -> Callable[[tuple[int, int], int], Specimen | None]:
    """The middle of a real map, a plane removed; None where the map is not there, or too small."""

    def crop(shape, seed: int) -> Specimen | None:
        stored = AFM / f"{name}.npz"
        if not stored.is_file():
            return None
        with np.load(stored) as file:
            height, pixel = np.asarray(file["height_nm"], np.float64), float(file["pixel_size_nm"])
        if height.shape[0] < shape[0] or height.shape[1] < shape[1]:
            return None
        top, left = ((have - want) // 2 for have, want in zip(height.shape, shape, strict=True))
        height = height[top : top + shape[0], left : left + shape[1]]
        if not np.isfinite(height).all():
            raise ValueError(f"{stored} is not finite within its middle {shape}.")
        return Specimen(height - fitted(height, 3), pixel)

    crop.__doc__ = f"The middle of the AFM map {name}."
    return crop


def fitted(height: np.ndarray, terms: int) -> np.ndarray:
    """What least squares fits to a map: a constant (1 term), a plane (3) or a parabola (6)."""
    y, x = np.meshgrid(*(np.linspace(-1.0, 1.0, n) for n in height.shape), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)[..., :terms].reshape(-1, terms)
    factors, *_ = np.linalg.lstsq(basis, height.ravel(), rcond=None)
    return (basis @ factors).reshape(height.shape)


SCENES: dict[str, Callable[[tuple[int, int], int], Specimen | None]] = {
    "step bunch": step_bunch,
    "spiral": spiral,
    "rough": rough,
    "nearly flat": nearly_flat,
    "pits": pits,
    "islands": islands,
    "particles": particles,
    "grating": grating,
    "AFM steps": _measured("picoview_steps_20um"),
    "AFM grains": _measured("park_grains_1um"),
    "AFM islands": _measured("wsxm_islands_600nm"),
    "imprint": imprint,
}
HIDING = ("pits", "islands", "particles")


class Condition(NamedTuple):
    """S/N of the stored images, whether the microscope is the one believed in, and its segments."""

    ratio: float
    is_known: bool
    segments: int

    @property
    def label(self) -> str:
        return f"S/N {self.ratio:g}, {self.segments} segments, {'known' if self.is_known else 'perturbed'}"

    @property
    def camera(self) -> ej.Camera:
        """As measured on real images (correlation .065), its grey levels not rounded."""
        return ej.Camera(additive=ej.SignalToNoise(self.ratio, 0.065))


CONDITIONS = [Condition(r, known, k) for r in (11.0, 30.0, 100.0) for known in (True, False) for k in (4, 3)]

# Standard deviations of what the microscope's owner does not know, in the numbers' units or in those of the nominal.
_GAIN, _PEDESTAL, _DISTANCE, _OFFSET_MM, _TURN_DEG, _MEAN_PEDESTAL = 0.05, 0.02, 0.03, 0.05, 2.0, 0.1


def flat_signal(scope: ej.Microscope) -> float:
    """Of a level specimen, per segment: sin^2 of the largest less that of the smallest polar angle, over the number."""
    segments, d = scope.detector.segments, float(scope.detector.distance_mm)
    outer, inner = float(segments.outer_radius_mm[0]), float(segments.inner_radius_mm[0])
    return (outer**2 / (outer**2 + d**2) - inner**2 / (inner**2 + d**2)) / segments.count


def nominal_scope(segments: int) -> ej.Microscope:
    """What its owner believes: equal gains, pedestals of a tenth of the flat signal."""
    scope = ej.Microscope.annular(segments=segments)
    pedestal = real(np.full(segments, _MEAN_PEDESTAL * flat_signal(scope)))
    return eqx.tree_at(lambda s: s.detector.segments.pedestal, scope, pedestal)


def perturbed_scope(scope: ej.Microscope, seed: int) -> ej.Microscope:
    """What it is: gains and pedestals drawn, turned by 2 deg, 3 % closer, .05 mm off the axis."""
    rng = np.random.default_rng([41, seed])
    segments, plate, flat = scope.detector.segments, scope.detector, flat_signal(scope)
    gain = 1.0 + _GAIN * rng.normal(size=segments.count)
    pedestal = np.asarray(segments.pedestal) + _PEDESTAL * flat * rng.normal(size=segments.count)
    off = rng.uniform(0.0, 2 * math.pi)

    def numbers(s: ej.Microscope) -> tuple:
        d = s.detector
        moved = d.distance_mm, d.offset_x_mm, d.offset_y_mm
        return d.segments.gain, d.segments.pedestal, d.segments.start_deg, d.segments.stop_deg, *moved

    values = gain, pedestal, segments.start_deg + _TURN_DEG, segments.stop_deg + _TURN_DEG
    moved = plate.distance_mm * (1.0 - _DISTANCE), _OFFSET_MM * math.cos(off), _OFFSET_MM * math.sin(off)
    return eqx.tree_at(numbers, scope, tuple(real(v) for v in (*values, *moved)))


def uncertain(scope: ej.Microscope) -> dict[str, float]:
    """What the owner knows about not knowing: standard deviations for `Refined(uncertain=...)`. Azimuths have none."""
    return {
        "detector.segments.gain": _GAIN,
        "detector.segments.pedestal": _PEDESTAL * flat_signal(scope),
        "detector.distance_mm": _DISTANCE * float(scope.detector.distance_mm),
        "detector.offset_x_mm": _OFFSET_MM,
        "detector.offset_y_mm": _OFFSET_MM,
    }


class Recording(NamedTuple):
    """What a method may see, and (`hidden`) from which pixels the relief hides 2 % of a segment's signal or more."""

    images: jax.Array
    pixel_nm: float
    scope: ej.Microscope
    camera: ej.Camera
    hidden: np.ndarray


def recorded(
    specimen: Specimen, condition: Condition, name: str, seed: int = 0, true_scope: ej.Microscope | None = None
) -> Recording:
    """The images of a specimen called `name`, which seeds the noise; those of a perturbed scope where not known, or of
    the one that is given."""
    scope = nominal_scope(condition.segments)
    drawn = zlib.crc32(name.encode()) % 2**16 + 1000 * seed
    if true_scope is None:
        true_scope = scope if condition.is_known else perturbed_scope(scope, drawn)
    surface = specimen.surface
    table = acceptance(true_scope, surface)
    signal = ej.render(surface, table, AZIMUTHS)
    alone = ej.render(surface, table, AZIMUTHS, horizon=ej.NoRelief())
    hidden = np.asarray((signal < 0.98 * alone).any(axis=0))
    key = jax.random.fold_in(jax.random.key(drawn), round(condition.ratio))
    images = ej.record(signal, true_scope, key, condition.camera)
    return Recording(images, specimen.pixel_nm, scope, condition.camera, hidden)


def acceptance(scope: ej.Microscope, surface: Any) -> ej.AcceptanceTable:
    """Its table, with a field of view where the image is wide."""
    return ej.acceptance(scope, field_mm=wide_field_mm(surface.height_nm.shape, surface.pixel_size_nm))
