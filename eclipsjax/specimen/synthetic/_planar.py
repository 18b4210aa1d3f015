"""One plane, one step, one trench, one groove: the surfaces whose occlusion has a closed form."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.synthetic import _scene as s


def plane(
    shape: s.Shape = (256, 256), pixel_size_nm: Any = 2.0, *, tilt_deg: Any = 20.0, azimuth_deg: Any = 0.0
) -> s.Scene:
    """A tilted plane, `z = -tan(tilt) u`, u along `azimuth_deg`: the normal leans toward that azimuth.

    `tilt_deg`: 0 to below 90. Zero height at the image centre. Gradient: exact.
    """
    tilt = s.within("tilt_deg", tilt_deg, 0.0, 89.999)
    return s.assemble(_plane, shape, pixel_size_nm, tilt_deg=tilt, azimuth_deg=s.finite("azimuth_deg", azimuth_deg))


def _plane(shape, pixel, tilt_deg, azimuth_deg):
    u, ux, uy = s.along(*s.grid(shape, pixel), azimuth_deg)
    slope = -jnp.tan(jnp.deg2rad(tilt_deg))
    flat = jnp.zeros(shape, jnp.int32)
    return s.Relief(slope * u, slope * ux, slope * uy, flat, flat, [tilt_deg], jnp.zeros(0, pixel.dtype), ("plane",))


def step(
    shape: s.Shape = (256, 256), pixel_size_nm: Any = 2.0, *, height_nm: Any = 20.0, direction_deg: Any = 0.0
) -> s.Scene:
    """A vertical step through the image centre: `z = height` where u < 0, 0 elsewhere, u along
    `direction_deg` (downhill).

    A negative height turns it round. Gradient: exact in the height, zero in the direction.
    """
    height = s.finite("height_nm", height_nm)
    return s.assemble(
        _step, shape, pixel_size_nm, height_nm=height, direction_deg=s.finite("direction_deg", direction_deg)
    )


def _step(shape, pixel, height_nm, direction_deg):
    u, _, _ = s.along(*s.grid(shape, pixel), direction_deg)
    high = u < 0
    none = jnp.zeros(shape, pixel.dtype)
    return s.Relief(jnp.where(high, height_nm, 0.0), none, none, high, high, [0.0, 0.0], height_nm, ("lower", "upper"))


def trench(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    width_nm: Any = 120.0,
    depth_nm: Any = 60.0,
    direction_deg: Any = 0.0,
) -> s.Scene:
    """A trench with vertical walls through the image centre: `z = -depth` where |u| < width / 2, 0 elsewhere.

    u runs across it, along the azimuth `direction_deg`. Gradient: exact in the depth, zero in the others.
    """
    width, depth = s.positive("width_nm", width_nm), s.positive("depth_nm", depth_nm)
    direction = s.finite("direction_deg", direction_deg)
    _fits("width_nm", width, shape, pixel_size_nm, direction)
    return s.assemble(_trench, shape, pixel_size_nm, width_nm=width, depth_nm=depth, direction_deg=direction)


def _trench(shape, pixel, width_nm, depth_nm, direction_deg):
    u, _, _ = s.along(*s.grid(shape, pixel), direction_deg)
    floor = jnp.abs(u) < 0.5 * width_nm
    piece = jnp.where(floor, 1, jnp.where(u < 0, 0, 2))
    none = jnp.zeros(shape, pixel.dtype)
    return s.Relief(jnp.where(floor, -depth_nm, 0.0), none, none, floor, piece, [0.0, 0.0], depth_nm, ("top", "floor"))


def v_groove(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    wall_deg: Any = 22.0,
    depth_nm: Any = 60.0,
    direction_deg: Any = 0.0,
) -> s.Scene:
    """A groove with two plane walls, `z = -max(0, depth - |u| tan(wall))`, u across it along `direction_deg`.

    The opening is 2 depth / tan(wall) wide. Gradient: exact.
    """
    wall, depth = s.acute("wall_deg", wall_deg), s.positive("depth_nm", depth_nm)
    direction = s.finite("direction_deg", direction_deg)
    _fits("the groove's width in nm", 2 * depth / jnp.tan(jnp.deg2rad(wall)), shape, pixel_size_nm, direction)
    return s.assemble(_v_groove, shape, pixel_size_nm, wall_deg=wall, depth_nm=depth, direction_deg=direction)


def _v_groove(shape, pixel, wall_deg, depth_nm, direction_deg):
    u, ux, uy = s.along(*s.grid(shape, pixel), direction_deg)
    steep = jnp.tan(jnp.deg2rad(wall_deg))
    below = depth_nm - steep * jnp.abs(u)
    wall = below > 0
    slope = jnp.where(wall, steep * jnp.sign(u), 0.0)
    facet = jnp.where(wall, jnp.where(u > 0, 2, 1), 0)
    piece = jnp.where(wall, facet, jnp.where(u > 0, 3, 0))
    names = ("top", "wall falling along u", "wall rising along u")
    height = -jnp.where(wall, below, 0.0)
    return s.Relief(height, slope * ux, slope * uy, facet, piece, [0.0 * wall_deg, wall_deg, wall_deg], depth_nm, names)


def _fits(name, length, shape, pixel_size_nm, direction_deg) -> None:
    extent = s.extent_nm(shape, pixel_size_nm, direction_deg)
    number = concrete(length)
    if number is not None and extent is not None and number > extent:
        raise InputError(f"{name} is {float(number):g} but the image spans {extent:g} nm that way: enlarge the image.")
