"""Heights through the exact simulator: derivatives, tiles, occlusion, standard deviations, cycles, edges, angles."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.camera import AdditiveNoise, Camera, SignalToNoise, record
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.descent import descend
from eclipsjax.inverse.linear_acceptance import acceptance_near
from eclipsjax.inverse.measurement import measure
from eclipsjax.inverse.metric import metric_at, metric_solve
from eclipsjax.inverse.misfit import (
    Problem,
    Unknowns,
    expected_value_and_gradient,
    tile_information,
    tile_value_and_gradient,
)
from eclipsjax.inverse.pipeline import Photometric, reconstruct
from eclipsjax.inverse.reconstruction import Outcome
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.smoothness import EdgePreserving
from eclipsjax.inverse.tiles import Tiles
from eclipsjax.inverse.uncertain import Instrument
from eclipsjax.metrology.compare import angular_error, facet_error, height_error
from eclipsjax.specimen import synthetic
from eclipsjax.specimen.horizon import HardHorizon
from eclipsjax.specimen.surface import Surface

SCOPE = Microscope.annular(4, gap_mm=0.2)
TABLE = acceptance(SCOPE)


def islands(size=64, pixel=2.0, wall_deg=76.0):
    """Islands 10 pixels tall whose walls hide the detector from the ground beside them."""
    key, tall = jax.random.key(2), 10 * pixel
    return synthetic.islands(
        (size, size), pixel, key=key, count=3, radius_nm=9 * pixel, height_nm=tall, wall_deg=wall_deg
    )


def imaged(surface, ratio=30.0, seed=0, scope=SCOPE):
    camera = Camera(additive=SignalToNoise(ratio))
    return record(render(surface, acceptance(scope), 64, radius_px=64), scope, jax.random.key(seed), camera)


def problem_of(images, spread=0.0, uncertain=None, window=None, outlier=np.inf, blur=None, level=0.0) -> Problem:
    measurement, instrument = measure(images, SCOPE), Instrument.of(SCOPE, uncertain or {})
    return Problem(
        measurement=measurement,
        pixel_size_nm=jnp.asarray(2.0),
        instrument=instrument,
        acceptance=acceptance_near(instrument, jnp.zeros(len(instrument.names)), 16),
        horizon=HardHorizon(radius_px=8),
        blur=blur,
        spread=jnp.asarray(spread),
        outlier=jnp.asarray(outlier),
        smoothness=EdgePreserving(),
        precision=jnp.diag(1.0 / measurement.std**2),
        level_information=jnp.asarray(level),
        azimuths=16,
        window=images.shape[1:] if window is None else window,
    )


def value(unknowns, problem, tiles):
    parts = [tile_value_and_gradient(unknowns, problem, tile)[0] for tile in tiles]
    return float(sum(parts) + expected_value_and_gradient(unknowns, problem)[0])


@pytest.mark.parametrize("case", ["plain", "spread", "unknown brightness", "numbers", "robust"])
def test_gradient_against_finite_differences(case):
    """Of the whole value, in heights, brightness and instrument numbers."""
    images = imaged(islands(24).surface)
    uncertain = {"detector.segments.pedestal": 0.01, "detector.segments.azimuth_deg": 2.0, "detector.distance_mm": 0.2}
    problem = problem_of(
        images,
        spread={"spread": 0.05, "unknown brightness": np.inf}.get(case, 0.0),
        uncertain=uncertain if case == "numbers" else None,
        outlier=5.0 if case == "robust" else np.inf,
        level=1e6 if case == "numbers" else 0.0,
    )
    count = len(problem.instrument.names)
    keys = jax.random.split(jax.random.key(3), 4)
    height = islands(24).surface.height_nm + 0.7 * jax.random.normal(keys[0], (24, 24))
    at = Unknowns(height, 0.02 + 0.3 * jax.random.normal(keys[1], (1 + count,)))
    way = Unknowns(jax.random.normal(keys[2], (24, 24)), jax.random.normal(keys[3], (1 + count,)))
    tile = Tiles.of((24, 24), 8, 10**6).tiles[0]
    gradient = jax.tree.map(
        jnp.add, tile_value_and_gradient(at, problem, tile)[2], expected_value_and_gradient(at, problem)[1]
    )
    promised = sum(float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
    step = 1e-6
    ahead, behind = (
        value(jax.tree.map(lambda a, b, s=sign: a + s * step * b, at, way), problem, [tile]) for sign in (1, -1)
    )
    assert promised == pytest.approx((ahead - behind) / (2 * step), rel=2e-4)


def test_acceptance_is_exact_where_it_was_worked_out_and_linear_around():
    uncertain = {"detector.segments.azimuth_deg": 2.0, "detector.distance_mm": 0.2, "detector.segments.pedestal": 0.01}
    instrument = Instrument.of(SCOPE, uncertain)
    numbers, way = (jnp.asarray(np.random.default_rng(k).normal(size=len(instrument.names))) for k in (0, 1))
    near = acceptance_near(instrument, numbers, 16)

    def exact(numbers):
        return instrument.table(instrument.shifted(numbers)).bands(16)

    for step, tolerance in ((0.0, 1e-12), (1e-2, 3e-5), (1e-3, 3e-7)):
        found, true = near.at(numbers + step * way).bands(16), exact(numbers + step * way)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
            np.testing.assert_allclose(a, b, atol=tolerance)


def test_tiles_are_the_whole():
    """Value, gradient and information of four overlapping windows are those of the image in one piece."""
    images = imaged(islands(48).surface)
    whole = Tiles.of((48, 48), 10, 10**6)
    parts = Tiles.of((48, 48), 10, 40 * 40)
    assert len(whole.tiles) == 1 and len(parts.tiles) > 1
    at = Unknowns(islands(48).surface.height_nm * 1.1, jnp.zeros(1))
    found = []
    for tiles in (whole, parts):
        problem = problem_of(images, window=tiles.window)
        values = [tile_value_and_gradient(at, problem, tile) for tile in tiles.tiles]
        information = [tile_information(at, problem, tile) for tile in tiles.tiles]
        found.append(jax.tree.map(lambda *v: sum(v[1:], v[0]), *values))
        found.append(jax.tree.map(lambda *v: sum(v[1:], v[0]), *information))
    for a, b in zip(jax.tree.leaves(found[:2]), jax.tree.leaves(found[2:]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(a))))


def test_metric_is_the_hessian_where_nothing_hides():
    """On level ground a step of the local model changes the gradient by what it was asked to, 1 % of it."""
    surface = Surface(jnp.zeros((20, 20)), 2.0)
    images = render(surface, TABLE) + 1e-7 * jax.random.normal(jax.random.key(0), (4, 20, 20))
    problem = problem_of(images, uncertain={"detector.segments.pedestal": 0.01}, level=1e15)
    tile = Tiles.of((20, 20), 8, 10**6).tiles[0]
    at = Unknowns(jnp.zeros((20, 20)), jnp.zeros(5))

    def gradient(v):
        at_v = jax.tree.map(jnp.add, at, v)
        return jax.tree.map(
            jnp.add, tile_value_and_gradient(at_v, problem, tile)[2], expected_value_and_gradient(at_v, problem)[1]
        )

    smooth = np.cos(np.pi * (np.arange(20) + 0.5) / 20)
    way = Unknowns(1e-3 * jnp.asarray(np.outer(smooth, smooth) + smooth), 1e-3 * jnp.arange(5.0))
    force = jax.tree.map(jnp.subtract, gradient(way), gradient(jax.tree.map(jnp.zeros_like, way)))
    step = metric_solve(metric_at(at, problem, tile_information(at, problem, tile)), force)
    changed = jax.tree.map(jnp.subtract, gradient(step), gradient(jax.tree.map(jnp.zeros_like, way)))
    for asked, done in zip(jax.tree.leaves(force), jax.tree.leaves(changed), strict=True):
        assert float(jnp.linalg.norm(done - asked)) < 0.01 * float(jnp.linalg.norm(asked))


@pytest.mark.slow
@pytest.mark.parametrize("upside_down", [False, True])
def test_occlusion_is_undone(upside_down):
    """Islands and pits with walls of 76 deg at S/N 30: at least 4 times less error than the closed form."""
    surface = islands().surface
    if upside_down:
        surface = Surface(-surface.height_nm, surface.pixel_size_nm)
    images = imaged(surface)
    closed, refined = (reconstruct(images, 2.0, SCOPE, method) for method in (Photometric(), Refined()))
    errors = [float(height_error(r.height_nm, surface.height_nm).percent.plane) for r in (closed, refined)]
    assert errors[0] > 3.0 and errors[0] > 4.0 * errors[1]
    assert refined.outcome is Outcome.CONVERGED and float(refined.chi_square) == pytest.approx(1.0, abs=0.15)
    assert 0.1 < refined.occluded_share < 0.9


@pytest.mark.slow
def test_nothing_is_lost_where_the_closed_form_is_right():
    """A gentle surface that hides nothing, 4 seeds: within 1 % of closed form and least squares at S/N 11, 30 and 100,
    and better on the whole."""
    surface = synthetic.rough((64, 64), 2.0, key=jax.random.key(1), rms_slope=0.1).surface
    ratios = []
    for signal_to_noise in (11.0, 30.0, 100.0):
        square = np.zeros(2)
        for seed in range(4):
            images = imaged(surface, signal_to_noise, seed)
            for k, method in enumerate((Photometric(), Refined(draws=0))):
                found = reconstruct(images, 2.0, SCOPE, method).height_nm
                square[k] += float(height_error(found, surface.height_nm).rms_nm.plane) ** 2
        ratios.append(np.sqrt(square[1] / square[0]))
    assert max(ratios) < 1.01 and np.mean(ratios) < 1.0


@pytest.mark.slow
def test_standard_deviations_are_those_of_the_errors():
    """20 seeds of noise on steps: errors over their standard deviations have rms .8 to 1.25, of heights and slopes."""
    scene = synthetic.step_bunch((48, 48), 2.0, key=jax.random.key(4))
    truth = scene.surface.height_nm - jnp.mean(scene.surface.height_nm)
    true_slopes = jnp.stack(scene.surface.slopes())
    heights, slopes, closed = [], [], []
    for seed in range(20):
        images = imaged(scene.surface, seed=seed)
        found = reconstruct(images, 2.0, SCOPE, Refined())
        open_ = ~np.asarray(found.occluded)
        heights.append(np.asarray((found.height_nm - truth) / found.height_std_nm)[open_])
        lean = jnp.stack(Surface(found.height_nm, 2.0).slopes())
        slopes.append(np.asarray((lean - true_slopes) / found.slope_std)[:, open_])
        plain = reconstruct(images, 2.0, SCOPE, Photometric())
        closed.append(np.asarray((plain.height_nm - truth) / plain.height_std_nm))
    for errors in (heights, slopes, closed):
        assert 0.8 < np.sqrt(np.mean([np.mean(e**2) for e in errors])) < 1.25


@pytest.mark.slow
def test_angles_of_facets():
    """Facets of 20 deg, S/N 30, instrument known: the mean deviation over 8 seeds is at most 0.1 deg."""
    scene = synthetic.step_bunch((96, 96), 2.0, key=jax.random.key(0))
    errors = []
    for seed in range(8):
        found = reconstruct(imaged(scene.surface, seed=seed), 2.0, SCOPE, Refined(draws=0))
        error = facet_error(found.height_nm, scene).error_deg
        errors.append(np.asarray(error)[np.isfinite(np.asarray(error))])
    assert np.abs(np.concatenate(errors)).mean() <= 0.1


@pytest.mark.slow
def test_cycle():
    """Images -> heights -> simulated images -> heights: the second differ from the first by at most 1 % (rms)."""
    first = reconstruct(imaged(islands().surface), 2.0, SCOPE, Refined(draws=0)).height_nm
    again = reconstruct(render(Surface(first, 2.0), TABLE, 64, radius_px=64), 2.0, SCOPE, Refined(draws=0)).height_nm
    assert float(height_error(again, first).percent.mean) <= 1.0


@pytest.mark.slow
def test_edges_stay_as_sharp_as_in_the_images():
    """A step of 8 pixels: the 10 to 90 % width of the result's rise is at most 1.1 times the true one's."""
    step = synthetic.step((48, 64), 2.0, height_nm=16.0).surface
    found = reconstruct(imaged(step), 2.0, SCOPE, Refined(draws=0)).height_nm

    def width(height):
        line = np.asarray(jnp.mean(height, axis=0))
        line = line if line[-1] > line[0] else line[::-1]
        low, high = np.median(line[:20]), np.median(line[-20:])
        fine = np.interp(np.linspace(0, 63, 6400), np.arange(64), (line - low) / (high - low))
        return (np.argmax(fine > 0.9) - np.argmax(fine > 0.1)) / 100

    assert width(found) <= 1.1 * width(step.height_nm)


@pytest.mark.slow
def test_clipped_pixels_are_bounds():
    """Facets too bright for the grey range: as bounds they do no harm, taken at face value they would."""
    scene = synthetic.step_bunch((64, 64), 2.0, key=jax.random.key(0))
    signal = render(scene.surface, TABLE, 32, radius_px=32)
    noise = float(jnp.mean(signal)) / 100
    images = signal + noise * jax.random.normal(jax.random.key(0), signal.shape)
    top = float(jnp.quantile(images, 0.88))
    cut = jnp.minimum(images, top)
    camera = Camera(additive=AdditiveNoise(noise))
    errors = [
        float(
            angular_error(
                reconstruct(cut, 2.0, SCOPE, Refined(draws=0), camera=camera, grey_range=limits).normals,
                scene.surface.normals(),
            ).rms_deg
        )
        for limits in ((None, top), None)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.slow
def test_uncertain_numbers_are_found():
    """A pedestal of a third of the signal and azimuths 3 deg off, not told: both found, within their errors."""
    flat = float(jnp.mean(render(Surface(jnp.zeros((2, 2)), 2.0), TABLE)))
    segments = SCOPE.detector.segments
    truth = dataclasses.replace(
        segments,
        pedestal=flat * jnp.array([0.30, 0.36, 0.33, 0.28]),
        start_deg=segments.start_deg + 3.0,
        stop_deg=segments.stop_deg + 3.0,
    )
    scope = dataclasses.replace(SCOPE, detector=dataclasses.replace(SCOPE.detector, segments=truth))
    surface = synthetic.rough((96, 96), 2.0, key=jax.random.key(5), rms_slope=0.4).surface
    images = imaged(surface, 60.0, scope=scope)
    uncertain = {"detector.segments.pedestal": 0.3 * flat, "detector.segments.azimuth_deg": 5.0}
    found = reconstruct(images, 2.0, SCOPE, Refined(uncertain=uncertain, iterations=60, draws=0))
    blind = reconstruct(images, 2.0, SCOPE, Refined(draws=0))
    errors = [float(angular_error(r.normals, surface.normals()).rms_deg) for r in (found, blind)]
    assert errors[0] < 0.5 * errors[1]
    for k in range(4):
        azimuth, std = found.solved[f"detector.segments.azimuth_deg[{k}]"]
        assert abs(azimuth - 90.0 * k - 3.0) < max(4 * std, 0.5)
        pedestal, std = found.solved[f"detector.segments.pedestal[{k}]"]
        assert abs(pedestal - float(truth.pedestal[k])) < max(4 * std, 0.02 * flat)


def test_interrupted_search_keeps_its_best():
    """Ctrl-C after the second step: heights of that step, the outcome says so."""
    images = imaged(islands(32).surface)

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    found = reconstruct(images, 2.0, SCOPE, Refined(draws=2), report=stop)
    assert found.outcome is Outcome.INTERRUPTED and len(found.history) == 3
    assert np.isfinite(np.asarray(found.height_nm)).all()


def test_descent_reaches_a_minimum_and_ends():
    """Rosenbrock's valley in a unit metric: to (1, 1), and the generator ends there by itself or goes on no further."""

    def evaluate(at):
        value, gradient = jax.value_and_grad(lambda v: 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2)(at)
        return float(value), 0.0, gradient

    points = []
    for point in descend(evaluate, lambda at: lambda g: 1e-3 * g, jnp.array([-1.2, 1.0])):
        points.append(point)
        if point.value < 1e-12 or len(points) > 200:
            break
    assert points[-1].value < 1e-9
    assert all(b.value <= a.value * (1 + 1e-6) for a, b in itertools.pairwise(points))


@pytest.mark.float32
def test_float32_is_enough():
    """In JAX's default precision the error is that of float64 within 2 %."""
    surface = islands(48).surface
    images = imaged(surface)
    errors = []
    for dtype in (jnp.float32, jnp.float64):
        found = reconstruct(images.astype(dtype), 2.0, SCOPE, Refined(draws=0))
        assert found.height_nm.dtype == dtype
        errors.append(float(height_error(found.height_nm.astype(jnp.float64), surface.height_nm).rms_nm.plane))
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
