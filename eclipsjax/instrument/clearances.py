"""Whether specimen, plate, pole piece and wall keep clear of one another, biased or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from eclipsjax._types import InputError, concrete
from eclipsjax.instrument.tilt import tilted_axes

if TYPE_CHECKING:
    from eclipsjax.instrument.microscope import Microscope

_STEEPEST_DEG = 80.0
_TOUCHING_MM = 1e-6


class _Room(NamedTuple):
    """The numbers that decide, in mm and deg."""

    hole: float
    outer: float
    centre: np.ndarray
    thickness: float
    beam: np.ndarray
    plate_tilts: np.ndarray
    stage_tilts: np.ndarray
    roof: float
    bore: float
    pole: float
    wall: float


def check_clearances(scope: Microscope) -> None:
    """Raise `InputError` where two parts would share a place, or the plate the beam's (skipped while traced)."""
    room = _room_of(scope)
    if room is None:
        return
    _check_sizes(room)
    _check_height(room)
    _check_beam(room)
    _check_tilts(room)
    _check_specimen(room)
    _check_pole_piece(room)


def _room_of(scope: Microscope) -> _Room | None:
    plate, column, beam = scope.detector, scope.column, scope.beam
    leaves = (
        plate.segments.inner_radius_mm, plate.segments.outer_radius_mm,
        plate.offset_x_mm, plate.offset_y_mm, plate.distance_mm, plate.thickness_mm,
        beam.position_x_mm, beam.position_y_mm,
        plate.tilt_x_deg, plate.tilt_y_deg, column.stage_tilt_x_deg, column.stage_tilt_y_deg,
        column.working_distance_mm, column.bore_radius_mm, column.pole_radius_mm, column.chamber_radius_mm,
    )  # fmt: skip
    numbers = [concrete(leaf) for leaf in leaves]
    if any(n is None for n in numbers):
        return None
    inner, outer, *rest = numbers
    x, y, z, thickness, beam_x, beam_y, tilt_x, tilt_y, stage_x, stage_y, *radii = (float(n) for n in rest)
    plate_tilts, stage_tilts = np.array([tilt_x, tilt_y]), np.array([stage_x, stage_y])
    beam_xy, centre = np.array([beam_x, beam_y]), np.array([x, y, z])
    return _Room(float(inner.min()), float(outer.max()), centre, thickness, beam_xy, plate_tilts, stage_tilts, *radii)


def _check_sizes(room: _Room) -> None:
    if not room.bore < room.pole:
        raise InputError(
            f"column.bore_radius_mm is {room.bore:g} but column.pole_radius_mm is {room.pole:g}: the bore is the hole "
            "in the pole piece and must be smaller."
        )
    off_axis = float(np.hypot(*room.centre[:2]))
    if not room.outer + off_axis < room.wall:
        raise InputError(
            f"the detector reaches {room.outer + off_axis:g} mm from the axis (outer_radius_mm and offset) but "
            f"column.chamber_radius_mm is {room.wall:g}: give the chamber the larger radius."
        )


def _check_height(room: _Room) -> None:
    distance = float(room.centre[2])
    if distance + room.thickness > room.roof + _TOUCHING_MM:
        raise InputError(
            f"detector.distance_mm {distance:g} + detector.thickness_mm {room.thickness:g} pass "
            f"column.working_distance_mm {room.roof:g}: the plate sits below the pole piece, so make it thinner, lower "
            "it or raise the pole piece."
        )


def _check_beam(room: _Room) -> None:
    miss = float(np.hypot(*(room.centre[:2] - room.beam)))
    if not miss < room.hole:
        raise InputError(
            f"beam and detector centre are {miss:g} mm apart but the hole has a radius of {room.hole:g} mm: the beam "
            "would hit the detector; check beam.position_*_mm and detector.offset_*_mm (millimetres)."
        )


def _check_tilts(room: _Room) -> None:
    angles = [*room.plate_tilts.tolist(), *room.stage_tilts.tolist()]
    if not all(np.isfinite(a) and abs(a) < _STEEPEST_DEG for a in angles):
        raise InputError(f"a tilt among {angles} deg is beyond {_STEEPEST_DEG:g}: give degrees from the horizontal.")


def _check_specimen(room: _Room) -> None:
    """The lowest point of the plate's face above the specimen's plane, both of them tilted."""
    if not (room.plate_tilts.any() or room.stage_tilts.any()):
        return
    plate, normal = tilted_axes(*room.plate_tilts, np), tilted_axes(*room.stage_tilts, np)[2]
    clearance = float(room.centre @ normal) - room.outer * float(np.hypot(*(plate[:2] @ normal)))
    if clearance > 0:
        return
    if room.stage_tilts.any():
        raise InputError(
            f"the stage tilted by {_degrees(room.stage_tilts)} deg touches the detector plate {room.centre[2]:g} mm "
            f"above it, {room.outer:g} mm in radius: reduce column.stage_tilt_*_deg or raise detector.distance_mm."
        )
    raise InputError(
        f"the detector plate tilted by {_degrees(room.plate_tilts)} deg, {room.outer:g} mm in radius, reaches down "
        f"to {clearance:.3g} mm, into the specimen: reduce detector.tilt_*_deg or raise detector.distance_mm."
    )


def _check_pole_piece(room: _Room) -> None:
    """Points all over the tilted plate's back: none may lie in the pole piece (in its bore, or beside it, they may)."""
    if not room.plate_tilts.any():
        return
    along_x, along_y, normal = tilted_axes(*room.plate_tilts, np)
    radius = np.linspace(room.hole, room.outer, 17)[:, None, None]
    azimuth = np.linspace(0, 2 * np.pi, 73)[None, :, None]
    back = room.centre + room.thickness * normal
    points = back + radius * (np.cos(azimuth) * along_x + np.sin(azimuth) * along_y)
    away = np.hypot(points[..., 0], points[..., 1])
    inside = (points[..., 2] > room.roof + _TOUCHING_MM) & (away >= room.bore) & (away <= room.pole)
    if inside.any():
        raise InputError(
            f"the detector plate tilted by {_degrees(room.plate_tilts)} deg rises to {points[..., 2].max():.3g} mm and "
            f"touches the pole piece at column.working_distance_mm = {room.roof:g}: reduce detector.tilt_*_deg or "
            "raise the working distance."
        )


def _degrees(tilts: np.ndarray) -> str:
    return f"({tilts[0]:g}, {tilts[1]:g})"
