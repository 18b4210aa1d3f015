"""Periodic lines: a sinusoid and a trapezoidal grating."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from eclipsjax._types import InputError, concrete
from eclipsjax.specimen.synthetic import _scene as s


def sinusoid(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    pitch_nm: Any = 100.0,
    height_nm: Any = 15.0,
    direction_deg: Any = 0.0,
    phase_deg: Any = 0.0,
) -> s.Scene:
    """`z = (height / 2) cos(2 pi u / pitch - phase)`, u from the image centre along `direction_deg`.

    `height_nm` is from valley to crest. Gradient: exact.
    """
    return s.assemble(
        _sinusoid,
        shape,
        pixel_size_nm,
        pitch_nm=s.positive("pitch_nm", pitch_nm),
        height_nm=s.not_negative("height_nm", height_nm),
        direction_deg=s.finite("direction_deg", direction_deg),
        phase_deg=s.finite("phase_deg", phase_deg),
    )


def _sinusoid(shape, pixel, pitch_nm, height_nm, direction_deg, phase_deg):
    u, ux, uy = s.along(*s.grid(shape, pixel), direction_deg)
    wave = 2 * math.pi / pitch_nm
    phase = wave * u - jnp.deg2rad(phase_deg)
    slope = -0.5 * height_nm * wave * jnp.sin(phase)
    steepest = jnp.rad2deg(jnp.arctan(0.5 * height_nm * wave))
    one = jnp.zeros(shape, jnp.int32)
    height = 0.5 * height_nm * jnp.cos(phase)
    return s.Relief(height, slope * ux, slope * uy, one, one, [steepest], height_nm, ("wave",))


def grating(
    shape: s.Shape = (256, 256),
    pixel_size_nm: Any = 2.0,
    *,
    pitch_nm: Any = 128.0,
    height_nm: Any = 40.0,
    sidewall_deg: Any = 75.0,
    duty: Any = 0.5,
    direction_deg: Any = 0.0,
) -> s.Scene:
    """Trapezoidal lines: `z = clip(height / 2 + tan(sidewall) (duty pitch / 2 - |u'|), 0, height)`, a line at
    the centre.

    u' is u folded into [-pitch / 2, pitch / 2]; `duty` is a line's width at half height over the pitch; u
    runs across the lines along `direction_deg`. Floor and top must both survive the sidewalls. Gradient:
    exact.
    """
    numbers = {
        "pitch_nm": s.positive("pitch_nm", pitch_nm),
        "height_nm": s.positive("height_nm", height_nm),
        "sidewall_deg": s.acute("sidewall_deg", sidewall_deg),
        "duty": s.within("duty", duty, 0.0, 1.0),
        "direction_deg": s.finite("direction_deg", direction_deg),
    }
    pitch, height, sidewall, share, _ = (concrete(v) for v in numbers.values())
    if all(v is not None for v in (pitch, height, sidewall, share)):
        wall = height / math.tan(math.radians(sidewall))
        if min(share, 1 - share) * pitch < wall:
            raise InputError(
                f"sidewall_deg = {sidewall:g} makes walls {wall:g} nm wide, too wide for duty = {share:g} of "
                f"pitch_nm = {pitch:g}: steepen the walls, lower the lines or widen the pitch."
            )
    return s.assemble(_grating, shape, pixel_size_nm, **numbers)


def _grating(shape, pixel, pitch_nm, height_nm, sidewall_deg, duty, direction_deg):
    u, ux, uy = s.along(*s.grid(shape, pixel), direction_deg)
    line = jnp.floor(u / pitch_nm + 0.5)
    folded = u - line * pitch_nm
    steep = jnp.tan(jnp.deg2rad(sidewall_deg))
    ramp = 0.5 * height_nm + steep * (0.5 * duty * pitch_nm - jnp.abs(folded))
    wall = (ramp > 0) & (ramp < height_nm)
    slope = jnp.where(wall, -steep * jnp.sign(folded), 0.0)
    height = jnp.where(wall, ramp, jnp.where(ramp > 0, height_nm, 0.0))
    facet = jnp.where(wall, 2, jnp.where(ramp > 0, 1, 0))
    part = jnp.where(facet == 0, jnp.where(folded < 0, 0, 4), jnp.where(wall, jnp.where(folded < 0, 1, 3), 2))
    piece = 4 * line.astype(jnp.int32) + part
    level = 0.0 * sidewall_deg
    names = ("floor", "top", "sidewall")
    return s.Relief(height, slope * ux, slope * uy, facet, piece, [level, level, sidewall_deg], height_nm, names)
