"""Means of neighbours that are alike: they stop at an edge, leave what is exact alone, and have exact derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import eclipsjax as ej
from eclipsjax.nn.facet_means import mean_within_facet

RNG = np.random.default_rng(0)
NORMALS, FAR = jnp.asarray(0.3 * RNG.normal(size=(3, 7, 9))), jnp.asarray(0.02 + 0.1 * RNG.uniform(size=(7, 9)))


def by_loops(normals, far, stride):
    """The definition, pixel by pixel."""
    found = np.zeros(normals.shape)
    rows, columns = far.shape
    for row in range(rows):
        for column in range(columns):
            total, weights = np.zeros(3), 0.0
            for y in (-1, 0, 1):
                for x in (-1, 0, 1):
                    r, c = row + stride * y, column + stride * x
                    if not (0 <= r < rows and 0 <= c < columns):
                        continue
                    apart = np.sum((normals[:, r, c] - normals[:, row, column]) ** 2)
                    weight = 0.5 ** (abs(x) + abs(y)) / (1 + apart / far[r, c]) ** 2
                    total, weights = total + weight * normals[:, r, c], weights + weight
            found[:, row, column] = total / weights
    return found


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_is_its_definition(stride):
    found = mean_within_facet(NORMALS, FAR, stride)
    np.testing.assert_allclose(found, by_loops(np.asarray(NORMALS), np.asarray(FAR), stride), rtol=1e-12)


@pytest.mark.parametrize("stride", [1, 4])
def test_derivatives_against_finite_differences(stride):
    check_grads(
        lambda *a: mean_within_facet(*map(jnp.asarray, a), stride), (NORMALS, FAR), 1, rtol=1e-5, atol=1e-5, eps=1e-5
    )


def test_derivatives_of_batches():
    one = jax.grad(lambda normals: jnp.sum(mean_within_facet(normals, FAR, 1) ** 2))
    slopes = jax.vmap(one)(jnp.stack([NORMALS, 2 * NORMALS]))
    np.testing.assert_allclose(slopes[0], one(NORMALS), rtol=1e-12)


def test_second_derivatives_are_refused():
    loss = jax.grad(lambda normals: jnp.sum(mean_within_facet(normals, FAR, 1) ** 2))
    with pytest.raises(ej.InputError, match="first derivatives only"):
        jax.jvp(loss, (NORMALS,), (NORMALS,))


def test_stops_at_an_edge_and_runs_along_it():
    """Noise goes, a step of many times the noise stays: round means of the same width would wash it out."""
    step = np.zeros((2, 40, 40))
    step[0, :, 20:] = 0.6
    noisy = jnp.asarray(step + 0.03 * RNG.normal(size=step.shape))
    mean = noisy
    for stride in (1, 2, 4):
        mean = mean_within_facet(mean, jnp.full((40, 40), 0.1**2), stride)
    off = np.asarray(mean - step)
    assert np.sqrt(np.mean(off**2)) < 0.35 * 0.03
    assert np.sqrt(np.mean(off[:, :, 18:22] ** 2)) < 0.5 * 0.03
