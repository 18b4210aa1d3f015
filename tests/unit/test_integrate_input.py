"""Every bad input to the integrators ends in one sentence that names the field, the value and the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej

ONES = np.ones((4, 5))
HOLE = ONES.copy()
HOLE[1, 2] = np.nan
MASK = np.ones((4, 5), bool)
AROUND = MASK.copy()
AROUND[1, 2] = False
NORMALS = np.stack([0 * ONES, 0 * ONES, ONES], axis=-1)
TURNED = NORMALS.copy()
TURNED[2, 3, 2], TURNED[3, 1, 2] = 0.0, -0.5

BAD = {
    "shapes differ": (lambda: ej.integrate(ONES, ONES[:3], 1.0), r"slope_y has shape \(3, 5\) but slope_x \(4, 5\)"),
    "one axis": (lambda: ej.integrate(ONES[0], ONES[0], 1.0), r"slope_x has shape \(5,\): give a 2D array"),
    "no pixel": (lambda: ej.integrate(ONES[:0], ONES[:0], 1.0), r"slope_x has shape \(0, 5\).*at least one pixel"),
    "NaN": (lambda: ej.integrate(ONES, HOLE, 1.0), "slope_y is not finite at 1 pixels, first at row 1, column 2: mask"),
    "NaN inside the mask": (lambda: ej.integrate(HOLE, ONES, 1.0, mask=MASK), "slope_x is not finite at 1 pixels"),
    "all masked": (lambda: ej.integrate(ONES, ONES, 1.0, mask=~MASK), "mask is False everywhere"),
    "mask's shape": (lambda: ej.integrate(ONES, ONES, 1.0, mask=MASK[:2]), r"mask has shape \(2, 5\)"),
    "mask of numbers": (lambda: ej.integrate(ONES, ONES, 1.0, mask=2.0 * ONES), "mask is float.*mask > 0"),
    "pixel size 0": (lambda: ej.integrate(ONES, ONES, 0.0), "pixel_size_nm is 0.0: give one positive number"),
    "pixel size < 0": (lambda: ej.integrate(ONES, ONES, -2.0), "pixel_size_nm is -2.0"),
    "pixel size NaN": (lambda: ej.integrate(ONES, ONES, np.nan), "pixel_size_nm is nan"),
    "two pixel sizes": (lambda: ej.integrate(ONES, ONES, [1.0, 2.0]), "pixel_size_nm is"),
    "weights < 0": (
        lambda: ej.integrate(ONES, ONES, 1.0, weights=np.where(AROUND, 1.0, -1.0)),
        "weights is negative at 1 pixels, first at row 1, column 2",
    ),
    "weights NaN": (lambda: ej.integrate(ONES, ONES, 1.0, weights=HOLE), "weights is not finite at 1 pixels"),
    "weights' shape": (lambda: ej.integrate(ONES, ONES, 1.0, weights=ONES[:2]), r"weights has shape \(2, 5\)"),
    "weights all 0": (lambda: ej.integrate(ONES, ONES, 1.0, weights=0 * ONES), "weights is 0 everywhere"),
    "precisions": (
        lambda: ej.integrate(jnp.ones((4, 5), jnp.float32), ONES, 1.0),
        "slope_y is float64 but slope_x float32: give both in one precision",
    ),
    "weighs nothing": (
        lambda: ej.integrate(ONES, ONES, 1.0, ej.Wiener(), weights=ONES),
        r"method = Wiener\(\) takes no mask or weights: give one of Poisson\(\)",
    ),
    "despiked, weighs nothing": (
        lambda: ej.integrate(ONES, ONES, 1.0, ej.Despiked(ej.Wiener()), mask=MASK),
        "takes no mask or weights",
    ),
    "a name": (lambda: ej.integrate(ONES, ONES, 1.0, "poisson"), r"method is 'poisson': give a method such as"),
    "a class": (lambda: ej.integrate(ONES, ONES, 1.0, ej.Poisson), r"method is .*Poisson.*: give a method such as"),
    "Auto, traced": (
        lambda: jax.jit(lambda p: ej.integrate(p, p, 1.0))(ONES),
        r"pick outside of jit.*Auto\(\).pick\(slope_x, slope_y\)",
    ),
    "facing away": (
        lambda: ej.slopes_of_normals(TURNED),
        r"normals\[..., 2\] is not positive at 2 pixels, first at row 2, column 3",
    ),
    "normals NaN": (
        lambda: ej.slopes_of_normals(np.where(NORMALS == 1, np.nan, 0.0)),
        r"normals is not finite at 20 pixels, first at row 0, column 0",
    ),
    "normals' shape": (lambda: ej.slopes_of_normals(ONES), r"normals has shape \(4, 5\): give \(y, x, 3\)"),
    "class in a wrapper": (lambda: ej.integrate(ONES, ONES, 1.0, ej.Despiked(ej.Poisson)), "method is <class"),
    "Auto in a wrapper": (
        lambda: ej.integrate(ONES, ONES, 1.0, ej.Dislocated(ej.Auto())),
        r"Dislocated\(Auto\(\)\) cannot pick",
    ),
    "no slopes": (lambda: ej.integrate(None, ONES, 1.0), "slope_x is None"),
    "std of a class": (lambda: ej.height_std(ej.Wiener, (4, 5), 0.1, 1.0), "method is <class"),
    "std's whole mask": (
        lambda: ej.height_std(ej.Poisson(), ONES.shape, 0.1, 1.0, mask=ONES > 9),
        "mask is False everywhere",
    ),
    "std's weights": (
        lambda: ej.height_std(ej.Poisson(), ONES.shape, 0.1, 1.0, weights=ONES - 9),
        "weights is negative",
    ),
    "std's shape as a number": (lambda: ej.height_std(ej.Poisson(), 4, 0.1, 1.0), "shape is 4"),
    "refining": (lambda: ej.DepthNet.shipped().refined(ONES, ONES.T), "slope_y has shape"),
    "std of Auto": (lambda: ej.height_std(ej.Auto(), (4, 5), 0.1, 1.0), r"method is Auto\(\): pick first"),
    "std < 0": (lambda: ej.height_std(ej.Poisson(), (4, 5), -0.1, 1.0), "slope_std is -0.1"),
    "std's shape": (lambda: ej.height_std(ej.Poisson(), (4, 0), 0.1, 1.0), r"shape is \(4, 0\)"),
    "std's pixel": (lambda: ej.height_std(ej.Poisson(), (4, 5), 0.1, 0.0), "pixel_size_nm is 0.0"),
    "std's draws": (lambda: ej.height_std(ej.Wiener(), (4, 5), 0.1, 1.0, draws=1), "draws is 1"),
    "std's mask": (lambda: ej.height_std(ej.Poisson(), (4, 5), 0.1, 1.0, mask=MASK[:2]), r"mask has shape \(2, 5\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_sentence(name):
    call, told = BAD[name]
    with pytest.raises(ej.InputError, match=told) as caught:
        call()
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")


def test_nan_outside_the_mask_does_not_matter():
    found = np.asarray(ej.integrate(HOLE, HOLE, 1.0, mask=AROUND, weights=HOLE))
    assert np.isnan(found[1, 2]) and np.isfinite(found[AROUND]).all()


def test_integers_are_slopes_too():
    found = ej.integrate(np.ones((3, 4), int), np.zeros((3, 4), int), 1, ej.Poisson())
    np.testing.assert_allclose(found[0], np.arange(4) - 1.5, atol=1e-12)


def test_no_gradient_is_nan_around_a_mask():
    def size(slopes):
        return jnp.nansum(ej.integrate(slopes, slopes, 1.0, ej.Poisson(), AROUND) ** 2)

    assert np.isfinite(jax.grad(size)(jnp.asarray(HOLE))).all()


def test_slopes_of_normals_of_any_length():
    p, q = np.random.default_rng(0).normal(size=(2, 4, 5))
    found = ej.slopes_of_normals(3.0 * np.stack([-p, -q, ONES], axis=-1))
    np.testing.assert_allclose(found, (p, q), rtol=1e-13)


def test_a_mask_may_be_traced():
    whole = jax.jit(lambda m: ej.integrate(ONES, ONES, 1.0, ej.Poisson(), m))(jnp.asarray(AROUND))
    np.testing.assert_allclose(whole, ej.integrate(ONES, ONES, 1.0, ej.Poisson(), AROUND), atol=1e-12)


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e30])
@pytest.mark.parametrize("method", [ej.Poisson(), ej.LeastAbsolute(), ej.Bilateral()])
def test_only_ratios_of_weights_matter(method, factor):
    rng = np.random.default_rng(0)
    slopes = [jnp.asarray(rng.normal(0.0, 0.1, (12, 15)), jnp.float32) for _ in range(2)]
    weights = jnp.asarray(rng.uniform(0.5, 2.0, (12, 15)), jnp.float32)
    plain, scaled = (ej.integrate(*slopes, 1.0, method, weights=w) for w in (weights, jnp.float32(factor) * weights))
    np.testing.assert_allclose(scaled, plain, atol=1e-4)
