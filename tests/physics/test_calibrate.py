"""Calibration from frames of known things: numbers within their stated errors, and the angles that follow."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import flat_signal, render
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import LevelNoise
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibrate import calibrate
from eclipsjax.inverse.frames import Dark, Flat, Shape
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.photometric import photometric_slopes
from eclipsjax.specimen import synthetic
from eclipsjax.specimen.horizon import NoRelief
from eclipsjax.specimen.surface import Surface

NOMINAL = Microscope.annular(4, gap_mm=0.2)
FLAT = float(flat_signal(acceptance(NOMINAL))[0])


def with_amplifier(seed: int, pedestal: float = 0.6, scope: Microscope = NOMINAL) -> Microscope:
    """Gains of 1000 grey levels per signal +- 5 %, pedestals of 0 to `pedestal` of the flat signal."""
    rng = np.random.default_rng(seed)
    segments = dataclasses.replace(
        scope.detector.segments,
        gain=jnp.asarray(1000.0 * (1 + 0.05 * rng.normal(size=4))),
        pedestal=jnp.asarray(FLAT * rng.uniform(0, pedestal, 4)),
    )
    return dataclasses.replace(scope, detector=dataclasses.replace(scope.detector, segments=segments))


def stored(signal, scope: Microscope, seed: int, ratio: float = 30.0):
    """Grey levels with noise at S/N `ratio` of the mean."""
    segments = scope.detector.segments
    grey = segments.gain[:, None, None] * (signal - segments.pedestal[:, None, None])
    noise = jnp.mean(jnp.abs(grey)) / ratio
    return grey + noise * jax.random.normal(jax.random.key(seed), grey.shape)


def read_angle(scope: Microscope, believed: Microscope, tilt_deg: float, azimuth_deg: float) -> float:
    """Inclination, deg, read with the believed microscope off a noise-free plane that the true one images."""
    slope, azimuth = math.tan(math.radians(tilt_deg)), math.radians(azimuth_deg)
    lean = (jnp.full((1, 1), -slope * math.cos(azimuth)), jnp.full((1, 1), slope * math.sin(azimuth)))
    signal = render(Facets.isolated(*lean), acceptance(scope), horizon=NoRelief())
    true, told = scope.detector.segments, believed.detector.segments
    grey = true.gain[:, None, None] * (signal - true.pedestal[:, None, None])
    level = grey / told.gain[:, None, None] + told.pedestal[:, None, None]
    nowhere = jnp.zeros(level.shape, bool)
    measured = Measurement(level, LevelNoise(1.0), nowhere, nowhere, jnp.ones(4))
    found = photometric_slopes(measured, acceptance(believed))
    return math.degrees(math.atan(math.hypot(float(found.slope_x[0, 0]), float(found.slope_y[0, 0]))))


def test_dark_and_flat_frames():
    """Pedestals of 0 to .6 and gains 5 % off, S/N 30: a plane of 20 deg is read to .2 deg, and far better than that."""
    errors = []
    for seed in range(6):
        scope = with_amplifier(seed)
        level = render(Surface(jnp.zeros((64, 64)), 10.0), acceptance(scope), horizon=NoRelief())
        dark = Dark(stored(jnp.zeros_like(level), scope, seed))
        flat = Flat(stored(level, scope, seed + 100), 10.0, 0.0)
        found = calibrate(NOMINAL, [dark, flat])
        errors.append(abs(read_angle(scope, found.scope, 20.0, 30.0 * seed) - 20.0))
        for k in range(4):
            truth, (value, std) = (
                float(scope.detector.segments.pedestal[k]),
                found.solved[f"detector.segments.pedestal[{k}]"],
            )
            assert abs(value - truth) < 4 * std
    assert max(errors) <= 0.2


@pytest.mark.slow
def test_a_wide_flat_field_alone():
    """1.2 mm of level ground, S/N 30, geometry known: planes of 20 deg to 1 deg, with honest errors (12 cases)."""
    errors, stated = [], []
    pixels, size = 96, 1.2e6 / 96
    for seed in range(12):
        scope = with_amplifier(seed)
        table = acceptance(scope, field_mm=1.2)
        signal = render(Surface(jnp.zeros((pixels, pixels)), size), table, horizon=NoRelief())
        found = calibrate(NOMINAL, [Flat(stored(signal, scope, seed), size, 0.0)])
        azimuth = 18.0 * seed
        errors.append(read_angle(scope, found.scope, 20.0, azimuth) - 20.0)
        stated.append(found.angle_std_deg(20.0, azimuth))
        assert float(found.chi_square) == pytest.approx(1.0, abs=0.15)
    within = np.abs(np.array(errors)) / np.array(stated)
    assert np.abs(errors).max() <= 1.0
    # Binomial scatter of 12 cases: 68 % +- 13 %, 95 % +- 6 %.
    assert 0.4 <= (within < 1).mean() <= 0.95 and (within < 2).mean() >= 0.83


@pytest.mark.slow
def test_distance_from_a_dome():
    """A flat field tells how far the detector is where gains and pedestals are known, by the dome's radius."""
    true = dataclasses.replace(
        NOMINAL,
        detector=dataclasses.replace(NOMINAL.detector, distance_mm=jnp.asarray(6.3), offset_x_mm=jnp.asarray(0.08)),
    )
    pixels, size = 96, 1.2e6 / 96
    signal = render(Surface(jnp.zeros((pixels, pixels)), size), acceptance(true, field_mm=1.2), horizon=NoRelief())
    known = {"detector.segments.gain": 1e-3, "detector.segments.pedestal": 1e-5}
    beforehand = {"detector.distance_mm": 0.6, "detector.offset_x_mm": 0.2, "detector.offset_y_mm": 0.2}
    found = calibrate(NOMINAL, [Flat(stored(signal, true, 0, 100.0), size, 0.0)], known | beforehand)
    for name, truth in (("detector.distance_mm", 6.3), ("detector.offset_x_mm", 0.08), ("detector.offset_y_mm", 0.0)):
        value, std = found.solved[name]
        assert abs(value - truth) < max(4 * std, 0.02) and std < 0.1


@pytest.mark.slow
def test_a_known_shape():
    """A sphere's cap: gains, pedestals and a shift of it by a third of a pixel, from one frame."""
    scope = with_amplifier(3, 0.4)
    shape = synthetic.sphere((64, 64), 4.0).surface
    slope_x, _ = shape.slopes()
    moved = Surface(shape.height_nm - 0.3 * 4.0 * slope_x, 4.0)
    frame = Shape(stored(render(moved, acceptance(scope), radius_px=64), scope, 1, 60.0), shape)
    found = calibrate(NOMINAL, [frame])
    for k in range(4):
        value, std = found.solved[f"detector.segments.pedestal[{k}]"]
        assert abs(value - float(scope.detector.segments.pedestal[k])) < max(4 * std, 0.02 * FLAT)
    assert abs(read_angle(scope, found.scope, 20.0, 40.0) - 20.0) < 1.0


def test_what_cannot_be_determined_is_said():
    """A flat field of no width cannot tell gain from pedestal: said, with the angle that it leaves open."""
    scope = with_amplifier(0)
    level = render(Surface(jnp.zeros((32, 32)), 10.0), acceptance(scope), horizon=NoRelief())
    found = calibrate(NOMINAL, [Flat(stored(level, scope, 0), 10.0, 0.0)])
    said = " ".join(found.sentences())
    assert "not determined" in said and "gain" in said and "pedestal" in said
    assert found.angle_std_deg(20.0) > 1.0


@pytest.mark.parametrize(
    ("frames", "match"),
    [
        ([], "frames is"),
        ([Dark(np.zeros((4, 8, 8))), Flat(np.ones((4, 8, 8)), 10.0)], "cut off at black"),
        ([Dark(np.ones((4, 8, 8)))], "dark frames alone"),
        ([Flat(np.full((3, 8, 8), 5.0), 10.0)], "has 4 segments"),
        ([Shape(np.ones((4, 8, 8)), Surface(np.zeros((6, 8)), 1.0))], "give heights on the images' own pixels"),
        ([Flat(np.full((4, 8, 8), -5.0), 10.0)], "not brighter"),
    ],
)
def test_bad_frames(frames, match):
    with pytest.raises(InputError, match=match):
        calibrate(NOMINAL, frames)


def test_a_turned_scan_is_an_image_turned_back():
    """A plate off axis and tilted, seen in a scan turned by 90 deg: the image of a level field turns by a quarter."""
    plate = dataclasses.replace(
        NOMINAL.detector, offset_x_mm=jnp.asarray(0.2), tilt_x_deg=jnp.asarray(4.0), tilt_y_deg=jnp.asarray(-2.0)
    )
    scope = dataclasses.replace(NOMINAL, detector=plate)
    surface = synthetic.islands((24, 24), 2.0, key=jax.random.key(0), count=2, radius_nm=10.0, height_nm=6.0).surface
    straight = render(surface, acceptance(scope), radius_px=16)
    turned = render(Surface(jnp.rot90(surface.height_nm, -1), 2.0), acceptance(scope.turned(90.0)), radius_px=16)
    np.testing.assert_allclose(turned, jnp.rot90(straight, -1, axes=(1, 2)), atol=2e-5)
    back = scope.turned(37.0).turned(-37.0)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(scope), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
