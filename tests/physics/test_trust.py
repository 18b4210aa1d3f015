"""How far the depth network is followed: not where nothing is noisy, nor where the relief is Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.inverse.belief import Clues
from eclipsjax.inverse.trust import excess_fourth_moment, network_share
from eclipsjax.learn.slope_errors import SlopeErrors, estimated_slopes
from eclipsjax.nn.equivariant import act_on_image, act_on_vector

SHAPE = (128, 128)
clues_of, share, excess = jax.jit(Clues.of), jax.jit(network_share), jax.jit(excess_fourth_moment)


def clues(scene, white_deg):
    truth = (jnp.asarray(s) for s in (scene.truth.slope_x, scene.truth.slope_y))
    return clues_of(*estimated_slopes(*truth, SlopeErrors(white_deg=white_deg), jax.random.key(3)))


@pytest.fixture(scope="module")
def rough():
    return ej.synthetic.rough(SHAPE, 2.0, key=jax.random.key(4), rms_slope=0.35)


@pytest.fixture(scope="module")
def islands():
    return ej.synthetic.islands(SHAPE, 2.0, key=jax.random.key(4))


def test_share_grows_with_noise_and_is_nothing_without(islands):
    shares = [float(share(clues(islands, deg))) for deg in (0.0, 1.0, 3.0, 10.0)]
    assert shares == sorted(shares) and shares[0] < 0.01 and shares[2] > 0.8 and shares[3] > 0.95


def test_gaussian_relief_is_left_to_the_wiener_filter(rough, islands):
    assert abs(excess(clues(rough, 1.0))) < 0.6 < 5 < excess(clues(islands, 1.0))
    assert float(share(clues(rough, 1.0))) < 0.15
    assert float(share(clues(rough, 10.0))) > 0.7


def test_excess_is_that_of_known_distributions():
    draws = jax.random.normal(jax.random.key(0), (256, 256, 2))
    # Spread over a disc evenly: E r^4 = R^4 / 3 and the variance R^2 / 4 of either slope make 16 / 3.
    disc = draws / jnp.linalg.norm(draws, axis=-1, keepdims=True)
    disc = disc * jnp.sqrt(jax.random.uniform(jax.random.key(1), (256, 256, 1)))
    for slopes, wanted in ((draws @ jnp.array([[1.0, 0.4], [0.0, 2.0]]), 0.0), (disc, 16 / 3 - 8)):
        # As large flat patches, whose slopes a little smoothing leaves alone but at their borders.
        patches = jnp.repeat(jnp.repeat(slopes[:24, :24], 24, axis=0), 24, axis=1)
        given = patches[..., 0], patches[..., 1]
        plain = slopes[:24, :24].reshape(-1, 2)
        plain = plain - jnp.mean(plain, axis=0, keepdims=True)
        inverse = jnp.linalg.inv(plain.T @ plain / plain.shape[0])
        drawn = float(jnp.mean(jnp.einsum("ij,jk,ik->i", plain, inverse, plain) ** 2)) - 8.0
        np.testing.assert_allclose(drawn, wanted, atol=0.8)
        np.testing.assert_allclose(excess(clues_of(*given)), drawn, atol=1.0)


def test_share_turns_and_flips_with_the_slopes(rough):
    given = clues(rough, 3.0).slopes
    shares = []
    for element in range(8):
        turned = act_on_image(element, given) @ jnp.asarray(act_on_vector(element), given.dtype).T
        shares.append(float(share(clues_of(turned[..., 0], turned[..., 1]))))
    np.testing.assert_allclose(shares, shares[0], rtol=1e-3)


def test_slopes_along_one_line_only_have_a_share():
    wave = jnp.tile(jnp.sin(jnp.linspace(0.0, 20.0, 64)), (64, 1))
    assert np.isfinite(float(share(clues_of(wave, jnp.zeros((64, 64))))))
