"""Horizons from few looks, and reliefs from slopes.

Peaks of stretches against a search of every line: the same up to what the second ridge of a stretch hides, .3 % of the
signal at most on mesas with walls (measured .23 %). Relief of slopes: least squares in cosine modes gives back a
surface from its central differences, to rounding (1e-9 of its height), alternating pixels apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.specimen.from_slopes import cot_horizon_of_sums, relief_of_slopes

AZIMUTHS = 16
RELIEF_OF = jax.jit(relief_of_slopes)


@pytest.fixture(scope="module")
def mesas():
    scene = ej.synthetic.islands(
        (96, 80), 1.0, key=jax.random.key(3), count=5, radius_nm=11.0, height_nm=12.0, wall_deg=76.0
    )
    return ej.Surface(scene.surface.height_nm, 1.0)


@pytest.fixture(scope="module")
def table():
    return ej.acceptance(ej.Microscope.annular())


def rms(values):
    return float(jnp.sqrt(jnp.mean(jnp.asarray(values) ** 2)))


def test_peaks_find_what_every_line_finds(mesas, table):
    every = ej.render(mesas, table, AZIMUTHS, horizon=ej.HardHorizon(64))
    found = ej.render(mesas, table, AZIMUTHS, horizon=ej.PeakHorizon())
    alone = ej.render(mesas, table, AZIMUTHS, horizon=ej.NoRelief())
    mean = float(every.mean())
    assert rms(alone - every) > 0.05 * mean
    assert rms(found - every) < 0.003 * mean


def test_a_wall_is_seen_from_every_distance():
    """A plateau 20 px tall beyond a straight wall: cotangent 20 / distance, along the rows."""
    height = jnp.zeros((5, 96)).at[:, 70:].set(20.0)
    cot = ej.horizon(ej.Surface(height, 1.0), 4, ej.PeakHorizon())
    straight = ej.horizon(ej.Surface(height, 1.0), 4, ej.HardHorizon(64))
    for distance in range(2, 63):
        column = 70 - distance
        # Azimuth 45 deg: the wall is sqrt(2) times as far, within the rows only from the lowest one.
        assert float(cot[0, 4, column]) <= float(straight[0, 4, column]) + 1e-9
    wide = ej.Surface(jnp.zeros((160, 96)).at[:, 70:].set(20.0), 1.0)
    found = ej.horizon(wide, 4, ej.PeakHorizon())[0, 150]
    for distance in (3, 8, 9, 13, 20, 31, 40, 55):
        assert float(found[70 - distance]) == pytest.approx(20.0 / (distance * np.sqrt(2)), rel=1e-6)


def test_nothing_hides_beyond_the_border():
    slope = jnp.broadcast_to(-0.7 * jnp.arange(20.0)[None, :], (20, 20))
    cot = ej.horizon(ej.Surface(slope, 1.0), 4, ej.PeakHorizon())
    np.testing.assert_allclose(cot, ej.horizon(ej.Surface(slope, 1.0), 4, ej.HardHorizon(16)), atol=1e-9)


def test_octaves_and_gain_are_checked():
    for octaves in (-1, 6, 2.5):
        with pytest.raises(ej.InputError, match="octaves"):
            ej.PeakHorizon(octaves)
    assert (ej.PeakHorizon().radius_px, ej.PeakHorizon().places) == (64, 14)


def test_given_horizons(mesas, table):
    method = ej.HardHorizon(32)
    given = ej.GivenHorizon(ej.horizon(mesas, AZIMUTHS, method))
    image = ej.render(mesas, table, AZIMUTHS, horizon=given)
    np.testing.assert_allclose(image, ej.render(mesas, table, AZIMUTHS, horizon=method), rtol=1e-12)
    with pytest.raises(ej.InputError, match="given for 16 azimuths"):
        ej.render(mesas, table, 8, horizon=given)


@pytest.mark.parametrize("shape", [(24, 31), (17, 16), (1, 9), (2, 3), (1, 1)])
def test_relief_comes_back_from_its_slopes(shape):
    rng = np.random.default_rng(1)
    modes = rng.normal(size=shape) * np.exp(-0.3 * np.add.outer(*(np.arange(n) for n in shape)))
    y, x = (np.pi * (np.arange(n) + 0.5) / n for n in shape)
    height = np.cos(np.outer(y, np.arange(shape[0]))) @ modes @ np.cos(np.outer(np.arange(shape[1]), x))
    surface = ej.Surface(jnp.asarray(height), 1.0)
    found = RELIEF_OF(*surface.slopes(), jnp.asarray(0.0))
    # Alternating pixels have no central difference, and neither have their products with anything.
    again = ej.Surface(found, 1.0)
    for one, other in zip(again.slopes(), surface.slopes(), strict=True):
        np.testing.assert_allclose(one[1:-1, 1:-1], other[1:-1, 1:-1], atol=1e-8 * max(1.0, np.ptp(height)))


def test_relief_of_a_rough_surface_to_rounding(mesas):
    found = RELIEF_OF(*mesas.slopes(), jnp.asarray(0.0))
    truth = mesas.height_nm - jnp.mean(mesas.height_nm)
    assert rms(found - truth) < 1e-3 * rms(truth)


def test_relief_derivative(mesas):
    slopes = tuple(s[:20, :17] for s in mesas.slopes())
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(20, 17)))
    push = tuple(jnp.asarray(np.random.default_rng(k).normal(size=(20, 17))) for k in (1, 2))

    def value(slope_x, slope_y, restraint):
        return jnp.vdot(weight, RELIEF_OF(slope_x, slope_y, restraint))

    point, along = (*slopes, jnp.asarray(0.02)), (*push, jnp.asarray(0.3))
    step = 1e-5
    moved = [value(*(p + sign * step * a for p, a in zip(point, along, strict=True))) for sign in (1, -1)]
    back = sum(jnp.vdot(g, a) for g, a in zip(jax.jit(jax.grad(value, (0, 1, 2)))(*point), along, strict=True))
    assert float(back) == pytest.approx(float(moved[0] - moved[1]) / (2 * step), rel=1e-6)


def test_sums_along_rays(mesas, table):
    """On a plane every mean slope is the plane's; on mesas peaks of the relief come nearer to the truth."""
    plane = jnp.full((9, 12), 0.3)
    cot = cot_horizon_of_sums(plane, jnp.zeros_like(plane), 4, 5)
    np.testing.assert_allclose(cot[0], 0.3 * np.cos(np.pi / 4), atol=1e-12)
    every = ej.render(mesas, table, AZIMUTHS, horizon=ej.HardHorizon(64))
    sums = ej.GivenHorizon(cot_horizon_of_sums(*mesas.slopes(), AZIMUTHS, 64))
    relief = ej.Surface(RELIEF_OF(*mesas.slopes(), jnp.asarray(1e-6)), 1.0)
    of_sums = ej.render(ej.Facets.of(mesas), table, AZIMUTHS, horizon=sums)
    of_relief = ej.render(ej.Facets(relief.height_nm, 1.0, *mesas.slopes()), table, AZIMUTHS, horizon=ej.PeakHorizon())
    assert rms(of_relief - every) < 0.4 * rms(of_sums - every)
