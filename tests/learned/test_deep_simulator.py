"""The deep simulator: quick, coarse, within its range, and turning with its input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.nn.dsm_network import AZIMUTHS, SimulatorConfig, exposed
from eclipsjax.nn.equivariant import act_on_image, act_on_vector
from eclipsjax.specimen.horizon import azimuth_centres

CONFIG = SimulatorConfig(fields=1, blocks=1, octaves=1)
RIMS = jnp.asarray([0.17, 0.7])


@pytest.fixture(scope="module")
def dsm():
    fresh = jax.jit(CONFIG.initial_parameters)(jax.random.key(1))
    return ej.DeepSimulator.of(jax.tree.map(lambda p: 1.5 * p, fresh), CONFIG, {})


def mesas(shape=(48, 48)):
    scene = ej.synthetic.islands(
        shape, 1.0, key=jax.random.key(7), count=4, radius_nm=9.0, height_nm=9.0, wall_deg=74.0
    )
    return ej.Surface(scene.surface.height_nm, 1.0)


def test_horizons_turn_and_flip_with_the_slopes(dsm):
    slopes = jnp.asarray(0.4 * np.random.default_rng(0).normal(size=(16, 16, 2)))
    answer = jax.jit(lambda s: exposed(CONFIG, dsm.parameters, s[..., 0], s[..., 1], RIMS))
    upright = answer(slopes)
    centres = azimuth_centres(AZIMUTHS)
    directions = np.stack([np.cos(centres), -np.sin(centres)], axis=-1)
    for element in range(1, 8):
        matrix = act_on_vector(element)
        found = answer(act_on_image(element, slopes) @ jnp.asarray(matrix.T))
        for k, direction in enumerate(directions):
            turned = int(np.argmax(directions @ (matrix @ direction)))
            np.testing.assert_allclose(found[turned], act_on_image(element, upright[k]), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (15, 20)])
def test_any_size(dsm, shape):
    image = dsm(mesas(shape).normals(), ej.acceptance(ej.Microscope.annular(3)))
    assert image.shape == (3, *shape) and bool(jnp.isfinite(image).all())


@pytest.mark.parametrize(("inner", "outer"), [(0.2, 5.0), (1.0, 12.0)])
def test_detectors_out_of_range_are_refused(dsm, inner, outer):
    far = ej.acceptance(ej.Microscope.annular(inner_radius_mm=inner, outer_radius_mm=outer))
    with pytest.raises(ej.InputError, match="trained between 4 and 62 deg: use the Vision Field Transformer"):
        dsm(mesas((8, 8)).normals(), far)


@pytest.mark.slow
def test_derivative_against_finite_differences(dsm):
    table = ej.acceptance(ej.Microscope.annular())
    height, push = mesas((16, 16)).height_nm, jnp.asarray(np.random.default_rng(1).normal(size=(16, 16)))

    @jax.jit
    def value(h):
        return jnp.sum(dsm(ej.Surface(h, 1.0).normals(), table) ** 2)

    step = 1e-6
    difference = float(value(height + step * push) - value(height - step * push)) / (2 * step)
    assert float(jnp.vdot(jax.jit(jax.grad(value))(height), push)) == pytest.approx(difference, rel=1e-4)


@pytest.mark.slow
def test_shipped_weights_are_within_two_per_cent():
    dsm, table, true = ej.load_pretrained("dsm"), ej.acceptance(ej.Microscope.annular()), mesas((64, 64))
    exact = ej.render(true, table)
    alone = ej.render(true, table, horizon=ej.NoRelief())
    found = [float(jnp.sqrt(jnp.mean((i - exact) ** 2)) / exact.mean()) for i in (dsm(true.normals(), table), alone)]
    assert found[0] < 0.02 < found[1]
