"""The microscope as records: beam, segments, detector plate, pole piece. Every number is an array leaf.

Frames. The optical axis is z, the specimen surface z = 0, the detector plate's lower face z = `distance_mm` above it.
Lateral positions are in image axes (x right, y down the rows), azimuths counter-clockwise as seen in the image.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, PerSegment, Scalar, as_real, concrete


def _number(**kwargs):
    return eqx.field(converter=as_real, **kwargs)


class Beam(eqx.Module):
    """The primary beam.

    - `energy_kev`: landing energy, keV: what an elastically backscattered electron leaves the specimen with.
    - `current_na`, `dwell_us`: beam current (nA) and time per pixel (us); together the dose.
    - `probe_fwhm_nm`: full width at half maximum of the probe, nm.
    - `position_x_mm`, `position_y_mm`: where the centre of the image lies relative to the optical axis, mm, image axes.
    """

    energy_kev: Scalar = _number()
    current_na: Scalar = _number(default=0.5)
    dwell_us: Scalar = _number(default=20.0)
    probe_fwhm_nm: Scalar = _number(default=1.0)
    position_x_mm: Scalar = _number(default=0.0)
    position_y_mm: Scalar = _number(default=0.0)


class Segments(eqx.Module):
    """The detector's active areas: one array entry per segment, all of shape `(segment,)`.

    Each is the part of the ring between two radii (mm, from the plate's centre) and two azimuths (deg, counter-clockwise
    from `start_deg` to `stop_deg`, at most 360 apart) that lies at least half of `gap_mm` away from either boundary ray:
    gaps between neighbours have parallel sides. `gain` and `pedestal` make the stored image from the signal:
    image = gain * (signal - pedestal), the pedestal in units of the signal (fraction of emitted electrons).
    `threshold_kev` is the energy below which the diode is blind, `bias_v` the potential of its surface.
    `rings` (static) numbers the segments by common radii; found from the radii when left out. It only steers how finely
    the renderer resolves partly hidden segments.
    """

    inner_radius_mm: PerSegment = _number()
    outer_radius_mm: PerSegment = _number()
    start_deg: PerSegment = _number()
    stop_deg: PerSegment = _number()
    gap_mm: PerSegment = _number()
    gain: PerSegment = _number()
    pedestal: PerSegment = _number()
    threshold_kev: PerSegment = _number()
    bias_v: PerSegment = _number()
    names: tuple[str, ...] = eqx.field(static=True)
    rings: tuple[int, ...] = eqx.field(static=True, default=())

    def __post_init__(self):
        if not self.rings:
            self.rings = _rings(self)

    @property
    def count(self) -> int:
        """Number of segments."""
        return len(self.names)


def _rings(segments: Segments) -> tuple[int, ...]:
    """Segments with equal radii share a number, inner rings first; all differ while the radii are traced."""
    inner, outer = concrete(segments.inner_radius_mm), concrete(segments.outer_radius_mm)
    if inner is None or outer is None or inner.shape != outer.shape:
        return tuple(range(segments.count))
    radii = list(zip(inner.ravel().tolist(), outer.ravel().tolist(), strict=True))
    distinct = sorted(set(radii))
    return tuple(distinct.index(pair) for pair in radii)


class Detector(eqx.Module):
    """A plate that carries the segments.

    - `distance_mm`: from the specimen to the plate's active face along the axis, mm.
    - `tilt_x_deg`, `tilt_y_deg`: rotation of the plate about the image's x and y axis through the plate's centre, deg;
      a positive `tilt_x_deg` lifts the lower half of the image's side (+y), a positive `tilt_y_deg` lifts the right (+x).
    - `offset_x_mm`, `offset_y_mm`: the plate's centre relative to the optical axis, mm, image axes.
    - `thickness_mm`: of the plate, mm (matters only to the field).
    """

    segments: Segments
    distance_mm: Scalar = _number()
    tilt_x_deg: Scalar = _number(default=0.0)
    tilt_y_deg: Scalar = _number(default=0.0)
    offset_x_mm: Scalar = _number(default=0.0)
    offset_y_mm: Scalar = _number(default=0.0)
    thickness_mm: Scalar = _number(default=1.0)


class Column(eqx.Module):
    """What else shapes the field: pole piece, specimen and chamber (all but the specimen grounded).

    - `working_distance_mm`: specimen to pole piece, mm.
    - `bore_radius_mm`, `pole_radius_mm`: the pole piece's bore and outer radius, mm.
    - `chamber_radius_mm`: of the grounded wall around it all, mm.
    - `specimen_bias_v`: potential of the specimen, V; negative speeds emitted electrons toward the detector.
    - `stage_tilt_x_deg`, `stage_tilt_y_deg`: tilt of the specimen's macroscopic plane as an electrode, deg, with the
      signs of the detector's. Where nothing is biased they have no effect: the height map already holds the tilt.
    """

    working_distance_mm: Scalar = _number()
    bore_radius_mm: Scalar = _number(default=1.0)
    pole_radius_mm: Scalar = _number(default=12.0)
    chamber_radius_mm: Scalar = _number(default=20.0)
    specimen_bias_v: Scalar = _number(default=0.0)
    stage_tilt_x_deg: Scalar = _number(default=0.0)
    stage_tilt_y_deg: Scalar = _number(default=0.0)


class Microscope(eqx.Module):
    """Everything about the instrument that the forward model needs. Gradient: exact in every number."""

    beam: Beam
    detector: Detector
    column: Column

    def __check_init__(self):
        check_microscope(self)

    @classmethod
    def annular(
        cls,
        segments: int = 4,
        inner_radius_mm: float = 1.0,
        outer_radius_mm: float = 5.0,
        distance_mm: float = 6.0,
        energy_kev: float = 10.0,
        start_deg: float | None = None,
        specimen_bias_v: float = 0.0,
        gap_mm: float = 0.0,
        working_distance_mm: float | None = None,
        **beam,
    ) -> Microscope:
        """A ring cut into `segments` equal sectors, counter-clockwise from `start_deg` (deg; by default half a sector
        before +x, so that the first segment faces right). Radii, gap and distances in mm, energy in keV, bias in V.
        Further keywords go to `Beam`. Gradient: exact.
        """
        if segments < 1:
            raise InputError(f"segments is {segments}: a detector has at least one.")
        span = 360.0 / segments
        first = -span / 2 if start_deg is None else start_deg
        per_segment = jnp.ones(segments)
        starts = first + span * jnp.arange(segments, dtype=per_segment.dtype)
        active = Segments(
            inner_radius_mm=inner_radius_mm * per_segment,
            outer_radius_mm=outer_radius_mm * per_segment,
            start_deg=starts,
            stop_deg=starts + span,
            gap_mm=gap_mm * per_segment,
            gain=per_segment,
            pedestal=0.0 * per_segment,
            threshold_kev=0.0 * per_segment,
            bias_v=0.0 * per_segment,
            rings=(0,) * segments,
            names=tuple(
                "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k] if segments <= 26 else f"S{k}" for k in range(segments)
            ),
        )
        plate = Detector(active, distance_mm=distance_mm)
        if working_distance_mm is None:
            working_distance_mm = plate.distance_mm + plate.thickness_mm + 0.5
        column = Column(working_distance_mm=working_distance_mm, specimen_bias_v=specimen_bias_v)
        return cls(Beam(energy_kev=energy_kev, **beam), plate, column)

    @property
    def is_biased(self) -> bool:
        """Whether any electrode is off ground, so that electrons fly in a field. True while tracing, when nobody can know."""
        volts = [concrete(self.column.specimen_bias_v), concrete(self.detector.segments.bias_v)]
        return any(v is None or bool(np.any(v != 0.0)) for v in volts)


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
    _check_segments(plate.segments)
    _check_clearances(scope)
    energy, bias = concrete(beam.energy_kev), concrete(column.specimen_bias_v)
    if energy is not None and bias is not None and bias >= 1e3 * energy:
        raise InputError(
            f"column.specimen_bias_v is {bias:g} V but the beam lands with beam.energy_kev = {energy:g} keV: no electron "
            "gets out; use a bias below the energy (negative speeds electrons toward the detector)."
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
            raise InputError(
                f"segments.{name} has shape {leaf.shape} for {count} segments: give one number each."
            )
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
                f"segment {name} has inner_radius_mm = {inner[k]:g} and outer_radius_mm = {outer[k]:g}: the inner radius "
                "must be positive and below the outer one."
            )
        if not 0 < span <= 360 + 1e-3:
            raise InputError(
                f"segment {name} runs from start_deg = {start[k]:g} to stop_deg = {stop[k]:g}: azimuths go "
                "counter-clockwise and span more than 0 and at most 360 degrees."
            )
        widest = 2 * inner[k] * np.sin(np.radians(min(span, 180) / 2))
        if not 0 <= gap[k] < widest:
            raise InputError(
                f"segment {name} has gap_mm = {gap[k]:g}: it must be at least 0 and below {widest:g} mm, where it would "
                "swallow the segment's inner edge."
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
                    f"segments {names[i]} ({start[i]:g} to {stop[i]:g} deg) and {names[j]} ({start[j]:g} to {stop[j]:g} deg) "
                    f"overlap by {overlap:g} deg at the same radii: change start_deg, stop_deg or the radii."
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
    if distance > working + 1e-6:
        raise InputError(
            f"detector.distance_mm is {distance:g} but column.working_distance_mm is {working:g}: the detector sits below "
            "the pole piece, so its distance is at most the working distance."
        )
    miss = float(np.hypot(off_x - beam_x, off_y - beam_y))
    if not miss < inner.min():
        raise InputError(
            f"beam and detector centre are {miss:g} mm apart but the hole has a radius of {inner.min():g} mm: the beam "
            "would hit the detector; check beam.position_*_mm and detector.offset_*_mm (millimetres)."
        )
    if not all(np.isfinite(a) and abs(a) < 80 for a in angles):
        raise InputError(
            f"a tilt among {[float(a) for a in angles]} deg is beyond 80 deg: give degrees from the horizontal."
        )
