"""Many small things on a plane: particles, pits, islands."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from eclipsjax._types import InputError
from eclipsjax.specimen.synthetic import _scene as s
from eclipsjax.specimen.synthetic._round import cap
from eclipsjax.specimen.synthetic._spiral import radius_to


def particles(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    key: Any = None,
    count: int = 40,
    radius_nm: Any = 22.0,
    radius_spread: Any = 0.25,
    contact_deg: Any = 80.0,
) -> s.Scene:
    """Spherical caps on a plane: the highest of `sqrt(R_i^2 - r_i^2) - R_i cos(contact)` and 0.

    `radius_nm`: median of R_i, log-normal with standard deviation `radius_spread` of ln R (cut at two of
    them); `contact_deg`: angle at the rim, above 0 to 90 (hemispheres). Centres keep their distance; where
    caps overlap the higher one shows. `truth.step_height_nm` holds each cap's height. Gradient: exact where
    no pixel changes its piece.
    """
    numbers = _check_caps(count, radius_nm, radius_spread, contact_deg)
    return s.assemble(_caps, shape, pixel_size_nm, (count, 1), key=s.random_key(key), **numbers)


def pits(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    key: Any = None,
    count: int = 40,
    radius_nm: Any = 30.0,
    radius_spread: Any = 0.25,
    contact_deg: Any = 60.0,
) -> s.Scene:
    """Spherical pits in a plane: `particles` upside down, with the same arguments. Gradient: as there."""
    numbers = _check_caps(count, radius_nm, radius_spread, contact_deg)
    return s.assemble(_caps, shape, pixel_size_nm, (count, -1), key=s.random_key(key), **numbers)


def islands(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    key: Any = None,
    count: int = 25,
    sides: int = 6,
    radius_nm: Any = 38.0,
    radius_spread: Any = 0.25,
    height_nm: Any = 12.0,
    wall_deg: Any = 55.0,
    direction_deg: Any = 10.0,
) -> s.Scene:
    """Flat-topped islands: the highest of `clip(tan(wall) (R_i - rho_i), 0, height)`, all of one height and
    orientation.

    rho is the distance from the centre along the nearest side's normal (`sides` 3 or more, one facing
    `direction_deg`), or the radius (`sides` = 0); `radius_nm` is the median of R_i at the foot, log-normal as
    in `particles`. An island with R tan(wall) < height ends in a point. Gradient: exact where no pixel
    changes its piece.
    """
    _check_count(count)
    if not (isinstance(sides, int) and (sides == 0 or sides >= 3)):
        raise InputError(f"sides is {sides}: give 0 for round islands, or at least 3.")
    return s.assemble(
        _islands,
        shape,
        pixel_size_nm,
        (count, sides),
        key=s.random_key(key),
        radius_nm=s.positive("radius_nm", radius_nm),
        radius_spread=s.within("radius_spread", radius_spread, 0.0, 1.0),
        height_nm=s.positive("height_nm", height_nm),
        wall_deg=s.acute("wall_deg", wall_deg),
        direction_deg=s.finite("direction_deg", direction_deg),
    )


def _check_count(count) -> None:
    if not (isinstance(count, int) and count >= 1):
        raise InputError(f"count is {count}: give a whole number of at least one.")


def _check_caps(count, radius_nm, radius_spread, contact_deg) -> dict:
    _check_count(count)
    s.positive("contact_deg", contact_deg)
    return {
        "radius_nm": s.positive("radius_nm", radius_nm),
        "radius_spread": s.within("radius_spread", radius_spread, 0.0, 1.0),
        "contact_deg": s.within("contact_deg", contact_deg, 0.0, 90.0),
    }


def _caps(shape, pixel, count, sign, key, radius_nm, radius_spread, contact_deg):
    radii, *centres = _scatter(key, count, shape, pixel, radius_nm, radius_spread)
    rises = radii * (1.0 - jnp.cos(jnp.deg2rad(contact_deg)))

    def one(x, y, radius, rise):
        height, slope_x, slope_y, inside = cap(x, y, radius, rise)
        return height, slope_x, slope_y, inside.astype(jnp.int32)

    height, slope_x, slope_y, facet, step = _highest(one, shape, pixel, centres, (radii, rises))
    names = ("plane", "particle" if sign > 0 else "pit")
    angles = [0.0 * contact_deg, contact_deg]
    return s.Relief(sign * height, sign * slope_x, sign * slope_y, facet, step, angles, rises, names, step=step)


def _islands(shape, pixel, count, sides, key, radius_nm, radius_spread, height_nm, wall_deg, direction_deg):
    radii, *centres = _scatter(key, count, shape, pixel, radius_nm, radius_spread)
    steep = jnp.tan(jnp.deg2rad(wall_deg))

    def one(x, y, radius):
        rho, rho_x, rho_y, sector = radius_to(x, y, sides, direction_deg)
        ramp = steep * (radius - rho)
        wall, top = (ramp > 0) & (ramp < height_nm), ramp >= height_nm
        slope = jnp.where(wall, -steep, 0.0)
        height = jnp.where(wall, ramp, jnp.where(top, height_nm, 0.0))
        return height, slope * rho_x, slope * rho_y, jnp.where(wall, 2 + sector, top.astype(jnp.int32))

    height, slope_x, slope_y, part, step = _highest(one, shape, pixel, centres, (radii,))
    heights = jnp.minimum(height_nm, radii * steep)
    piece = part + (2 + max(sides, 1)) * step
    angles, names = [0.0 * wall_deg, 0.0 * wall_deg, wall_deg], ("plane", "top", "wall")
    return s.Relief(height, slope_x, slope_y, jnp.minimum(part, 2), piece, angles, heights, names, step=step)


def _scatter(key, count, shape, pixel, radius_nm, radius_spread):
    """Radii and centres (nm from the image centre) of `count` objects."""
    of_place, of_size = jax.random.split(key)
    u, v = s.best_candidates(of_place, count, shape)
    deviate = jax.random.truncated_normal(of_size, -2.0, 2.0, (count,), pixel.dtype)
    radii = radius_nm * jnp.exp(radius_spread * deviate)
    return radii, u.astype(pixel.dtype) * shape[1] * pixel, v.astype(pixel.dtype) * shape[0] * pixel


def _highest(one, shape, pixel, centres, numbers):
    """Upper envelope of 0 and `one(x, y, *numbers_i)` -> (height, slopes, part); which i it is, or -1."""
    x, y = s.grid(shape, pixel)

    def add(carry, item):
        index, x0, y0, *own = item
        new = (*one(x - x0, y - y0, *own), jnp.full(shape, index))
        higher = new[0] > carry[0]
        return tuple(jnp.where(higher, n, c) for n, c in zip(new, carry, strict=True)), None

    flat, label = jnp.zeros(shape, pixel.dtype), jnp.zeros(shape, jnp.int32)
    index = jnp.arange(centres[0].shape[0], dtype=jnp.int32)
    result, _ = jax.lax.scan(add, (flat, flat, flat, label, label - 1), (index, *centres, *numbers))
    return result
