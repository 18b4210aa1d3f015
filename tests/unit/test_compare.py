"""Errors of heights, normals, steps and facets against numbers known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.metrology.compare import angular_error, facet_error, height_error, step_error

ROWS, COLUMNS = 40, 56
Y, X = np.mgrid[0:ROWS, 0:COLUMNS] / 10.0
TRUTH = np.sin(X) + 0.3 * Y


def rms(a):
    return np.sqrt(np.mean(a**2))


def residual(error, basis):
    matrix = np.stack([b.ravel() for b in basis], 1)
    return rms(error.ravel() - matrix @ np.linalg.lstsq(matrix, error.ravel(), rcond=None)[0])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_each_figure_is_the_residual_of_its_fit(scale):
    error = scale * (2.0 + 0.7 * X - 0.2 * Y + 0.05 * X * Y) + np.cos(3 * X + Y)
    one = np.ones_like(X)
    found = height_error(TRUTH + error, TRUTH)
    np.testing.assert_allclose(found.rms_nm.nothing, rms(error), rtol=1e-12)
    np.testing.assert_allclose(found.rms_nm.mean, error.std(), rtol=1e-10)
    np.testing.assert_allclose(found.rms_nm.plane, residual(error, [one, X, Y]), rtol=1e-9)
    np.testing.assert_allclose(found.rms_nm.parabola, residual(error, [one, X, Y, X * X, X * Y, Y * Y]), rtol=1e-9)
    np.testing.assert_allclose(found.percent.plane, 100 * found.rms_nm.plane / np.ptp(TRUTH), rtol=1e-12)


@pytest.mark.parametrize("removed, error", [("mean", 3.0 + 0 * X), ("plane", 2 * X - Y), ("parabola", X * Y - X**2)])
def test_what_is_removed_leaves_nothing(removed, error):
    found = height_error(TRUTH + error, TRUTH).rms_nm
    assert float(getattr(found, removed)) < 1e-9 < float(found.nothing)


def test_only_the_mask_counts():
    mask = (X - 2.8) ** 2 + (Y - 2.0) ** 2 < 2.0
    error = np.cos(3 * X + Y)
    found = height_error(np.where(mask, TRUTH + error, np.nan), np.where(mask, TRUTH, 1e6), mask)
    matrix = np.stack([np.ones(mask.sum()), X[mask], Y[mask]], 1)
    rest = error[mask] - matrix @ np.linalg.lstsq(matrix, error[mask], rcond=None)[0]
    np.testing.assert_allclose(found.rms_nm.plane, rms(rest), rtol=1e-10)
    np.testing.assert_allclose(found.percent.plane, 100 * rms(rest) / np.ptp(TRUTH[mask]), rtol=1e-10)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_one_row_is_a_map_too(shape):
    values = np.random.default_rng(0).normal(size=shape)
    found = height_error(values, np.zeros(shape))
    np.testing.assert_allclose(found.rms_nm.mean, values.std(), atol=1e-12)
    assert float(found.rms_nm.parabola) <= float(found.rms_nm.plane) + 1e-12


def test_the_gradient_is_that_of_a_norm():
    error = jnp.asarray(np.cos(3 * X + Y))
    slope = jax.grad(lambda h: height_error(h, TRUTH).rms_nm.nothing)(TRUTH + error)
    np.testing.assert_allclose(slope, error / (error.size * rms(error)), rtol=1e-9)
    assert np.isfinite(jax.grad(lambda h: height_error(h, TRUTH).rms_nm.plane)(jnp.asarray(TRUTH))).all()


@pytest.mark.float32
def test_in_float32():
    error = 100 * X + np.cos(3 * X + Y)
    found = height_error(jnp.asarray(TRUTH + error, jnp.float32), jnp.asarray(TRUTH, jnp.float32))
    assert found.rms_nm.plane.dtype == jnp.float32
    np.testing.assert_allclose(found.rms_nm.plane, height_error(TRUTH + error, TRUTH).rms_nm.plane, rtol=1e-4)


def leaning(deg):
    a = jnp.deg2rad(deg)
    return jnp.stack([jnp.sin(a), jnp.zeros_like(a), jnp.cos(a)], axis=-1)


def test_angles_are_angles():
    deg = jnp.linspace(0.0, 30.0, 120).reshape(10, 12)
    truth = leaning(jnp.full((10, 12), 40.0))
    found = angular_error(3.0 * leaning(40.0 + deg), truth)
    np.testing.assert_allclose(found.map_deg, deg, atol=1e-9)
    np.testing.assert_allclose(found.rms_deg, rms(np.asarray(deg)), rtol=1e-12)
    np.testing.assert_allclose(found.mean_deg, 15.0, rtol=1e-12)
    np.testing.assert_allclose(found.median_deg, 15.0, rtol=1e-12)
    np.testing.assert_allclose(found.percentile95_deg, 28.5, rtol=1e-12)


def test_angles_in_a_mask_and_their_gradient():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    deg = jnp.where(mask, 5.0, jnp.nan)
    truth = leaning(jnp.zeros((10, 12)))
    found = angular_error(leaning(deg), truth, mask)
    for value in (found.rms_deg, found.mean_deg, found.median_deg, found.percentile95_deg):
        np.testing.assert_allclose(value, 5.0, rtol=1e-10)
    assert np.isnan(np.asarray(found.map_deg)[~mask]).all()
    slope = jax.grad(lambda d: angular_error(leaning(d * jnp.ones((10, 12))), truth).rms_deg)
    np.testing.assert_allclose(slope(7.0), 1.0, rtol=1e-10)
    assert np.isfinite(slope(0.0))


def rough_error(shape, nm):
    return nm * np.random.default_rng(2).normal(size=shape)


SCENES = {
    "step": lambda: ej.synthetic.step((96, 120), 2.0, height_nm=20.0, direction_deg=30.0),
    "bunch": lambda: ej.synthetic.step_bunch((160, 160), 2.0, wander_nm=0.0),
    "islands": lambda: ej.synthetic.islands((160, 160), 2.0, count=9),
}


@pytest.mark.parametrize("name", SCENES)
def test_steps_that_are_seven_percent_too_high_on_a_tilted_map(name):
    scene = SCENES[name]()
    height = scene.surface.height_nm
    y, x = jnp.indices(height.shape)
    tilted = 1.07 * height + 0.3 * x.astype(float) - 0.1 * y.astype(float) + 5.0
    found = step_error(tilted, scene)
    assert int(found.count) >= {"step": 1, "bunch": 2, "islands": 7}[name]
    seen = np.isfinite(found.height_nm)
    np.testing.assert_allclose(np.asarray(found.percent)[seen], 7.0, rtol=1e-6)
    np.testing.assert_allclose(found.rms_percent, 7.0, rtol=1e-6)
    np.testing.assert_allclose(
        np.asarray(found.height_nm)[seen], 1.07 * np.asarray(scene.truth.step_height_nm)[seen], rtol=1e-6
    )


def test_a_few_wild_pixels_do_not_move_steps_or_facets():
    scene = SCENES["step"]()
    height = np.asarray(scene.surface.height_nm) + rough_error((96, 120), 0.1)
    height[np.random.default_rng(0).random(height.shape) < 0.01] += 300.0
    assert abs(float(step_error(height, scene).error_nm[0])) < 0.1
    assert np.abs(np.asarray(facet_error(height, scene).error_deg)).max() < 0.05


def test_inclinations_of_a_groove():
    scene = ej.synthetic.v_groove((96, 128), 2.0, wall_deg=22.0, depth_nm=40.0)
    found = facet_error(scene.surface.height_nm, scene)
    np.testing.assert_allclose(found.angle_deg, [0.0, 22.0, 22.0], atol=1e-9)
    steeper = facet_error(1.1 * scene.surface.height_nm, scene)
    wanted = np.rad2deg(np.arctan(1.1 * np.tan(np.deg2rad(22.0)))) - 22.0
    np.testing.assert_allclose(steeper.error_deg[1:], wanted, rtol=1e-9)
    np.testing.assert_allclose(steeper.rms_deg[1:], wanted, rtol=1e-9)


def test_patches_of_a_bunch_each_have_their_plane():
    scene = SCENES["bunch"]()
    found = facet_error(scene.surface.height_nm, scene)
    np.testing.assert_allclose(found.error_deg, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.angle_deg[0], 0.0, atol=1e-9)
    np.testing.assert_allclose(found.angle_deg[1], 20.0, atol=1e-9)
    assert int(found.pixels.sum()) < 160 * 160


def test_numbers_change_without_tracing_anew_and_have_gradients():
    scene = SCENES["step"]()

    def percent(scale):
        return step_error(scale * scene.surface.height_nm, scene).percent[0]

    np.testing.assert_allclose(jax.grad(percent)(1.0), 100.0, rtol=1e-6)
    assert np.isfinite(jax.grad(lambda h: jnp.sum(facet_error(h, scene).error_deg))(scene.surface.height_nm)).all()


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: height_error(TRUTH, TRUTH[:-1]), r"height_nm has shape \(40, 56\) but truth_nm \(39, 56\)"),
        (lambda: height_error(TRUTH, TRUTH, np.zeros((40, 56), bool)), "mask is False everywhere"),
        (lambda: height_error(TRUTH, TRUTH, np.ones((4, 5), bool)), r"mask has shape \(4, 5\)"),
        (
            lambda: height_error(np.where(X[0, 3] == X, np.nan, TRUTH), TRUTH),
            "not finite at 40 pixels.*row 0, column 3",
        ),
        (lambda: angular_error(TRUTH, TRUTH), r"normals has shape \(40, 56\): give \(y, x, 3\)"),
        (lambda: step_error(TRUTH, SCENES["step"]()), r"scene.surface.height_nm \(96, 120\)"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, told):
    with pytest.raises(ej.InputError, match=told):
        call()
