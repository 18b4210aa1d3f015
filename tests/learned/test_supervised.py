"""One pass of the shipped network: nearer to the truth than the closed form where that is poor, with its limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.inverse.brought_back import brought_back_px, slopes_of_relief
from eclipsjax.inverse.explained import left_by
from eclipsjax.inverse.method import Task
from eclipsjax.inverse.supervised import unlike_training
from eclipsjax.nn.evidence import Evidence, slopes_along

SIDE = 64


def recorded(surface, scope, ratio):
    """Images of a surface, in single precision, and the camera."""
    camera = ej.Camera(additive=ej.SignalToNoise(ratio))
    signal = ej.render(surface, ej.acceptance(scope), 64)
    return ej.record(signal, scope, key=jax.random.key(5), camera=camera), camera


def errors(result, surface):
    """Rms of heights (nm, mean removed) and of normals (deg)."""
    return (
        float(jnp.std(result.height_nm - surface.height_nm)),
        float(ej.angular_error(result.normals, surface.normals()).rms_deg),
    )


def pits():
    """Flat-bottomed, walls of 70 deg."""
    walls = {"count": 5, "radius_nm": 9.0, "height_nm": 8.0, "wall_deg": 70.0}
    scene = ej.synthetic.islands((SIDE, SIDE), 1.0, key=jax.random.key(3), **walls)
    return ej.Surface(-scene.surface.height_nm, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("segments", "start_deg"), [(3, 20.0), (5, None)])
def test_nearer_to_the_truth_than_the_closed_form(segments, start_deg):
    """Hidden pixels and noise, with any number of segments at any azimuth: the same weights."""
    scope = ej.Microscope.annular(segments, start_deg=start_deg)
    surface = pits()
    images, camera = recorded(surface, scope, 11.0)
    found, closed = (
        ej.reconstruct(images, 1.0, scope, method, camera) for method in (ej.Supervised(), ej.Photometric())
    )
    of_found, of_closed = errors(found, surface), errors(closed, surface)
    assert of_found[0] < 0.9 * of_closed[0] and of_found[1] < 0.6 * of_closed[1]
    assert found.outcome.name == "ONE_PASS" and found.outcome.as_hoped
    assert 0.8 < float(found.chi_square) < 2.0
    assert float(jnp.mean(found.occluded)) > 0.05
    # How far off it says that it is, in the median: this microscope is known better than its lessons' are.
    angle = jnp.arccos(jnp.clip(jnp.sum(found.normals * surface.normals(), axis=-1), -1.0, 1.0))
    said = jnp.sqrt(jnp.sum(found.slope_std**2, axis=0))
    assert 0.1 < float(jnp.median(angle) / jnp.median(said)) < 1.25


def believed(level, scope, std):
    """A task of these levels."""
    nowhere = jnp.zeros(level.shape, bool)
    noise = ej.LevelNoise(jnp.full(level.shape[0], std))
    measurement = ej.Measurement(level, noise, nowhere, nowhere, jnp.ones(level.shape[0]))
    return Task(measurement, ej.acceptance(scope), scope, None, None, jnp.asarray(1.0), None)


def test_says_what_it_was_not_trained_for():
    level = jnp.ones((4, 8, 8))
    assert unlike_training(believed(level, ej.Microscope.annular(), 0.02)) == ()
    (noisy,) = unlike_training(believed(level, ej.Microscope.annular(), 0.25))
    assert noisy.startswith("signal over noise is 4 in the noisiest segment; the network was trained for 7 and more")
    wide = ej.Microscope.annular(9, inner_radius_mm=0.2, outer_radius_mm=15.0)
    segments, rims = unlike_training(believed(jnp.ones((9, 8, 8)), wide, 0.02))
    assert "9 segments; the network was trained for 3 to 8" in segments
    assert "from 1.91 to 68.2 deg off the axis; the network was trained for 4 to 62" in rims


def test_too_few_sides_are_told():
    task = believed(jnp.ones((4, 8, 8)), ej.Microscope.annular(4), 0.02)
    twice = jnp.array([0, 0, 2, 2])
    table = dataclasses.replace(task.table, theta=task.table.theta[:, :, twice], phi=task.table.phi[:, :, twice])
    with pytest.raises(ej.InputError, match="do not tell both slopes and the brightness apart"):
        ej.Supervised().found(dataclasses.replace(task, table=table))


def evidence_of(own):
    """Evidence of normals with nothing hidden."""
    map_, stack = jnp.full(own.shape[1:], 0.05), jnp.zeros((3, *own.shape[1:]))
    return Evidence(own, own, own, own, own, map_, stack, stack, stack, jnp.zeros((3, 2)))


def test_what_smoothing_took_of_the_relief_comes_back_and_noise_does_not():
    y, x = jnp.meshgrid(jnp.arange(96.0), jnp.arange(96.0), indexing="ij")
    true = ej.Surface(4.0 * jnp.cos(2 * jnp.pi * x / 48.0) * jnp.cos(2 * jnp.pi * y / 48.0), 1.0)
    slopes = jnp.stack(true.slopes())
    noise = 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=slopes.shape))
    own = jnp.concatenate([slopes + noise, jnp.ones((1, 96, 96))])
    too_smooth = 0.6 * slopes
    found = slopes_of_relief(too_smooth, evidence_of(own))
    off = lambda s: float(jnp.sqrt(jnp.mean((s - slopes) ** 2)))  # noqa: E731
    assert off(found) < 0.2 * off(too_smooth) and off(found) < 0.25 * off(slopes + noise)
    nothing = brought_back_px(slopes, evidence_of(own))
    assert float(jnp.std(nothing)) < 0.05 * float(jnp.std(true.height_nm))


def test_no_wall_is_steeper_than_80_deg():
    leaning = jnp.asarray([[[3.0, 0.0, 0.3]], [[4.0, -1.0, 0.4]], [[1e-3, -1.0, 1.0]]])
    slopes = slopes_along(leaning)
    np.testing.assert_allclose(jnp.sqrt(jnp.sum(slopes**2, axis=0)), [[5.7, 5.7, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(slopes[:, 0, 0], [5.7 * 0.6, 5.7 * 0.8], rtol=1e-6)


def test_what_a_signal_leaves_of_the_levels():
    rng = np.random.default_rng(2)
    seen, share = jnp.asarray(0.2 + 0.1 * rng.random((3, 8, 8))), jnp.asarray(1.0 + 0.2 * rng.normal(size=(1, 8, 8)))
    task = believed(5.0 * seen * share, ej.Microscope.annular(3), 1e-3)
    left, brightness = left_by(seen, task.measurement, jnp.asarray(jnp.inf))
    np.testing.assert_allclose(left, 0.0, atol=1e-9)
    np.testing.assert_allclose(brightness, 5.0 * share[0], rtol=1e-9)
    left, brightness = left_by(seen, task.measurement, jnp.asarray(0.0))
    assert float(jnp.ptp(brightness)) < 1e-9 and float(jnp.max(jnp.abs(left))) > 0.1
    # Of levels that were cut off only what lies on the wrong side counts.
    below = jnp.zeros((3, 8, 8), bool).at[0].set(True)
    cut = dataclasses.replace(task.measurement, below=below, level=0.9 * task.measurement.level)
    assert float(jnp.max(left_by(seen, cut, jnp.asarray(0.0))[0][0])) <= 0.0
