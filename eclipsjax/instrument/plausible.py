"""Whether the numbers of a microscope can belong to one: every refusal names the field, the value and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eclipsjax._types import InputError, concrete

if TYPE_CHECKING:
    from eclipsjax.instrument.microscope import Microscope, Segments


def check_microscope(scope: Microscope) -> None:
    """Raise `InputError` where the numbers cannot belong to a microscope (what is being traced is skipped)."""
    beam, plate, column = scope.beam, scope.detector, scope.column
    positive = {
        "beam.energy_kev": beam.energy_kev,
        "beam.current_na": beam.current_na,
        "beam.dwell_us": beam.dwell_us,
        "detector.distance_mm": plate.distance_mm,
        "detector.thickness_mm": plate.thickness_mm,
        "column.working_distance_mm": column.working_distance_mm,
        "column.bore_radius_mm": column.bore_radius_mm,
        "column.pole_radius_mm": column.pole_radius_mm,
        "column.chamber_radius_mm": column.chamber_radius_mm,
    }
    for name, leaf in positive.items():
        value = concrete(leaf)
        if value is not None and not (np.isfinite(value).all() and (value > 0).all()):
            raise InputError(f"{name} is {value}: give a positive number.")
    probe = concrete(beam.probe_fwhm_nm)
    if probe is not None and not (np.isfinite(probe) and probe >= 0):
        raise InputError(f"beam.probe_fwhm_nm is {probe}: give the probe's width in nanometres, 0 for none.")
    _check_segments(plate.segments)
    _check_clearances(scope)
    energy, bias = concrete(beam.energy_kev), concrete(column.specimen_bias_v)
    if energy is not None and bias is not None and bias >= 1e3 * energy:
        raise InputError(
            f"column.specimen_bias_v is {bias:g} V but the beam lands with beam.energy_kev = {energy:g} keV: no "
            "electron gets out; use a bias below the energy (negative speeds electrons toward the detector)."
        )


def _check_segments(segments: Segments) -> None:
    fields = (
        "inner_radius_mm",
        "outer_radius_mm",
        "start_deg",
        "stop_deg",
        "gap_mm",
        "gain",
        "threshold_kev",
        "bias_v",
    )
    count = segments.count
    if count < 1:
        raise InputError("detector.segments is empty: a detector has at least one segment.")
    for name in (*fields, "pedestal"):
        leaf = getattr(segments, name)
        if leaf.shape != (count,):
            raise InputError(f"segments.{name} has shape {leaf.shape} for {count} segments: give one number each.")
    values = {name: concrete(getattr(segments, name)) for name in fields}
    if any(v is None for v in values.values()):
        return
    for name, v in values.items():
        if not np.isfinite(v).all():
            raise InputError(f"segments.{name} is {v}: give finite numbers.")
    inner, outer, start, stop, gap = (values[name] for name in fields[:5])
    for k, name in enumerate(segments.names):
        span = stop[k] - start[k]
        if not 0 < inner[k] < outer[k]:
            raise InputError(
                f"segment {name} has inner_radius_mm = {inner[k]:g} and outer_radius_mm = {outer[k]:g}: the inner "
                "radius must be positive and below the outer one."
            )
        if not 0 < span <= 360 + 1e-3:
            raise InputError(
                f"segment {name} runs from start_deg = {start[k]:g} to stop_deg = {stop[k]:g}: azimuths go "
                "counter-clockwise and span more than 0 and at most 360 degrees."
            )
        widest = 2 * inner[k] * np.sin(np.radians(min(span, 180) / 2))
        if not 0 <= gap[k] < widest:
            raise InputError(
                f"segment {name} has gap_mm = {gap[k]:g}: it must be at least 0 and below {widest:g} mm, where it "
                "would swallow the segment's inner edge."
            )
        if values["threshold_kev"][k] < 0:
            raise InputError(
                f"segment {name} has threshold_kev = {values['threshold_kev'][k]:g}: it cannot be negative."
            )
    _check_overlap(segments.names, inner, outer, start, stop)


def _check_overlap(names, inner, outer, start, stop) -> None:
    tolerance = 1e-3
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            if min(outer[i], outer[j]) - max(inner[i], inner[j]) <= tolerance * outer[i]:
                continue
            ahead = (start[j] - start[i]) % 360.0
            behind = (start[i] - start[j]) % 360.0
            overlap = max(stop[i] - start[i] - ahead, stop[j] - start[j] - behind)
            if overlap > tolerance:
                raise InputError(
                    f"segments {names[i]} ({start[i]:g} to {stop[i]:g} deg) and {names[j]} ({start[j]:g} to "
                    f"{stop[j]:g} deg) overlap by {overlap:g} deg at the same radii: change the azimuths or the radii."
                )


def _check_clearances(scope: Microscope) -> None:
    plate, column = scope.detector, scope.column
    leaves = (
        plate.distance_mm,
        plate.thickness_mm,
        column.working_distance_mm,
        plate.segments.inner_radius_mm,
    )
    lateral = (plate.offset_x_mm, plate.offset_y_mm, scope.beam.position_x_mm, scope.beam.position_y_mm)
    tilts = (plate.tilt_x_deg, plate.tilt_y_deg, column.stage_tilt_x_deg, column.stage_tilt_y_deg)
    numbers = [concrete(v) for v in (*leaves, *lateral, *tilts)]
    if any(v is None for v in numbers):
        return
    distance, thickness, working, inner, off_x, off_y, beam_x, beam_y, *angles = numbers
    if distance + thickness > working + 1e-6:
        raise InputError(
            f"detector.distance_mm {distance:g} + detector.thickness_mm {thickness:g} pass column.working_distance_mm "
            f"{working:g}: the plate sits below the pole piece, so make it thinner, lower it or raise the pole piece."
        )
    miss = float(np.hypot(off_x - beam_x, off_y - beam_y))
    if not miss < inner.min():
        raise InputError(
            f"beam and detector centre are {miss:g} mm apart but the hole has a radius of {inner.min():g} mm: the beam "
            "would hit the detector; check beam.position_*_mm and detector.offset_*_mm (millimetres)."
        )
    if not all(np.isfinite(a) and abs(a) < 80 for a in angles):
        raise InputError(
            f"a tilt among {[float(a) for a in angles]} deg is beyond 80: give degrees from the horizontal."
        )
