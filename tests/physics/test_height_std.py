"""Standard deviations of heights against dense matrices and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej

SHAPE, STD, PIXEL_NM = (7, 10), 0.1, 2.0
CLOSED = [ej.Poisson(), ej.SpectralPoisson(), ej.FrankotChellappa()]


def dense(method, **more):
    """Rows of the whole linear map from both slopes to heights."""
    zero = jnp.zeros((2, *SHAPE))
    matrix = jax.jacobian(lambda s: ej.integrate(s[0], s[1], PIXEL_NM, method, **more))(zero)
    return STD * np.sqrt(np.sum(np.asarray(matrix) ** 2, axis=(2, 3, 4)))


@pytest.mark.parametrize("method", CLOSED, ids=lambda m: type(m).__name__)
def test_closed_form_is_the_dense_matrix(method):
    np.testing.assert_allclose(ej.height_std(method, SHAPE, STD, PIXEL_NM), dense(method), rtol=1e-10)


def test_sampled_weighted_poisson_is_the_dense_matrix():
    more = {"weights": np.random.default_rng(0).uniform(0.2, 3.0, SHAPE), "mask": np.ones(SHAPE, bool)}
    found = ej.height_std(ej.Poisson(), SHAPE, STD, PIXEL_NM, **more, draws=3000)
    wanted = dense(ej.Poisson(), **more)
    np.testing.assert_allclose(np.sqrt(np.mean(found**2)), np.sqrt(np.mean(wanted**2)), rtol=0.03)
    np.testing.assert_allclose(found, wanted, rtol=0.08)


def test_other_methods_are_sampled_and_masks_leave_nan():
    found = ej.height_std(ej.HarkerOLeary(), SHAPE, STD, PIXEL_NM, draws=3000)
    np.testing.assert_allclose(found, dense(ej.HarkerOLeary()), rtol=0.08)
    mask = np.ones(SHAPE, bool)
    mask[3] = False
    found = np.asarray(ej.height_std(ej.Poisson(), SHAPE, STD, PIXEL_NM, mask=mask, draws=8))
    assert np.isnan(found[3]).all() and (found[mask] > 0).all()


def test_gradient_in_noise_and_pixel_size():
    slope = jax.grad(lambda s, n: jnp.sum(ej.height_std(ej.Poisson(), SHAPE, s, n)), argnums=(0, 1))(STD, PIXEL_NM)
    total = float(jnp.sum(ej.height_std(ej.Poisson(), SHAPE, STD, PIXEL_NM)))
    np.testing.assert_allclose(slope, (total / STD, total / PIXEL_NM), rtol=1e-10)
