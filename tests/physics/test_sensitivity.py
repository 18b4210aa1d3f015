"""Derivative maps against finite differences; information and bounds against closed forms, numpy and noisy fits.

Known answers: quadrants on R1, R2, D = 1, 5, 6 mm. A plane leaning by t toward phi_n sends segment k (half span beta,
centre phi_k) F_k = (beta S cos t + 2 sin(beta) J sin t cos(phi_k - phi_n)) / pi, with S and J the integrals of
2 sin cos and sin^2 over the segment's polar angles; in slopes F_k = n_z (beta S - 2 sin(beta) J slope . u_k) / pi.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import AdditiveNoise, Camera, GaussianShot, record
from eclipsjax.imaging.facets import Facets
from eclipsjax.imaging.fisher import LevelNoise, slope_bound, slope_error, slope_information, slope_response
from eclipsjax.imaging.height_bound import height_bound, height_covariance, height_information
from eclipsjax.imaging.misreading import misread_slopes, misread_tilt
from eclipsjax.imaging.sensitivity import Forward, Reverse, derivative_maps, instrument_numbers
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.spectrum import Spectrum
from eclipsjax.specimen.horizon import HardHorizon, NoRelief
from eclipsjax.specimen.surface import Surface

BASE = Microscope.annular()
THETA1, THETA2 = np.arctan(1 / 6), np.arctan(5 / 6)


def polar_integrals(distance=6.0, inner=1.0, outer=5.0):
    """(S, J, K): the integrals of 2 sin cos, sin^2 and sin^2 cos^2 over the detector's polar angles."""
    a, b = np.arctan(inner / distance), np.arctan(outer / distance)
    s = np.sin(b) ** 2 - np.sin(a) ** 2
    j = (b - a) / 2 - (np.sin(2 * b) - np.sin(2 * a)) / 4
    k = (b - a) / 8 - (np.sin(4 * b) - np.sin(4 * a)) / 32
    return s, j, k


def closed_form(slope_x, slope_y, segments=4, start_deg=None, distance=6.0):
    """`(segment, ...)` Lambertian signals of open facets, in array axes (y down)."""
    s, j, _ = polar_integrals(distance)
    beta = np.pi / segments
    first = -180 / segments if start_deg is None else start_deg
    centres = np.radians(first + (np.arange(segments) + 0.5) * 360 / segments)
    slope_x, slope_y = np.asarray(slope_x), np.asarray(slope_y)
    shape = (-1,) + (1,) * slope_x.ndim
    along_x, along_y = np.cos(centres).reshape(shape), -np.sin(centres).reshape(shape)
    leaning = slope_x * along_x + slope_y * along_y
    return (beta * s - 2 * np.sin(beta) * j * leaning) / (np.pi * np.sqrt(1 + slope_x**2 + slope_y**2))


def with_numbers(scope, **numbers):
    """The scope with `part__field=value` replaced (for segments, one value or one each)."""
    for name, value in numbers.items():

        def leaf(record, name=name):
            for step in name.split("__"):
                record = getattr(record, step)
            return record

        scope = eqx.tree_at(leaf, scope, jnp.broadcast_to(jnp.asarray(value, float), leaf(scope).shape))
    return scope


# --- what a wrong instrument costs: rows 1, 3, 4 and 5 of the table of sensitivities, all within 0.1 deg ---


@pytest.mark.parametrize(("percent", "degrees"), [(1, 22.2), (5, 23.1), (10, 24.4), (30, 30.9), (47, 39.3)])
def test_pedestal_left_in_the_images(percent, degrees):
    flat = closed_form(0.0, 0.0)[0]
    true = with_numbers(BASE, detector__segments__pedestal=percent / 100 * flat)
    assert abs(float(misread_tilt(true, BASE, 22.0)) - degrees) < 0.1


@pytest.mark.parametrize(("taken_as", "degrees"), [(5.0, 19.2), (5.5, 20.6), (6.5, 23.4), (7.0, 24.8)])
def test_wrong_detector_distance(taken_as, degrees):
    assumed = with_numbers(BASE, detector__distance_mm=taken_as, column__working_distance_mm=8.5)
    assert abs(float(misread_tilt(BASE, assumed, 22.0)) - degrees) < 0.1


@pytest.mark.parametrize("number", ["detector__offset_x_mm", "detector__offset_y_mm", "beam__position_x_mm"])
@pytest.mark.parametrize(("offset_mm", "degrees"), [(0.05, 1.42), (0.1, 2.84), (0.25, 7.05), (0.5, 13.8)])
def test_lateral_misalignment(number, offset_mm, degrees):
    assert abs(float(misread_tilt(with_numbers(BASE, **{number: offset_mm}), BASE)) - degrees) < 0.1


@pytest.mark.parametrize(("mismatch", "degrees"), [(0.01, 0.61), (0.02, 1.21), (0.05, 2.97)])
@pytest.mark.parametrize("segment", [0, 3])
def test_gain_mismatch(segment, mismatch, degrees):
    true = with_numbers(BASE, detector__segments__gain=1 + mismatch * np.eye(4)[segment])
    # 0.1 deg would pass a reading of 0.5: the row is known to its last digit
    assert abs(float(misread_tilt(true, BASE)) - degrees) < 0.006


def test_right_instrument_reads_the_plane():
    for azimuth in (0.0, 37.0, 190.0):
        slopes = misread_slopes(BASE, BASE, 22.0, azimuth)
        # the normal leans toward the azimuth: the surface falls that way, and y runs down
        direction = np.array([np.cos(np.radians(azimuth)), -np.sin(np.radians(azimuth))])
        np.testing.assert_allclose(slopes, -np.tan(np.radians(22)) * direction, atol=1e-9)


def test_misread_tilt_has_exact_derivatives():
    def by_hand(distance):
        (s, j, _), (s0, j0, _) = polar_integrals(distance), polar_integrals()
        return np.degrees(np.arctan(np.tan(np.radians(22)) * (s / j) / (s0 / j0)))

    expected = (by_hand(6 + 1e-4) - by_hand(6 - 1e-4)) / 2e-4
    for mode in (Forward(), Reverse()):
        per_mm = derivative_maps(lambda s: misread_tilt(BASE, s, 22.0), BASE, "detector.distance_mm", mode)
        np.testing.assert_allclose(per_mm["detector.distance_mm"], expected, rtol=1e-6)


def test_estimator_says_what_it_needs():
    with pytest.raises(InputError, match="even number of at least four"):
        misread_slopes(Microscope.annular(3), Microscope.annular(3))
    with pytest.raises(InputError, match="equally many"):
        misread_slopes(Microscope.annular(3), BASE)
    swapped = with_numbers(
        BASE,
        detector__segments__start_deg=[-45, 135, 45, 225],
        detector__segments__stop_deg=[45, 225, 135, 315],
    )
    with pytest.raises(InputError, match="do not face each other"):
        misread_slopes(BASE, swapped)


# --- derivative maps: exact against central differences ---

CROOKED = with_numbers(
    Microscope.annular(start_deg=17.3, gap_mm=0.3),
    detector__tilt_x_deg=3.0,
    detector__tilt_y_deg=-2.0,
    detector__offset_x_mm=0.12,
    detector__offset_y_mm=-0.07,
    beam__position_x_mm=0.05,
    beam__position_y_mm=0.03,
    detector__segments__gain=[1.0, 1.1, 0.9, 1.2],
    detector__segments__pedestal=[0.01, 0.02, -0.01, 0.03],
)
PLATE = [f"detector.{n}" for n in ("distance_mm", "tilt_x_deg", "tilt_y_deg", "offset_x_mm", "offset_y_mm")]
SEGMENT_FIELDS = ("inner_radius_mm", "outer_radius_mm", "start_deg", "stop_deg", "gap_mm", "gain", "pedestal")
NUMBERS = [*PLATE, "beam.position_x_mm", "beam.position_y_mm", *(f"detector.segments.{n}" for n in SEGMENT_FIELDS)]
STEEP = Surface(12.0 * np.random.default_rng(0).normal(size=(5, 6)), 10.0)


def images(scope):
    return record(render(STEEP, acceptance(scope), 32, 4), scope)


def moved(scope, name, by):
    field, _, entry = name.partition("[")
    value = scope
    for step in field.split("."):
        value = getattr(value, step)
    shift = by if not entry else by * np.eye(value.size)[int(entry[:-1])]
    return with_numbers(scope, **{field.replace(".", "__"): value + shift})


def difference(f, scope, name, h=1e-5):
    return (np.asarray(f(moved(scope, name, h))) - np.asarray(f(moved(scope, name, -h)))) / (2 * h)


def test_derivative_maps_of_images_by_every_number():
    maps = derivative_maps(images, CROOKED, NUMBERS)
    assert len(maps) == 7 + 7 * 4
    probe = np.random.default_rng(1).normal(size=(2, 4, 5, 6))
    reverse = derivative_maps(
        lambda s: jnp.einsum("kyx,pkyx->p", images(s), jnp.asarray(probe)), CROOKED, NUMBERS, Reverse()
    )
    for name, derivative in maps.items():
        expected = difference(images, CROOKED, name)
        assert np.abs(expected).max() > 1e-4
        np.testing.assert_allclose(derivative, expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)
        probed = np.einsum("kyx,pkyx->p", expected, probe)
        np.testing.assert_allclose(reverse[name], probed, atol=1e-5 * np.abs(probed).max(), err_msg=name)


def test_derivative_maps_of_an_aligned_instrument():
    """Radial sides on the edges between azimuth bins (the default quadrants') sweep area when they move."""
    for name, derivative in derivative_maps(images, BASE, NUMBERS).items():
        if "gap_mm" not in name:  # closed gaps cannot be made smaller
            expected = difference(images, BASE, name)
            np.testing.assert_allclose(derivative, expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def test_derivative_of_the_diodes_response_by_energy_and_threshold():
    """Without a field the energies land alike, so energy and threshold act on each energy's share of the current."""
    scope = with_numbers(BASE, detector__segments__threshold_kev=[1.0, 1.5, 2.0, 3.0])
    spectrum = Spectrum.backscattered(nodes=3)

    def share(scope):
        return acceptance(scope, spectrum=spectrum).share[0]

    names = ("beam.energy_kev", "detector.segments.threshold_kev")
    for mode in (Forward(2), Reverse(5)):
        for name, derivative in derivative_maps(share, scope, names, mode).items():
            expected = difference(share, scope, name)
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(derivative, expected, atol=1e-5 * np.abs(expected).max(), err_msg=name)


def test_chunks_do_not_matter_and_any_record_will_do():
    numbers = {"a": jnp.arange(5.0), "b": (jnp.asarray(2.0),)}

    def f(r):
        return r["b"][0] * r["a"][:3] ** 2 + r["a"][4]

    assert instrument_numbers(numbers) == ("a[0]", "a[1]", "a[2]", "a[3]", "a[4]", "b[0]")
    jacobian = np.zeros((6, 3))
    jacobian[[0, 1, 2], [0, 1, 2]] = [0.0, 4.0, 8.0]
    jacobian[4], jacobian[5] = 1.0, np.array([0.0, 1.0, 4.0])
    for mode in (Forward(1), Forward(4), Forward(99), Reverse(1), Reverse(2)):
        found = derivative_maps(f, numbers, ("a", "b[0]"), mode)
        np.testing.assert_allclose(list(found.values()), jacobian, atol=1e-12)


def test_unknown_numbers_name_the_nearest():
    for wrong, right in [
        ("detector.distance", "detector.distance_mm"),
        ("outer_radius_mm", "detector.segments.outer_radius_mm"),
        ("detector.segments.gain[7]", "detector.segments.gain[0]"),
    ]:
        with pytest.raises(InputError) as caught:
            derivative_maps(images, BASE, wrong)
        assert right in str(caught.value) and wrong in str(caught.value)
    with pytest.raises(InputError, match="empty"):
        derivative_maps(images, BASE, ())
    with pytest.raises(InputError, match="chunk"):
        Forward(0)


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
