"""Surfaces with their slopes, and what a measurement does to them: the cases that integration is measured on.

All seeded. Errors act on the normals, as a detector's do: tilts by angles in the tangent plane, drawn alike in all
directions. Slopes are read off afterwards as -n_x / n_z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from eclipsjax.specimen import synthetic

PIXEL_NM = 2.0
SUPERSAMPLING = 8
# Normals that noise tilts away from the beam are read as just below grazing.
LEAST_NZ = 0.05
CUT_STEP_NM = 12.0


class Case(NamedTuple):
    """True heights (nm) and the true normals of each pixel, `(y, x)` and `(y, x, 3)`."""

    height_nm: np.ndarray
    normals: np.ndarray


def _of(scene) -> Case:
    p, q = (np.asarray(s, np.float64) for s in (scene.truth.slope_x, scene.truth.slope_y))
    return Case(np.asarray(scene.surface.height_nm, np.float64), _normals(p, q))


def _normals(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    n = np.stack([-p, -q, np.ones_like(p)], axis=-1)
    return n / np.linalg.norm(n, axis=-1, keepdims=True)


def _draw(seed: int):
    """A key for the family, and a direction in degrees."""
    return jax.random.key(100 + seed), float(np.random.default_rng(seed).uniform(0.0, 360.0))


def _cut(case: Case, shape) -> Case:
    """The top left part: a surface made periodic is not so within it."""
    rows, columns = shape
    return Case(case.height_nm[:rows, :columns], case.normals[:rows, :columns])


def rough(shape, seed: int) -> Case:
    """Self-affine, slopes of .35 (rms)."""
    wide = tuple(3 * n // 2 for n in shape)
    return _cut(_of(synthetic.rough(wide, PIXEL_NM, key=_draw(seed)[0], rms_slope=0.35)), shape)


def nearly_flat(shape, seed: int) -> Case:
    """The same kind of roughness, its whole height .002 of the image's width."""
    height, normals = rough(shape, seed + 50)
    scale = 0.002 * shape[1] * PIXEL_NM / np.ptp(height)
    p, q = (-scale * normals[..., k] / normals[..., 2] for k in (0, 1))
    return Case(scale * height, _normals(p, q))


def step_bunch(shape, seed: int) -> Case:
    """Terraces and facets of 20 degrees, edges that wander."""
    key, direction = _draw(seed)
    return _of(synthetic.step_bunch(shape, PIXEL_NM, key=key, direction_deg=direction))


def spiral(shape, seed: int) -> Case:
    """A growth spiral whose facets the pixels resolve."""
    _, direction = _draw(seed)
    hand, sides = (1, -1)[seed % 2], (0, 6, 4)[seed % 3]
    return _of(
        synthetic.spiral(
            shape,
            PIXEL_NM,
            handedness=hand,
            sides=sides,
            direction_deg=direction,
            step_height_nm=12.0,
            spacing_nm=70.0,
        )
    )


def _seen_by_pixels(family: Callable, shape, **numbers) -> Case:
    """Mean height and mean normal over each pixel's area, as a detector would give."""
    k = SUPERSAMPLING
    height, normals = _of(family(tuple(k * n for n in shape), PIXEL_NM / k, **numbers))
    mean = normals.reshape(shape[0], k, shape[1], k, 3).mean(axis=(1, 3))
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    return Case(height.reshape(shape[0], k, shape[1], k).mean(axis=(1, 3)), mean)


def unresolved_riser(shape, seed: int) -> Case:
    """A growth spiral whose steps are walls of 86 degrees, .4 pixels wide: its terraces alone link the levels."""
    _, direction = _draw(seed)
    numbers = {"handedness": (1, -1)[seed % 2], "sides": (0, 6, 4)[seed % 3], "direction_deg": direction}
    return _seen_by_pixels(synthetic.spiral, shape, facet_deg=86.0, step_height_nm=12.0, spacing_nm=70.0, **numbers)


def unresolved_islands(shape, seed: int) -> Case:
    """Islands with walls of 75 degrees, 1.6 pixels wide: pixels that lie across an edge show a mean normal."""
    key, direction = _draw(seed)
    return _seen_by_pixels(synthetic.islands, shape, key=key, wall_deg=75.0, direction_deg=direction)


def islands(shape, seed: int) -> Case:
    """Flat-topped hexagons with walls of 55 degrees."""
    key, direction = _draw(seed)
    return _of(synthetic.islands(shape, PIXEL_NM, key=key, direction_deg=direction))


def sinusoid(shape, seed: int) -> Case:
    """One wave in a random direction."""
    return _of(synthetic.sinusoid(shape, PIXEL_NM, direction_deg=_draw(seed)[1]))


def particles(shape, seed: int) -> Case:
    """Spheres on a plane: rims of 80 degrees, which single pixels catch."""
    return _of(synthetic.particles(shape, PIXEL_NM, key=_draw(seed)[0]))


def branch_cut(shape, seed: int) -> Case:
    """A helicoid around a screw dislocation: the height jumps across a ray, the normals do not show it."""
    y, x = (PIXEL_NM * (np.arange(n) - 0.5 * (n - 1)) for n in shape)
    x, y = np.meshgrid(x, y)
    rise = CUT_STEP_NM / (2 * np.pi)
    square = np.maximum(x**2 + y**2, PIXEL_NM**2)
    turn = np.radians(_draw(seed)[1])
    angle = np.angle(np.exp(1j * (np.arctan2(y, x) - turn)))
    return Case(rise * angle, _normals(-rise * y / square, rise * x / square))


SURFACES: dict[str, Callable] = {
    "rough": rough,
    "nearly flat": nearly_flat,
    "step bunch": step_bunch,
    "spiral": spiral,
    "unresolved riser": unresolved_riser,
    "unresolved islands": unresolved_islands,
    "islands": islands,
    "sinusoid": sinusoid,
    "particles": particles,
    "branch cut": branch_cut,
}


def _tilted(normals: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normals turned by the angle vector (first, second), rad, in their tangent plane (x-like, y-like)."""
    along = np.zeros_like(normals)
    along[..., 0] = 1.0
    along -= normals * normals[..., :1]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    across = np.cross(normals, along)
    angle = np.hypot(first, second) + 1e-30
    direction = (first[..., None] * along + second[..., None] * across) / angle[..., None]
    return normals * np.cos(angle)[..., None] + direction * np.sin(angle)[..., None]


def white(normals, rng, deg):
    """Independent from pixel to pixel, `deg` per direction."""
    return _tilted(normals, *(np.radians(deg) * rng.normal(size=(2, *normals.shape[:2]))))


def correlated(normals, rng, deg, length_px=3.0):
    """Noise smoothed by a Gaussian of `length_px`, still `deg` per direction."""
    rows, columns = normals.shape[:2]
    f2 = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None, :] ** 2
    kernel = np.exp(-2 * (np.pi * length_px) ** 2 * f2)
    noise = rng.normal(size=(2, rows, columns))
    smooth = np.fft.irfft2(kernel * np.fft.rfft2(noise), s=(rows, columns))
    return _tilted(normals, *(np.radians(deg) * smooth / smooth.std()))


def outliers(normals, rng, share=0.02, deg=40.0):
    """Some pixels tilted by `deg` more."""
    hit = rng.random(normals.shape[:2]) < share
    return np.where(hit[..., None], white(normals, rng, deg), normals)


def smooth_bias(normals, rng, deg, curl):
    """Half a wave of tilt across the image; its curl vanishes, or nothing but curl is in it."""
    y, x = (np.linspace(0.0, 1.0, n) for n in normals.shape[:2])
    x, y = np.meshgrid(x, y)
    u, v = (y, x) if curl else (x, y)
    phases = rng.uniform(0.0, 2 * np.pi, 2)
    waves = np.cos(2 * np.pi * 0.7 * u + phases[0]), np.sin(2 * np.pi * 0.6 * v + phases[1])
    return _tilted(normals, *(np.radians(deg) * w for w in waves))


ERRORS: dict[str, Callable] = {
    "none": lambda n, rng: n,
    "white 1 deg": lambda n, rng: white(n, rng, 1.0),
    "white 3 deg": lambda n, rng: white(n, rng, 3.0),
    "white 5 deg": lambda n, rng: white(n, rng, 5.0),
    "white 10 deg": lambda n, rng: white(n, rng, 10.0),
    "correlated 3 deg": lambda n, rng: correlated(n, rng, 3.0),
    "bias 0.2 deg": lambda n, rng: smooth_bias(n, rng, 0.2, curl=False),
    "bias 0.2 deg, curl": lambda n, rng: smooth_bias(n, rng, 0.2, curl=True),
    "outliers 2 %": lambda n, rng: outliers(n, rng),
    "mix": lambda n, rng: outliers(correlated(white(n, rng, 3.0), rng, 1.0), rng),
}


def measured_slopes(case: Case, error: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes `(slope_x, slope_y)` of a case as measured with an error from `ERRORS`."""
    n = ERRORS[error](case.normals, np.random.default_rng([7, seed, list(ERRORS).index(error)]))
    nz = np.maximum(n[..., 2], LEAST_NZ)
    return -n[..., 0] / nz, -n[..., 1] / nz
