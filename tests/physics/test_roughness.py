"""Areal roughness against closed forms.

A cosine of whole periods, even about the map's middle (so that its least-squares plane is level), amplitude A, wave
number k: Sa = 2 A / pi, Sq = A / sqrt 2, Sz = 2 A, Ssk = 0, Sku = 3/2, Sdq = k A / sqrt 2 times the stencil's
sin(k p / 2) / (k p / 2). Measured margins: 1e-3 on Sa (its kinks), rounding elsewhere.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from eclipsjax._types import InputError
from eclipsjax.metrology.roughness import roughness

PIXEL, AMPLITUDE, PERIOD = 2.0, 7.0, 64


def wave(axis=1, amplitude=AMPLITUDE, shape=(128, 256), tilt=(0.0, 0.0)):
    y, x = ((np.arange(n) - 0.5 * (n - 1)) * PIXEL for n in shape)
    x, y = np.meshgrid(x, y)
    return amplitude * np.cos(2 * np.pi * (x, y)[1 - axis] / (PERIOD * PIXEL)) + tilt[0] * x + tilt[1] * y + 500.0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.3, -0.2)])
def test_cosine(axis, tilt):
    found = roughness(wave(axis, tilt=tilt), PIXEL)
    assert float(found.sa_nm) == pytest.approx(2 * AMPLITUDE / np.pi, rel=1e-3)
    assert float(found.sq_nm) == pytest.approx(AMPLITUDE / np.sqrt(2), rel=1e-9)
    # The crest lies half a pixel beside the nearest samples.
    assert float(found.sz_nm) == pytest.approx(2 * AMPLITUDE * np.cos(np.pi / PERIOD), rel=1e-9)
    assert float(found.ssk) == pytest.approx(0.0, abs=1e-9)
    assert float(found.sku) == pytest.approx(1.5, rel=1e-9)


def test_slope_and_area_of_a_cosine():
    k = 2 * np.pi / (PERIOD * PIXEL)
    damped = np.sinc(1 / PERIOD) * k * AMPLITUDE
    # Whole periods of cells: 256 cells across.
    found = roughness(wave(shape=(64, 257)), PIXEL)
    assert float(found.sdq) == pytest.approx(damped / np.sqrt(2), rel=1e-4)
    area, _ = quad(lambda t: np.sqrt(1 + (damped * np.sin(t)) ** 2) - 1, 0, 2 * np.pi)
    assert float(found.sdr_percent) == pytest.approx(100 * area / (2 * np.pi), rel=2e-4)


def test_error_of_the_slope_falls_with_the_square_of_the_pixel():
    errors = []
    for n in (32, 64, 128):
        x = (np.arange(n + 1) - 0.5 * n) / n
        z = np.broadcast_to(np.cos(2 * np.pi * x), (9, n + 1))
        errors.append(float(roughness(z, 1 / n).sdq) / (2 * np.pi / np.sqrt(2)) - 1)
    assert np.log2(np.abs(errors[:-1]) / np.abs(errors[1:])) == pytest.approx(2.0, abs=0.1)


def test_area_of_crossed_slopes():
    # A roof has one slope on each side: its area is known exactly, and its plane is level.
    x = np.abs(np.arange(65) - 32.0)
    roof = np.broadcast_to(0.5 * x * PIXEL, (20, 65))
    found = roughness(roof, PIXEL)
    assert float(found.sdr_percent) == pytest.approx(100 * (np.sqrt(1.25) - 1), rel=1e-9)
    assert float(found.sdq) == pytest.approx(0.5, rel=1e-9)
    # The middle of a pyramid's four sides: both slopes at once.
    hip = np.broadcast_to(0.5 * x * PIXEL, (65, 65)) + np.broadcast_to(0.5 * x[:, None] * PIXEL, (65, 65))
    assert float(roughness(hip, PIXEL).sdr_percent) == pytest.approx(100 * (np.sqrt(1.5) - 1), rel=1e-9)


def test_gaussian_heights():
    z = np.random.default_rng(3).normal(0.0, 4.0, (400, 400))
    found = roughness(z, PIXEL)
    # Standard errors of these for 160,000 samples: 0.25 % of Sq, 0.006 and 0.012.
    assert float(found.sq_nm) == pytest.approx(4.0, rel=8e-3)
    assert float(found.sa_nm) == pytest.approx(4.0 * np.sqrt(2 / np.pi), rel=8e-3)
    assert float(found.ssk) == pytest.approx(0.0, abs=0.02) and float(found.sku) == pytest.approx(3.0, abs=0.04)
    assert float(found.sdq) == pytest.approx(np.sqrt(2 * 2) * 4.0 / PIXEL, rel=8e-3)


def test_a_few_deep_pits_are_skewed_down():
    z = np.zeros((50, 50))
    z[20:23, 20:23] = -10.0
    assert float(roughness(z, 1.0).ssk) < -5


def test_plane_has_no_roughness_and_no_infinite_gradient():
    flat = jnp.zeros((12, 12))
    found = roughness(wave(amplitude=0.0, shape=(33, 21), tilt=(0.4, 0.1)), PIXEL)
    small = (found.sa_nm, found.sq_nm, found.sz_nm, found.sdq, found.sdr_percent)
    assert all(abs(float(v)) < 1e-10 for v in small)
    assert np.isnan(float(roughness(flat, 1.0).sku))
    assert np.isfinite(jax.grad(lambda z: roughness(z, 1.0).sq_nm + roughness(z, 1.0).sdq)(flat)).all()


def test_mask_leaves_out_what_is_not_known():
    z = wave(tilt=(0.1, 0.0))
    holed = z.copy()
    holed[:, 128:] = np.nan
    mask = np.isfinite(holed)
    masked, cropped = roughness(holed, PIXEL, mask), roughness(z[:, :128], PIXEL)
    for one, other in zip(jax.tree.leaves(masked), jax.tree.leaves(cropped), strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-9, abs=1e-9)
    with pytest.raises(InputError, match="False everywhere"):
        roughness(z, PIXEL, np.zeros(z.shape, bool))
    with pytest.raises(InputError, match="mask has shape"):
        roughness(z, PIXEL, mask[:5])
    with pytest.raises(InputError, match="not finite"):
        roughness(holed, PIXEL)


@pytest.mark.parametrize("name", ["sa_nm", "sq_nm", "sz_nm", "ssk", "sku", "sdq", "sdr_percent"])
def test_gradient_is_that_of_finite_differences(name):
    rng = np.random.default_rng(1)
    z, direction = rng.normal(size=(9, 11)), rng.normal(size=(9, 11))

    def value(heights):
        return getattr(roughness(heights, PIXEL), name)

    step = 1e-6
    slope = (value(z + step * direction) - value(z - step * direction)) / (2 * step)
    assert float(jnp.sum(jax.grad(value)(jnp.asarray(z)) * direction)) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2)])
def test_tiny_maps(shape):
    found = roughness(np.random.default_rng(0).normal(size=shape), PIXEL)
    assert np.isfinite(float(found.sq_nm)) and np.isnan(float(found.sdq)) == (1 in shape)


@pytest.mark.float32
def test_float32():
    found = roughness(jnp.asarray(wave(tilt=(0.05, 0.0)), jnp.float32), PIXEL)
    assert found.sq_nm.dtype == jnp.float32 and float(found.sq_nm) == pytest.approx(AMPLITUDE / np.sqrt(2), rel=1e-4)
