"""Rays over a map in strips: strips are an arrangement of the work, so nothing may depend on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax.specimen import ray_views
from eclipsjax.specimen.ray_maximum import largest_mean_slope, smooth_mean_slope
from eclipsjax.specimen.ray_steps import RaySteps


@pytest.mark.parametrize("strip_px", [1, 50, 170, 13 * 17 - 1])
@pytest.mark.parametrize("smooth", [False, True])
def test_strips_change_nothing(monkeypatch, strip_px, smooth):
    rng = np.random.default_rng(1)
    height, own, pushed_height, pushed_own, weight = jnp.asarray(rng.normal(size=(5, 13, 17)))
    steps = RaySteps.along(np.array([0.7]), 9, 1.0, jnp.float64)
    steps = jax.tree.map(lambda leaf: leaf[0], steps)

    def slope(height, own):
        if smooth:
            return smooth_mean_slope(height, own, jnp.asarray(0.1), steps)
        return largest_mean_slope(height, own, steps)

    def everything():
        value, pushed = jax.jvp(slope, (height, own), (pushed_height, pushed_own))
        return value, pushed, *jax.vjp(slope, height, own)[1](weight)

    whole = everything()
    monkeypatch.setattr(ray_views, "_STRIP_PX", strip_px)
    for in_strips, reference in zip(everything(), whole, strict=True):
        np.testing.assert_allclose(in_strips, reference, rtol=1e-13, atol=1e-13)
