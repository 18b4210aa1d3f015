"""The camera against closed forms: noise, the error function, parabolas, grey levels, finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from eclipsjax._types import InputError
from eclipsjax.imaging.blur import GaussianBlur, LineDrift, LineJitter
from eclipsjax.imaging.camera import (
    AdditiveNoise,
    Camera,
    GaussianShot,
    PoissonShot,
    SignalToNoise,
    exposure,
    primary_dose,
    record,
    record_with_clipping,
)
from eclipsjax.instrument.microscope import Microscope

KEY = jax.random.key(7)


def scope_with(gain=(1.0, 1.0, 1.0, 1.0), pedestal=(0.0, 0.0, 0.0, 0.0), **beam):
    scope = Microscope.annular(**beam)
    return eqx.tree_at(
        lambda s: (s.detector.segments.gain, s.detector.segments.pedestal),
        scope,
        (jnp.asarray(gain), jnp.asarray(pedestal)),
    )


def flat(value=0.1, shape=(4, 200, 200)):
    return jnp.full(shape, value)


def texture(shape=(4, 12, 14), seed=0):
    return jnp.asarray(0.05 + 0.1 * np.random.default_rng(seed).random(shape))


def test_without_a_camera_or_key_the_image_is_gain_times_signal_minus_pedestal():
    gain, pedestal = np.array([1.0, 2.0, 0.5, 3.0]), np.array([0.0, 0.03, -0.02, 0.05])
    signal = texture()
    images = record(signal, scope_with(gain, pedestal))
    np.testing.assert_allclose(images, gain[:, None, None] * (np.asarray(signal) - pedestal[:, None, None]), rtol=1e-14)


def test_yield_multiplies_before_the_pedestal():
    signal, scope = texture(), scope_with(pedestal=(0.01,) * 4)
    eta = 0.2 + np.random.default_rng(3).random((12, 14))
    np.testing.assert_allclose(record(signal, scope, yield_map=eta), np.asarray(signal) * eta - 0.01, rtol=1e-13)
    np.testing.assert_allclose(record(signal, scope, yield_map=0.3), np.asarray(signal) * 0.3 - 0.01, rtol=1e-13)


def test_dose_of_the_real_set():
    """524.8 pA for 20 us are 65 511 primaries a pixel."""
    dose = primary_dose(Microscope.annular(current_na=0.5248, dwell_us=20.0).beam)
    assert abs(float(dose) - 65511) < 1.0


# --- noise: 160 000 samples, so a variance is known to 0.35 % (one sigma); limits are four of those ---


@pytest.mark.parametrize("shot", [GaussianShot(0.4), PoissonShot(0.4)])
def test_counting_noise_has_variance_level_over_dose_and_efficiency(shot):
    scope = scope_with(current_na=0.01, dwell_us=2.0)
    electrons = 0.01 * 2.0 * 6241.509074 * 0.4
    for level in (0.3, 0.05):
        images = np.asarray(record(flat(level), scope, KEY, Camera(shot=shot)))
        expected = level / electrons
        # A Poisson variance scatters more: its fourth moment has the extra 1/mean.
        scatter = np.sqrt((2.0 + 1.0 / (electrons * level)) / images.size)
        assert abs(images.var() / expected - 1) < 4 * scatter
        assert abs(images.mean() - level) < 4 * np.sqrt(expected / images.size)


def test_poisson_counts_are_poisson_distributed():
    scope = scope_with(current_na=0.001, dwell_us=5.0)
    electrons = float(primary_dose(scope.beam))
    counts = np.asarray(record(flat(0.1), scope, KEY, Camera(shot=PoissonShot()))) * electrons
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    mean = 0.1 * electrons
    seen = np.bincount(np.round(counts).astype(int).ravel())
    share = stats.poisson.pmf(np.arange(seen.size), mean)
    np.testing.assert_allclose(seen / counts.size, share, atol=4 * np.sqrt(share.max() / counts.size))


def test_additive_noise_variance_and_correlation_between_segments():
    std, common = 0.02, 0.25
    images = np.asarray(record(flat(), scope_with(), KEY, Camera(additive=AdditiveNoise(std, common))))
    channels = images.reshape(4, -1) - 0.1
    covariance = channels @ channels.T / channels.shape[1] / std**2
    expected = common + (1 - common) * np.eye(4)
    np.testing.assert_allclose(covariance, expected, atol=4 * np.sqrt(2 / channels.shape[1]))
    # white: neighbours are uncorrelated
    neighbour = np.mean((images[:, :, 1:] - 0.1) * (images[:, :, :-1] - 0.1)) / std**2
    assert abs(neighbour) < 4 / np.sqrt(images.size) * 1.5


def test_signal_to_noise_is_read_in_grey_levels():
    """S/N 12 of the stored grey level: a pedestal of 0.6 of the flat signal leaves 0.4 of it as the S."""
    scope = scope_with(gain=(1.0, 2.0, 3.0, 1.0), pedestal=(0.0, 0.03, 0.06, -0.1))
    images = np.asarray(record(flat(), scope, KEY, Camera(counts_per_signal=500.0, additive=SignalToNoise(12.0))))
    ratio = images.mean(axis=(1, 2)) / images.std(axis=(1, 2))
    np.testing.assert_allclose(ratio, 12.0, rtol=4 / np.sqrt(2 * 40000) + 0.002)


def test_measured_camera_has_the_measured_figures():
    """Real three-segment images: S/N 11 to 13 in 8-bit grey levels, common share 0.065."""
    recorded = record_with_clipping(flat(), scope_with(current_na=0.5248), KEY, Camera.measured())
    images = np.asarray(recorded.images)
    ratio = images.mean(axis=(1, 2)) / images.std(axis=(1, 2))
    assert (ratio > 11).all() and (ratio < 13).all()
    correlation = np.corrcoef(images.reshape(4, -1))[np.triu_indices(4, 1)].mean()
    assert 0.05 < correlation < 0.08
    assert float(recorded.clipped_low.max() + recorded.clipped_high.max()) == 0.0


def test_noise_is_settled_by_the_key_and_effects_do_not_disturb_each_other():
    scope, signal = scope_with(), texture()
    noisy = Camera(additive=AdditiveNoise(0.01), shot=GaussianShot())
    first, again = record(signal, scope, KEY, noisy), record(signal, scope, KEY, noisy)
    other = record(signal, scope, jax.random.key(8), noisy)
    assert (first == again).all() and not (first == other).any()
    alone = record(signal, scope, KEY, Camera(additive=AdditiveNoise(0.01))) - signal
    shot = record(signal, scope, KEY, Camera(shot=GaussianShot())) - signal
    np.testing.assert_allclose(first - signal, alone + shot, atol=1e-15)


def test_a_key_alone_asks_for_the_measured_noise():
    signal, scope = flat(shape=(4, 64, 64)), scope_with()
    expected = record(signal, scope, KEY, Camera.measured(1.0, bits=None))
    assert (record(signal, scope, KEY) == expected).all() and not (expected == signal).any()


# --- grey levels ---


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_levels_are_whole_and_the_clipped_are_counted(bits):
    top = 2**bits - 1
    grey = np.array([-3.0, -0.6, -0.4, 0.0, 0.6, 17.3, top - 0.6, top + 0.4, top + 0.6, top + 50.0])
    signal = jnp.asarray(np.tile(grey / 1000.0, (4, 1, 1)))
    recorded = record_with_clipping(signal, scope_with(), camera=Camera(1000.0, bits=bits))
    expected = [0, 0, 0, 0, 1, 17, top - 1, top, top, top]
    np.testing.assert_array_equal(recorded.images[2, 0], expected)
    np.testing.assert_allclose(recorded.clipped_low, 0.2, rtol=1e-12)
    np.testing.assert_allclose(recorded.clipped_high, 0.2, rtol=1e-12)
    assert (record(signal, scope_with(), camera=Camera(1000.0, bits=bits)) == recorded.images).all()


def test_without_bits_nothing_is_rounded_or_clipped():
    recorded = record_with_clipping(flat(-0.123456, (4, 2, 2)), scope_with(), camera=Camera(1000.0))
    np.testing.assert_allclose(recorded.images, -123.456, rtol=1e-13)
    assert not recorded.clipped_low.any() and not recorded.clipped_high.any()


def test_exposure_puts_the_mean_where_it_is_wanted():
    scope = scope_with(gain=(1.0, 2.0, 1.0, 0.5), pedestal=(0.05, 0.04, 0.0, 0.0))
    signal = texture()
    counts = exposure(signal, scope, bits=8, target=0.4)
    images = record(signal, scope, camera=Camera(counts))
    np.testing.assert_allclose(images.mean(), 0.4 * 255, rtol=1e-12)


# --- derivatives ---


def _loss(theta):
    """A weighted sum of images that depends on every number of the camera once."""
    scope = scope_with(pedestal=theta["pedestal"], gain=theta["gain"])
    scope = eqx.tree_at(
        lambda s: (s.beam.current_na, s.beam.dwell_us, s.beam.probe_fwhm_nm),
        scope,
        (theta["current_na"], theta["dwell_us"], theta["probe_fwhm_nm"]),
    )
    camera = Camera(
        theta["counts"],
        GaussianBlur(theta["interaction"]),
        LineJitter(theta["jitter"]),
        LineDrift(theta["drift"]),
        GaussianShot(theta["efficiency"]),
        SignalToNoise(theta["ratio"], theta["common"]),
    )
    images = record(theta["signal"], scope, KEY, camera, theta["pixel"], theta["yield"])
    return jnp.sum(images * jnp.asarray(np.random.default_rng(5).normal(size=images.shape)))


def _numbers():
    numbers = {
        "counts": 300.0, "interaction": 40.0, "jitter": 0.3, "drift": 1.37, "efficiency": 0.4, "ratio": 9.0,
        "common": 0.2, "pixel": 50.0, "current_na": 0.02, "dwell_us": 3.0, "probe_fwhm_nm": 30.0,
    }  # fmt: skip
    theta = {name: jnp.asarray(value, float) for name, value in numbers.items()}
    theta |= {"pedestal": jnp.array([0.01, 0.02, 0.0, -0.01]), "gain": jnp.array([1.0, 1.2, 0.9, 1.1])}
    return theta | {"signal": texture(), "yield": texture((12, 14), seed=2) * 3}


def test_derivatives_in_every_number_against_finite_differences():
    theta = _numbers()
    reverse = jax.jit(jax.grad(_loss))(theta)
    forward = jax.jit(lambda theta, tangent: jax.jvp(_loss, (theta,), (tangent,)))
    rng = np.random.default_rng(11)
    for name, value in theta.items():
        direction = jnp.asarray(rng.normal(size=value.shape)) * jnp.max(jnp.abs(value))
        tangent = {k: direction if k == name else jnp.zeros_like(v) for k, v in theta.items()}
        h = 1e-5
        plus, minus = (forward({**theta, name: value + s * h * direction}, tangent)[0] for s in (1, -1))
        expected = float((plus - minus) / (2 * h))
        assert abs(expected) > 1e-3, name
        np.testing.assert_allclose(float(jnp.sum(reverse[name] * direction)), expected, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(float(forward(theta, tangent)[1]), expected, rtol=1e-5, err_msg=name)


def test_derivatives_stay_finite_where_roots_meet_zero():
    """Dark pixels, no blur, no common noise: square roots at 0, whose slope must not leak a NaN."""

    def loss(numbers):
        signal, interaction, common = numbers
        camera = Camera(None, GaussianBlur(interaction), shot=GaussianShot(), additive=AdditiveNoise(0.01, common))
        return jnp.sum(record(signal, scope_with(probe_fwhm_nm=0.0), KEY, camera, 10.0) ** 2)

    gradients = jax.jit(jax.grad(loss))((jnp.zeros((4, 3, 3)), jnp.asarray(0.0), jnp.asarray(0.0)))
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradients))


def test_zero_gradients_are_zero_as_stated_and_the_gain_behind_them_is_exact():
    scope, counting = scope_with(), Camera(shot=PoissonShot())
    rounded = jax.grad(lambda s: jnp.sum(record(s, scope, camera=Camera(1000.0, bits=8))))(texture())
    assert not rounded.any()

    @jax.jit
    def counted(signal, dwell_us, gain):
        images = record(signal, scope_with(gain=gain, dwell_us=dwell_us), KEY, counting)
        return jnp.sum(images), images

    (level, dwell, gain), images = jax.grad(counted, argnums=(0, 1, 2), has_aux=True)(texture(), 20.0, jnp.ones(4))
    assert not level.any() and not dwell
    np.testing.assert_allclose(gain, images.sum(axis=(1, 2)), rtol=1e-12)


# --- transforms, precision, errors ---


def test_vmap_over_keys_and_stacks_equals_a_loop():
    scope, camera = scope_with(), Camera(2000.0, jitter=LineJitter(0.2), shot=PoissonShot(), bits=8)
    stack = jnp.stack([texture(seed=s) for s in range(3)])
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda s, k: record(s, scope, k, camera))(stack, keys)
    for s, k, images in zip(stack, keys, together, strict=True):
        np.testing.assert_allclose(images, record(s, scope, k, camera), atol=1e-9)
    assert (together[0] != record(stack[0], scope, keys[1], camera)).any()


def test_one_trace_when_only_numbers_change_and_an_outer_jit_agrees():
    traces = []

    @jax.jit
    def run(signal, scope, key, camera):
        traces.append(1)
        return record(signal, scope, key, camera, 20.0)

    def camera(x):
        return Camera(x, GaussianBlur(30 * x), LineJitter(x), LineDrift(x), GaussianShot(x), AdditiveNoise(x, x))

    for x in (0.2, 0.5, 0.9):
        images = run(texture(), scope_with(probe_fwhm_nm=x), KEY, camera(x))
        np.testing.assert_allclose(
            images, record(texture(), scope_with(probe_fwhm_nm=x), KEY, camera(x), 20.0), rtol=1e-12
        )
    assert len(traces) == 1


@pytest.mark.float32
def test_float32_in_float32_out_and_close_to_float64():
    scope, signal = scope_with(pedestal=(0.01,) * 4), texture((4, 64, 64))
    camera = Camera(800.0, GaussianBlur(20.0), drift=LineDrift(1.5))
    exact = record(signal, scope, camera=camera, pixel_size_nm=10.0)
    single = record(signal.astype(jnp.float32), scope, camera=camera, pixel_size_nm=10.0)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=2e-5)
    noisy = record(signal.astype(jnp.float32), scope, KEY, Camera.measured())
    assert noisy.dtype == jnp.float32 and bool((noisy == jnp.round(noisy)).all())


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: record(flat(shape=(3, 4, 4)), scope_with()), r"signal has shape \(3, 4, 4\).*4 segments"),
        (lambda: record(flat(shape=(4, 4)), scope_with()), r"signal has shape \(4, 4\)"),
        (
            lambda: record(flat(shape=(4, 4, 5)), scope_with(), yield_map=jnp.ones((5, 4))),
            r"yield_map has shape \(5, 4\)",
        ),
        (lambda: record(flat(), scope_with(), camera=Camera(additive=AdditiveNoise(0.1))), "key is missing"),
        (lambda: record(flat(), scope_with(), camera=Camera(jitter=LineJitter(0.1))), "key is missing"),
        (lambda: record(flat(), scope_with(), camera=Camera.measured()), "key is missing"),
        (
            lambda: record(flat(), scope_with(), camera=Camera(blur=GaussianBlur())),
            "pixel_size_nm is missing",
        ),
        (lambda: record(flat(), scope_with(), pixel_size_nm=0.0), "pixel_size_nm is 0.0"),
        (lambda: Camera(bits=12, counts_per_signal=1.0), "bits is 12: give 8, 16, or None"),
        (lambda: Camera(bits=8), "counts_per_signal is missing"),
        (lambda: Camera(counts_per_signal=-1.0), "counts_per_signal is -1.0"),
        (lambda: GaussianShot(1.5), "detective_efficiency is 1.5"),
        (lambda: PoissonShot(0.0), "detective_efficiency is 0.0: give a share above 0 and up to 1"),
        (lambda: AdditiveNoise(-0.1), "std is -0.1"),
        (lambda: AdditiveNoise(0.1, 2.0), "common is 2.0"),
        (lambda: SignalToNoise(0.0), "ratio is 0.0"),
        (lambda: exposure(flat(0.1), scope_with(pedestal=(0.2,) * 4)), "lower detector.segments.pedestal"),
    ],
)
def test_bad_input_ends_in_one_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
