"""The depth network: turns and flips with its input, any size, heights that are surfaces, weights that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax import InputError
from eclipsjax.inverse.belief import OFFERS, Clues, believe
from eclipsjax.inverse.integrators.links import loop_sums
from eclipsjax.inverse.integrators.wiener import Wiener
from eclipsjax.inverse.pinn import DepthNet
from eclipsjax.nn.depth import DepthConfig
from eclipsjax.nn.equivariant import act_on_image, act_on_vector

CONFIG = DepthConfig(fields=(1, 2))
CLUES_OF = jax.jit(Clues.of)


@pytest.fixture(scope="module")
def parameters():
    """Random weights, larger than at the start of a training, so that the network does something."""
    fresh = jax.jit(CONFIG.initial_parameters)(jax.random.key(1))
    return jax.tree.map(lambda p: 1.5 * p + jnp.float32(0.05), fresh)


@pytest.fixture(scope="module")
def answer(parameters):
    return jax.jit(lambda x, y: believe(CONFIG, parameters, Clues.of(x, y)))


def slopes(shape, seed=0):
    return jnp.asarray(0.3 * np.random.default_rng(seed).normal(size=(*shape, 2)), jnp.float32)


@pytest.mark.parametrize("shape", [(16, 16), (13, 18), (15, 21)])
def test_answers_turn_and_flip_with_the_slopes(answer, shape):
    given = slopes(shape)
    upright = answer(given[..., 0], given[..., 1])
    for element in range(1, 8):
        matrix = jnp.asarray(act_on_vector(element), jnp.float32)
        turned = act_on_image(element, given) @ matrix.T
        belief = answer(turned[..., 0], turned[..., 1])
        np.testing.assert_allclose(belief.height_px, act_on_image(element, upright.height_px), atol=2e-4)
        np.testing.assert_allclose(belief.slopes, act_on_image(element, upright.slopes) @ matrix.T, atol=1e-4)
        np.testing.assert_allclose(belief.edge, act_on_image(element, upright.edge), atol=1e-3)


def test_the_network_does_something(answer):
    given = slopes((16, 16))
    belief, clues = answer(given[..., 0], given[..., 1]), CLUES_OF(given[..., 0], given[..., 1])
    assert float(jnp.std(belief.slopes - clues.smooth)) > 0.01
    assert float(jnp.std(belief.height_px - clues.height_px)) > 0.01
    assert belief.height_px.shape == belief.edge.shape == (16, 16)


def test_lone_spikes_are_taken_out_and_facets_are_not():
    truth = np.zeros((20, 24), np.float32)
    truth[:, 10:12] = 0.8
    spiky = truth.copy()
    spiky[5, 4], spiky[14, 20] = 2.0, -1.5
    clues = CLUES_OF(jnp.asarray(spiky), jnp.zeros((20, 24), jnp.float32))
    np.testing.assert_allclose(clues.offers[OFFERS.index("mended"), ..., 0], truth, atol=1e-6)


def test_noise_is_read_from_the_curl():
    given = 0.02 * jax.random.normal(jax.random.key(0), (2, 200, 200))
    x = jnp.linspace(0, 6, 200, dtype=given.dtype)
    clues = CLUES_OF(given[0] + jnp.sin(x)[None, :], given[1] + jnp.cos(x)[:, None])
    assert float(clues.noise) == pytest.approx(0.02, rel=0.08)
    height = Wiener().height_px(given[0], given[1], None, None)
    gradient = jnp.gradient(height)
    assert float(jnp.std(loop_sums(gradient[1], gradient[0]))) < 1e-2 * float(jnp.std(loop_sums(*given)))


def test_weights_survive_a_round_trip_and_damage_is_refused(parameters, tmp_path):
    file = tmp_path / "depth.npz"
    net = DepthNet.of(parameters, CONFIG, {"what": "a test"})
    net.save(file)
    again = DepthNet.load(file)
    assert again.config == CONFIG and again.card == net.card
    jax.tree.map(np.testing.assert_array_equal, again.parameters, net.parameters)
    given = slopes((12, 16)).astype(jnp.float64)
    height = again.height_px(given[..., 0], given[..., 1])
    assert height.dtype == jnp.float64
    np.testing.assert_array_equal(height, net.height_px(given[..., 0], given[..., 1]))

    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not an archive"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged") as told:
            DepthNet.load(file)
        assert "pickle" not in str(told.value)
    np.save(tmp_path / "heights.npy", np.ones(3))
    with pytest.raises(InputError, match=r"no \.npz archive"):
        DepthNet.load(tmp_path / "heights.npy")
    with pytest.raises(InputError, match="no such file"):
        DepthNet.load(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="no such file"):
        DepthNet.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 99}, "format 99"),
        ({"kind": "something else"}, "for something else"),
        ({"digest": "0"}, "checksum"),
        ({"config": CONFIG.as_json() | {"fields": [1, 3]}}, "other shapes"),
        ({"config": CONFIG.as_json() | {"layers": 3}}, "another network"),
        ({"config": CONFIG.as_json() | {"fields": []}}, r"fields is \(\): give several numbers"),
        ({"config": CONFIG.as_json() | {"fields": 3}}, "another network"),
        ({"config": CONFIG.as_json() | {"fields": [1, -2]}}, "whole and at least 1"),
        ({"config": [1, 2]}, "does not say its network's shape"),
    ],
)
def test_weights_from_elsewhere_are_refused(parameters, tmp_path, change, told):
    import json

    file = tmp_path / "depth.npz"
    DepthNet.of(parameters, CONFIG, {}).save(file)
    with np.load(file) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays.pop("header"))) | change
    np.savez(file, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(InputError, match=told):
        DepthNet.load(file)
    for other in ([1, 2], 5, None):
        np.savez(file, header=np.array(json.dumps(other)), **arrays)
        with pytest.raises(InputError, match="damaged or holds no weights"):
            DepthNet.load(file)


def test_weights_that_diverged_are_refused(parameters, tmp_path):
    file = tmp_path / "depth.npz"
    DepthNet.of(jax.tree.map(lambda p: jnp.full_like(p, jnp.nan), parameters), CONFIG, {}).save(file)
    with pytest.raises(InputError, match="not finite real numbers"):
        DepthNet.load(file)


def test_nothing_is_overwritten_unasked(parameters, tmp_path):
    net = DepthNet.of(parameters, CONFIG, {})
    net.save(tmp_path / "depth.npz")
    with pytest.raises(InputError, match="already exists"):
        net.save(tmp_path / "depth.npz")
    net.save(tmp_path / "depth.npz", force=True)
    with pytest.raises(InputError, match="no file that could be replaced"):
        net.save(tmp_path, force=True)
    with pytest.raises(InputError, match="cannot be written"):
        net.save(tmp_path / "missing" / "depth.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["depth.npz"]
