"""The ways that the benchmark of reconstruction compares with are right where they must be: gentle relief, no shadows.

A peer that is wrong by our own mistake would make every comparison worthless.
"""

import importlib
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej

_BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def bench():
    """The benchmark's own modules by name, which live beside no package."""
    sys.path.insert(0, _BENCHMARKS)
    try:
        return {name: importlib.import_module(name) for name in ("_scenes", "_peers", "_formula")}
    finally:
        sys.path.remove(_BENCHMARKS)


@pytest.fixture(scope="module")
def scope(bench):
    return bench["_scenes"].nominal_scope(4)


def gentle(shape, pixel_nm=2.0):
    """Periodic waves of slopes up to .3 in two directions; not perpendicular ones, which tell no left from right."""
    y, x = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    height = np.sin(2 * np.pi * (2 * x + y)) / 80 + np.cos(2 * np.pi * (3 * x - 2 * y) + 0.7) / 120
    return height * min(shape) * pixel_nm


def recording(bench, height_nm, scope, pixel_nm=2.0, ratio=1e4):
    surface = ej.Surface(height_nm, pixel_nm)
    images = ej.record(ej.render(surface, ej.acceptance(scope)), scope)
    camera = ej.Camera(additive=ej.SignalToNoise(ratio, 0.065))
    return bench["_scenes"].Recording(images, pixel_nm, scope, camera, np.zeros(height_nm.shape, bool))


def percent(height_nm, truth_nm):
    return float(ej.height_error(height_nm, truth_nm).percent.plane)


@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
def test_singular_vectors_find_shape_and_axes_of_gentle_relief(bench, scope, shape):
    # What the images alone tell, up to one factor and a parabola; .1 to .2 % measured. A wave number of the wrong
    # axis would stretch one of the two waves: tens of per cent.
    truth = gentle(shape)
    peers = bench["_peers"]
    found = peers.sem2surface_way(recording(bench, truth, scope).images)
    assert percent(peers.scaled_to_truth(found, truth), truth) < 1.0


def test_wave_numbers_belong_to_their_axes(bench):
    # One wave along x on an image wider than high, slopes given: exact.
    y, x = np.meshgrid(np.arange(24), np.arange(60), indexing="ij")
    for k, along, count in (("x", x, 60), ("y", y, 24)):
        slope = 2 * np.pi / count * np.cos(2 * np.pi * along / count)
        slopes = (slope, 0 * slope) if k == "x" else (0 * slope, slope)
        found = np.asarray(ej.integrate(*map(jnp.asarray, slopes), 1.0, ej.FrankotChellappa()))
        np.testing.assert_allclose(found, np.sin(2 * np.pi * along / count), atol=1e-9)


@pytest.mark.parametrize(("azimuth_deg", "side"), [(0.0, 1.0), (30.0, -1.0), (135.0, 1.0)])
def test_axes_are_found_from_slopes_along_any(bench, azimuth_deg, side):
    height = np.random.default_rng(3).normal(size=(80, 64))
    f2 = np.fft.fftfreq(80)[:, None] ** 2 + np.fft.fftfreq(64)[None, :] ** 2
    down, across = np.gradient(np.fft.ifft2(np.fft.fft2(height) * np.exp(-400 * f2)).real)
    turn = np.radians(azimuth_deg)
    one, other = np.cos(turn) * across + np.sin(turn) * down, side * (np.cos(turn) * down - np.sin(turn) * across)
    found = np.stack(bench["_peers"].slopes_along_axes(one, other))
    sign = np.sign(np.sum(found[0] * across))
    off = found * sign - np.stack([across, down])
    assert np.sqrt(np.mean(off**2)) < 0.02 * np.sqrt(np.mean(across**2 + down**2))


def test_scale_and_parabola_are_those_of_the_truth(bench):
    truth = gentle((40, 40)) + 0.01 * np.arange(40.0)[None, :] ** 2
    peers = bench["_peers"]
    found = peers.scaled_to_truth(-0.37 * (truth - bench["_scenes"].fitted(truth, 6)), truth)
    np.testing.assert_allclose(found, truth, atol=1e-9)


@pytest.mark.parametrize("segments", [3, 4])
def test_formula_fits_rendered_planes(bench, segments):
    # Planes up to 40 deg, between the azimuths that it was fitted at: .2 % of the flat signal measured, bar .5 %.
    scope = bench["_scenes"].nominal_scope(segments)
    table = ej.acceptance(scope)
    formula = bench["_formula"].calibrated(scope, table)
    tilt, azimuth = np.meshgrid(np.radians([0.0, 11.0, 22.0, 33.0, 40.0]), np.radians(np.arange(7.0, 360.0, 35.0)))
    slopes = [jnp.asarray(-np.tan(tilt) * part) for part in (np.cos(azimuth), -np.sin(azimuth))]
    levels = ej.render(ej.Facets.isolated(*slopes), table, horizon=ej.NoRelief())
    flat = bench["_scenes"].flat_signal(scope)
    assert float(jnp.max(jnp.abs(formula(*slopes) - levels))) < 0.005 * flat


@pytest.mark.parametrize("masks", [0, 3])
def test_formula_s_heights_are_those_of_closed_form_on_gentle_relief(bench, scope, masks):
    truth = gentle((48, 64))
    seen = recording(bench, truth, scope, ratio=100.0)
    found, closed = bench["_formula"].through_formula(seen, masks), bench["_peers"].photometric(seen)
    assert percent(found, closed) < 0.5
    assert percent(found, truth) < 0.5


def test_relief_that_hides_defeats_closed_form(bench):
    # Or the benchmark's bars about occlusion ask nothing: several per cent from islands and pits.
    scenes = bench["_scenes"]
    condition = scenes.Condition(1e4, True, 4)
    for name in ("islands", "pits"):
        specimen = scenes.SCENES[name]((64, 64), 1)
        seen = scenes.recorded(specimen, condition, name)
        assert seen.hidden.mean() > 0.1
        assert percent(bench["_peers"].photometric(seen), specimen.height_nm) > 3.0


def test_perturbed_microscope_is_what_its_owner_expects(bench, scope):
    # Drawn numbers lie within four of the standard deviations that Refined is told.
    scenes = bench["_scenes"]
    off = scenes.perturbed_scope(scope, 5)
    for name, std in scenes.uncertain(scope).items():
        here, there = scope, off
        for part in name.split("."):
            here, there = getattr(here, part), getattr(there, part)
        shift = np.abs(np.asarray(there, float) - np.asarray(here, float))
        assert 0 < shift.max() < 4 * std, name
