"""Closed-form slopes: exact on planes for any layout, their covariance against scatter, their derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import LevelNoise, slope_bound, slope_information
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.measurement import Measurement, detail_noise, measure
from eclipsjax.inverse.photometric import photometric_slopes
from eclipsjax.inverse.pipeline import Photometric, reconstruct, reconstruct_frames
from eclipsjax.specimen.emission import CosinePower
from eclipsjax.specimen.horizon import NoRelief
from eclipsjax.specimen.surface import Surface

LEANS = jnp.asarray(np.random.default_rng(0).uniform(-0.6, 0.6, (2, 5, 7)))


def scope_of(layout: str) -> Microscope:
    """Three, four, five and eight sectors, turned, with a gap; or two rings of three and four sectors."""
    if layout != "rings":
        return Microscope.annular(int(layout), start_deg=17.0, gap_mm=0.3)
    inner, outer = (
        Microscope.annular(n, inner_radius_mm=a, outer_radius_mm=b, start_deg=s)
        for n, a, b, s in ((3, 1.0, 2.5, 5.0), (4, 2.7, 5.0, -30.0))
    )
    first, second = inner.detector.segments, outer.detector.segments
    numbers = {
        field.name: jnp.concatenate([getattr(first, field.name), getattr(second, field.name)])
        for field in dataclasses.fields(first)
        if field.name not in ("names", "rings")
    }
    both = dataclasses.replace(first, names=tuple("ABCDEFG"), rings=(0, 0, 0, 1, 1, 1, 1), **numbers)
    return dataclasses.replace(inner, detector=dataclasses.replace(inner.detector, segments=both))


def measured(level, noise=None) -> Measurement:
    nowhere = jnp.zeros(level.shape, bool)
    noise = LevelNoise(jnp.ones(())) if noise is None else noise
    return Measurement(level, noise, nowhere, nowhere, jnp.ones(len(level)))


@pytest.mark.parametrize("layout", ["3", "4", "5", "8", "rings"])
def test_exact_on_unhidden_facets(layout):
    """Slopes to 31 deg and brightness, noise-free, for any layout: rounding only."""
    table = acceptance(scope_of(layout))
    level = 730.0 * render(Facets.isolated(*LEANS), table, horizon=NoRelief())
    found = photometric_slopes(measured(level), table)
    np.testing.assert_allclose(found.slope_x, LEANS[0], atol=1e-9)
    np.testing.assert_allclose(found.slope_y, LEANS[1], atol=1e-9)
    np.testing.assert_allclose(found.brightness, 730.0, rtol=1e-9)
    np.testing.assert_allclose(found.chi_square, 0.0, atol=1e-12)


def test_rounds_solve_other_laws_and_steep_facets():
    """Gauss-Newton reaches what the closed form cannot: cos^1.5 emission, and a pixel that cuts off its own view."""
    table = acceptance(Microscope.annular(4))
    law = CosinePower(1.5)
    level = render(Facets.isolated(*LEANS), table, emission=law, horizon=NoRelief())
    found = photometric_slopes(measured(level), table, law, rounds=8)
    np.testing.assert_allclose(jnp.stack([found.slope_x, found.slope_y]), LEANS, atol=1e-6)
    steep = jnp.array([[1.6]]), jnp.array([[-0.9]])
    level = render(Facets.isolated(*steep), table, horizon=NoRelief())
    closed = photometric_slopes(measured(level), table)
    found = photometric_slopes(measured(level), table, rounds=12)
    assert abs(float(closed.slope_x[0, 0]) - 1.6) > 0.02
    np.testing.assert_allclose([found.slope_x[0, 0], found.slope_y[0, 0]], [1.6, -0.9], atol=1e-6)


@pytest.mark.parametrize("layout", ["3", "4", "rings"])
def test_covariance_is_the_scatter_and_the_bound(layout):
    """20,000 noisy pixels of one facet scatter as stated (2 %), which is the Cramer-Rao bound (unknown yield)."""
    table, noise = acceptance(scope_of(layout)), LevelNoise(jnp.asarray(4e-4))
    one = jnp.full((1, 1), 0.3), jnp.full((1, 1), -0.2)
    level = render(Facets.isolated(*one), table, horizon=NoRelief())
    many = level + 4e-4 * jax.random.normal(jax.random.key(1), (len(level), 100, 200))
    found = photometric_slopes(measured(many, noise), table)
    scatter = np.cov(np.asarray(found.slope_x).ravel(), np.asarray(found.slope_y).ravel())
    np.testing.assert_allclose(np.mean(found.covariance, axis=(0, 1)), scatter, rtol=0.05, atol=0.02 * scatter[0, 0])
    information = slope_information(Facets.isolated(*one), table, noise, horizon=NoRelief())
    bound = slope_bound(information)[:, 0, 0]
    np.testing.assert_allclose(np.sqrt(np.diag(np.mean(found.covariance, axis=(0, 1)))), bound, rtol=0.01)
    if len(level) > 3:
        assert float(jnp.mean(found.chi_square)) == pytest.approx(len(level) - 3, rel=0.03)


def test_counting_noise_weighs_the_channels():
    """With counting noise alone the weighted fit reaches the bound, which equal weights would miss by 5 %."""
    table, noise = acceptance(Microscope.annular(3)), LevelNoise(jnp.zeros(()), 3e5)
    one = jnp.full((1, 1), 0.5), jnp.full((1, 1), 0.1)
    level = render(Facets.isolated(*one), table, horizon=NoRelief())
    spread = jnp.sqrt(level / 3e5) * jax.random.normal(jax.random.key(2), (3, 100, 100))
    found = photometric_slopes(measured(level + spread, noise), table)
    bound = slope_bound(slope_information(Facets.isolated(*one), table, noise, horizon=NoRelief()))[0, 0, 0]
    assert float(jnp.std(found.slope_x)) == pytest.approx(float(bound), rel=0.03)


def test_derivatives_against_finite_differences():
    """Reverse mode in the levels and in an instrument number, against central differences."""
    scope = Microscope.annular(4)
    level = render(Facets.isolated(*LEANS), acceptance(scope), horizon=NoRelief()) + 1e-3

    def loss(level, distance):
        moved = dataclasses.replace(scope, detector=dataclasses.replace(scope.detector, distance_mm=distance))
        found = photometric_slopes(measured(level), acceptance(moved))
        return jnp.sum(found.slope_x**2 + 0.5 * found.slope_y * found.slope_x)

    distance, step = jnp.asarray(6.0), 1e-6
    by_level, by_distance = jax.grad(loss, argnums=(0, 1))(level, distance)
    towards = jax.random.normal(jax.random.key(0), level.shape)
    along = (loss(level + step * towards, distance) - loss(level - step * towards, distance)) / (2 * step)
    assert float(jnp.vdot(by_level, towards)) == pytest.approx(float(along), rel=1e-6)
    along = (loss(level, distance + 1e-5) - loss(level, distance - 1e-5)) / 2e-5
    assert float(by_distance) == pytest.approx(float(along), rel=1e-6)


def test_noise_is_read_off_the_finest_detail():
    """White noise on a smooth relief: its strength to 2 %, whatever lies under it."""
    y, x = np.mgrid[:200, :300]
    relief = np.stack([100 + 20 * np.sin(x / 9.0), 90 + 0.2 * y, 110 - 0.1 * x])
    noise = np.random.default_rng(1).normal(size=relief.shape) * np.array([1.0, 2.0, 4.0])[:, None, None]
    np.testing.assert_allclose(detail_noise(jnp.asarray(relief + noise)), [1.0, 2.0, 4.0], rtol=0.03)


def test_gain_and_pedestal_are_undone():
    """Images are gain * (level - pedestal); where they sit at the end of the range they are only bounds."""
    scope = Microscope.annular(3)
    segments = dataclasses.replace(
        scope.detector.segments, gain=jnp.array([900.0, 1000.0, 1100.0]), pedestal=jnp.array([0.01, 0.02, 0.03])
    )
    scope = dataclasses.replace(scope, detector=dataclasses.replace(scope.detector, segments=segments))
    level = jnp.asarray(np.random.default_rng(2).uniform(0.05, 0.3, (3, 8, 9)))
    images = segments.gain[:, None, None] * (level - segments.pedestal[:, None, None])
    found = measure(images, scope, grey_range=(40.0, 255.0))
    np.testing.assert_allclose(found.level, level, rtol=1e-12)
    np.testing.assert_array_equal(found.above, images >= 255)
    np.testing.assert_array_equal(found.below, images <= 40)
    np.testing.assert_array_equal(found.measured, (images < 255) & (images > 40))


def test_two_sides_are_not_enough():
    """Four segments that look from two opposite sides tell nothing of one slope: said, not divided by zero."""
    table = acceptance(Microscope.annular(4))
    place = jnp.array([0, 0, 2, 2])
    blind = dataclasses.replace(table, theta=table.theta[:, :, place], phi=table.phi[:, :, place])
    with pytest.raises(InputError, match="do not tell both slopes"):
        photometric_slopes(measured(jnp.ones((4, 2, 2))), blind)


def test_frames_come_one_after_the_other():
    """As each alone; what is wrong with one is said of that one, and those before it are not lost."""
    scope = Microscope.annular(segments=4)
    frames = [imaged_plane(scope, tilt) for tilt in (5.0, 10.0)]
    found = list(reconstruct_frames(frames, 4.0, scope, Photometric()))
    for frame, result in zip(frames, found, strict=True):
        np.testing.assert_array_equal(result.height_nm, reconstruct(frame, 4.0, scope, Photometric()).height_nm)
    results = reconstruct_frames([frames[0], frames[1][:3]], 4.0, scope, Photometric())
    next(results)
    with pytest.raises(InputError, match="frame 1: there are 3 images"):
        next(results)


def imaged_plane(scope, tilt_deg):
    _, x = np.mgrid[:24, :24] * 4.0
    surface = Surface(np.tan(np.radians(tilt_deg)) * x, 4.0)
    noise = 1e-3 * jax.random.normal(jax.random.key(0), (4, 24, 24))
    return render(surface, acceptance(scope), horizon=NoRelief()) + noise
