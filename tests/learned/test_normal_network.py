"""Normals of segment images: physics takes out what is hidden, the network turns with its input and takes any
detector."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.inverse.unhidden import evidence_of
from eclipsjax.learn import pretrain as pretraining
from eclipsjax.learn.measured_pairs import pairs_of_folder
from eclipsjax.learn.pretrain import Recipe, card, lesson_of, pretrain
from eclipsjax.learn.scores import square_angle
from eclipsjax.nn.equivariant import act_on_image, act_on_vector
from eclipsjax.nn.evidence import Evidence, slopes_along
from eclipsjax.nn.normal_network import NormalConfig

CONFIG = NormalConfig(fields=(1, 1))
RECIPE = Recipe(steps=4, size=16, batch=2, warm=2)


@pytest.fixture(scope="module")
def network():
    """Random weights, larger than at the start of a training."""
    fresh = jax.jit(CONFIG.initial_parameters)(jax.random.key(1))
    return ej.NormalNet.of(jax.tree.map(lambda p: 1.2 * p, fresh), CONFIG, {"what": "a test"})


def scene(draw, size=64, ratio=None, upside=1.0, **choices):
    """What physics makes of a surface's images, and its true slopes."""
    scope = ej.Microscope.annular()
    surface = draw((size, size), 1.0, key=jax.random.key(3), **choices).surface
    surface = ej.Surface(upside * surface.height_nm, 1.0)
    table = ej.acceptance(scope)
    signal = ej.render(surface, table, 64)
    additive = ej.AdditiveNoise(1e-5) if ratio is None else ej.SignalToNoise(ratio)
    images = ej.record(signal, scope, key=jax.random.key(5), camera=ej.Camera(additive=additive))
    measurement = ej.measure(images, scope, ej.Camera(additive=additive))
    evidence = evidence_of(measurement, table, ej.VisionFieldTransformer.shipped())
    return evidence, jnp.stack(surface.slopes())


def off_deg(normals, true):
    """Root mean square angle, degrees."""
    return float(jnp.rad2deg(jnp.sqrt(jnp.mean(square_angle(slopes_along(normals), true)))))


@pytest.mark.parametrize("upside", [1.0, -1.0])
def test_what_is_hidden_is_taken_out(upside):
    """Of islands and, upside down, of pits with walls of 70 deg, whose foot sees half of the detector."""
    walls = {"count": 5, "radius_nm": 9.0, "height_nm": 8.0, "wall_deg": 70.0}
    evidence, true = scene(ej.synthetic.islands, upside=upside, **walls)
    closed, own = off_deg(evidence.closed_form, true), off_deg(evidence.normals, true)
    assert closed > 4.0 and own < 0.4 * closed
    assert float(jnp.max(evidence.hidden)) > 0.1


def test_where_nothing_is_hidden_the_closed_form_stays():
    evidence, true = scene(ej.synthetic.rough, rms_slope=0.1, shortest_nm=6.0, ratio=30.0)
    assert float(jnp.max(jnp.abs(evidence.hidden))) < 0.02
    assert off_deg(evidence.normals, true) == pytest.approx(off_deg(evidence.closed_form, true), rel=0.05)
    # The noise of the components is what the closed form's normals are off by.
    off = evidence.closed_form[:2] - true / jnp.sqrt(1.0 + jnp.sum(true**2, axis=0))[None]
    assert float(jnp.std(off)) == pytest.approx(float(jnp.mean(evidence.noise)), rel=0.15)


def random_evidence(segments=4, shape=(16, 16), seed=0):
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(3, *shape)) * 0.2
    own[2] = 1.0
    near = [jnp.asarray(own + 0.1 * rng.normal(size=own.shape)) for _ in range(4)]
    each = [jnp.asarray(rng.normal(size=(segments, *shape))) for _ in range(3)]
    noise, lean = jnp.asarray(0.05 + 0.01 * rng.random(shape)), jnp.asarray(rng.normal(size=(segments, 2)))
    return Evidence(jnp.asarray(own), *near, noise, *each, lean)


def turned(evidence, element):
    """The evidence of the turned images."""
    matrix = jnp.asarray(act_on_vector(element))
    image = lambda m: act_on_image(element, m, (-2, -1))  # noqa: E731

    def vectors(v):
        return jnp.concatenate([jnp.einsum("ab,byx->ayx", matrix, image(v)[:2]), image(v)[2:]])

    changed = {
        name: vectors(getattr(evidence, name)) for name in ("normals", "closed_form", "facets", "relief", "waves")
    }
    changed |= {name: image(getattr(evidence, name)) for name in ("noise", "hidden", "left", "cut")}
    return dataclasses.replace(evidence, **changed, lean=evidence.lean @ matrix.T)


def test_turns_and_flips_with_the_images(network):
    evidence = random_evidence()
    upright = network(evidence)
    for element in range(1, 8):
        found = network(turned(evidence, element))
        matrix = jnp.asarray(act_on_vector(element))
        slopes = jnp.einsum("ab,byx->ayx", matrix, act_on_image(element, upright.slopes, (1, 2)))
        np.testing.assert_allclose(found.slopes, slopes, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found.doubt, act_on_image(element, upright.doubt), rtol=1e-6)


@pytest.mark.parametrize("segments", [3, 5, 8])
def test_segments_are_a_set(network, segments):
    evidence = random_evidence(segments)
    order = np.random.default_rng(1).permutation(segments)
    names = "hidden", "left", "cut", "lean"
    mixed = dataclasses.replace(evidence, **{name: getattr(evidence, name)[order] for name in names})
    for one, other in zip(network(evidence), network(mixed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 22)])
def test_any_size(network, shape):
    found = network(random_evidence(3, shape))
    assert found.slopes.shape == (2, *shape) and found.doubt.shape == shape
    assert bool(jnp.isfinite(found.slopes).all()) and bool((found.doubt > 0).all())


def test_derivative_in_the_parameters(network):
    evidence = random_evidence(3, (8, 8))

    @jax.jit
    def value(parameters):
        found = ej.NormalNet(parameters, CONFIG, "")(evidence)
        return jnp.sum(jnp.cos(3.0 * found.slopes)) + jnp.sum(jnp.log(found.doubt) ** 2)

    rng = np.random.default_rng(3)
    start = jax.tree.map(lambda p: p.astype(float), network.parameters)
    push = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), start)
    moved = lambda step: jax.tree.map(lambda p, d: p + step * d, start, push)  # noqa: E731
    slope = jax.jit(jax.grad(value))(start)
    back = sum(float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(push), strict=True))
    step = 1e-6
    assert back == pytest.approx(float(value(moved(step)) - value(moved(-step))) / (2 * step), rel=1e-4)


@pytest.fixture
def one_family(monkeypatch):
    monkeypatch.setattr(pretraining, "TAUGHT", ("sinusoid",))
    monkeypatch.setattr(pretraining, "SEGMENTS", (3,))
    # Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("one_family")
def test_pretraining_goes_on_where_it_stopped_and_tells_of_itself(tmp_path):
    one, same, other = (lesson_of(RECIPE, seed) for seed in (3, 3, 5))
    np.testing.assert_array_equal(one.evidence.normals, same.evidence.normals)
    assert not np.allclose(one.slopes, other.slopes)
    assert one.slopes.shape == (2, 2, 16, 16) and one.evidence.lean.shape == (2, 3, 2)
    whole = pretrain(tmp_path / "whole", CONFIG, RECIPE, every=2)
    pretrain(tmp_path / "parts", CONFIG, RECIPE, every=2, stop_after=2)
    resumed = pretrain(tmp_path / "parts", CONFIG, RECIPE, every=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, resumed)
    found = card(RECIPE, "tiny", CONFIG, resumed, tmp_path / "parts", "0")
    assert 0 < found["errors"]["sinusoid"]["normals deg"] < 40 and "--seed 0" in found["command"]
    with pytest.raises(ej.InputError, match=r"another recipe \(steps 4, not steps 5\): give a new folder"):
        pretrain(tmp_path / "parts", CONFIG, dataclasses.replace(RECIPE, steps=5), every=2)


def write_pairs(folder, count=2, shape=(20, 24), segments=3):
    """Images of waves by one microscope, with their heights."""
    folder.mkdir(exist_ok=True)
    scope = ej.Microscope.annular(segments)
    scope.save(folder / "scope.yaml")
    for k in range(count):
        height = np.random.default_rng(k).normal(size=shape)
        images = np.random.default_rng(10 + k).uniform(0.1, 0.2, size=(segments, *shape))
        np.savez(folder / f"{k}.npz", images=images, height_nm=3.0 * height, pixel_size_nm=3.0)
    return folder


def test_measured_pairs_are_cropped_together(tmp_path):
    pairs = pairs_of_folder(write_pairs(tmp_path / "pairs"), 12)
    lesson = pairs.lessons(12, 3, jax.random.key(0))
    assert lesson.measurement.level.shape == (3, 3, 12, 12) and lesson.table.theta.shape[0] == 3
    again = pairs.lessons(12, 3, jax.random.key(0))
    np.testing.assert_array_equal(lesson.measurement.level, again.measurement.level)
    # Images and slopes of the same place: both are found at one place of one pair.
    level, slope = np.asarray(lesson.measurement.level[0]), np.asarray(lesson.slope_x[0])
    found = [
        (k, top, left)
        for k, images in enumerate(pairs.images)
        for top in range(9)
        for left in range(13)
        if np.allclose(images[:, top : top + 12, left : left + 12], level, rtol=1e-5)
    ]
    ((k, top, left),) = found
    heights = jnp.asarray(pairs.heights[k][top : top + 12, left : left + 12], jnp.float32)
    np.testing.assert_allclose(slope, ej.Surface(heights, jnp.float32(1.0)).slopes()[0], rtol=1e-5, atol=1e-6)
    assert pairs.named.startswith("2, ")


def test_pairs_that_are_none(tmp_path):
    with pytest.raises(ej.InputError, match="is no folder: give one with pairs"):
        pairs_of_folder(tmp_path / "nowhere", 12)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ej.InputError, match=r"holds no \.npz file"):
        pairs_of_folder(tmp_path / "empty", 12)
    folder = write_pairs(tmp_path / "small")
    with pytest.raises(ej.InputError, match="at least 21 x 21, or take it away"):
        pairs_of_folder(folder, 21)
    (folder / "0.npz").write_bytes(b"none")
    with pytest.raises(ej.InputError, match=r"0\.npz cannot be read as a pair"):
        pairs_of_folder(folder, 12)
    folder = write_pairs(tmp_path / "other")
    ej.Microscope.annular(4).save(folder / "scope.yaml", force=True)
    with pytest.raises(ej.InputError, match="there are 3 images but the microscope has 4 segments"):
        pairs_of_folder(folder, 12)
    (folder / "scope.yaml").unlink()
    with pytest.raises(ej.InputError, match=r"holds no scope\.yaml"):
        pairs_of_folder(folder, 12)
