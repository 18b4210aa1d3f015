"""How far occlusion reaches: the closed form against counting on Gaussian surfaces, its limits, and what `render` sees.

Surfaces: white noise filtered to correlation h^2 exp(-t^2 / L^2), periodic, 512 x 512. Closed form less counted, of one
surface of s = 0.5, L = 8 px and one of s = 1, L = 6 px, radii from 1 px to 32 px:

    tan e / s                         0.35-0.36  0.70-0.73  1.0     1.4     1.7
    worst difference of probability   0.018      0.0047     0.0018  0.0010  0.0012
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.vision_field import (
    SurfaceStatistics,
    blocked_beyond,
    blocked_beyond_counted,
    vision_field_radius_nm,
)
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.specimen.horizon import HardHorizon, azimuth_centres, horizon
from eclipsjax.specimen.surface import Surface

PIXEL_NM = 3.0
RADII_PX = (1, 2, 4, 8, 16, 32, 64)
# With 8 azimuths every ray is this much longer than its major axis.
LONGER = 1 / np.cos(np.pi / 8)
STATISTICS = SurfaceStatistics(0.5, 24.0)


@functools.cache
def gaussian(rms_slope, correlation_px, count=512, seed=1):
    """A periodic surface with Gaussian correlation and exactly the rms height s L / sqrt(2)."""
    rows, columns = np.fft.fftfreq(count), np.fft.rfftfreq(count)
    q = 2 * np.pi * np.hypot(rows[:, None], columns[None, :])
    noise = np.fft.rfft2(np.random.default_rng(seed).normal(size=(count, count)))
    z = np.fft.irfft2(noise * np.exp(-((q * correlation_px) ** 2) / 8), s=(count, count))
    return Surface(PIXEL_NM * z * (rms_slope * correlation_px / np.sqrt(2) / z.std()), PIXEL_NM)


@jax.jit
def many(statistics, elevations_deg, radii_nm):
    of_radii = jax.vmap(blocked_beyond, (None, None, 0))
    return jax.vmap(of_radii, (None, 0, None))(statistics, elevations_deg, radii_nm)


@pytest.mark.parametrize(
    ("rms_slope", "correlation_px", "elevations_deg", "margins"),
    [
        (0.5, 8.0, [10.0, 20.0, 35.0, 50.0], [0.025, 0.008, 0.002, 0.001]),
        (1.0, 6.0, [20.0, 35.0, 45.0, 60.0], [0.025, 0.008, 0.004, 0.003]),
    ],
)
def test_closed_form_agrees_with_counting(rms_slope, correlation_px, elevations_deg, margins):
    """Absolute margins a row, about 1.4 times what was measured; a second surface differs by up to 0.004."""
    elevations = jnp.asarray(elevations_deg)
    counted = blocked_beyond_counted(gaussian(rms_slope, correlation_px), elevations, RADII_PX)
    statistics = SurfaceStatistics(rms_slope, correlation_px * PIXEL_NM)
    closed = many(statistics, elevations, jnp.asarray(np.array(RADII_PX) * LONGER * PIXEL_NM))
    assert counted.shape == closed.shape == (len(elevations_deg), len(RADII_PX))
    error = np.abs(np.asarray(closed - counted)).max(axis=1)
    assert (error < margins).all(), error
    # By share: 12 % where the probability is above 3 % (measured 10 %).
    seen = np.asarray(counted) > 0.03
    np.testing.assert_allclose(np.asarray(closed)[seen], np.asarray(counted)[seen], rtol=0.12)


def test_statistics_of_a_gaussian_surface():
    """2 % of rms slope and of correlation length (one surface of 4,096 correlation areas), whatever its tilt."""
    surface = gaussian(0.5, 8.0)
    found = SurfaceStatistics.of(surface)
    assert float(found.rms_slope) == pytest.approx(0.5, rel=0.02)
    assert float(found.correlation_nm) == pytest.approx(24.0, rel=0.02)
    assert float(found.rms_height_nm) == pytest.approx(float(jnp.std(surface.height_nm)), rel=3e-3)
    y, x = np.mgrid[:512, :512] * PIXEL_NM
    tilted = SurfaceStatistics.of(Surface(surface.height_nm + jnp.asarray(0.3 * x - 0.1 * y), PIXEL_NM))
    np.testing.assert_allclose(jax.tree.leaves(tilted), jax.tree.leaves(found), rtol=1e-9)


def test_counting_follows_its_rule():
    """Against loops over the horizon's maps: clear within r, blocked within the largest, the whole ray on the map."""
    surface = gaussian(1.0, 4.0, count=40)
    radii, azimuths, line = (2, 5, 11), 6, np.tan(np.radians(25.0))
    near, middle, far = (np.asarray(horizon(surface, azimuths, HardHorizon(radius_px=r))) for r in radii)
    clear, open_sky = np.zeros(3), 0
    for k, phi in enumerate(azimuth_centres(azimuths)):
        along = np.array([-np.sin(phi), np.cos(phi)])
        end = radii[-1] * along / np.abs(along).max()
        for y, x in np.ndindex(40, 40):
            if 0 <= y + end[0] <= 39 and 0 <= x + end[1] <= 39:
                clear += [near[k, y, x] < line, middle[k, y, x] < line, far[k, y, x] < line]
                open_sky += far[k, y, x] < line
    counted = blocked_beyond_counted(surface, 25.0, radii, azimuths)
    np.testing.assert_allclose(counted, 1 - open_sky / clear, rtol=1e-12)
    assert float(counted[-1]) == 0.0


def test_limits_and_order():
    """Nothing is blocked infinitely far out, and less the farther out, the higher the direction, the flatter it is."""
    elevations, radii = jnp.asarray([3.0, 12.0, 30.0, 70.0]), jnp.linspace(0.0, 120.0, 7)
    table = np.asarray(many(STATISTICS, elevations, radii))
    assert (table >= 0).all() and (table < 1).all()
    assert (np.diff(table, axis=0) <= 0).all() and (np.diff(table, axis=1) <= 0).all()
    assert (np.diff(table[:, 0]) < 0).all() and (np.diff(table[:3], axis=1) < 0).all()
    assert float(blocked_beyond(STATISTICS, 3.0, 1e5)) < 1e-12
    assert (np.asarray(many(SurfaceStatistics(0.4, 24.0), elevations, radii)) <= table).all()
    assert float(blocked_beyond(STATISTICS, 0.02, 0.0)) > 0.99


def test_only_two_ratios_matter():
    """tan e / s and r / L: the same probability for a surface twice as steep under a line twice as steep."""
    one = blocked_beyond(SurfaceStatistics(0.3, 20.0), np.degrees(np.arctan(0.2)), 15.0)
    two = blocked_beyond(SurfaceStatistics(0.6, 40.0), np.degrees(np.arctan(0.4)), 30.0)
    assert float(one) == pytest.approx(float(two), rel=1e-12)


def test_the_radius_is_where_the_probability_falls_below():
    radii = [float(vision_field_radius_nm(STATISTICS, elevation, 0.003)) for elevation in (5.0, 20.0, 40.0)]
    for elevation, radius in zip((5.0, 20.0, 40.0), radii, strict=True):
        assert float(blocked_beyond(STATISTICS, elevation, radius)) == pytest.approx(0.003, rel=1e-6)
    assert (np.diff(radii) < 0).all()
    assert float(vision_field_radius_nm(STATISTICS, 80.0, 0.01)) == 0.0


def _blocked(numbers):
    slope, length, elevation, radius = numbers
    return blocked_beyond(SurfaceStatistics(slope, length), elevation, radius)


def _radius(numbers):
    slope, length, elevation, threshold = numbers
    return vision_field_radius_nm(SurfaceStatistics(slope, length), elevation, threshold)


blocked_forward, blocked_reverse = jax.jit(jax.jacfwd(_blocked)), jax.jit(jax.value_and_grad(_blocked))
radius_reverse = jax.jit(jax.grad(_radius))


def differences(function, point, share):
    """Central differences with steps of `share` of each number."""
    steps = share * np.diag(point)
    ahead, behind = (
        np.array([float(function(jnp.asarray(point + sign * step))) for step in steps]) for sign in (1, -1)
    )
    return (ahead - behind) / (2 * share * np.array(point))


@pytest.mark.parametrize("point", [[0.5, 24.0, 22.0, 15.0], [0.5, 24.0, 50.0, 3.0], [0.2, 24.0, 2.0, 0.5]])
def test_derivatives_of_the_probability(point):
    """In every number: forward = reverse = central differences, 1e-6 relative."""
    backward = blocked_reverse(jnp.asarray(point))[1]
    np.testing.assert_allclose(blocked_forward(jnp.asarray(point)), backward, rtol=1e-9)
    np.testing.assert_allclose(backward, differences(_blocked, point, 1e-4), rtol=1e-6)


def test_derivatives_of_the_radius():
    """In every number against central differences, 1e-5 relative (the bisection ends at 1e-8)."""
    point = [0.5, 24.0, 22.0, 0.01]
    np.testing.assert_allclose(radius_reverse(jnp.asarray(point)), differences(_radius, point, 5e-4), rtol=1e-5)


def test_derivatives_stay_finite_where_nothing_is_blocked():
    np.testing.assert_array_equal(radius_reverse(jnp.asarray([0.05, 24.0, 80.0, 0.01])), 0.0)
    np.testing.assert_array_equal(blocked_reverse(jnp.asarray([0.05, 24.0, 80.0, 30.0]))[1], 0.0)


def test_statistics_are_differentiable():
    height = gaussian(0.5, 4.0, count=24).height_nm
    gradient = jax.grad(lambda z: SurfaceStatistics.of(Surface(z, PIXEL_NM)).correlation_nm)(height)
    direction = jax.random.normal(jax.random.key(0), height.shape)

    def along(t):
        return float(SurfaceStatistics.of(Surface(height + t * direction, PIXEL_NM)).correlation_nm)

    difference = (along(1e-5) - along(-1e-5)) / 2e-5
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(difference, rel=1e-6)


def test_jit_and_vmap_agree_with_a_loop():
    elevations, radii = jnp.asarray([20.0, 30.0, 40.0, 50.0]), jnp.linspace(0.0, 60.0, 7)
    loop = [float(blocked_beyond(STATISTICS, 20.0, float(r))) for r in radii]
    np.testing.assert_allclose(many(STATISTICS, elevations, radii)[0], loop, rtol=1e-10)
    slopes = jnp.asarray([0.3, 0.6])
    mapped = jax.jit(jax.vmap(lambda s: vision_field_radius_nm(SurfaceStatistics(s, 24.0), 20.0, 0.01)))(slopes)
    loop = [float(vision_field_radius_nm(SurfaceStatistics(s, 24.0), 20.0, 0.01)) for s in (0.3, 0.6)]
    np.testing.assert_allclose(mapped, loop, rtol=1e-8)


def test_float32_keeps_four_digits():
    """Values 1e-4 relative and gradients 1e-3, from 40 % down to 0.05 % (measured 3e-6, 7e-5)."""
    for elevation, radius in ((10.0, 0.0), (20.0, 30.0), (35.0, 6.0), (50.0, 15.0)):
        point = jnp.asarray([0.5, 24.0, elevation, radius])
        exact, slopes = blocked_reverse(point)
        value, rough = blocked_reverse(point.astype(jnp.float32))
        assert value.dtype == rough.dtype == jnp.float32
        assert float(value) == pytest.approx(float(exact), rel=1e-4)
        np.testing.assert_allclose(rough, slopes, rtol=1e-3)


@pytest.mark.parametrize(("outer_mm", "delta_out"), [(5.0, 1e-3), (8.0, 1e-2)])
def test_directions_below_the_detector_do_not_matter(outer_mm, delta_out):
    """Signals with the vision field's radius against those with 64 px, relief of rms slope 0.7, interior pixels.

    At the radius more than a tenth of the directions at 10 deg are still blocked farther out; of the signal less than
    `delta_out` / 5 is, on average (measured: 0.006 and 0.07 of it; the worst pixel loses 3 % and 23 % of the mean).
    """
    surface = gaussian(0.7, 10.0, count=224)
    table = acceptance(Microscope.annular(4, 1.0, outer_mm, 6.0))
    statistics = SurfaceStatistics.of(surface)
    rim_deg = np.degrees(np.arctan2(6.0, outer_mm))
    radius_nm = float(vision_field_radius_nm(statistics, rim_deg, delta_out))
    radius_px = int(np.ceil(radius_nm / PIXEL_NM))
    near, far = (
        np.asarray(render(surface, table, azimuths=16, horizon=HardHorizon(radius_px=r)))[:, 64:-64, 64:-64]
        for r in (radius_px, 64)
    )
    assert float(blocked_beyond(statistics, 10.0, radius_nm)) > 0.1
    lost = (near - far).mean() / far.mean()
    assert 0 <= lost < 0.2 * delta_out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SurfaceStatistics(0.0, 20.0), "rms_slope is 0.0: give one positive"),
        (lambda: SurfaceStatistics(0.3, -1.0), "correlation_nm is -1.0: give one positive"),
        (lambda: SurfaceStatistics(0.3, float("nan")), "correlation_nm is nan"),
        (lambda: SurfaceStatistics.of(Surface(np.zeros((8, 8)), 1.0)), "rms_slope is 0.0"),
        (lambda: SurfaceStatistics.of(Surface(np.zeros((2, 8)), 1.0)), r"shape \(2, 8\)"),
        (lambda: blocked_beyond(STATISTICS, 0.0, 5.0), "elevation_deg is 0.0: give degrees above"),
        (lambda: blocked_beyond(STATISTICS, 90.0, 5.0), "elevation_deg is 90.0"),
        (lambda: blocked_beyond(STATISTICS, jnp.asarray([10.0, 20.0]), 5.0), r"elevation_deg has shape \(2,\)"),
        (lambda: blocked_beyond(STATISTICS, 20.0, -5.0), "radius_nm is -5.0"),
        (lambda: vision_field_radius_nm(STATISTICS, 95.0, 0.01), "lowest_elevation_deg is 95.0"),
        (lambda: vision_field_radius_nm(STATISTICS, 20.0, 0.0), "delta_out is 0.0: give one probability"),
        (lambda: vision_field_radius_nm(STATISTICS, 20.0, 1.0), "delta_out is 1.0"),
        (lambda: blocked_beyond_counted(gaussian(0.5, 8.0), 20.0, [4, 2]), r"radii_px is \(4, 2\)"),
        (lambda: blocked_beyond_counted(gaussian(0.5, 8.0), 20.0, 4), "radii_px is 4: give a list"),
        (lambda: blocked_beyond_counted(gaussian(0.5, 8.0), 20.0, [2, 2.5]), "radii_px is 2.5"),
        (lambda: blocked_beyond_counted(gaussian(0.5, 8.0), 20.0, [2, 512]), "radii_px ends at 512"),
        (lambda: blocked_beyond_counted(gaussian(0.5, 8.0), -3.0, [2, 4]), "elevation_deg is -3.0"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call()
