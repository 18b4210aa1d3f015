"""Every public step under transformations: jit equals eager, vmap equals a loop, changed numbers trace nothing anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej

AZIMUTHS = 4


def surface(scale=1.0, pixel_nm=2.0):
    return ej.Surface(scale * np.random.default_rng(3).normal(size=(6, 7)), pixel_nm)


def scope(scale=1.0):
    return ej.Microscope.annular(3, distance_mm=6.0 + scale, start_deg=10.0 * scale, gap_mm=0.1 * scale)


def signal(scale=1.0):
    return scale * jnp.asarray(np.random.default_rng(4).uniform(0.05, 0.1, size=(3, 6, 7)))


def _table(scale):
    return ej.acceptance(scope(scale))


# Each entry: a function of one pytree of numbers, and how to make that pytree from one scale.
STEPS = {
    "slopes": (lambda s: s.slopes(), surface),
    "normals": (lambda s: s.normals(), surface),
    "horizon": (lambda s: ej.horizon(s, AZIMUTHS, ej.HardHorizon(3)), surface),
    "smooth horizon": (lambda s: ej.horizon(s, AZIMUTHS, ej.SmoothHorizon(3)), surface),
    "peaks": (lambda s: ej.horizon(s, AZIMUTHS, ej.PeakHorizon(1)), surface),
    "sky_view": (lambda s: ej.sky_view(s, AZIMUTHS, ej.HardHorizon(3)), surface),
    "acceptance": (lambda m: ej.acceptance(m, field=ej.NoField()), scope),
    "wide acceptance": (lambda m: ej.acceptance(m, field_mm=(0.2, 0.1), field=ej.NoField()), scope),
    "bands": (lambda t: t.bands(AZIMUTHS), _table),
    "render": (lambda x: ej.render(*x, AZIMUTHS, 3), lambda scale: (surface(scale), _table(scale))),
    "render a law": (
        lambda x: ej.render(x[0], x[1], AZIMUTHS, 3, emission=x[2]),
        lambda scale: (surface(scale), _table(scale), ej.ForwardLobe(0.2 * scale)),
    ),
    "record": (lambda x: ej.record(*x), lambda scale: (signal(scale), scope(scale))),
    "record noise": (
        lambda x: ej.record(x[0], x[1], key=x[2]),
        lambda scale: (signal(scale), scope(scale), jax.random.key(int(10 * scale))),
    ),
    "misread_tilt": (
        lambda x: ej.misread_tilt(x[0], x[1], jnp.asarray(22.0), jnp.asarray(0.0)),
        lambda scale: (_quadrants(scale), _quadrants(1.0)),
    ),
    "yield": (
        lambda z: ej.backscatter_yield(z, jnp.asarray(10.0), jnp.asarray(0.9)),
        lambda scale: jnp.asarray(26 * scale),
    ),
    "step_bunch": (lambda a: ej.synthetic.step_bunch((8, 9), 2.0, facet_deg=a), lambda scale: jnp.asarray(20 * scale)),
}


def _quadrants(scale):
    return ej.Microscope.annular(distance_mm=6.0 * scale)


def assert_same(a, b, rel=1e-11):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rel, atol=rel)


@pytest.mark.parametrize("name", STEPS)
def test_jit_equals_eager(name):
    f, make = STEPS[name]
    x = make(0.9)
    with jax.disable_jit():
        eager = f(x)
    assert_same(jax.jit(f)(x), eager)
    assert_same(f(x), eager)


@pytest.mark.parametrize("name", STEPS)
def test_vmap_equals_a_loop(name):
    f, make = STEPS[name]
    many = [make(s) for s in (0.8, 1.0)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
    together = jax.vmap(f)(stacked)
    for k, one in enumerate(many):
        assert_same(jax.tree.map(lambda leaf: leaf[k], together), f(one))  # noqa: B023


@pytest.mark.parametrize("name", STEPS)
def test_changed_numbers_trace_nothing_anew(name):
    f, make = STEPS[name]
    traces = []

    @jax.jit
    def counted(x):
        traces.append(1)
        return f(x)

    for scale in (0.8, 0.9, 1.0):
        counted(make(scale))
    assert len(traces) == 1


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("method", [ej.HardHorizon(3), ej.SmoothHorizon(3), ej.PeakHorizon(1)])
def test_derivatives_batch(method, mode):
    """The horizon has its own derivative rule: it must batch like any other."""
    table = _table(1.0)

    def f(h):
        return jnp.sum(ej.render(ej.Surface(h, 2.0), table, AZIMUTHS, horizon=method) ** 2)

    def derivative(h):
        return jax.grad(f)(h) if mode == "reverse" else jax.jvp(f, (h,), (jnp.cos(h),))[1]

    heights = jnp.stack([surface(s).height_nm for s in (0.5, 1.0, 2.0)])
    for batched, h in zip(jax.vmap(derivative)(heights), heights, strict=True):
        np.testing.assert_allclose(batched, derivative(h), rtol=1e-10, atol=1e-14)


def test_second_derivatives():
    """Gauss-Newton and Hessian products need forward over reverse."""
    table = _table(1.0)
    h = surface().height_nm
    v = jnp.sin(h)

    def slope(h):
        return jax.grad(lambda z: jnp.sum(ej.render(ej.Surface(z, 2.0), table, AZIMUTHS, 3) ** 2))(h)

    _, along = jax.jvp(slope, (h,), (v,))
    step = 1e-6
    np.testing.assert_allclose(along, (slope(h + step * v) - slope(h - step * v)) / (2 * step), rtol=1e-6, atol=1e-9)


def test_smooth_horizon_refuses_second_derivatives():
    def f(h):
        return jnp.sum(ej.sky_view(ej.Surface(h, 2.0), AZIMUTHS, ej.SmoothHorizon(3)))

    with pytest.raises(ej.InputError, match="first derivatives only"):
        jax.hessian(f)(surface().height_nm)


@pytest.mark.float32
def test_float32_stays_float32():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, scope())
    table = ej.acceptance(narrow)
    flat = ej.Surface(surface().height_nm.astype(jnp.float32), jnp.float32(2.0))
    assert table.theta.dtype == jnp.float32
    image = ej.render(flat, table, AZIMUTHS, 3)
    assert image.dtype == jnp.float32
    np.testing.assert_allclose(image, ej.render(surface(), _table(1.0), AZIMUTHS, 3), rtol=1e-3)


def test_no_step_calls_back_to_the_host():
    """JAX never keeps such programs in its compilation cache: each process would compile them anew."""

    def chain(scope, heights):
        table = ej.acceptance(scope)
        return ej.record(ej.render(ej.Surface(heights, 2.0), table, AZIMUTHS, 3), scope, key=jax.random.key(0))

    biased = ej.Microscope.annular(3, specimen_bias_v=-500.0)
    assert "callback" not in str(jax.make_jaxpr(chain)(biased, surface().height_nm))
