"""The Vision Field Transformer: any size, any detector, turns with its input, exact normals stay exact, weights are
refused when wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import eclipsjax as ej
from eclipsjax.learn.slope_errors import SlopeErrors
from eclipsjax.nn.equivariant import act_on_image, act_on_vector
from eclipsjax.nn.neighbours import held, mean_along
from eclipsjax.nn.vision_field_network import VisionFieldConfig, believe

CONFIG = VisionFieldConfig(fields=(1, 1), octaves=1, azimuths=8)


@pytest.fixture(scope="module")
def vft():
    """Random weights, larger than at the start of a training."""
    fresh = jax.jit(CONFIG.initial_parameters)(jax.random.key(1))
    return ej.VisionFieldTransformer.of(jax.tree.map(lambda p: 1.2 * p, fresh), CONFIG, {"what": "a test"})


@pytest.fixture(scope="module")
def table():
    return ej.acceptance(ej.Microscope.annular(3, start_deg=10.0))


def surface(shape=(16, 24), seed=0):
    scene = ej.synthetic.rough((24, 24), 1.0, key=jax.random.key(seed), rms_slope=0.8, shortest_nm=5.0)
    return ej.Surface(scene.surface.height_nm[: shape[0], : shape[1]], 1.0)


def noisy(normals, deg=3.0):
    return SlopeErrors(deg).apply(normals, jax.random.key(5))


def test_exact_normals_are_left_alone_and_noise_is_not(vft):
    normals = surface().normals()
    np.testing.assert_allclose(vft.cleaned(normals), normals, atol=2e-4)
    given = noisy(normals)
    assert float(jnp.max(jnp.abs(vft.cleaned(given) - given))) > 0.01


def test_answers_turn_and_flip_with_the_normals(vft):
    slopes = -noisy(surface((16, 16)).normals())
    slopes = slopes[..., :2] / slopes[..., 2:] * -1.0
    answer = jax.jit(lambda s: jnp.moveaxis(believe(CONFIG, vft.parameters, s[..., 0], s[..., 1]).facets, 0, -1))
    upright = answer(slopes)
    for element in range(1, 8):
        matrix = jnp.asarray(act_on_vector(element))
        turned = act_on_image(element, slopes) @ matrix.T
        np.testing.assert_allclose(answer(turned), act_on_image(element, upright) @ matrix.T, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 22)])
def test_any_size(vft, table, shape):
    image = vft(surface(shape).normals(), table)
    assert image.shape == (3, *shape) and bool(jnp.isfinite(image).all())


def test_flat_is_flat(vft, table):
    level = jnp.zeros((6, 6, 3)).at[..., 2].set(1.0)
    flat = ej.flat_signal(table)
    np.testing.assert_allclose(vft(level, table), jnp.broadcast_to(flat[:, None, None], (3, 6, 6)), rtol=2e-4)


def test_knows_no_pixel_size(vft, table):
    normals = surface().normals()
    np.testing.assert_allclose(vft(normals, table, pixel_size_nm=7.0), vft(normals, table), rtol=1e-9)


def test_wide_fields_and_other_laws(vft):
    wide = ej.acceptance(ej.Microscope.annular(), field_mm=(0.2, 0.2))
    normals = surface().normals()
    with pytest.raises(ej.InputError, match="pixel_size_nm is not given"):
        vft(normals, wide)
    assert vft(normals, wide, pixel_size_nm=5e3).shape == (4, 16, 24)
    narrow = ej.acceptance(ej.Microscope.annular())
    assert not np.allclose(vft(normals, narrow), vft(normals, narrow, emission=ej.CosinePower(1.5)))


@pytest.mark.slow
def test_derivative_against_finite_differences(vft, table):
    given = noisy(surface((12, 12)).normals())
    slopes = -given[..., :2] / given[..., 2:]
    push = jnp.asarray(np.random.default_rng(2).normal(size=slopes.shape))

    @jax.jit
    def value(s):
        upright = jnp.concatenate([-s, jnp.ones_like(s[..., :1])], axis=-1)
        image = vft(upright / jnp.linalg.norm(upright, axis=-1, keepdims=True), table)
        return jnp.sum(image * jnp.cos(jnp.arange(image.size)).reshape(image.shape))

    step = 1e-6
    difference = float(value(slopes + step * push) - value(slopes - step * push)) / (2 * step)
    back = float(jnp.vdot(jax.jit(jax.grad(value))(slopes), push))
    assert back == pytest.approx(difference, rel=1e-4)


NORMALS = np.broadcast_to([0.0, 0.0, 1.0], (4, 5, 3)).copy()
LONG, TURNED, HOLED = NORMALS.copy(), NORMALS.copy(), NORMALS.copy()
LONG[1, 2] *= 1.5
TURNED[3, 0] = [0.6, 0.0, -0.8]
HOLED[0, 1] = np.nan


@pytest.mark.parametrize(
    ("normals", "told"),
    [
        (LONG, r"unit length at 1 pixels, first at row 1, column 2 \(1.5\)"),
        (TURNED, "not positive at 1 pixels, first at row 3, column 0"),
        (HOLED, "not finite at 1 pixels, first at row 0, column 1"),
        (NORMALS[..., :2], r"shape \(4, 5, 2\)"),
        (NORMALS[:0], "at least one pixel"),
        (jnp.asarray(NORMALS, jnp.bfloat16), "normals is bfloat16: give float32 or float64"),
    ],
)
def test_what_is_no_normal_is_refused(vft, table, normals, told):
    with pytest.raises(ej.InputError, match=told):
        vft(normals, table)


def test_weights_survive_a_round_trip_and_others_are_refused(vft, tmp_path):
    file = tmp_path / "vft.npz"
    vft.save(file)
    again = ej.VisionFieldTransformer.load(file)
    assert again.config == CONFIG and again.card == vft.card
    jax.tree.map(np.testing.assert_array_equal, again.parameters, vft.parameters)
    with pytest.raises(ej.InputError, match="not for deep simulator"):
        ej.DeepSimulator.load(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ej.InputError, match="damaged"):
        ej.VisionFieldTransformer.load(file)
    with pytest.raises(ej.InputError, match="give one of vft, dsm, depth"):
        ej.load_pretrained("unet")


def test_means_and_their_transpose():
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7)))
    mean = mean_along(maps, {-1: 0.25, 0: 0.5, 2: 0.25}, 2)
    np.testing.assert_allclose(mean[..., 3], 0.25 * maps[..., 2] + 0.5 * maps[..., 3] + 0.25 * maps[..., 5])
    np.testing.assert_allclose(mean[..., 0], (0.5 * maps[..., 0] + 0.25 * maps[..., 2]) / 0.75)
    check_grads(lambda m: held(mean_along(jnp.asarray(m), {-1: 0.25, 0: 0.5, 2: 0.25}, 1)), (maps,), 1)


@pytest.mark.slow
def test_shipped_weights_see_what_the_exact_simulator_sees(table):
    """At a size that a test can afford: .3 % of the mean signal, less noise, gradients of cosine .95."""
    vft = ej.load_pretrained("vft")
    scene = ej.synthetic.islands(
        (64, 64), 1.0, key=jax.random.key(7), count=4, radius_nm=9.0, height_nm=9.0, wall_deg=74.0
    )
    true = ej.Surface(scene.surface.height_nm, 1.0)
    exact = ej.render(true, table)
    assert float(jnp.sqrt(jnp.mean((vft(true.normals(), table) - exact) ** 2)) / exact.mean()) < 0.003
    given = noisy(true.normals())
    plain = ej.render(ej.Facets(true.height_nm, 1.0, *ej.slopes_of_normals(given)), table)
    ratio = jnp.sqrt(jnp.mean((vft(given, table) - exact) ** 2) / jnp.mean((plain - exact) ** 2))
    # Beside exact horizons and normals as given: the noise that is taken out is the normals' own.
    assert float(ratio) < 0.9

    def loss(height, image):
        return jnp.sum((image(ej.Surface(height, 1.0)) - exact) ** 2)

    start = 0.8 * true.height_nm
    gradients = [
        jax.jit(jax.grad(lambda h, image=image: loss(h, image)))(start)
        for image in (lambda s: vft(s.normals(), table), lambda s: ej.render(s, table, 32, 64))
    ]
    a, b = gradients
    assert float(jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)) > 0.95
