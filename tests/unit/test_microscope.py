"""Microscope, spectrum and surface: what they hold, and one clear sentence for every mistake."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.instrument.microscope import Detector, Microscope, Segments, check_microscope
from eclipsjax.instrument.spectrum import Spectrum
from eclipsjax.specimen.surface import Surface, check_height


def changed(where, value, **annular):
    """A microscope with one number replaced, checked again."""
    scope = Microscope.annular(**annular)
    check_microscope(eqx.tree_at(where, scope, jnp.asarray(value, float)))


def segments(s):
    return s.detector.segments


def reshaped(plate, **column):
    """A microscope with numbers of plate and column replaced, checked again."""
    scope = Microscope.annular()
    plate, column = ({k: jnp.asarray(v, float) for k, v in numbers.items()} for numbers in (plate, column))
    return Microscope(
        scope.beam, dataclasses.replace(scope.detector, **plate), dataclasses.replace(scope.column, **column)
    )


def test_annular_quadrants_face_right_up_left_and_down():
    ring = Microscope.annular().detector.segments
    assert ring.names == ("A", "B", "C", "D") and ring.count == 4
    np.testing.assert_allclose((ring.start_deg + ring.stop_deg) / 2, [0, 90, 180, 270])
    np.testing.assert_allclose(ring.stop_deg - ring.start_deg, 90)


def test_only_an_electrode_off_ground_makes_a_field():
    assert not Microscope.annular().is_biased
    assert Microscope.annular(specimen_bias_v=-5.0).is_biased
    grounded = Microscope.annular()
    assert eqx.tree_at(lambda s: segments(s).bias_v, grounded, jnp.array([0.0, 0.0, 3.0, 0.0])).is_biased


def test_traced_numbers_pass_unchecked_through_jit_and_grad():
    scope = Microscope.annular()

    def squared(d):
        return (
            Microscope(scope.beam, Detector(scope.detector.segments, distance_mm=d), scope.column).detector.distance_mm
            ** 2
        )

    assert float(jax.jit(jax.grad(squared))(-3.0)) == -6.0
    with pytest.raises(InputError, match="distance_mm is -3"):
        squared(-3.0)


BAD_SCOPES = [
    (lambda: Microscope.annular(segments=0), "segments is 0: a detector has at least one"),
    (lambda: Microscope.annular(energy_kev=0.0), "beam.energy_kev is 0.0: give a positive number"),
    (lambda: Microscope.annular(current_na=-1.0), "beam.current_na is -1.0"),
    (lambda: Microscope.annular(dwell_us=np.inf), "beam.dwell_us is inf"),
    (lambda: Microscope.annular(distance_mm=np.nan), "detector.distance_mm is nan"),
    (lambda: changed(lambda s: s.detector.thickness_mm, 0.0), "detector.thickness_mm is 0.0"),
    (lambda: Microscope.annular(working_distance_mm=-7.0), "column.working_distance_mm is -7.0"),
    (lambda: changed(lambda s: s.column.bore_radius_mm, 0.0), "column.bore_radius_mm is 0.0"),
    (lambda: changed(lambda s: s.column.pole_radius_mm, 0.0), "column.pole_radius_mm is 0.0"),
    (lambda: changed(lambda s: s.column.chamber_radius_mm, 0.0), "column.chamber_radius_mm is 0.0"),
    (
        lambda: Microscope.annular(energy_kev=5.0, specimen_bias_v=5000.0),
        "specimen_bias_v is 5000 V .* no electron gets out",
    ),
    (
        lambda: changed(lambda s: segments(s).gain, [1.0, 1.0]),
        r"segments.gain has shape \(2,\) for 4 segments",
    ),
    (lambda: changed(lambda s: segments(s).pedestal, [[1.0]]), r"segments.pedestal has shape \(1, 1\)"),
    (
        lambda: changed(lambda s: segments(s).bias_v, [0, 0, np.nan, 0]),
        "segments.bias_v is .*nan.*give finite numbers",
    ),
    (
        lambda: Microscope.annular(inner_radius_mm=6.0),
        "segment A has inner_radius_mm = 6 and outer_radius_mm = 5",
    ),
    (lambda: Microscope.annular(inner_radius_mm=0.0), "inner_radius_mm = 0 and"),
    (
        lambda: changed(lambda s: segments(s).stop_deg, [45, 135, 225, 200]),
        "segment D runs from start_deg = 225 to stop_deg = 200",
    ),
    (
        lambda: changed(lambda s: segments(s).stop_deg, [400, 135, 225, 315]),
        "segment A runs .* at most 360 degrees",
    ),
    (lambda: Microscope.annular(gap_mm=1.5), "gap_mm = 1.5: .* below 1.41421 mm"),
    (lambda: Microscope.annular(gap_mm=-0.1), "gap_mm = -0.1"),
    (
        lambda: changed(lambda s: segments(s).threshold_kev, [0, -1, 0, 0]),
        "segment B has threshold_kev = -1: it cannot be negative",
    ),
    (
        lambda: changed(lambda s: segments(s).stop_deg, [50, 135, 225, 315]),
        "segments A .* and B .* overlap by 5 deg",
    ),
    (
        lambda: changed(lambda s: segments(s).start_deg, [-50, 45, 135, 225]),
        "segments A .* and D .* overlap by 5 deg",
    ),
    (
        lambda: Microscope.annular(distance_mm=6.0, working_distance_mm=5.0),
        "distance_mm 6 .*thickness_mm 1 pass column.working_distance_mm 5",
    ),
    (
        lambda: Microscope.annular(position_x_mm=0.6, position_y_mm=-0.8),
        "1 mm apart but the hole has a radius of 1 mm",
    ),
    (lambda: changed(lambda s: s.detector.offset_y_mm, 3.0), "3 mm apart"),
    (lambda: changed(lambda s: s.detector.tilt_x_deg, 85.0), "85.0.* deg is beyond 80"),
    (lambda: changed(lambda s: s.column.stage_tilt_y_deg, -90.0), "-90.0.* deg is beyond 80"),
    # numbers that no electron microscope has
    (lambda: Microscope.annular(specimen_bias_v=np.nan), "specimen_bias_v is nan: give a finite number"),
    (lambda: Microscope.annular(specimen_bias_v=-np.inf), "specimen_bias_v is -inf"),
    (lambda: Microscope.annular(specimen_bias_v=-1e6), "specimen_bias_v is -1e.06, which no electron microscope has"),
    (lambda: changed(lambda s: segments(s).pedestal, [0, np.nan, 0, 0]), "segments.pedestal is .*nan"),
    (lambda: changed(lambda s: segments(s).gain, [1, 0, 1, 1]), "segment B has gain = 0: give a positive number"),
    (lambda: Microscope.annular(energy_kev=1e4), "energy_kev is 10000, which no electron microscope has"),
    (lambda: Microscope.annular(energy_kev=1e-3), "energy_kev is 0.001, which no"),
    (lambda: Microscope.annular(current_na=1e30), "current_na is 1e.30, which no"),
    # nothing to see
    (
        lambda: changed(lambda s: segments(s).threshold_kev, [11.0, 12.0, 10.0, 13.0]),
        "threshold_kev is 10 at least but electrons arrive with 10 keV at most: every segment is blind",
    ),
    (lambda: changed(lambda s: segments(s).bias_v, [-2e4] * 4), "bias_v is -20000 V at most, which turns"),
    # parts that share a place, biased or not
    (
        lambda: reshaped({"distance_mm": 3.0, "tilt_x_deg": 60.0}),
        r"tilted by \(60, 0\) deg, 5 mm in radius, reaches down to -1.33 mm, into the specimen",
    ),
    (
        lambda: reshaped({"distance_mm": 2.0, "tilt_x_deg": 70.0}, working_distance_mm=12.0, specimen_bias_v=-1000.0),
        "reaches down to -2.7 mm, into the specimen: reduce detector.tilt",
    ),
    (lambda: reshaped({"tilt_x_deg": 75.0}, working_distance_mm=7.5), "rises to 11.1 mm and touches the pole piece"),
    (lambda: reshaped({"tilt_y_deg": -20.0}, working_distance_mm=7.5), r"\(0, -20\) deg .* touches the pole piece"),
    (lambda: reshaped({}, stage_tilt_x_deg=60.0), r"stage tilted by \(60, 0\) deg touches the detector plate 6 mm"),
    (
        lambda: reshaped({}, chamber_radius_mm=3.0, specimen_bias_v=-2000.0),
        "reaches 5 mm from the axis .*chamber_radius_mm is 3",
    ),
    (lambda: Microscope.annular(outer_radius_mm=50.0), "reaches 50 mm from the axis .*chamber_radius_mm is 20"),
    (lambda: reshaped({}, bore_radius_mm=15.0), "bore_radius_mm is 15 but column.pole_radius_mm is 12"),
]


@pytest.mark.parametrize("make, sentence", BAD_SCOPES)
def test_impossible_microscopes_end_in_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make()
    assert str(caught.value).endswith((".", ")."))


def test_a_detector_without_segments():
    none = {name: jnp.ones(0) for name in ("inner_radius_mm", "outer_radius_mm", "start_deg", "stop_deg", "gap_mm")}
    none |= {name: jnp.ones(0) for name in ("gain", "pedestal", "threshold_kev", "bias_v")}
    scope = Microscope.annular()
    with pytest.raises(InputError, match=r"detector\.segments is empty"):
        Microscope(scope.beam, Detector(Segments(**none, names=()), distance_mm=6.0), scope.column)


def test_tilted_parts_that_keep_clear_are_fine():
    """Stage and plate tilted alike stay parallel; a plate that tilts into the bore, or beside the pole piece, too."""
    reshaped({"tilt_x_deg": 40.0}, stage_tilt_x_deg=40.0, working_distance_mm=12.0)
    reshaped({"tilt_y_deg": 5.0}, working_distance_mm=7.5)
    reshaped({"tilt_y_deg": 20.0}, working_distance_mm=7.5, bore_radius_mm=6.0)
    reshaped({"tilt_y_deg": 20.0}, working_distance_mm=7.5, pole_radius_mm=1.2)


@pytest.mark.parametrize("stop", [315.0, 314.0])
def test_touching_and_gapped_neighbours_and_concentric_rings_are_fine(stop):
    changed(lambda s: segments(s).stop_deg, [45, 135, 225, stop])
    changed(
        lambda s: (
            segments(s).inner_radius_mm,
            segments(s).outer_radius_mm,
            segments(s).start_deg,
            segments(s).stop_deg,
        ),
        np.array([[1.0, 3.0], [3.0, 5.0], [0.0, 0.0], [360.0, 360.0]]),
        segments=2,
    )


# --- spectrum ---


@pytest.mark.parametrize(
    "fraction, weight, sentence",
    [
        ([1.0], [0.5, 0.5], r"as many weights as energies; got \(2,\) and \(1,\)"),
        ([], [], "as many weights as energies"),
        ([0.0, 1.0], [0.5, 0.5], r"spectrum fractions are .* in \(0, 1\]"),
        ([0.5, 1.1], [0.5, 0.5], "spectrum fractions"),
        ([0.5, 1.0], [0.5, 0.6], "spectrum weights .* sum to 1"),
        ([0.5, 1.0], [-0.5, 1.5], "spectrum weights .* non-negative"),
    ],
)
def test_impossible_spectra_end_in_one_sentence(fraction, weight, sentence):
    with pytest.raises(InputError, match=sentence):
        Spectrum(jnp.asarray(fraction, float), jnp.asarray(weight, float))


def test_diode_share_weights_with_the_energy_above_threshold():
    """By hand: 10 keV, energies 4, 6, 10 keV, threshold 5: shares (0, 1 * 0.3, 5 * 0.2) / 1.3."""
    share = Spectrum(jnp.array([0.4, 0.6, 1.0]), jnp.array([0.5, 0.3, 0.2])).diode_share(
        *map(jnp.asarray, (10.0, 0.0, 5.0))
    )
    np.testing.assert_allclose(share, np.array([0.0, 0.3, 1.0]) / 1.3, rtol=1e-14)
    blind = Spectrum.elastic().diode_share(*map(jnp.asarray, (10.0, 0.0, 11.0)))
    np.testing.assert_array_equal(blind, [0.0])


def test_electrons_that_a_field_turns_back_are_lost():
    """10 keV, energies 4, 6, 10 keV against 5 kV: the first cannot arrive, so the shares sum to what can, 0.5; they
    are proportional to 0.3 * 1 and 0.2 * 5. What a threshold blinds is no loss."""
    spectrum = Spectrum(jnp.array([0.4, 0.6, 1.0]), jnp.array([0.5, 0.3, 0.2]))
    retarded = spectrum.diode_share(*map(jnp.asarray, (10.0, -5.0, 0.0)))
    np.testing.assert_allclose(retarded, 0.5 * np.array([0.0, 0.3, 1.0]) / 1.3, rtol=1e-14)
    np.testing.assert_allclose(jnp.sum(spectrum.diode_share(*map(jnp.asarray, (10.0, 0.0, 7.0)))), 1.0, rtol=1e-14)


def test_backscattered_bell_has_its_mean_where_the_closed_form_has_it():
    """A narrow bell away from the cuts keeps its mean and spread; 20 Gauss points integrate it to 1e-6."""
    bell = Spectrum.backscattered(0.6, 0.08, nodes=20)
    mean = float(jnp.sum(bell.fraction * bell.weight))
    spread = float(jnp.sqrt(jnp.sum((bell.fraction - mean) ** 2 * bell.weight)))
    assert abs(mean - 0.6) < 1e-5 and abs(spread - 0.08) < 1e-4
    assert abs(float(bell.weight.sum()) - 1) < 1e-14


# --- surface ---


@pytest.mark.parametrize(
    "height, pixel, sentence",
    [
        (np.zeros((2, 3)), 0.0, "pixel_size_nm is 0.0: give one positive number"),
        (np.zeros((2, 3)), -1.0, "pixel_size_nm is -1.0"),
        (np.zeros((2, 3)), np.nan, "pixel_size_nm is nan"),
        (np.zeros((0, 3)), 1.0, r"height_nm has shape \(0, 3\) and holds no pixel"),
        (
            [[0.0, 1.0], [2.0, np.nan]],
            1.0,
            "1 values that are not finite, the first .nan. at row 1, column 1",
        ),
        (
            [[0.0, np.inf], [-np.inf, 0.0]],
            1.0,
            "2 values that are not finite, the first .inf. at row 0, column 1",
        ),
    ],
)
def test_impossible_surfaces_end_in_one_sentence(height, pixel, sentence):
    with pytest.raises(InputError, match=sentence):
        Surface(np.asarray(height), pixel)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_a_height_that_is_no_map(shape):
    with pytest.raises(InputError, match="give a 2D array"):
        check_height(jnp.zeros(shape))


def test_slopes_of_a_parabola_are_exact_to_the_border():
    """z = 0.02 x^2 - 0.03 x y + y with y down, pixel 2 nm: second-order differences are exact."""
    y, x = np.mgrid[0:5, 0:6] * 2.0
    slope_x, slope_y = Surface(0.02 * x**2 - 0.03 * x * y + y, 2.0).slopes()
    np.testing.assert_allclose(slope_x, 0.04 * x - 0.03 * y, atol=1e-13)
    np.testing.assert_allclose(slope_y, -0.03 * x + 1.0, atol=1e-13)


def test_normals_of_a_plane_and_of_short_axes():
    plane = Surface(np.array([[0.0, 3.0], [-4.0, -1.0]]), 1.0)
    np.testing.assert_allclose(plane.normals(), np.broadcast_to(np.array([-3.0, 4.0, 1.0]) / np.sqrt(26), (2, 2, 3)))
    np.testing.assert_array_equal(Surface(np.ones((1, 1)), 1.0).normals(), [[[0.0, 0.0, 1.0]]])
