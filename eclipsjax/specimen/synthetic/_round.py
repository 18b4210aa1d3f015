"""A ball on a plane and a spherical bowl in it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from eclipsjax.specimen.synthetic import _scene as s


def sphere(shape: s.Shape = (256, 256), pixel_size_nm: Any = 2.0, *, radius_nm: Any = 100.0) -> s.Scene:
    """A ball resting on a plane, seen from above: `z = R + sqrt(R^2 - r^2)` where r < R, 0 elsewhere.

    The overhang below its equator is hidden, as it is from the beam. Gradient: exact (of the slopes it grows
    toward the rim).
    """
    radius = s.positive("radius_nm", radius_nm)
    return s.assemble(_sphere, shape, pixel_size_nm, radius_nm=radius)


def _sphere(shape, pixel, radius_nm):
    x, y = s.grid(shape, pixel)
    height, slope_x, slope_y, inside = cap(x, y, radius_nm, radius_nm)
    height = jnp.where(inside, radius_nm + height, 0.0)
    return s.Relief(height, slope_x, slope_y, inside, inside, [0.0, 90.0], 2 * radius_nm, ("plane", "ball"))


def bowl(
    shape: s.Shape = (256, 256), pixel_size_nm: Any = 2.0, *, radius_nm: Any = 250.0, depth_nm: Any = 100.0
) -> s.Scene:
    """A spherical pit, `z = (R - depth) - sqrt(R^2 - r^2)` where that is below 0.

    Its cosine-weighted sky view is 1 - depth / (2 R) at every point. `depth_nm` at most `radius_nm`.
    Gradient: exact.
    """
    radius, depth = s.positive("radius_nm", radius_nm), s.positive("depth_nm", depth_nm)
    s.at_most("depth_nm", depth, radius, "a bowl is at most as deep as its radius")
    return s.assemble(_bowl, shape, pixel_size_nm, radius_nm=radius, depth_nm=depth)


def _bowl(shape, pixel, radius_nm, depth_nm):
    x, y = s.grid(shape, pixel)
    height, slope_x, slope_y, inside = cap(x, y, radius_nm, depth_nm)
    steepest = jnp.rad2deg(jnp.arccos((radius_nm - depth_nm) / radius_nm))
    return s.Relief(
        -height, -slope_x, -slope_y, inside, inside, [0.0 * steepest, steepest], depth_nm, ("plane", "bowl")
    )


def cap(x, y, radius, rise):
    """`(height, slope_x, slope_y, inside)` of the cap of height `rise` of a ball of `radius` centred at the
    origin.

    `height = sqrt(R^2 - r^2) - (R - rise)` inside the rim, 0 outside; every derivative stays finite.
    """
    under = radius**2 - x**2 - y**2
    inside = (under > (radius - rise) ** 2) & (under > 0)
    root = jnp.sqrt(jnp.where(inside, under, 1.0))
    height = jnp.where(inside, root - (radius - rise), 0.0)
    return height, jnp.where(inside, -x / root, 0.0), jnp.where(inside, -y / root, 0.0), inside
