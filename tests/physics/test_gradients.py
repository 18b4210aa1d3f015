"""The table of derivatives: every differentiable step of the forward model against finite differences, both directions.

Forward mode gives J v, reverse mode gives w J; w J v must equal the central difference of w f along v. All in float64.
The instrument's own numbers, one by one, are in test_sensitivity.py, the camera's in test_camera.py, the surfaces' in
test_synthetic.py, the flight's in test_trajectories.py and test_aim.py.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.instrument.acceptance import NoField

ROWS, COLUMNS, PIXEL_NM = 12, 15, 3.0


@pytest.fixture(scope="module")
def height():
    """A jagged map: slopes to about 65 deg, so that many horizons cut into the detector."""
    return jnp.asarray(np.random.default_rng(5).normal(size=(ROWS, COLUMNS)) * 4.0)


@pytest.fixture(scope="module")
def table():
    return ej.acceptance(ej.Microscope.annular(start_deg=17.3, gap_mm=0.2, position_x_mm=0.05))


def assert_derivatives(f, points, step, rel=1e-5):
    """`f` maps a pytree of numbers to an array; `step` scales the finite difference to the size of the numbers.

    `points` is one such pytree or a list of several, for which everything is compiled once.
    """
    rng = np.random.default_rng(0)
    points = points if isinstance(points, list) else [points]
    v = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), points[0])
    w = jnp.asarray(rng.normal(size=jax.eval_shape(f, points[0]).shape))
    value = jax.jit(lambda x: jnp.vdot(w, f(x)))
    forward = jax.jit(lambda x: jax.jvp(value, (x,), (v,))[1])
    reverse = jax.jit(jax.grad(value))

    def moved(x, h):
        return value(jax.tree.map(lambda a, d: a + h * d, x, v))

    h = step
    for x in points:
        difference = float((8 * (moved(x, h) - moved(x, -h)) - (moved(x, 2 * h) - moved(x, -2 * h))) / (12 * h))
        back = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(reverse(x)), jax.tree.leaves(v), strict=True))
        assert abs(difference) > 1e-9, "the test function must depend on its input"
        assert abs(float(forward(x)) - difference) <= rel * abs(difference), (float(forward(x)), difference)
        assert abs(float(back) - difference) <= rel * abs(difference), (float(back), difference)


METHODS = {
    "hard": ej.HardHorizon(radius_px=9),
    "every step": ej.HardHorizon(radius_px=6, growth=1.0),
    "smooth": ej.SmoothHorizon(radius_px=9, softness=0.05),
    "peaks": ej.PeakHorizon(octaves=2),
    "no relief": ej.NoRelief(),
}
LAWS = {
    "lambertian": ej.Lambertian(),
    "cos^1.3": ej.CosinePower(1.3),
    "lobe": ej.ForwardLobe(0.3, 25.0),
}


@pytest.mark.parametrize("part", ["slopes", "normals"])
def test_surface(height, part):
    def f(h):
        out = getattr(ej.Surface(h, PIXEL_NM), part)()
        return jnp.stack(out) if isinstance(out, tuple) else out

    assert_derivatives(f, height, 1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_horizon_and_sky(height, method):
    assert_derivatives(lambda h: ej.horizon(ej.Surface(h, PIXEL_NM), 8, METHODS[method]), height, 1e-7)
    assert_derivatives(lambda h: ej.sky_view(ej.Surface(h, PIXEL_NM), 8, METHODS[method]), height, 1e-7)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_render_in_height(height, table, law, method):
    assert_derivatives(
        lambda h: ej.render(ej.Surface(h, PIXEL_NM), table, 16, emission=LAWS[law], horizon=METHODS[method]),
        height,
        1e-7,
    )


def test_render_in_pixel_size(height, table):
    assert_derivatives(lambda p: ej.render(ej.Surface(height, p), table, 16, radius_px=8), jnp.asarray(PIXEL_NM), 1e-6)


def test_render_in_softness(height, table):
    def f(softness):
        return ej.render(ej.Surface(height, PIXEL_NM), table, 16, horizon=ej.SmoothHorizon(8, softness=softness))

    assert_derivatives(f, jnp.asarray(0.1), 1e-5)


def test_render_in_the_table(height, table):
    """Every rim wider, turned and pushed aside."""

    def f(x):
        wider, turn, push = x
        moved = (table.theta * wider + push * jnp.cos(table.phi), table.phi + turn)
        return ej.render(
            ej.Surface(height, PIXEL_NM), eqx.tree_at(lambda t: (t.theta, t.phi), table, moved), 16, radius_px=8
        )

    assert_derivatives(f, (jnp.asarray(1.01), jnp.asarray(0.03), jnp.asarray(0.02)), 1e-6)


@pytest.mark.parametrize(
    "law, numbers",
    [(ej.CosinePower, [1.3]), (ej.ForwardLobe, [0.3, 25.0])],
)
def test_render_in_the_law(height, table, law, numbers):
    def f(x):
        return ej.render(ej.Surface(height, PIXEL_NM), table, 16, radius_px=8, emission=law(*x))

    assert_derivatives(f, tuple(jnp.asarray(n) for n in numbers), 1e-5)


@pytest.mark.slow
def test_render_across_a_wide_field(height):
    """Heights, pixel size and the field itself, where pixels see the detector from different places."""

    def f(x):
        h, pixel, offset, field = x
        scope = ej.Microscope.annular(position_x_mm=offset)
        return ej.render(ej.Surface(h, pixel), ej.acceptance(scope, field_mm=(field, field)), 8, radius_px=6)

    assert_derivatives(f, (height, jnp.asarray(3e4), jnp.asarray(0.05), jnp.asarray(0.5)), 1e-7)


@pytest.mark.slow
def test_from_an_electrodes_voltage_to_a_pixel(height):
    """Field, flight, spectrum, diode threshold, valid solid angle, image: all at once; also where nothing is biased."""
    surface = ej.Surface(height, PIXEL_NM)

    def f(x):
        bias, distance, outer, energy, threshold, mean = x
        scope = ej.Microscope.annular(
            specimen_bias_v=bias, distance_mm=distance, outer_radius_mm=outer, energy_kev=energy
        )
        scope = eqx.tree_at(lambda s: s.detector.segments.threshold_kev, scope, threshold * jnp.ones(4))
        table = ej.acceptance(scope, spectrum=ej.Spectrum.backscattered(mean, nodes=2))
        return ej.render(surface, table, 8, radius_px=6)

    points = [tuple(map(jnp.asarray, (bias, 6.03, 5.02, 5.0, 1.1, 0.7))) for bias in (-500.0, 0.0)]
    assert_derivatives(f, points, 1e-6)


@pytest.mark.parametrize("segments", [3, 4, 5])
def test_bands_answer_to_the_detectors_place_alike_in_single_precision(segments):
    """Sides that run straight outward turn by rounding alone, which no derivative may divide by."""

    def cut(offset_mm, scope):
        moved = eqx.tree_at(lambda s: s.detector.offset_x_mm, scope, offset_mm)
        return ej.acceptance(moved, field=NoField()).bands(32)

    found = []
    for dtype in (jnp.float32, jnp.float64):
        scope = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), ej.Microscope.annular(segments=segments))
        found.append(jax.jit(jax.jacfwd(cut))(jnp.zeros((), dtype), scope))
    for single, double in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(single, double, atol=0.01)
