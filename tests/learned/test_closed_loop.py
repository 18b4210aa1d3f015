"""The self-supervised loop: its two noisier sets are independent, it finds what the physics misses, it leaves alone
what the physics does not miss, and it keeps the best."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.inverse import closed_loop
from eclipsjax.inverse.adapted import LevelPixel, Seen
from eclipsjax.inverse.loop_value import apart, weight_of
from eclipsjax.inverse.photometric import flat_response
from eclipsjax.inverse.reconstruction import Outcome
from eclipsjax.inverse.tiles import centre_mm
from eclipsjax.nn.evidence import Answer, Evidence
from eclipsjax.nn.finetune import FinetuneConfig, factors, starting_parameters
from eclipsjax.nn.place import Place

# One process compiles the loop's step for all of them.
pytestmark = pytest.mark.xdist_group("closed loop")
SCOPE = ej.Microscope.annular()
CAMERA = ej.Camera(additive=ej.SignalToNoise(30.0))
SIDE = 64


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    # Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def surface():
    """Islands, in single precision."""
    scene = ej.synthetic.islands(
        (SIDE, SIDE), 1.0, key=jax.random.key(3), count=5, radius_nm=9.0, height_nm=6.0, wall_deg=50.0
    )
    return ej.Surface(scene.surface.height_nm.astype(jnp.float32), 1.0)


def images_of(surface, scope=SCOPE, drift=0.0):
    """Images whose gains drift across the field by this share, two segments up and two down."""
    signal = ej.render(surface, ej.acceptance(scope), 64)
    slow = jnp.linspace(-1.0, 1.0, SIDE, dtype=signal.dtype)
    signs = jnp.array([1.0, 1.0, -1.0, -1.0], signal.dtype)
    signal = signal * (1.0 + drift * signs[:, None, None] * slow[None, None, :])
    return ej.record(signal, scope, key=jax.random.key(7), camera=CAMERA)


def angle_deg(result, surface):
    return float(ej.angular_error(result.normals, surface.normals()).rms_deg)


def height_off(result, surface):
    return float(jnp.std(result.height_nm - surface.height_nm))


def both(images, loop=None, report=None):
    """One pass, and the loop."""
    return (
        ej.reconstruct(images, jnp.float32(1.0), SCOPE, method, CAMERA, report=report)
        for method in (ej.Supervised(), loop or ej.ClosedLoop())
    )


@pytest.mark.slow
def test_gains_distance_and_drift_that_were_not_known_are_found(surface):
    gains = jnp.array([1.06, 0.95, 0.96, 1.04])
    where = lambda s: (s.detector.segments.gain, s.detector.distance_mm)  # noqa: E731
    other = eqx.tree_at(where, SCOPE, (gains, 1.15 * SCOPE.detector.distance_mm))
    told = []
    plain, loop = both(images_of(surface, other, drift=0.02), report=told.append)
    assert angle_deg(loop, surface) < 0.6 * angle_deg(plain, surface)
    assert height_off(loop, surface) < 0.5 * height_off(plain, surface)
    assert len(told) == len(loop.history) > 1 and told[-1].seconds > told[0].seconds
    assert float(jnp.min(loop.history[:, 0])) < float(loop.history[0, 0])
    assert loop.outcome is Outcome.CONVERGED and float(loop.chi_square) < float(plain.chi_square)


@pytest.mark.slow
@pytest.mark.parametrize("law", [ej.CosinePower(1.3), ej.ForwardLobe(0.5)], ids=["narrower", "lobe"])
def test_a_law_that_was_not_known_is_found(law):
    rough = ej.synthetic.rough((SIDE, SIDE), 1.0, key=jax.random.key(2), rms_slope=0.3).surface
    rough = ej.Surface(rough.height_nm.astype(jnp.float32), 1.0)
    signal = ej.render(rough, ej.acceptance(SCOPE), 64, emission=law)
    plain, loop = both(ej.record(signal, SCOPE, key=jax.random.key(7), camera=CAMERA))
    assert angle_deg(loop, rough) < 0.8 * angle_deg(plain, rough)
    assert height_off(loop, rough) < 0.8 * height_off(plain, rough)


@pytest.mark.slow
def test_where_physics_misses_nothing_normals_are_better_and_factors_stay_near_1(surface):
    images = images_of(surface)
    plain, loop = both(images)
    assert angle_deg(loop, surface) < angle_deg(plain, surface)
    adapted = ej.adapted(images, jnp.float32(1.0), SCOPE, camera=CAMERA)
    again = ej.reconstruct(images, jnp.float32(1.0), SCOPE, adapted, CAMERA)
    np.testing.assert_allclose(again.height_nm, loop.height_nm, atol=1e-3)
    task = task_of(images)
    corrected, _ = adapted.corrected(task)
    factor = task.measurement.level / corrected.measurement.level
    assert float(jnp.std(factor)) < 0.01
    # Another frame of the same microscope: one pass.
    turned = images[:, ::-1]
    assert ej.reconstruct(images[:, :48], jnp.float32(1.0), SCOPE, adapted, CAMERA).height_nm.shape == (48, SIDE)
    with pytest.raises(ej.InputError, match="there are 3 segments, but this was adapted to images of 4"):
        ej.reconstruct(turned[:3], 1.0, ej.Microscope.annular(3), adapted, CAMERA)


@pytest.mark.slow
def test_several_frames_teach_together_and_a_bad_one_is_named(surface):
    rough = ej.synthetic.rough((SIDE, SIDE), 1.0, key=jax.random.key(2), rms_slope=0.3).surface
    rough = ej.Surface(rough.height_nm.astype(jnp.float32), 1.0)
    gains = jnp.array([1.06, 0.95, 0.96, 1.04])
    where = lambda s: (s.detector.segments.gain, s.detector.distance_mm)  # noqa: E731
    other = eqx.tree_at(where, SCOPE, (gains, 1.15 * SCOPE.detector.distance_mm))
    first, second = images_of(surface, other), images_of(rough, other)
    left_out = []
    frames = [first, jnp.full_like(first, jnp.nan), second]
    adapted = ej.adapted(frames, jnp.float32(1.0), SCOPE, camera=CAMERA, skipped=lambda *told: left_out.append(told))
    [(number, error)] = left_out
    assert number == 1 and str(error).startswith("frame 1: ")
    for images, truth in ((first, surface), (second, rough)):
        plain, taught = (
            ej.reconstruct(images, jnp.float32(1.0), SCOPE, method, CAMERA) for method in (ej.Supervised(), adapted)
        )
        assert angle_deg(taught, truth) < 0.7 * angle_deg(plain, truth)


def test_frames_of_which_none_is_a_measurement_teach_nothing():
    bad = jnp.full((2, 4, 8, 8), jnp.nan)
    with pytest.raises(ej.InputError, match=r"^frame 0: "):
        ej.adapted(bad, 1.0, SCOPE)
    with pytest.raises(ej.InputError, match="there is nothing to learn from"):
        ej.adapted(bad, 1.0, SCOPE, skipped=lambda *told: None)


def task_of(images):
    from eclipsjax.inverse.pipeline import _task

    return _task(images, jnp.float32(1.0), SCOPE, CAMERA, None, None)


@pytest.mark.slow
def test_running_away_is_told_and_the_best_is_kept(surface, monkeypatch):
    images = images_of(surface)
    taken = closed_loop.step
    count = iter(range(100))

    def runs_away(*state):
        learnt, memory, value = taken(*state)
        worse = jax.tree.map(lambda p: p * jnp.nan, learnt)
        return (learnt, memory, value) if next(count) < 7 else (worse, memory, value * jnp.nan)

    monkeypatch.setattr(closed_loop, "step", runs_away)
    plain, loop = both(images)
    assert loop.outcome is Outcome.DIVERGED and loop.outcome.value in loop.warnings
    assert angle_deg(loop, surface) < 1.05 * angle_deg(plain, surface)


@pytest.mark.slow
def test_interrupted_it_gives_the_best_so_far(surface):
    def stop(progress):
        if progress.step == 1:
            raise KeyboardInterrupt

    _, loop = both(images_of(surface), report=stop)
    assert loop.outcome is Outcome.INTERRUPTED and bool(jnp.isfinite(loop.height_nm).all())


def test_the_two_noisier_sets_are_independent():
    rng = np.random.default_rng(0)
    true = np.full((3, 300, 300), 0.2)
    noise = ej.LevelNoise(jnp.array([0.01, 0.02, 0.01]), 2e4, 0.3)
    own = rng.normal(size=true.shape) * np.sqrt(0.7 * np.array([0.01, 0.02, 0.01])[:, None, None] ** 2 + 0.2 / 2e4)
    common = rng.normal(size=true.shape[1:]) * np.sqrt(0.3) * np.array([0.01, 0.02, 0.01])[:, None, None]
    level = jnp.asarray(true + own + common)
    nowhere = jnp.zeros(level.shape, bool)
    measurement = ej.Measurement(level, noise, nowhere, nowhere.at[:, 0].set(True), jnp.ones(3))
    entered, asked = apart(measurement, jax.random.key(1))
    one, other = np.asarray(entered.level - true)[:, 1:], np.asarray(asked.level - true)[:, 1:]
    for k in range(3):
        assert abs(np.corrcoef(one[k].ravel(), other[k].ravel())[0, 1]) < 0.015
        assert abs(np.corrcoef(one[k].ravel(), other[(k + 1) % 3].ravel())[0, 1]) < 0.015
    np.testing.assert_allclose(
        one.std(axis=(1, 2)) / (own + common)[:, 1:].std(axis=(1, 2)), math.sqrt(1.25), rtol=0.02
    )
    np.testing.assert_array_equal(entered.level[:, 0], level[:, 0])


@pytest.mark.parametrize(
    ("moves", "some"),
    [
        (ej.AllParts(), "down/0/first/kernel"),
        (ej.Decoder(), "head/bias"),
        (ej.Normalisation(), "norm/scale"),
        (ej.InputFeatures(), "alike"),
    ],
)
def test_what_may_move(moves, some):
    assert moves.takes(tuple(some.split("/")))
    assert isinstance(moves, ej.AllParts) or not moves.takes(("shrink", "0", "kernel"))


def test_choices_that_are_none():
    for wrong, told in (
        ({"rounds": 0}, "rounds is 0"),
        ({"rate": 0.0}, "rate is 0"),
        ({"moves": "all"}, "moves is .all.: give AllParts"),
        ({"level_deg": 95.0}, "level_deg is 95"),
    ):
        with pytest.raises(ej.InputError, match=told):
            ej.ClosedLoop(**wrong)
    with pytest.raises(ej.InputError, match=r"method is Supervised\(.*give ClosedLoop\(\)"):
        ej.adapted(jnp.ones((4, 8, 8)), 1.0, SCOPE, ej.Supervised())


def random_missed(config, seed=0):
    """What the physics misses, at random."""
    rng = np.random.default_rng(seed)
    start = starting_parameters(config)
    return jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + 0.5 * rng.normal(size=p.shape), p.dtype), start)


def test_factors_say_nothing_of_level_ground_and_of_how_bright_a_slope_is():
    config = FinetuneConfig(segments=3)
    lean = jnp.array([[0.5, 0.1], [-0.3, 0.4], [-0.2, -0.5]])
    missed = random_missed(config)
    missed["gains"] = jnp.zeros_like(missed["gains"])
    rng = np.random.default_rng(1)
    normals = jnp.asarray(rng.normal(size=(3, 6, 7)) * 0.3).at[2].set(0.9)
    flat = jnp.array([0.2, 0.25, 0.3])
    signal = flat[:, None, None] * jnp.asarray(0.8 + 0.4 * rng.random((3, 6, 7)))
    factor, unlikely = factors(config, missed, normals, signal, flat, lean)
    np.testing.assert_allclose(jnp.mean(factor, axis=0), 1.0, atol=1e-6)
    assert float(jnp.std(factor)) > 1e-3 and float(unlikely) > 0
    level = jnp.zeros((3, 6, 7)).at[2].set(1.0)
    ground = jnp.broadcast_to(flat[:, None, None], signal.shape)
    np.testing.assert_allclose(factors(config, missed, level, ground, flat, lean)[0], 1.0, atol=1e-6)
    none, unlikely = factors(config, starting_parameters(config), normals, signal, flat, lean)
    np.testing.assert_array_equal(none, 1.0)
    assert float(unlikely) == 0.0


@pytest.mark.parametrize("order", [1, 2])
def test_a_law_begins_to_grow_with_the_power_of_slopes_that_it_may(order):
    config = FinetuneConfig(segments=3, law_order=order)
    missed = random_missed(config)
    missed["gains"] = jnp.zeros_like(missed["gains"])
    lean, flat = jnp.array([[0.5, 0.1], [-0.3, 0.4], [-0.2, -0.5]]), jnp.array([0.2, 0.25, 0.3])

    def less_one(slope):
        normal = jnp.array([slope, 0.5 * slope, 1.0]) / math.sqrt(1.0 + 1.25 * slope**2)
        signal = flat * (1.0 + lean @ normal[:2])
        return np.asarray(factors(config, missed, normal[:, None, None], signal[:, None, None], flat, lean)[0]) - 1.0

    np.testing.assert_allclose(less_one(2e-4), 2.0**order * less_one(1e-4), rtol=0.02)
    assert np.abs(less_one(0.5)).max() > 1e-4


def test_a_part_has_the_factors_of_the_whole():
    config = FinetuneConfig(segments=3)
    missed, flat = random_missed(config), jnp.array([0.2, 0.25, 0.3])
    rng = np.random.default_rng(1)
    maps = jnp.asarray(rng.normal(size=(3, 20, 24)) * 0.3).at[2].set(0.9), jnp.asarray(0.2 + rng.random((3, 20, 24)))
    lean = jnp.asarray(rng.normal(size=(3, 2)))
    place = Place(jnp.int32(5), jnp.int32(9), (8, 10), (20, 24))
    of_part, _ = factors(config, missed, *place.of(maps), flat, lean, place)
    np.testing.assert_allclose(of_part, place.of(factors(config, missed, *maps, flat, lean)[0]), rtol=1e-6)
    np.testing.assert_array_equal(place.of(maps)[0], maps[0][:, 5:13, 9:19])
    assert place.of(flat) is flat


def test_a_part_sees_the_detector_as_the_whole_image_does_there():
    table = ej.acceptance(ej.Microscope.annular(3), field_mm=(0.24, 0.2))
    pixel_nm = jnp.asarray(1e4)
    whole = flat_response(table, ej.Lambertian(), (20, 24), pixel_nm)
    assert float(jnp.ptp(whole[0, 0])) > 0.01 * float(whole[0, 0, 0, 0])
    centre = centre_mm(jnp.array([5.0, 9.0]), (8, 10), (20, 24), pixel_nm)
    part = flat_response(table.of_part(centre), ej.Lambertian(), (8, 10), pixel_nm)
    np.testing.assert_allclose(part, whole[:, :, 5:13, 9:19], rtol=1e-9, atol=1e-12)


def test_levels_weigh_less_where_the_model_may_be_off():
    flat = LevelPixel(jnp.array([0.2, 0.2, 0.2]), jnp.array([[0.6, 0.0], [-0.3, 0.5], [-0.3, -0.5]]))
    stack, vectors = jnp.zeros((3, 2, 2)), jnp.zeros((3, 2, 2)).at[2].set(1.0)
    hidden = stack.at[0, 0, 0].set(0.5)
    evidence = Evidence(*([vectors] * 5), jnp.full((2, 2), 0.02), hidden, stack, stack, flat.lean)
    doubt = jnp.full((2, 2), 1e-6).at[1, 1].set(0.1)
    weight = weight_of(Answer(vectors[:2], doubt), evidence, flat, jnp.asarray(2.0), jnp.full(3, 0.01))
    assert float(weight[1, 0, 1]) == pytest.approx(1.0)
    # Of a signal of .4: 5 % of it hidden, or doubts of .06, 2 and 2.4 times the noise.
    assert float(weight[0, 0, 0]) == pytest.approx(1 / (1 + 2.0**2))
    assert float(weight[0, 1, 1]) == pytest.approx(1 / (1 + 2.4**2))


def test_level_ground_as_it_is_first_seen():
    task = task_of(ej.record(ej.render(ej.Surface(jnp.zeros((8, 8), jnp.float32), 1.0), ej.acceptance(SCOPE)), SCOPE,
                             key=jax.random.key(0), camera=CAMERA))  # fmt: skip
    flat = LevelPixel.of(task)
    seen = Seen.level(task, flat)
    expected = ej.flat_signal(ej.acceptance(SCOPE))
    np.testing.assert_allclose(seen.signal[:, 0, 0], expected, rtol=1e-3)
    np.testing.assert_allclose(jnp.sum(flat.lean, axis=0), 0.0, atol=1e-3)
