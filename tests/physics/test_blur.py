"""The spot and the scan errors against the error function, SciPy's fine filter and shifted parabolas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special

from eclipsjax._types import InputError
from eclipsjax.imaging.blur import GaussianBlur, LineDrift, LineJitter, gaussian_blur, shift_lines
from eclipsjax.imaging.camera import Camera, record
from eclipsjax.instrument.microscope import Microscope

KEY = jax.random.key(7)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_blurred_step_is_an_error_function(sigma):
    step = jnp.tile(jnp.where(jnp.arange(80) < 40, 0.0, 1.0), (5, 1))
    distance = np.arange(80) - 39.5
    expected = 0.5 * (1 + special.erf(distance / (np.sqrt(2) * sigma)))
    np.testing.assert_allclose(gaussian_blur(step, jnp.asarray(sigma)), np.tile(expected, (5, 1)), atol=1e-13)


def test_blur_agrees_with_a_fine_sampled_gaussian_and_mirrors_at_the_border():
    """Each pixel split into 15 x 15, filtered by SciPy with its 'reflect' border, read at pixel centres."""
    image = np.random.default_rng(1).random((9, 11))
    fine = ndimage.gaussian_filter(np.kron(image, np.ones((15, 15))), 15 * 1.1, mode="reflect", truncate=8.0)
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(image), jnp.asarray(1.1)), fine[7::15, 7::15], atol=2e-4)


def test_a_blur_as_wide_as_the_image_sums_the_mirrored_neighbours():
    """Seven pixels, sigma 3: every offset from -7 to 7 counts, the mirror written out."""
    image = np.random.default_rng(2).random((1, 7))
    edges = special.erf((np.arange(16) - 7.5) / (np.sqrt(2) * 3.0))
    weights = np.diff(edges) / (edges[-1] - edges[0])
    expected = np.correlate(np.pad(image[0], 7, mode="symmetric"), weights, mode="valid")
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(image), jnp.asarray(3.0))[0], expected, rtol=1e-12)


def test_blur_conserves_the_mean_stays_positive_and_does_nothing_at_zero():
    image = jnp.zeros((17, 20)).at[8, 9].set(1.0).at[0, 0].set(2.0)
    for sigma in (0.2, 0.7, 2.5):
        blurred = gaussian_blur(image, jnp.asarray(sigma))
        np.testing.assert_allclose(blurred.mean(), image.mean(), rtol=1e-13)
        assert float(blurred.min()) > -1e-15
    np.testing.assert_allclose(gaussian_blur(image, jnp.asarray(0.0)), image, atol=1e-15)


def test_probe_and_interaction_volume_add_their_variances_in_nanometres():
    """FWHM 23.548 nm is sigma 10 nm; with 24 nm of interaction volume 26 nm, at 13 nm a pixel 2 px."""
    image = jnp.asarray(np.random.default_rng(0).random((4, 16, 16)))
    scope = Microscope.annular(probe_fwhm_nm=20 * np.sqrt(2 * np.log(2)))
    images = record(image, scope, camera=Camera(blur=GaussianBlur(24.0)), pixel_size_nm=13.0)
    np.testing.assert_allclose(images, gaussian_blur(image, jnp.asarray(2.0)), rtol=1e-12)


@pytest.mark.parametrize("shift", [-2.3, -1.0, 0.0, 0.4, 3.7])
def test_a_shifted_parabola_is_a_parabola_elsewhere(shift):
    x = np.arange(40.0)
    shape = lambda x: 2.0 - 0.3 * x + 0.01 * x**2  # noqa: E731
    moved = shift_lines(jnp.asarray(np.tile(shape(x), (3, 1))), jnp.full(3, shift))
    np.testing.assert_allclose(moved[:, 6:-6], np.tile(shape(x - shift), (3, 1))[:, 6:-6], rtol=1e-13)


def test_whole_shifts_mirror_the_border():
    line = jnp.arange(5.0)[None]
    np.testing.assert_allclose(shift_lines(line, jnp.array([2.0]))[0], [1, 0, 0, 1, 2], atol=1e-15)
    np.testing.assert_allclose(shift_lines(line, jnp.array([-2.0]))[0], [2, 3, 4, 4, 3], atol=1e-15)


def test_drift_moves_a_ramp_by_a_known_amount_in_every_line_of_every_segment():
    ramp = jnp.tile(jnp.arange(30.0), (4, 11, 1)) * jnp.array([1.0, 2.0, 3.0, 4.0])[:, None, None]
    images = record(ramp, Microscope.annular(), camera=Camera(drift=LineDrift(-4.5)))
    slope = np.array([1.0, 2.0, 3.0, 4.0])[:, None, None]
    moved = (np.asarray(ramp - images) / slope)[:, :, 8:-8]
    np.testing.assert_allclose(moved, -4.5 * np.linspace(0, 1, 11)[None, :, None] * np.ones_like(moved), atol=1e-12)


def test_jitter_has_the_stated_spread_and_is_shared_by_all_segments():
    ramp = jnp.tile(jnp.arange(16.0), (4, 4000, 1))
    images = np.asarray(record(ramp, Microscope.annular(), KEY, Camera(jitter=LineJitter(0.3))))
    shift = (np.asarray(ramp) - images)[:, :, 6:10]
    np.testing.assert_allclose(shift, shift[:1, :, :1] * np.ones_like(shift), atol=1e-12)
    assert abs(shift[0, :, 0].std() / 0.3 - 1) < 4 / np.sqrt(2 * 4000)
    assert abs(np.corrcoef(shift[0, 1:, 0], shift[0, :-1, 0])[0, 1]) < 4 / np.sqrt(4000)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: GaussianBlur(-1.0), "interaction_sigma_nm is -1.0"),
        (lambda: LineJitter(-1.0), "std_px is -1.0"),
        (lambda: LineDrift(np.inf), "total_px is inf"),
    ],
)
def test_bad_input_ends_in_one_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
