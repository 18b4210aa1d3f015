"""The imprint of a Vickers indenter: four plane faces, 136 deg between opposite ones."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from eclipsjax.specimen.synthetic import _scene as s


def vickers(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    diagonal_nm: Any = 360.0,
    face_deg: Any = 22.0,
    diagonal_azimuth_deg: Any = 0.0,
) -> s.Scene:
    """A square pyramid pressed into a plane, `z = -max(0, depth - tan(face) max(|u|, |v|))`.

    u and v run at 45 deg to the diagonals, one of which lies along `diagonal_azimuth_deg`;
    `depth = tan(face) diagonal / sqrt(8)`, which is diagonal / 7.0006 for the standard indenter (faces 22
    deg, 136 deg between opposite ones). Gradient: exact.
    """
    diagonal, face = s.positive("diagonal_nm", diagonal_nm), s.acute("face_deg", face_deg)
    azimuth = s.finite("diagonal_azimuth_deg", diagonal_azimuth_deg)
    return s.assemble(_vickers, shape, pixel_size_nm, diagonal_nm=diagonal, face_deg=face, azimuth_deg=azimuth)


def _vickers(shape, pixel, diagonal_nm, face_deg, azimuth_deg):
    x, y = s.grid(shape, pixel)
    u, ux, uy = s.along(x, y, azimuth_deg - 45.0)
    v, vx, vy = s.along(x, y, azimuth_deg + 45.0)
    steep = jnp.tan(jnp.deg2rad(face_deg))
    depth = steep * diagonal_nm / 8**0.5
    by_u = jnp.abs(u) >= jnp.abs(v)
    below = depth - steep * jnp.where(by_u, jnp.abs(u), jnp.abs(v))
    inside = below > 0
    along_u = jnp.where(inside & by_u, steep * jnp.sign(u), 0.0)
    along_v = jnp.where(inside & ~by_u, steep * jnp.sign(v), 0.0)
    facet = jnp.where(inside, jnp.where(by_u, jnp.where(u > 0, 1, 3), jnp.where(v > 0, 2, 4)), 0)
    names = ("plane", "face -45", "face +45", "face +135", "face -135")
    return s.Relief(
        -jnp.where(inside, below, 0.0),
        along_u * ux + along_v * vx,
        along_u * uy + along_v * vy,
        facet,
        facet,
        [0.0 * face_deg] + [face_deg] * 4,
        depth,
        names,
    )
