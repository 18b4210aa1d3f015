"""Whether the numbers of a microscope can belong to one: every refusal names the field, the value and the way out."""

from __future__ import annotations

import itertools
from operator import attrgetter
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, concrete
from eclipsjax.instrument.clearances import check_clearances

if TYPE_CHECKING:
    from eclipsjax.instrument.microscope import Microscope, Segments


# Positive numbers, and between which values an electron microscope has them: beyond, a unit was mistaken.
_POSITIVE = {
    "beam.energy_kev": (0.01, 400.0),
    "beam.current_na": (1e-7, 1e5),
    "beam.dwell_us": (1e-4, 1e9),
    "detector.distance_mm": (1e-3, 1e3),
    "detector.thickness_mm": (1e-4, 1e3),
    "column.working_distance_mm": (1e-3, 1e3),
    "column.bore_radius_mm": (1e-4, 1e3),
    "column.pole_radius_mm": (1e-3, 1e4),
    "column.chamber_radius_mm": (1e-3, 1e4),
}
_FINITE = (
    "beam.position_x_mm",
    "beam.position_y_mm",
    "detector.offset_x_mm",
    "detector.offset_y_mm",
    "column.specimen_bias_v",
)
_TILTS = ("detector.tilt_x_deg", "detector.tilt_y_deg", "column.stage_tilt_x_deg", "column.stage_tilt_y_deg")
_WIDEST_PROBE_NM, _HIGHEST_V = 1e6, 1e5
# Rims nearer than this (deg, share of a radius) touch.
_TOUCHING = 1e-3


def check_microscope(scope: Microscope) -> None:
    """Raise `InputError` where the numbers cannot belong to a microscope (what is being traced is skipped)."""
    _check_scalars(scope)
    _check_segments(scope.detector.segments)
    check_clearances(scope)
    _check_energies(scope)


def _check_scalars(scope: Microscope) -> None:
    probe = "beam.probe_fwhm_nm"
    for name in (*_POSITIVE, *_FINITE, *_TILTS, probe):
        shape = jnp.shape(attrgetter(name)(scope))
        if shape != ():
            raise InputError(f"{name} has shape {shape}: give one number (jax.vmap serves many microscopes).")
    for name, (least, most) in _POSITIVE.items():
        value = concrete(attrgetter(name)(scope))
        if value is None:
            continue
        if not (np.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}: give a positive number.")
        if not least <= value <= most:
            raise InputError(f"{name} is {value:g}, which no electron microscope has: check its unit.")
    for name in _FINITE:
        value = concrete(attrgetter(name)(scope))
        if value is not None and not np.isfinite(value):
            raise InputError(f"{name} is {value}: give a finite number.")
    width = concrete(attrgetter(probe)(scope))
    if width is not None and not 0 <= width <= _WIDEST_PROBE_NM:
        raise InputError(f"{probe} is {width}: give the probe's width in nanometres, 0 for none.")


def _check_energies(scope: Microscope) -> None:
    """Electrons must get out of the specimen, and some of them through to some diode."""
    segments = scope.detector.segments
    leaves = (scope.beam.energy_kev, scope.column.specimen_bias_v, segments.bias_v, segments.threshold_kev)
    energy, bias, segment_bias, threshold = (concrete(leaf) for leaf in leaves)
    for name, volts in (("column.specimen_bias_v", bias), ("segments.bias_v", segment_bias)):
        if volts is not None and (abs(volts) > _HIGHEST_V).any():
            worst = volts.flat[abs(volts).argmax()]
            raise InputError(f"{name} is {worst:g}, which no electron microscope has: check its unit (volts).")
    if energy is None or bias is None:
        return
    if bias >= 1e3 * energy:
        raise InputError(
            f"column.specimen_bias_v is {bias:g} V but the beam lands with beam.energy_kev = {energy:g} keV: no "
            "electron gets out; use a bias below the energy (negative speeds electrons toward the detector)."
        )
    if segment_bias is None or threshold is None:
        return
    arriving = energy + 1e-3 * (segment_bias - bias)
    if (arriving <= 0).all():
        raise InputError(
            f"segments.bias_v is {segment_bias.max():g} V at most, which turns electrons of beam.energy_kev = "
            f"{energy:g} keV away from every segment: bring it nearer to 0."
        )
    if (arriving <= threshold).all():
        raise InputError(
            f"segments.threshold_kev is {threshold.min():g} at least but electrons arrive with {arriving.max():g} keV "
            "at most: every segment is blind; lower the threshold or raise beam.energy_kev."
        )


def _check_segments(segments: Segments) -> None:
    fields = (
        "inner_radius_mm",
        "outer_radius_mm",
        "start_deg",
        "stop_deg",
        "gap_mm",
        "gain",
        "pedestal",
        "threshold_kev",
        "bias_v",
    )
    count = segments.count
    if count < 1:
        raise InputError("detector.segments is empty: a detector has at least one segment.")
    _check_names(segments)
    for name in fields:
        leaf = getattr(segments, name)
        if leaf.shape != (count,):
            raise InputError(f"segments.{name} has shape {leaf.shape} for {count} segments: give one number each.")
    values = {name: concrete(getattr(segments, name)) for name in fields}
    for name, v in values.items():
        if v is not None and not np.isfinite(v).all():
            raise InputError(f"segments.{name} is {v}: give finite numbers.")
    _check_response(segments.names, values["gain"], values["threshold_kev"])
    if all(values[name] is not None for name in fields[:5]):
        _check_outlines(segments.names, *(values[name] for name in fields[:5]))
        _check_overlap(segments)


def _check_response(names, gain, threshold_kev) -> None:
    for k, name in enumerate(names):
        if gain is not None and gain[k] <= 0:
            raise InputError(f"segment {name} has gain = {gain[k]:g}: give a positive number or leave it out.")
        if threshold_kev is not None and threshold_kev[k] < 0:
            raise InputError(f"segment {name} has threshold_kev = {threshold_kev[k]:g}: it cannot be negative.")


def _check_outlines(names, inner, outer, start, stop, gap) -> None:
    for k, name in enumerate(names):
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


def _check_names(segments: Segments) -> None:
    for k, name in enumerate(segments.names):
        if not isinstance(name, str) or name in segments.names[:k]:
            raise InputError(f"segments.names is {segments.names}: give every segment a name (text) of its own.")
    if len(segments.rings) != segments.count:
        raise InputError(
            f"segments.rings is {segments.rings} for {segments.count} segments: give one number each, or leave it out."
        )


def overlaps(segments: Segments) -> list[tuple[int, int, float]]:
    """Every two segments at the same radii of which the first runs into the second, and by how much, deg.

    Gradient: none.
    """
    inner, outer = np.asarray(segments.inner_radius_mm), np.asarray(segments.outer_radius_mm)
    start, stop = np.asarray(segments.start_deg), np.asarray(segments.stop_deg)
    found = []
    for i, j in itertools.permutations(range(segments.count), 2):
        if min(outer[i], outer[j]) - max(inner[i], inner[j]) > _TOUCHING * outer[i]:
            overlap = float(stop[i] - start[i] - (start[j] - start[i]) % 360.0)
            if overlap > _TOUCHING:
                found.append((i, j, overlap))
    return found


def _check_overlap(segments: Segments) -> None:
    found = overlaps(segments)
    if not found:
        return
    *pair, overlap = found[0]
    one, other = (
        f"{segments.names[k]} ({float(segments.start_deg[k]):g} to {float(segments.stop_deg[k]):g} deg)"
        for k in sorted(pair)
    )
    raise InputError(
        f"segments {one} and {other} overlap by {overlap:g} deg at the same radii: change the azimuths or the radii."
    )
