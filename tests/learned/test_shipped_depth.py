"""The depth network's shipped weights: they come with their card, and do on new surfaces what they are shipped for."""

import json
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.learn.slope_errors import SlopeErrors, estimated_slopes


@pytest.fixture(scope="module")
def islands():
    return ej.synthetic.islands((128, 128), 2.0, key=jax.random.key(77), direction_deg=33.0)


def measured(scene, white_deg, key=5):
    truth = (jnp.asarray(s, jnp.float32) for s in (scene.truth.slope_x, scene.truth.slope_y))
    return estimated_slopes(*truth, SlopeErrors(white_deg=white_deg), jax.random.key(key))


def percent(height_nm, scene):
    return float(ej.height_error(height_nm, scene.surface.height_nm).percent.plane)


def test_weights_come_with_the_package_and_their_card():
    stored = files("eclipsjax") / "nn" / "weights" / "depth.npz"
    assert stored.stat().st_size < 4e6
    card = json.loads(ej.DepthNet.shipped().card)
    assert card["command"].startswith("eclipsjax train depth") and card["recipe"]["seed"] == 0
    assert card["last_losses"]["step"] == card["recipe"]["steps"]
    assert all(0 < ratio < 2 for ratio in card["height_error_over_robust"].values())


@pytest.mark.parametrize("white_deg, ratio", [(3.0, 0.95), (10.0, 0.8)])
def test_beats_every_classical_method_on_noisy_islands(islands, white_deg, ratio):
    slopes = measured(islands, white_deg)
    others = (ej.Poisson(), ej.Wiener(), ej.LeastAbsolute(), ej.Robust(), ej.Despiked(ej.Robust()))
    best = min(percent(ej.integrate(*slopes, 2.0, method), islands) for method in others)
    assert percent(ej.integrate(*slopes, 2.0, ej.DepthNet.shipped()), islands) < ratio * best


def test_auto_takes_the_network_where_there_is_noise(islands):
    found = ej.integration(*measured(islands, 3.0), 2.0)
    assert isinstance(found.method, ej.DepthNet) and "network" in found.why
    assert isinstance(ej.integration(*measured(islands, 0.0), 2.0).method, ej.Robust | ej.Unmixed)


def test_marks_a_hidden_dislocation(islands):
    y, x = np.mgrid[:128, :128] - 60.5
    square = np.maximum(x**2 + y**2, 0.5)
    slopes = [jnp.asarray(1.5 / (2 * np.pi) * s / square, jnp.float32) for s in (-y, x)]
    found = ej.integration(*slopes, 2.0, ej.DepthNet.shipped())
    assert found.undetermined[60, 60] and 0 < float(jnp.mean(found.undetermined.astype(jnp.float32))) < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_works_on_lines_and_scraps(shape):
    found = ej.integrate(np.full(shape, 0.1), np.zeros(shape), 2.0, ej.DepthNet.shipped())
    np.testing.assert_allclose(
        found, np.broadcast_to(0.2 * (np.arange(shape[1]) - (shape[1] - 1) / 2), shape), atol=1e-2
    )


def test_refining_lowers_the_physical_loss(islands):
    told, slopes = [], measured(islands, 3.0)
    # Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        refined = ej.DepthNet.shipped().refined(*slopes, steps=4, report=lambda _, loss: told.append(loss))
    assert told[-1] < told[0]
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), refined.parameters, ej.DepthNet.shipped().parameters)
    assert any(jax.tree.leaves(changed))
