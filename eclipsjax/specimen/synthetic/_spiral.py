"""The growth hillock of a screw dislocation: spiral terraces, one or more arms, either hand."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.synthetic import _scene as s


def spiral(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    arms: int = 1,
    handedness: int = 1,
    sides: int = 0,
    step_height_nm: Any = 7.0,
    spacing_nm: Any = 60.0,
    facet_deg: Any = 25.0,
    direction_deg: Any = 0.0,
) -> s.Scene:
    """A hillock around a screw dislocation at the image centre, with steps wound into a spiral.

        z = -H [rho / spacing + S(psi) - psi],   psi = rho / spacing + handedness arms phi / (2 pi),

    with S the staircase S(psi + 1) = S(psi) + 1, flat but for facets; phi counter-clockwise as seen, rho the
    distance from the axis (`sides` = 0) or from the nearest of the polygon's sides (3 or more: sides face
    `direction_deg`, ...). Terraces are the turns of a helicoid: walking round without crossing a step, the
    height changes by arms * H a turn.

    - `handedness`: +1 if terraces rise counter-clockwise as seen in the image, -1 if clockwise. `arms`: steps
      that start at the centre; the Burgers vector is arms * H.
    - `step_height_nm`: H; `spacing_nm`: between neighbouring steps along the radius; `facet_deg`: inclination
      of a step's facet along the radius (beside it, it leans by the helicoid's H arms / (2 pi rho)).

    Gradient: exact where no pixel changes its piece.
    """
    if not (isinstance(arms, int) and arms >= 1):
        raise InputError(f"arms is {arms}: a spiral has a whole number of arms, at least one.")
    if handedness not in (1, -1):
        raise InputError(
            f"handedness is {handedness}: give 1 (terraces rise counter-clockwise as seen) or -1 (clockwise)."
        )
    if not (isinstance(sides, int) and (sides == 0 or sides >= 3)):
        raise InputError(f"sides is {sides}: give 0 for a round spiral, or at least 3.")
    step, spacing = s.positive("step_height_nm", step_height_nm), s.positive("spacing_nm", spacing_nm)
    facet, direction = s.acute("facet_deg", facet_deg), s.finite("direction_deg", direction_deg)
    if concrete(facet) is not None:
        width = step / jnp.tan(jnp.deg2rad(facet))
        s.at_most(
            "the facet's width in nm, step_height_nm / tan(facet_deg),",
            width,
            spacing,
            "it must fit into spacing_nm",
        )
    numbers = {"step_height_nm": step, "spacing_nm": spacing, "facet_deg": facet, "direction_deg": direction}
    return s.assemble(_spiral, shape, pixel_size_nm, (arms, int(handedness), sides), **numbers)


def _spiral(shape, pixel, arms, handedness, sides, step_height_nm, spacing_nm, facet_deg, direction_deg):
    x, y = s.grid(shape, pixel)
    square = x**2 + y**2
    centre = square < (1e-3 * pixel) ** 2
    x, square = jnp.where(centre, pixel, x), jnp.where(centre, pixel**2, square)
    rho, rho_x, rho_y, sector = radius_to(x, y, sides, direction_deg)
    turn = handedness * arms / (2 * math.pi)
    phi, phi_x, phi_y = jnp.arctan2(-y, x), y / square, -x / square

    phase = rho / spacing_nm + turn * phi
    fraction = phase - jnp.floor(phase)
    share = step_height_nm / (jnp.tan(jnp.deg2rad(facet_deg)) * spacing_nm)
    on_facet = fraction > 1.0 - share
    rise = jnp.where(on_facet, (fraction - 1.0) / share + 1.0, 0.0)
    slope = jnp.where(on_facet, 1.0 / share, 0.0)
    per_rho, per_phi = -step_height_nm * slope / spacing_nm, -step_height_nm * turn * (slope - 1.0)
    height = -step_height_nm * (rho / spacing_nm + rise - fraction)

    # A pixel beside a crease, or at the axis where the terraces end.
    reach = pixel * (jnp.abs(rho_x / spacing_nm + turn * phi_x) + jnp.abs(rho_y / spacing_nm + turn * phi_y))
    to_crease = jnp.minimum(jnp.minimum(fraction, 1.0 - fraction), jnp.abs(fraction - (1.0 - share)))
    crease = (to_crease <= reach) | (square < (2.0 * pixel) ** 2)
    return s.Relief(
        jnp.where(centre, 0.0, height),
        jnp.where(centre, 0.0, per_rho * rho_x + per_phi * phi_x),
        jnp.where(centre, 0.0, per_rho * rho_y + per_phi * phi_y),
        on_facet,
        2 * sector + on_facet.astype(jnp.int32),
        [0.0 * facet_deg, facet_deg],
        step_height_nm,
        ("terrace", "facet"),
        crease=crease,
    )


def radius_to(x, y, sides, direction_deg):
    """`(rho, rho_x, rho_y, sector)`: radius (`sides` = 0) or distance along the nearest side's normal."""
    if sides == 0:
        square = x**2 + y**2
        rho = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        return jnp.where(square > 0, rho, 0.0), x / rho, y / rho, jnp.zeros(x.shape, jnp.int32)
    rho, rho_x, rho_y = s.along(x, y, direction_deg)
    rho_x, rho_y, sector = (
        jnp.broadcast_to(rho_x, x.shape),
        jnp.broadcast_to(rho_y, x.shape),
        jnp.zeros(x.shape, jnp.int32),
    )
    for k in range(1, sides):
        u, ux, uy = s.along(x, y, direction_deg + 360.0 * k / sides)
        farther = u > rho
        rho, rho_x, rho_y = (
            jnp.where(farther, u, rho),
            jnp.where(farther, ux, rho_x),
            jnp.where(farther, uy, rho_y),
        )
        sector = jnp.where(farther, k, sector)
    return rho, rho_x, rho_y, sector
