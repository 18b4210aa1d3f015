"""What a wrong instrument costs, against the table of sensitivities; derivative maps, against central differences."""

import jax.numpy as jnp
import numpy as np
import pytest
from quadrants import BASE, closed_form, polar_integrals, with_numbers

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import record
from eclipsjax.imaging.misreading import misread_slopes, misread_tilt
from eclipsjax.imaging.sensitivity import Forward, Reverse, derivative_maps, instrument_numbers
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.spectrum import Spectrum
from eclipsjax.specimen.surface import Surface

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
