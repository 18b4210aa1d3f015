"""Bunched steps of a vicinal surface: terraces and facets whose edges wander."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.synthetic import _scene as s

# Wavelengths of the wandering relative to the longest, without a common multiple; amplitudes in proportion.
_WAVES = np.array([1.0, 0.618, 0.382, 0.236])
_SHORTEST_PERIOD_PX = 4


def step_bunch(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    key: Any = None,
    facet_deg: Any = 20.0,
    step_height_nm: Any = 12.0,
    terrace_nm: Any = 75.0,
    direction_deg: Any = 25.0,
    terrace_deg: Any = 0.0,
    terrace_spread: Any = 0.4,
    height_spread: Any = 0.3,
    wander_nm: Any = 9.0,
    wander_length_nm: Any = 330.0,
) -> s.Scene:
    """Terraces that step down along the azimuth `direction_deg` (the miscut) by facets of one inclination.

    With u along the miscut and v across it, bunch j is the ramp
    `-H_j clip((u - c_j - w_j(v)) / f_j + 1/2, 0, 1)` on terraces of slope tan(terrace); its width f_j makes
    the facet's slope along u exactly -tan(facet). Where an edge wanders the facet is steeper by sqrt(1 +
    w'^2); the slope maps hold that exactly.

    - `step_height_nm`: mean of H_j, the vertical distance between the planes of two terraces; H_j is uniform
      within +-`height_spread` of it. `terrace_nm`: mean terrace width, uniform within +-`terrace_spread`.
    - `terrace_deg`: inclination of the terraces, positive uphill along u (saw-tooth), above -`facet_deg`.
    - `wander_nm`, `wander_length_nm`: largest excursion of an edge, and its longest wavelength along v.

    Facets must not meet: `terrace (1 - terrace_spread) >= 2 wander + height_spread * facet width`.
    Gradient: exact where no pixel changes its piece.
    """
    numbers = {
        "facet_deg": s.acute("facet_deg", facet_deg),
        "step_height_nm": s.positive("step_height_nm", step_height_nm),
        "terrace_nm": s.positive("terrace_nm", terrace_nm),
        "direction_deg": s.finite("direction_deg", direction_deg),
        "terrace_deg": s.within("terrace_deg", terrace_deg, -89.0, 89.0),
        "terrace_spread": s.within("terrace_spread", terrace_spread, 0.0, 1.0),
        "height_spread": s.within("height_spread", height_spread, 0.0, 0.99),
        "wander_nm": s.not_negative("wander_nm", wander_nm),
        "wander_length_nm": s.positive("wander_length_nm", wander_length_nm),
    }
    _check(s.positive("pixel_size_nm", pixel_size_nm), numbers)
    return s.assemble(_step_bunch, shape, pixel_size_nm, key=s.random_key(key), **numbers)


def _check(pixel, numbers) -> None:
    values = [concrete(v) for v in (pixel, *numbers.values())]
    if any(v is None for v in values):
        return
    pixel, facet, step, terrace, _, level, terrace_spread, height_spread, wander, _ = (float(v) for v in values)
    if level <= -facet:
        raise InputError(f"terrace_deg is {level:g}: terraces must fall less steeply than facets of {facet:g} degrees.")
    width = step / (math.tan(math.radians(facet)) + math.tan(math.radians(level)))
    room = terrace * (1 - terrace_spread) - 2 * wander - height_spread * width
    if room < 0:
        raise InputError(
            f"terrace_nm = {terrace:g} is too narrow by {-room:g} nm for wander_nm = {wander:g}, "
            f"terrace_spread = {terrace_spread:g} and facets {width:g} nm wide: facets would meet."
        )
    if terrace + width < _SHORTEST_PERIOD_PX * pixel:
        raise InputError(
            f"terrace_nm = {terrace:g} and facets {width:g} nm wide repeat within "
            f"{_SHORTEST_PERIOD_PX} pixels of {pixel:g} nm: widen the terraces or use smaller pixels."
        )


def _step_bunch(
    shape,
    pixel,
    key,
    facet_deg,
    step_height_nm,
    terrace_nm,
    direction_deg,
    terrace_deg,
    terrace_spread,
    height_spread,
    wander_nm,
    wander_length_nm,
):
    x, y = s.grid(shape, pixel)
    u, ux, uy = s.along(x, y, direction_deg)
    v, vx, vy = s.along(x, y, direction_deg + 90.0)
    level, steep = jnp.tan(jnp.deg2rad(terrace_deg)), jnp.tan(jnp.deg2rad(facet_deg))

    # Bunch j stays in its cell |u - j period| < period / 2 (checked above): one look-up a pixel.
    middle = math.ceil(sum(shape) / 2 / _SHORTEST_PERIOD_PX) + 1
    heights, offsets, phases = _draw(key, 2 * middle + 1, pixel.dtype)
    heights = step_height_nm * (1.0 + height_spread * heights)
    period = terrace_nm + step_height_nm / (steep + level)
    cell = jnp.round(u / period)
    bunch = jnp.clip(cell.astype(jnp.int32) + middle, 0, 2 * middle)
    above = jnp.cumsum(heights) - heights
    above = above - above[middle] - 0.5 * heights[middle]

    waves = jnp.asarray(_WAVES, pixel.dtype)
    excursion = wander_nm * waves / jnp.sum(waves)
    wander = jnp.zeros_like(v)
    drift = jnp.zeros_like(v)
    for m in range(waves.shape[0]):
        number = 2 * math.pi / (wander_length_nm * waves[m])
        angle = number * v + phases[bunch, m]
        wander = wander + excursion[m] * jnp.cos(angle)
        drift = drift - excursion[m] * number * jnp.sin(angle)

    centre = cell * period + 0.5 * terrace_spread * terrace_nm * offsets[bunch]
    down = (steep + level) * (u - centre - wander) + 0.5 * heights[bunch]
    on_facet = (down > 0) & (down < heights[bunch])
    height = level * u - above[bunch] - jnp.where(on_facet, down, jnp.where(down > 0, heights[bunch], 0.0))
    along_u = jnp.where(on_facet, -steep, level)
    along_v = jnp.where(on_facet, (steep + level) * drift, 0.0)
    piece = 2 * bunch + jnp.where(on_facet, 1, jnp.where(down > 0, 2, 0))
    return s.Relief(
        height,
        along_u * ux + along_v * vx,
        along_u * uy + along_v * vy,
        on_facet,
        piece,
        [jnp.abs(terrace_deg), facet_deg],
        heights,
        ("terrace", "facet"),
        step=bunch,
    )


def _draw(key, count, dtype):
    """Per bunch: height and offset in [-1, 1], and phases of wandering, which drift from bunch to bunch."""
    of_height, of_offset, of_phase = jax.random.split(key, 3)
    waves = _WAVES.size
    walk = jnp.cumsum(jax.random.normal(of_phase, (count, waves), dtype), axis=0)
    return (
        jax.random.uniform(of_height, (count,), dtype, -1.0, 1.0),
        jax.random.uniform(of_offset, (count,), dtype, -1.0, 1.0),
        walk * jnp.asarray([0.35, 0.7, 1.4, 2.0], dtype)[None],
    )
