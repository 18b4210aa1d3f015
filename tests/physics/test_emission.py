"""Angular laws against quadrature over the hemisphere, the Lambertian antiderivatives against scipy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from eclipsjax._polar import polar_primitives
from eclipsjax._types import InputError
from eclipsjax.specimen.emission import CosinePower, ForwardLobe, Lambertian

LAWS = [Lambertian(), CosinePower(1.5), CosinePower(4.0), ForwardLobe(0.3, 20.0), ForwardLobe(1.0, 5.0)]
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
TILTS_DEG = [0.0, 15.0, 45.0, 70.0, 89.0]


def hemisphere(tilt):
    """Directions of the exit hemisphere of a plane whose normal leans by `tilt` toward +x: n.d, d_z and solid angles.

    Gauss-Legendre in n.d, trapezoids in the azimuth about the normal: no angle to the mirror direction enters.
    """
    count = NODES.size
    mu, psi = np.meshgrid(0.5 * (NODES + 1), 2 * np.pi * np.arange(count) / count, indexing="ij")
    d_z = np.cos(tilt) * mu - np.sin(tilt) * np.sqrt(1 - mu**2) * np.cos(psi)
    return mu, d_z, np.broadcast_to(WEIGHTS[:, None] * np.pi / count, mu.shape)


def total(law, tilt):
    mu, d_z, solid = hemisphere(tilt)
    return float(np.sum(np.asarray(_density_on(law, jnp.asarray(mu), jnp.asarray(d_z), np.cos(tilt))) * solid))


@eqx.filter_jit
def _density_on(law, mu, d_z, cos_tilt):
    n_z = jnp.full(mu.shape, cos_tilt)
    return law.density(law.coefficients(n_z), mu, d_z, n_z)


@pytest.mark.parametrize("tilt_deg", TILTS_DEG)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_each_law_emits_one_electron(law, tilt_deg):
    """Integral of the density over the exit hemisphere = 1, to 1e-7 for the narrowest lobe (measured 7e-9)."""
    assert total(law, np.radians(tilt_deg)) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("width", [8.0, 20.0, 90.0])
def test_wider_lobes_are_normalised_to_rounding(width):
    assert total(ForwardLobe(1.0, width), 1.2) == pytest.approx(1.0, abs=1e-11)


def test_the_norm_holds_in_float32():
    law = ForwardLobe(1.0, 12.0)
    n_z = jnp.linspace(0.02, 1.0, 50)
    double, single = law.coefficients(n_z), law.coefficients(n_z.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-6)


def test_the_lobe_points_along_the_mirrored_beam():
    """Beam along -z, tilt 30 deg toward +x: the mirror direction lies 60 deg from z, on the side of the normal."""
    law, tilt = ForwardLobe(1.0, 10.0), np.radians(30.0)
    theta = np.radians(np.linspace(-85, 85, 1701))
    d = np.stack([np.sin(theta), np.cos(theta)])
    n_dot_d = np.sin(tilt) * d[0] + np.cos(tilt) * d[1]
    n_z = jnp.full(theta.shape, np.cos(tilt))
    with_lobe = law.density(law.coefficients(n_z), jnp.asarray(n_dot_d), jnp.asarray(d[1]), n_z)
    lobe = np.asarray(with_lobe) - (1 - np.sin(tilt) ** 2) * np.maximum(n_dot_d, 0) / np.pi
    assert np.degrees(theta[np.argmax(lobe)]) == pytest.approx(60.0, abs=0.2)
    # One standard deviation off the axis a narrow lobe has fallen to exp(-1/2), within the curvature of the sphere.
    at = np.interp(np.radians([60.0, 70.0]), theta, lobe)
    assert at[1] / at[0] == pytest.approx(np.exp(-0.5), rel=5e-3)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_nothing_leaves_into_the_surface_and_gradients_stay_finite(law):
    cosines = jnp.asarray([-1.0, -0.3, 0.0, 1e-12])
    n_z, d_z = jnp.full(4, 0.6), jnp.full(4, 0.1)

    def density(c, n, z):
        return law.density(law.coefficients(n), c, z, n)

    values = density(cosines, n_z, d_z)
    np.testing.assert_array_equal(values[:3], 0.0)
    gradients = jax.jit(jax.grad(lambda *a: jnp.sum(density(*a)), argnums=(0, 1, 2)))(cosines, n_z, d_z)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradients)


@jax.jit
def _density(numbers):
    """Every law at one direction, as a function of all numbers one may differentiate."""
    exponent, strength, width, n_dot_d, d_z, n_z = numbers
    power, lobe = CosinePower(exponent), ForwardLobe(strength, width)
    args = n_dot_d, d_z, n_z
    laws = [(power, ()), (lobe, lobe.coefficients(n_z)), (Lambertian(), ())]
    return jnp.stack([law.density(c, *args) for law, c in laws])


def test_derivatives_match_finite_differences_in_both_modes():
    """Exponent, strength, width and the three cosines: forward = reverse = central differences, 1e-7 relative."""
    point = np.array([1.7, 0.4, 18.0, 0.8, 0.65, 0.85])
    forward, backward = (jax.jit(d(_density))(jnp.asarray(point)) for d in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, backward, rtol=1e-12, atol=1e-14)
    for k in range(point.size):
        step = 1e-5 * point[k] * np.eye(point.size)[k]
        difference = (_density(jnp.asarray(point + step)) - _density(jnp.asarray(point - step))) / (2e-5 * point[k])
        np.testing.assert_allclose(forward[:, k], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("cot", [-1e3, -7.0, -1.0, -1e-9, 0.0, 0.3, 1.0, 5.0, 40.0])
def test_polar_primitives_are_the_integrals(cot):
    theta = np.arctan2(1.0, cot)
    b, a = polar_primitives(jnp.asarray(cot))
    assert float(b) == pytest.approx(quad(lambda t: np.sin(t) * np.cos(t), 0, theta, epsabs=1e-12)[0], abs=1e-12)
    assert float(a) == pytest.approx(quad(lambda t: np.sin(t) ** 2, 0, theta, epsabs=0, epsrel=1e-11)[0], rel=1e-11)


def test_polar_primitives_keep_their_relative_accuracy_in_float32():
    """Small polar angles, where theta - sin cos would cancel: against the series theta^3 / 3 - theta^5 / 15."""
    theta = np.array([1e-4, 1e-3, 1e-2])
    cot = jnp.asarray(1 / np.tan(theta), jnp.float32)
    b, a = polar_primitives(cot)
    np.testing.assert_allclose(a, theta**3 / 3 - theta**5 / 15, rtol=2e-6)
    np.testing.assert_allclose(b, np.sin(theta) ** 2 / 2, rtol=1e-6)
    assert a.dtype == b.dtype == jnp.float32


def test_polar_primitives_derivatives():
    """d theta / d cot = -sin^2, so db = -sin^3 cos and da = -sin^4; finite at any real argument, second order too."""
    cot = jnp.asarray([-1e8, -2.0, 0.0, 0.4, 3.0, 1e8])
    length = np.hypot(1.0, cot)
    sine, cosine = 1 / length, np.asarray(cot) / length
    for derivative in (jax.jacfwd, jax.jacrev):
        db, da = (jnp.diagonal(d) for d in derivative(polar_primitives)(cot))
        np.testing.assert_allclose(db, -(sine**3) * cosine, rtol=1e-12)
        np.testing.assert_allclose(da, -(sine**4), rtol=1e-12)
    second = jax.grad(jax.grad(lambda c: polar_primitives(c)[1]))(jnp.asarray(0.4))
    assert float(second) == pytest.approx(4 * 0.4 / (1 + 0.4**2) ** 3, rel=1e-12)


def test_extreme_cotangents_stay_finite_in_float32():
    cot = jnp.asarray([-1e30, -1e19, 1e19, 1e30], jnp.float32)
    values, pullback = jax.vjp(polar_primitives, cot)
    (gradient,) = pullback(jax.tree.map(jnp.ones_like, values))
    assert all(bool(jnp.all(jnp.isfinite(v))) for v in (*values, gradient))
    np.testing.assert_allclose(values[1][:2], np.pi / 2, rtol=1e-6)


def test_jit_and_vmap_agree_with_eager():
    law, n_z = ForwardLobe(0.3, 20.0), jnp.linspace(0.3, 1.0, 7)
    eager = law.coefficients(n_z)
    np.testing.assert_allclose(jax.jit(lambda n: law.coefficients(n))(n_z), eager, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(law.coefficients)(n_z), eager, rtol=1e-12)
    widths = jnp.asarray([10.0, 30.0])
    many = jax.vmap(lambda w: ForwardLobe(0.3, w).coefficients(n_z))(widths)
    np.testing.assert_allclose(many[1], ForwardLobe(0.3, 30.0).coefficients(n_z), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: CosinePower(-1.0), "exponent"),
        (lambda: CosinePower(float("nan")), "exponent"),
        (lambda: ForwardLobe(1.2), "strength"),
        (lambda: ForwardLobe(0.2, 3.0), "width_deg"),
    ],
)
def test_impossible_laws_are_refused(build, named):
    with pytest.raises(InputError, match=named):
        build()
