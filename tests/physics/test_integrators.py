"""Integrators against their own classes of exact surfaces, direct sparse solves, adjoints and finite differences.

Each linear method is exact on one class of surfaces: Fourier modes (Frankot-Chellappa), cosines (spectral Poisson),
quadratics (two- and three-point stencils, paths). Elsewhere the order is measured.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse
from integrators import BENT, EVERY, LINEAR, SHAPE, centred, grid, noise
from scipy.sparse.linalg import spsolve

import eclipsjax as ej
from eclipsjax._cosine import cosine_modes_2d, from_cosine_modes_2d, from_sine_modes, sine_modes
from eclipsjax.inverse.integrators import least_absolute, robust
from eclipsjax.inverse.integrators.links import cubic, divergence, poisson, trapezoid

PIXEL_NM = 3.0


# --- exact on their own class ---


def quadratic(shape):
    x, y = grid(shape)
    z = 0.02 * x**2 - 0.03 * x * y + 0.01 * y**2 + 0.5 * x - 0.2 * y
    return z, 0.04 * x - 0.03 * y + 0.5, -0.03 * x + 0.02 * y - 0.2


def fourier(shape):
    """A random periodic surface below half of the highest frequency, and its slopes, by sums of waves."""
    (x, y), rng = grid(shape), np.random.default_rng(1)
    z, p, q = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for _ in range(8):
        kx, ky = (2 * np.pi * rng.integers(-(n // 2 - 1), n // 2) / n for n in shape[::-1])
        phase, size = kx * x + ky * y + rng.uniform(0, 6), rng.normal()
        z += size * np.cos(phase)
        p -= size * kx * np.sin(phase)
        q -= size * ky * np.sin(phase)
    return z, p, q


def cosines(shape):
    """A random sum of all cosine modes, flat across the border."""
    (x, y), rng = grid(shape), np.random.default_rng(2)
    z, p, q = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for _ in range(8):
        kx, ky = (np.pi * rng.integers(0, n) / n for n in shape[::-1])
        size = rng.normal()
        cx, cy = np.cos(kx * (x + 0.5)), np.cos(ky * (y + 0.5))
        z += size * cx * cy
        p -= size * kx * np.sin(kx * (x + 0.5)) * cy
        q -= size * ky * np.sin(ky * (y + 0.5)) * cx
    return z, p, q


CLASSES = {
    "Poisson": quadratic,
    "HarkerOLeary": quadratic,
    "path": quadratic,
    "paths both ways": quadratic,
    "SpectralPoisson": cosines,
    "FrankotChellappa": fourier,
}


@pytest.mark.parametrize("shape", [(16, 16), (14, 23), (27, 12)])
@pytest.mark.parametrize("name", CLASSES)
def test_exact_on_its_own_class(name, shape):
    z, p, q = CLASSES[name](shape)
    found = ej.integrate(p, q, PIXEL_NM, LINEAR[name])
    np.testing.assert_allclose(found, PIXEL_NM * centred(z), atol=1e-8 * np.ptp(z))


def test_weighted_and_masked_poisson_are_exact_on_quadratics_too():
    z, p, q = quadratic((14, 23))
    x, y = grid((14, 23))
    mask = (x - 11) ** 2 + (y - 7) ** 2 < 40
    weights = np.random.default_rng(0).uniform(0.2, 3.0, z.shape)
    found = ej.integrate(np.where(mask, p, np.nan), q, PIXEL_NM, ej.Poisson(1e-13), mask)
    np.testing.assert_allclose(np.asarray(found)[mask], PIXEL_NM * centred(z[mask]), atol=1e-8 * np.ptp(z))
    assert np.isnan(np.asarray(found)[~mask]).all()
    # Ends that weigh differently take their mean off the middle of a link: exact on planes.
    found = ej.integrate(0 * p + 0.3, 0 * q - 0.1, 1.0, ej.Poisson(1e-13), weights=weights)
    np.testing.assert_allclose(found, centred(0.3 * x - 0.1 * y), atol=1e-9)


def smooth(count):
    """A surface that is neither periodic nor flat at its border, in a unit square."""
    y, x = np.meshgrid(*2 * [(np.arange(count) + 0.5) / count], indexing="ij")
    wave = np.sin(3 * x + 1) * np.cos(2 * y - 0.5) + 0.3 * np.exp(x * y)
    p = 3 * np.cos(3 * x + 1) * np.cos(2 * y - 0.5) + 0.3 * y * np.exp(x * y)
    q = -2 * np.sin(3 * x + 1) * np.sin(2 * y - 0.5) + 0.3 * x * np.exp(x * y)
    return wave, p, q


def measured_order(integrate):
    errors = []
    for count in (32, 64):
        z, p, q = smooth(count)
        found = np.asarray(integrate(jnp.asarray(p), jnp.asarray(q))) / count
        errors.append(np.sqrt(np.mean((centred(found) - centred(z)) ** 2)))
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("name, order", [("Poisson", 2), ("HarkerOLeary", 2), ("path", 2), ("paths both ways", 2)])
def test_second_order_elsewhere(name, order):
    assert abs(measured_order(lambda p, q: ej.integrate(p, q, 1.0, LINEAR[name])) - order) < 0.15


def test_cubic_links_are_of_fourth_order():
    assert measured_order(lambda p, q: poisson(divergence(cubic(p, q)))) > 3.5
    assert measured_order(lambda p, q: ej.Robust(rings=0).height_px(p, q, None, None)) > 3.0


def test_transforms_are_orthonormal():
    for shape in [(8, 8), (7, 9), (1, 5), (6, 1)]:
        values = noise(shape)[0]
        modes = jax.jit(cosine_modes_2d)(values)
        np.testing.assert_allclose(jax.jit(from_cosine_modes_2d)(modes), values, atol=1e-13)
        np.testing.assert_allclose(jnp.sum(modes**2), jnp.sum(values**2), rtol=1e-12)
        for axis in (0, 1):
            there_and_back = jax.jit(lambda v, axis=axis: from_sine_modes(sine_modes(v, axis), axis))
            np.testing.assert_allclose(there_and_back(values), values, atol=1e-13)


# --- against direct solves ---


def difference_matrices(shape):
    rows, columns = shape
    step_x = sparse.kron(sparse.eye(rows), sparse.diags([-1.0, 1.0], [0, 1], shape=(columns - 1, columns)))
    step_y = sparse.kron(sparse.diags([-1.0, 1.0], [0, 1], shape=(rows - 1, rows)), sparse.eye(columns))
    return sparse.vstack([step_x, step_y]).tocsr()


def direct(shape, steps, weights, inside):
    """The weighted least squares solved by elimination, the mean of each row of `inside` (one an island) set to 0."""
    d = difference_matrices(shape)
    normal = d.T @ sparse.diags(weights) @ d
    pins = sparse.csr_matrix(inside.reshape(len(inside), -1).astype(float))
    outside = sparse.diags((~inside.any(axis=0)).ravel().astype(float))
    system = sparse.bmat([[normal + outside, pins.T], [pins, None]]).tocsc()
    right = np.concatenate([d.T @ (weights * steps), np.zeros(len(inside))])
    return spsolve(system, right)[: np.prod(shape)].reshape(shape)


def flat(links):
    return np.concatenate([np.asarray(links.x).ravel(), np.asarray(links.y).ravel()])


def test_poisson_is_the_direct_solution():
    p, q = noise((21, 17))
    wanted = direct((21, 17), flat(trapezoid(p, q)), np.ones(20 * 17 + 21 * 16), np.ones((1, 21, 17), bool))
    np.testing.assert_allclose(ej.integrate(p, q, 1.0, ej.Poisson()), wanted, atol=1e-10)


def test_weighted_and_masked_poisson_is_the_direct_solution():
    shape = (21, 17)
    (p, q), rng = noise(shape), np.random.default_rng(3)
    weights = rng.uniform(0.01, 10.0, shape)
    mask = rng.random(shape) > 0.1
    mask[:, 8] = False
    found = ej.integration(p, q, 1.0, ej.Poisson(), mask, weights)
    labels = np.asarray(found.islands)
    inside = np.stack([labels == k for k in np.unique(labels) if k >= 0])
    assert len(inside) == found.island_count >= 2

    def along(axis):
        low, high = (np.take(weights, range(s, shape[axis] - 1 + s), axis) for s in (0, 1))
        both = np.take(mask, range(shape[axis] - 1), axis) & np.take(mask, range(1, shape[axis]), axis)
        slope = np.asarray(p if axis == 1 else q)
        first, last = (np.take(slope, range(s, shape[axis] - 1 + s), axis) for s in (0, 1))
        return ((low * first + high * last) / (low + high)).ravel(), (0.5 * (low + high) * both).ravel()

    steps, share = (np.concatenate(a) for a in zip(along(1), along(0), strict=True))
    wanted = direct(shape, steps, share, inside)
    np.testing.assert_allclose(np.asarray(found.height_nm)[mask], wanted[mask], atol=1e-6)


def test_harker_oleary_is_the_direct_solution():
    shape = (9, 12)
    p, q = noise(shape)

    def derivative(count):
        d = 0.5 * (np.eye(count, k=1) - np.eye(count, k=-1))
        d[0, :3], d[-1, -3:] = [-1.5, 2.0, -0.5], [0.5, -2.0, 1.5]
        return d

    d = np.vstack([np.kron(np.eye(9), derivative(12)), np.kron(derivative(9), np.eye(12))])
    wanted = np.linalg.lstsq(d, np.concatenate([np.ravel(p), np.ravel(q)]), rcond=None)[0].reshape(shape)
    np.testing.assert_allclose(ej.integrate(p, q, 1.0, ej.HarkerOLeary()), centred(wanted), atol=1e-10)


# --- adjoints and gradients ---


def assert_adjoint(f, slopes, rel=1e-10):
    out, back = jax.vjp(f, *slopes)
    w = noise(out.shape, 7)[0]
    left, right = jnp.vdot(out, w), sum(jnp.vdot(s, b) for s, b in zip(slopes, back(w), strict=True))
    assert abs(float(left - right)) < rel * float(jnp.linalg.norm(out) * jnp.linalg.norm(w))


@pytest.mark.parametrize("name", LINEAR)
def test_adjoint(name):
    assert_adjoint(lambda p, q: ej.integrate(p, q, PIXEL_NM, LINEAR[name]), noise())


def test_adjoint_with_weights_and_mask():
    x, y = grid(SHAPE)
    mask, weights = (x - 7) ** 2 + (y - 6) ** 2 < 30, np.random.default_rng(3).uniform(0.1, 3.0, SHAPE)
    method = ej.Poisson(1e-13)
    assert_adjoint(
        lambda p, q: jnp.where(mask, ej.integrate(p, q, PIXEL_NM, method, mask, weights), 0.0),
        noise(),
    )


def assert_derivatives(f, x, step, rel=1e-6):
    rng = np.random.default_rng(0)
    v = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), x)
    w = jnp.asarray(rng.normal(size=jax.eval_shape(f, x).shape))
    value = jax.jit(lambda x: jnp.vdot(w, f(x)))

    def moved(h):
        return value(jax.tree.map(lambda a, d: a + h * d, x, v))

    h = step
    difference = float((8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h))
    back = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(jax.grad(value)(x)), jax.tree.leaves(v), strict=True))
    forward = jax.jvp(value, (x,), (v,))[1]
    assert abs(difference) > 1e-9
    assert abs(float(back) - difference) <= rel * abs(difference)
    assert abs(float(forward) - difference) <= rel * abs(difference)


@pytest.mark.parametrize("name", [*LINEAR, *BENT])
def test_gradient_in_slopes(name, monkeypatch):
    """The scale of the noise is held fixed, as the docstrings say."""
    for module in (least_absolute, robust):
        monkeypatch.setattr(module, "link_spread", lambda links: jnp.asarray(0.3))
    assert_derivatives(lambda s: EVERY[name].height_px(*s, None, None), noise(), 1e-6)


@pytest.mark.parametrize("name", ["Poisson", "LeastAbsolute"])
def test_gradient_in_slopes_and_weights(name, monkeypatch):
    monkeypatch.setattr(least_absolute, "link_spread", lambda links: jnp.asarray(0.3))
    x, y = grid(SHAPE)
    mask = (x - 7) ** 2 + (y - 6) ** 2 < 30
    weights = jnp.where(mask, jnp.asarray(np.random.default_rng(3).uniform(0.5, 2.0, SHAPE)), 0.0)
    method = ej.Poisson(1e-13) if name == "Poisson" else EVERY[name]

    def height(x):
        (p, q), own = x
        found = method.height_px(p, q, jnp.where(mask, own, 0.0), jnp.asarray(mask))
        return jnp.where(mask, found - jnp.mean(found, where=mask), 0.0)

    assert_derivatives(height, (noise(), weights), 1e-5, 1e-5)


def test_gradient_in_pixel_size():
    p, q = noise()
    assert_derivatives(lambda nm: ej.integrate(p, q, nm, ej.Poisson()), jnp.asarray(2.0), 1e-4)


def test_bilateral_is_linear_once_its_weights_are_fixed():
    """Then the derivative along the slopes themselves is the height."""
    slopes = noise()
    height, along = jax.jvp(lambda p, q: ej.integrate(p, q, 1.0, EVERY["Bilateral"]), slopes, slopes)
    np.testing.assert_allclose(along, height, atol=1e-7)


# --- what every method owes ---


@pytest.mark.parametrize("name", [n for n in EVERY if n != "path"])
def test_x_and_y_are_scaled_alike(name):
    p, q = noise((10, 16))
    across = ej.integrate(q.T, p.T, PIXEL_NM, EVERY[name])
    np.testing.assert_allclose(across.T, ej.integrate(p, q, PIXEL_NM, EVERY[name]), atol=1e-6)


@pytest.mark.parametrize("name", [n for n in EVERY if n != "FrankotChellappa"])
def test_a_plane_on_a_wide_image(name):
    x, y = grid((48, 80))
    found = ej.integrate(0.2 + 0 * x, -0.1 + 0 * x, PIXEL_NM, EVERY[name])
    # Cosine modes know no tilt: they ring at the border by some of the tilt times a pixel.
    atol = 0.3 if name == "SpectralPoisson" else 1e-5
    np.testing.assert_allclose(found, PIXEL_NM * centred(0.2 * x - 0.1 * y), atol=atol)


@pytest.mark.parametrize("name", EVERY)
def test_jit_vmap_and_one_trace(name):
    traces = []

    @jax.jit
    def counted(p, q, pixel):
        traces.append(1)
        return ej.integrate(p, q, pixel, EVERY[name])

    many = [noise(seed=k) for k in range(3)]
    one_by_one = [counted(p, q, jnp.asarray(float(k + 1))) for k, (p, q) in enumerate(many)]
    assert len(traces) == 1
    p, q = (jnp.stack(s) for s in zip(*many, strict=True))
    together = jax.vmap(lambda p, q, n: ej.integrate(p, q, n, EVERY[name]))(p, q, jnp.asarray([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(together, jnp.stack(one_by_one), atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 2), (3, 5), (1, 1)])
@pytest.mark.parametrize("name", EVERY)
def test_narrow_maps(name, shape):
    slopes = noise(shape)
    found = np.asarray(ej.integrate(*slopes, 1.0, EVERY[name]))
    assert np.isfinite(found).all() and abs(found.mean()) < 1e-9
    if name in ("Poisson", "path", "paths both ways") and min(shape) == 1 and max(shape) > 1:
        slope = np.asarray(slopes[0] if shape[0] == 1 else slopes[1]).ravel()
        wanted = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]))])
        np.testing.assert_allclose(found.ravel(), centred(wanted), atol=1e-12)


@pytest.mark.float32
@pytest.mark.parametrize("name", EVERY)
def test_in_float32(name):
    _, p, q = smooth(48)
    narrow = ej.integrate(*(jnp.asarray(s, jnp.float32) for s in (p, q)), 2.0, EVERY[name])
    assert narrow.dtype == jnp.float32
    wide = ej.integrate(p, q, 2.0, EVERY[name])
    np.testing.assert_allclose(narrow, wide, atol=2e-4 * np.ptp(wide))
