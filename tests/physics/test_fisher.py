"""Information and bounds of slopes and heights against closed forms, numpy and the scatter of noisy fits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadrants import BASE, THETA1, THETA2, closed_form, polar_integrals, with_numbers

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import AdditiveNoise, Camera, GaussianShot, record
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import LevelNoise, slope_bound, slope_error, slope_information, slope_response
from eclipsjax.imaging.height_bound import height_bound, height_covariance, height_information
from eclipsjax.imaging.sensitivity import Reverse, derivative_maps
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.specimen.horizon import HardHorizon, NoRelief
from eclipsjax.specimen.surface import Surface

# --- noise of a pixel's levels ---


def test_weights_are_the_inverse_covariance():
    rng = np.random.default_rng(4)
    level, values = (jnp.asarray(rng.uniform(0.1, 0.3, (4, 2, 3))) for _ in range(2))
    std = np.array([0.01, 0.02, 0.03, 0.01])
    noise = LevelNoise(jnp.asarray(std), 3e3, 0.2)
    weighed = noise.weigher(level)(values)
    for row, column in np.ndindex(2, 3):
        at = np.asarray(level[:, row, column])
        covariance = np.diag(0.8 * std**2 + at / 3e3) + 0.2 * np.outer(std, std)
        np.testing.assert_allclose(
            weighed[:, row, column], np.linalg.solve(covariance, values[:, row, column]), rtol=1e-10
        )
        np.testing.assert_allclose(noise.precision(level)[row, column], np.linalg.inv(covariance), rtol=1e-10)


# --- Fisher information of slopes ---

TABLE = acceptance(BASE)
OPEN = {"horizon": NoRelief()}
NEAR = {"azimuths": 32, "horizon": HardHorizon(radius_px=4)}
NOISE = LevelNoise(0.003, 6000.0)


@pytest.mark.parametrize(("segments", "start_deg"), [(4, None), (4, 17.3), (3, 17.3)])
def test_flat_bound_closed_form(segments, start_deg):
    """Flat: dF_k/dslope = -2 sin(beta) J u_k / pi and sum u u' = N/2, so std = sqrt(2 var / N) pi / (2 sin(beta) J).

    The level is the same in all segments, so the responses are orthogonal to the yield's: knowing it changes nothing.
    """
    s, j, _ = polar_integrals()
    beta, eta = np.pi / segments, 0.3
    variance = 0.003**2 + eta * beta * s / np.pi / 6000
    expected = np.sqrt(2 * variance / segments) * np.pi / (2 * np.sin(beta) * j) / eta
    table = acceptance(Microscope.annular(segments, start_deg=start_deg))
    for known in (True, False):
        information = slope_information(Facets.isolated([[0.0]], [[0.0]]), table, NOISE, eta, known, **OPEN)
        np.testing.assert_allclose(slope_bound(information), expected, rtol=1e-6)


@pytest.mark.parametrize(("ratio", "degrees"), [(11, 7.8), (30, 2.9), (60, 1.4), (100, 0.86)])
def test_noise_row_of_the_table_of_sensitivities(ratio, degrees):
    """Row 7: S/N of each quadrant against the least angle error per pixel."""
    noise = LevelNoise(closed_form(0.0, 0.0)[0] / ratio)
    bound = slope_bound(slope_information(Facets.isolated([[0.0]], [[0.0]]), TABLE, noise, **OPEN))
    np.testing.assert_allclose(np.degrees(np.arctan(bound)), degrees, rtol=0.05)


def information_by_hand(slope_x, slope_y, eta, variance_and_common, h=1e-5):
    """3 x 3 information of (slope_x, slope_y, log yield) from the closed form, all in numpy."""
    level = eta * closed_form(slope_x, slope_y)
    rows = [
        (closed_form(slope_x + h, slope_y) - closed_form(slope_x - h, slope_y)) * eta / (2 * h),
        (closed_form(slope_x, slope_y + h) - closed_form(slope_x, slope_y - h)) * eta / (2 * h),
        level,
    ]
    return np.array(rows) @ np.linalg.inv(variance_and_common(level)) @ np.array(rows).T


def test_tilted_information_with_yield_and_common_noise():
    scope = with_numbers(BASE, beam__current_na=0.02)
    std, common, efficiency = 0.002, 0.3, 0.5
    slopes = np.array([[0.4, -0.3], [0.1, 0.6]]), np.array([[0.2, 0.5], [-0.7, 0.0]])
    eta = np.array([[0.3, 0.2], [0.4, 0.5]])
    level = jnp.asarray(closed_form(*slopes) * eta)
    noise = LevelNoise.of(Camera(shot=GaussianShot(efficiency), additive=AdditiveNoise(std, common)), scope, level)

    def covariance(level):
        electrons = 0.02 * 20.0 * 6241.509074 * efficiency
        return std**2 * (common + (1 - common) * np.eye(4)) + np.diag(level / electrons)

    for known in (True, False):
        found = slope_information(Facets.isolated(*slopes), TABLE, noise, eta, known, **OPEN)
        for at in np.ndindex(2, 2):
            whole = information_by_hand(slopes[0][at], slopes[1][at], eta[at], covariance)
            expected = whole[:2, :2] if known else np.linalg.inv(np.linalg.inv(whole)[:2, :2])
            np.testing.assert_allclose(found[at], expected, rtol=1e-6, atol=1e-6 * expected.max())
            np.testing.assert_allclose(
                slope_bound(found)[:, *at], np.sqrt(np.diagonal(np.linalg.inv(expected))), rtol=1e-6
            )


def test_no_unbiased_fit_beats_the_bound_and_maximum_likelihood_reaches_it():
    """2,000 noise draws of one facet, fitted in slopes and yield by Gauss-Newton on the closed form: 5 %."""
    std, eta, slopes = 0.0015, 0.3, (0.35, -0.2)
    scope = with_numbers(BASE, beam__current_na=0.1)
    camera = Camera(shot=GaussianShot(0.5), additive=AdditiveNoise(std))
    electrons = 0.1 * 20.0 * 6241.509074 * 0.5
    levels = eta * jnp.asarray(closed_form(*slopes))
    draws = record(jnp.broadcast_to(levels[:, None, None], (4, 40, 50)), scope, jax.random.key(3), camera)
    s, j, _ = polar_integrals()
    towards = jnp.asarray([[1.0, 0.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 1.0]])

    def model(p):
        leaning = towards @ p[:2]
        whole = np.pi / 4 * s - np.sqrt(2) * j * leaning
        return p[2] * whole / (np.pi * jnp.sqrt(1 + p[0] ** 2 + p[1] ** 2))

    def step(p, data):
        value, jacobian = model(p), jax.jacfwd(model)(p)
        weight = 1 / (std**2 + value / electrons)
        normal = jnp.einsum("ki,k,kj->ij", jacobian, weight, jacobian)
        return p + jnp.linalg.solve(normal, jnp.einsum("ki,k,k->i", jacobian, weight, data - value))

    @jax.jit
    @jax.vmap
    def fit(data):
        return jax.lax.fori_loop(0, 10, lambda _, p: step(p, data), jnp.array([0.0, 0.0, 0.25]))

    fits = np.asarray(fit(draws.reshape(4, -1).T))[:, :2]
    noise = LevelNoise.of(camera, scope, levels[:, None, None])
    bound = slope_bound(slope_information(Facets.isolated([[0.35]], [[-0.2]]), TABLE, noise, eta, **OPEN))[:, 0, 0]
    np.testing.assert_allclose(fits.std(axis=0), bound, rtol=0.05)
    assert (abs(fits.mean(axis=0) - slopes) < 4 * np.asarray(bound) / np.sqrt(2000) + 0.003).all()


def test_hidden_directions_tell_nothing():
    """At the foot of a wall the response is the integral of d(n . d)/dslope over what is left open: 2 %."""
    pixel, wall, column, row = 10.0, 160.0, 20, 16
    height = np.zeros((33, 33))
    height[:, 24:] = wall
    _, response = slope_response(Surface(height, pixel), TABLE, azimuths=128)
    theta = THETA1 + (THETA2 - THETA1) * (np.arange(400) + 0.5) / 400
    phi = 2 * np.pi * (np.arange(1440) + 0.5) / 1440
    theta, phi = np.meshgrid(theta, phi, indexing="ij")
    cot_horizon = wall / ((24 - column) * pixel) * np.maximum(np.cos(phi), 0)
    open_sky = (1 / np.tan(theta) > cot_horizon) * np.sin(theta) / np.pi
    element = (THETA2 - THETA1) / 400 * 2 * np.pi / 1440
    quadrant = ((np.degrees(phi) + 45) // 90 % 4).astype(int)
    open_response = np.sqrt(2) * polar_integrals()[1] / np.pi
    for k in range(4):
        mask = open_sky * (quadrant == k) * element
        # n = (-slope_x, -slope_y, 1) / norm: at slope 0 the derivatives are -d_x and -d_y
        along_x = -np.sum(mask * np.sin(theta) * np.cos(phi))
        along_y = np.sum(mask * np.sin(theta) * np.sin(phi))
        np.testing.assert_allclose(response[:, k, row, column], [along_x, along_y], atol=0.02 * open_response)
    assert abs(float(response[0, 0, row, column])) < 0.5 * open_response


def test_dark_or_blind_pixels_have_no_bound():
    """One segment cannot tell two slopes; with the yield unknown it tells nothing."""
    one = acceptance(Microscope.annular(1))
    facet = Facets.isolated([[0.3]], [[0.0]])
    assert np.isinf(slope_bound(slope_information(facet, one, NOISE, **OPEN))).all()
    known = slope_bound(slope_information(facet, one, NOISE, known_yield=True, **OPEN))[:, 0, 0]
    assert np.isfinite(known[0]) and np.isinf(known[1])
    assert np.isinf(slope_bound(jnp.zeros((1, 1, 2, 2)))).all()


def test_slope_error_per_unit_of_misalignment_and_gain():
    """Lateral offset: kappa = 4 K / (D J) per mm (1 / R_app); gain of one quadrant: (c/d) / 2 per unit; both flat."""
    s, j, k = polar_integrals()
    flat = Facets.isolated([[0.0]], [[0.0]])

    def seen(scope):
        return record(render(flat, acceptance(scope), **OPEN), scope)

    names = ("detector.offset_x_mm", "detector.offset_y_mm", "detector.segments.gain[1]", "detector.distance_mm")
    errors = {
        n: slope_error(d, flat, TABLE, NOISE, **OPEN)[:, 0, 0] for n, d in derivative_maps(seen, BASE, names).items()
    }
    kappa, half = 4 * k / (6 * j), np.pi / 4 * s / (np.sqrt(2) * j) / 2
    # a plate moved to the right brings its left quadrant nearer the axis, as if the surface rose to the right; the
    # chords that stand for a segment's straight sides are good for 0.2 % of it
    np.testing.assert_allclose(errors["detector.offset_x_mm"], [kappa, 0], rtol=3e-3, atol=1e-9)
    np.testing.assert_allclose(errors["detector.offset_y_mm"], [0, kappa], rtol=3e-3, atol=1e-9)
    # the upper quadrant too bright: as if the surface faced up, so it rises downwards
    np.testing.assert_allclose(errors["detector.segments.gain[1]"], [0, half], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(errors["detector.distance_mm"], [0, 0], atol=1e-9)


def test_bound_can_be_differentiated_by_the_instrument():
    """How the bound of a flat pixel (amplifier noise alone) moves with the detector's distance."""
    noise = LevelNoise(0.003)

    def bound(scope):
        facet = Facets.isolated([[0.0]], [[0.0]])
        return slope_bound(slope_information(facet, acceptance(scope), noise, **OPEN))

    j = [polar_integrals(6 + h)[1] for h in (1e-4, 0.0, -1e-4)]
    expected = 0.003 * np.pi / 2 * (1 / j[0] - 1 / j[2]) / 2e-4
    found = derivative_maps(bound, BASE, "detector.distance_mm", Reverse())["detector.distance_mm"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_noise_and_maps_are_checked():
    facet = Facets.isolated([[0.0]], [[0.0]])
    with pytest.raises(InputError, match="no noise"):
        LevelNoise()
    with pytest.raises(InputError, match="electrons"):
        LevelNoise(0.1, -1.0)
    with pytest.raises(InputError, match="common"):
        LevelNoise(0.1, common=1.0)
    with pytest.raises(InputError, match="yield_map"):
        slope_information(facet, TABLE, NOISE, np.ones((2, 2)), **OPEN)
    with pytest.raises(InputError, match="one shape"):
        Facets(np.zeros((2, 2)), 1.0, np.zeros((2, 2)), np.zeros((2, 1)))


# --- heights ---

RELIEF = 3.5 * np.random.default_rng(5).normal(size=(5, 6))


def height_information_by_hand(height, pixel, eta, noise_variance, h=1e-4):
    """Joint information of all heights and all log yields: closed form, central differences, numpy only."""

    def level(z):
        slope_y, slope_x = np.gradient(z, pixel, edge_order=2)
        return eta * closed_form(slope_x, slope_y)

    count = height.size
    rows = []
    for k in range(count):
        unit = h * np.eye(count)[k].reshape(height.shape)
        rows.append((level(height + unit) - level(height - unit)).ravel() / (2 * h))
    mean = level(height)
    for k in range(count):
        rows.append((mean * np.eye(count)[k].reshape(height.shape)).ravel())
    weight = 1 / noise_variance(mean).ravel()
    return (np.array(rows) * weight) @ np.array(rows).T


@pytest.mark.parametrize("known", [True, False])
def test_height_bound_against_a_dense_inverse(known):
    count, eta = RELIEF.size, 0.3
    found = height_bound(Surface(RELIEF, 20.0), TABLE, NOISE, eta, known, **NEAR)
    joint = height_information_by_hand(RELIEF, 20.0, eta, lambda level: 0.003**2 + level / 6000.0)
    joint = joint[:count, :count] if known else joint
    # orthonormal basis of all directions but the constant height
    size = joint.shape[0]
    constant = np.r_[np.ones(count), np.zeros(size - count)][:, None] / np.sqrt(count)
    basis = np.linalg.svd(np.eye(size) - constant @ constant.T)[0][:, : size - 1]
    covariance = basis @ np.linalg.inv(basis.T @ joint @ basis) @ basis.T
    expected = np.sqrt(np.diagonal(covariance)[:count]).reshape(RELIEF.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_height_is_unobservable_and_left_out():
    information = height_information(Surface(RELIEF, 20.0), TABLE, NOISE, **NEAR)
    ones = np.ones(RELIEF.shape)
    shift = np.einsum("yxvu,vu->yx", information, ones)
    assert np.abs(shift).max() < 1e-9 * float(jnp.max(information))
    covariance = height_covariance(information)
    assert np.abs(np.einsum("yxvu,vu->yx", covariance, ones)).max() < 1e-9 * float(jnp.max(covariance))


def test_height_bound_in_working_precision():
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (Surface(RELIEF, 20.0), TABLE, NOISE))
    bound = height_bound(*single, **NEAR)
    assert bound.dtype == jnp.float32
    np.testing.assert_allclose(bound, height_bound(Surface(RELIEF, 20.0), TABLE, NOISE, **NEAR), rtol=1e-3)


def test_height_bound_says_when_it_cannot():
    with pytest.raises(InputError, match="crop the map or bin"):
        height_bound(Surface(np.zeros((49, 48)), 1.0), TABLE, NOISE)
    one = acceptance(Microscope.annular(1))
    with pytest.raises(InputError, match="leave some heights open"):
        height_bound(Surface(RELIEF, 20.0), one, NOISE, **NEAR)
