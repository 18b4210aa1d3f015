"""Backscatter coefficients against tabulated values of the published laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.specimen.yields import (
    Arnal,
    DrescherReimerSeidel,
    HungerKuechler,
    LoveScott,
    PouchouPichoir,
    Reimer,
    Staub,
    Untilted,
    backscatter_yield,
    compound_yield,
    mean_atomic_number,
)

COLUMNS = [
    (Reimer(), 20.0),
    (PouchouPichoir(), 20.0),
    (LoveScott(), 5.0),
    (LoveScott(), 7.0),
    (LoveScott(), 20.0),
    (HungerKuechler(), 1.0),
    (HungerKuechler(), 5.0),
    (HungerKuechler(), 7.0),
    (HungerKuechler(), 20.0),
    (Arnal(), 20.0),
]
NORMAL = {
    6: [0.064, 0.063, 0.089, 0.087, 0.079, 0.119, 0.081, 0.075, 0.058, 0.078],
    13: [0.153, 0.150, 0.181, 0.176, 0.164, 0.216, 0.178, 0.172, 0.152, 0.177],
    14: [0.164, 0.162, 0.192, 0.188, 0.175, 0.226, 0.190, 0.183, 0.164, 0.189],
    26: [0.279, 0.284, 0.302, 0.298, 0.285, 0.318, 0.297, 0.293, 0.280, 0.294],
    29: [0.302, 0.309, 0.323, 0.320, 0.308, 0.333, 0.316, 0.313, 0.302, 0.314],
    47: [0.402, 0.413, 0.408, 0.408, 0.407, 0.394, 0.397, 0.397, 0.399, 0.403],
    79: [0.487, 0.504, 0.471, 0.476, 0.492, 0.437, 0.462, 0.467, 0.484, 0.496],
}
TILTS_DEG = [10.0, 20.0, 22.0, 30.0, 45.0, 60.0, 70.0]
RATIOS = [
    (Arnal(), 26, [1.014, 1.056, 1.068, 1.130, 1.322, 1.662, 2.022]),
    (DrescherReimerSeidel(), 26, [1.018, 1.072, 1.088, 1.168, 1.404, 1.785, 2.143]),
    (Arnal(), 14, [1.019, 1.076, 1.093, 1.181, 1.464, 1.998, 2.611]),
    (DrescherReimerSeidel(), 14, [1.026, 1.107, 1.131, 1.254, 1.640, 2.327, 3.038]),
    (Arnal(), 79, [1.008, 1.031, 1.038, 1.073, 1.174, 1.338, 1.498]),
]
LAWS = [Reimer(), PouchouPichoir(), LoveScott(), HungerKuechler(), Staub(), Arnal()]


@pytest.mark.parametrize("z", NORMAL)
def test_normal_incidence_table(z):
    """Every law at every element of the table, to the half unit of its third decimal."""
    found = [float(backscatter_yield(z, energy, law=law)) for law, energy in COLUMNS]
    np.testing.assert_allclose(found, NORMAL[z], atol=5.001e-4)


def test_staub_at_iron():
    assert float(backscatter_yield(26, 20.0, law=Staub())) == pytest.approx(0.2775, abs=5e-4)


@pytest.mark.parametrize(("tilt_law", "z", "expected"), RATIOS)
def test_tilt_table(tilt_law, z, expected):
    """eta(tilt) / eta(0), with Reimer's eta(0) for the law that needs one, to the table's third decimal."""
    cosines = jnp.cos(jnp.deg2rad(jnp.asarray(TILTS_DEG)))
    tilted = backscatter_yield(z, 20.0, cosines, Reimer(), tilt_law)
    np.testing.assert_allclose(tilted / backscatter_yield(z, 20.0, law=Reimer()), expected, atol=1.001e-3)


def test_arnal_on_arnal_is_the_published_form():
    """(1 + cos tilt)^(-9 / sqrt Z)."""
    cosine = np.cos(np.radians(50.0))
    found = backscatter_yield(29, 10.0, cosine, Arnal(), Arnal())
    assert float(found) == pytest.approx((1 + cosine) ** (-9 / np.sqrt(29)), rel=1e-12)


def test_compound_is_the_mean_by_mass():
    """SiO2: mass fractions 0.4674 Si, 0.5326 O."""
    fraction, z, cosine = [0.4674, 0.5326], [14.0, 8.0], jnp.asarray([[1.0, 0.9], [0.8, 0.7]])
    each = [backscatter_yield(one, 10.0, cosine, LoveScott()) for one in z]
    found = compound_yield(fraction, z, 10.0, cosine, LoveScott())
    np.testing.assert_allclose(found, fraction[0] * each[0] + fraction[1] * each[1], rtol=1e-12)
    assert float(mean_atomic_number(fraction, z)) == pytest.approx((0.4674 * 14**0.5 + 0.5326 * 8**0.5) ** 2, rel=1e-12)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("tilt_law", [Arnal(), DrescherReimerSeidel(), Untilted()], ids=lambda law: type(law).__name__)
def test_derivatives_match_finite_differences(law, tilt_law):
    @jax.jit
    def eta(numbers):
        return backscatter_yield(*numbers, law, tilt_law)

    point = np.array([26.0, 7.0, 0.8])
    forward, backward = jax.jacfwd(eta)(jnp.asarray(point)), jax.grad(eta)(jnp.asarray(point))
    np.testing.assert_allclose(forward, backward, rtol=1e-12)
    for k in range(3):
        step = 1e-5 * point[k] * np.eye(3)[k]
        difference = (eta(jnp.asarray(point + step)) - eta(jnp.asarray(point - step))) / (2e-5 * point[k])
        assert float(forward[k]) == pytest.approx(float(difference), rel=1e-7, abs=1e-10)


def test_maps_keep_float32_and_agree_under_jit():
    n_z = jnp.linspace(0.3, 1.0, 12, dtype=jnp.float32).reshape(3, 4)
    eager = backscatter_yield(29, 10.0, n_z, LoveScott())
    assert eager.dtype == jnp.float32 and eager.shape == (3, 4)
    np.testing.assert_allclose(jax.jit(lambda n: backscatter_yield(29, 10.0, n, LoveScott()))(n_z), eager, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 10.0), "atomic_number"),
        ((101, 10.0), "atomic_number"),
        ((26, 0.0), "energy_kev"),
        ((26, 5000.0), "energy_kev"),
        ((26, 10.0, 0.0), "cos_tilt"),
        ((26, 10.0, 20.0), "cos_tilt"),
        ((26, float("nan")), "energy_kev"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, named):
    with pytest.raises(InputError, match=named):
        backscatter_yield(*arguments)


def test_laws_outside_their_range_are_refused():
    """Every law over Z 1 to 100 and 0.1 to 100 keV: between 0 and 1, or an error that names the law."""
    z, energy = (a.ravel() for a in np.meshgrid([1.0, 2.0, 6.0, 92.0, 100.0], [0.1, 1.0, 20.0, 100.0]))
    refused = set()
    for law in LAWS:
        for one, kev in zip(z, energy, strict=True):
            try:
                assert 0 < float(backscatter_yield(one, kev, law=law)) < 1
            except InputError as error:
                assert f"law {type(law).__name__} gives a yield of" in str(error)
                refused.add((type(law).__name__, one))
    assert refused == {("Reimer", 1.0), ("HungerKuechler", 1.0)}
    with pytest.raises(InputError, match="law Reimer"):
        compound_yield([0.1, 0.9], [1.0, 8.0], 20.0, law=Reimer())


def test_fractions_must_sum_to_one():
    with pytest.raises(InputError, match="mass_fraction"):
        compound_yield([0.5, 0.4], [14.0, 8.0], 10.0)
    with pytest.raises(InputError, match="one of each"):
        compound_yield([0.5, 0.5], [14.0, 8.0, 6.0], 10.0)
