"""Electrons' ways through the chamber, sampled for drawing."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.plane import Plane, detector_plane, stage_plane
from eclipsjax.instrument.trajectories import LANDED, LOST, trace


def flight_paths(scope: Microscope, field: Any, directions: Any, points: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """`(paths, status)` of electrons that leave the beam's spot along unit vectors `directions` `(electron, 3)`.

    `paths`: `(electron, point, 3)` mm in image axes, `status` as in `Flight`. Each path is sampled where it crosses
    upright planes between its start and its end; points it never reaches are not finite. In no field (None) electrons
    fly straight to the detector's plane.
    """
    face, beam = detector_plane(scope), scope.beam
    start = jnp.stack([beam.position_x_mm, beam.position_y_mm, jnp.zeros_like(beam.position_x_mm)])
    directions = jnp.asarray(directions, start.dtype)
    shares = np.linspace(0, 1, points)
    if field is None:
        along = jnp.vdot(face.normal, face.origin_mm - start) / (directions @ face.normal)
        way = np.asarray(jnp.where(along > 0, along, jnp.nan)[:, None] * directions)
        status = np.where(np.asarray(along) > 0, LANDED, LOST)
        return np.asarray(start) + shares[None, :, None] * way[:, None, :], status
    ways, status = _fly(scope, field, start, directions, jnp.asarray(shares[1:-1], start.dtype))
    return np.asarray(ways), np.asarray(status)


@jax.jit
def _fly(scope, field, start, directions, shares):
    face, floor, energy = detector_plane(scope), stage_plane(scope), scope.beam.energy_kev
    fly = partial(trace, field, start, energy_kev=energy, floor=floor)
    upward = jnp.asarray([0.0, 0.0, 1.0], start.dtype)

    def one(direction):
        end = fly(direction=direction, plane=face)
        outward = (end.position_mm - start).at[2].set(0.0)
        reach = jnp.sqrt(jnp.sum(outward**2))
        outward = outward / reach
        sideways = jnp.stack([-outward[1], outward[0], jnp.zeros_like(reach)])

        def crossing(share):
            upright = Plane(start + share * reach * outward, jnp.stack([upward, sideways, outward]))
            passed = fly(direction=direction, plane=upright)
            return jnp.where(passed.landed, passed.position_mm, jnp.nan)

        last = jnp.where(end.status == LOST, jnp.nan, end.position_mm)
        return jnp.concatenate([start[None], jax.vmap(crossing)(shares), last[None]]), end.status

    return jax.vmap(one)(directions)
