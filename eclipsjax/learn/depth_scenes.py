"""Random surfaces with their true heights and with slopes as a microscope would give them: lessons for the depth net.

Every family draws its own numbers, so that no two lessons are alike; heights and slopes are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool

from eclipsjax._types import Map
from eclipsjax.learn.slope_errors import SlopeErrors, estimated_slopes
from eclipsjax.specimen import synthetic
from eclipsjax.specimen.synthetic import Scene


class Lesson(eqx.Module):
    """`slope_x`, `slope_y` as estimated, `true_x`, `true_y`, `height_px` true, and which pixels are at an `edge` or
    `undetermined`: all `(y, x)`, or with a leading axis for a batch."""

    slope_x: Map
    slope_y: Map
    true_x: Map
    true_y: Map
    height_px: Map
    edge: Bool[Array, "y x"]
    undetermined: Bool[Array, "y x"]


@partial(jax.jit, static_argnames=("family", "size", "batch"))
def lessons(family: str, size: int, batch: int, key: Array) -> Lesson:
    """A batch of lessons of one family, `size` pixels wide and high."""
    return jax.vmap(partial(_lesson, family, size))(jax.random.split(key, batch))


def _lesson(family: str, size: int, key: Array) -> Lesson:
    draw, coarse = FAMILIES[family]
    keys = jax.random.split(key, 4)
    # Features in the middle of a family's own image may lie anywhere in the lesson's.
    around = size + size // 2
    scene = draw((around * coarse, around * coarse), keys[0])
    height, slope_x, slope_y = scene.surface.height_nm, scene.truth.slope_x, scene.truth.slope_y
    gap = _unseen(family, height.shape, coarse)
    maps = (*_seen(height, slope_x, slope_y, coarse), _any(scene.truth.edge, coarse), _any(gap, coarse))
    corner = jax.random.randint(keys[1], (2,), 0, around - size + 1)
    height, true_x, true_y, edge, gap = (lax.dynamic_slice(m, corner, (size, size)) for m in maps)
    given = estimated_slopes(true_x, true_y, _errors(keys[2]), keys[3])
    single = [m.astype(jnp.float32) for m in (*given, true_x, true_y, height)]
    return Lesson(*single, edge, gap)


def _seen(height: Map, slope_x: Map, slope_y: Map, coarse: int) -> tuple[Array, Array, Array]:
    """Heights and slopes as `coarse` x `coarse` samples per pixel give them: mean height, mean normal. In pixels."""
    if coarse == 1:
        return height, slope_x, slope_y

    def mean(values):
        rows, columns = values.shape
        return values.reshape(rows // coarse, coarse, columns // coarse, coarse).mean((1, 3))

    upright = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)
    n_z = mean(upright)
    return mean(height) / coarse, mean(slope_x * upright) / n_z, mean(slope_y * upright) / n_z


def _any(mask: Array, coarse: int) -> Array:
    rows, columns = mask.shape
    return mask.reshape(rows // coarse, coarse, columns // coarse, coarse).any((1, 3))


def _unseen(family: str, shape: tuple[int, int], coarse: int) -> Array:
    """Around the core of a dislocation without a visible step: heights beside it depend on the way taken there."""
    if family != "helicoid":
        return jnp.zeros(shape, bool)
    y, x = _from_centre(shape)
    return jnp.asarray(x**2 + y**2 <= 5.0**2)


def _from_centre(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns counted from the middle of the image, as maps."""
    rows, columns = (np.arange(n) - 0.5 * (n - 1) for n in shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return y, x


def _errors(key: Array) -> SlopeErrors:
    k = jax.random.split(key, 11)

    def sometimes(share, key, value):
        return jnp.where(jax.random.uniform(key) < share, value, 0.0)

    return SlopeErrors(
        white_deg=sometimes(0.9, k[0], _log(k[1], 0.3, 12.0)),
        correlated_deg=sometimes(0.2, k[2], _log(k[3], 0.3, 4.0)),
        correlation_px=_log(k[4], 1.0, 5.0),
        bias_deg=sometimes(0.15, k[5], _log(k[6], 0.05, 0.5)),
        outliers=sometimes(0.35, k[7], _log(k[8], 0.003, 0.05)),
        outlier_deg=_log(k[9], 20.0, 60.0),
    )


def _log(key: Array, low: float, high: float) -> Array:
    """Log-uniform."""
    return low * (high / low) ** jax.random.uniform(key)


def _uniform(key: Array, low: float, high: float) -> Array:
    return jax.random.uniform(key, minval=low, maxval=high)


def _rough(shape, key) -> Scene:
    k = jax.random.split(key, 4)
    slope = _log(k[0], 0.01, 0.7)
    longest = _log(k[1], 20.0, 1.5 * max(shape))
    return synthetic.rough(
        shape, 1.0, key=k[2], hurst=_uniform(k[3], 0.3, 1.0), rms_slope=slope, longest_nm=longest, shortest_nm=4.0
    )


def _steps(shape, key, finest=1.0, facets=(6.0, 50.0)) -> Scene:
    k = jax.random.split(key, 8)
    facet, terrace = _log(k[0], *facets), _log(k[1], 12.0, 80.0)
    height = jnp.minimum(_log(k[2], 1.0, 20.0), 0.4 * terrace * jnp.tan(jnp.deg2rad(facet)))
    return synthetic.step_bunch(
        shape,
        1.0,
        key=k[3],
        facet_deg=facet,
        step_height_nm=finest * height,
        terrace_nm=finest * terrace,
        direction_deg=_uniform(k[4], 0.0, 360.0),
        terrace_deg=jnp.where(jax.random.uniform(k[5]) < 0.7, 0.0, _uniform(k[6], -3.0, 3.0)),
        wander_nm=finest * _log(k[7], 0.5, 12.0),
        wander_length_nm=finest * 150.0,
    )


def _spiral(shape, key, sides=0, arms=1, finest=1.0, facets=(10.0, 45.0)) -> Scene:
    k = jax.random.split(key, 4)
    spacing, facet = finest * _log(k[0], 18.0, 70.0), _log(k[1], *facets)
    height = _uniform(k[2], 0.1, 0.7) * spacing * jnp.minimum(jnp.tan(jnp.deg2rad(facet)), 1.0)
    return synthetic.spiral(
        shape,
        1.0,
        arms=arms,
        sides=sides,
        step_height_nm=height,
        spacing_nm=spacing,
        facet_deg=facet,
        direction_deg=_uniform(k[3], 0.0, 360.0),
    )


def _islands(shape, key, sides=6, finest=1.0, wall=(15.0, 70.0)) -> Scene:
    k = jax.random.split(key, 5)
    return synthetic.islands(
        shape,
        1.0,
        key=k[0],
        count=20,
        sides=sides,
        radius_nm=finest * _log(k[1], 8.0, 35.0),
        height_nm=finest * _log(k[2], 1.5, 10.0),
        wall_deg=_uniform(k[3], *wall),
        direction_deg=_uniform(k[4], 0.0, 360.0),
    )


def _round(shape, key, pits=False) -> Scene:
    k = jax.random.split(key, 3)
    family = synthetic.pits if pits else synthetic.particles
    contact = _uniform(k[2], 25.0, 60.0 if pits else 80.0)
    return family(shape, 1.0, key=k[0], count=24, radius_nm=_log(k[1], 6.0, 30.0), contact_deg=contact)


def _sinusoid(shape, key) -> Scene:
    k = jax.random.split(key, 4)
    pitch, direction = _log(k[0], 15.0, 120.0), _uniform(k[2], 0.0, 360.0)
    height = pitch * _log(k[1], 0.003, 0.35)
    return synthetic.sinusoid(
        shape, 1.0, pitch_nm=pitch, height_nm=height, direction_deg=direction, phase_deg=360 * jax.random.uniform(k[3])
    )


def _decorated(shape, key) -> Scene:
    """Step bunches with faint roughness on top."""
    one, two, three = jax.random.split(key, 3)
    texture = synthetic.rough(shape, 1.0, key=two, hurst=0.7, rms_slope=_log(three, 0.003, 0.06), shortest_nm=4.0)
    return synthetic.add(_steps(shape, one), texture)


def _helicoid(shape, key) -> Scene:
    """The terraces of a dislocation without their step: the cut is in the height, not in the slopes."""
    k = jax.random.split(key, 2)
    spacing = 4.0 * max(shape)
    height = _log(k[0], 3.0, 25.0)
    scene = synthetic.spiral(shape, 1.0, step_height_nm=height, spacing_nm=spacing, facet_deg=89.0)
    y, x = _from_centre(shape)
    square = np.maximum(x**2 + y**2, 0.5)
    turn = height / (2 * jnp.pi)
    maps = (turn * np.arctan2(-y, x), turn * (y / square), turn * (-x / square), jnp.zeros(shape, bool))
    return eqx.tree_at(lambda s: (s.surface.height_nm, s.truth.slope_x, s.truth.slope_y, s.truth.edge), scene, maps)


# Family: how to draw it, and how many samples along each side of a pixel its normals are the mean of.
FAMILIES: dict[str, tuple[Callable[..., Scene], int]] = {
    "rough": (_rough, 1),
    "steps": (_steps, 1),
    "decorated": (_decorated, 1),
    "spiral": (_spiral, 1),
    "square spiral": (partial(_spiral, sides=4, arms=2), 1),
    "islands": (_islands, 1),
    "square islands": (partial(_islands, sides=4), 1),
    "unresolved islands": (partial(_islands, finest=4.0, wall=(70.0, 87.0)), 4),
    "unresolved steps": (partial(_steps, finest=4.0, facets=(50.0, 85.0)), 4),
    "unresolved spiral": (partial(_spiral, finest=4.0, facets=(75.0, 87.0)), 4),
    "particles": (_round, 1),
    "pits": (partial(_round, pits=True), 1),
    "sinusoid": (_sinusoid, 1),
    "helicoid": (_helicoid, 1),
}
