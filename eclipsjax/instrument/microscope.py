"""The microscope as records: beam, segments, detector plate, pole piece. Every number is an array leaf.

Frames. The optical axis is z, the specimen surface z = 0, the detector plate's lower face z = `distance_mm` above it.
Lateral positions are in image axes (x right, y down the rows), azimuths counter-clockwise as seen in the image.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, Number, PerSegment, Scalar, as_real, concrete, whole_number
from eclipsjax.instrument.plausible import check_microscope


def _number(**kwargs):
    return eqx.field(converter=as_real, **kwargs)


# Two slopes and the brightness of a pixel are told apart by so many.
LEAST_SEGMENTS = 3


class Beam(eqx.Module):
    """The primary beam.

    - `energy_kev`: landing energy, keV: what an elastically backscattered electron leaves the specimen with.
    - `current_na`, `dwell_us`: beam current (nA) and time per pixel (us); together the dose.
    - `probe_fwhm_nm`: full width at half maximum of the probe, nm.
    - `position_x_mm`, `position_y_mm`: where the centre of the image lies relative to the optical axis, mm, image axes.

    Gradient: exact in every number.
    """

    energy_kev: Scalar = _number()
    current_na: Scalar = _number(default=0.5)
    dwell_us: Scalar = _number(default=20.0)
    probe_fwhm_nm: Scalar = _number(default=1.0)
    position_x_mm: Scalar = _number(default=0.0)
    position_y_mm: Scalar = _number(default=0.0)


class Segments(eqx.Module):
    """The detector's active areas: one array entry per segment, all of shape `(segment,)`.

    Each is the part of the ring between two radii (mm, from the plate's centre) and two azimuths (deg,
    counter-clockwise from `start_deg` to `stop_deg`, at most 360 apart) that lies at least half of `gap_mm` away from
    either boundary ray: gaps between neighbours have parallel sides. `gain` and `pedestal` make the stored image from
    the signal: image = gain * (signal - pedestal), the pedestal in units of the signal (fraction of emitted electrons).
    `bias_v` is the potential of the segment's surface.
    `threshold_kev` is the energy below which the diode is blind. Above it a diode responds in proportion to the energy
    left, and the signal counts every emitted electron by that response: electrons below the threshold count neither
    as emitted nor as collected, so a threshold changes which electrons the signal is about (with a `Spectrum` of more
    than one energy), not its size. The brightness that it costs belongs to `gain`, the counts to the camera's
    `detective_efficiency`. A segment that nothing can pass has the signal 0.
    `rings` (static) numbers the segments by common radii; found from the radii when left out. It only steers how finely
    the renderer resolves partly hidden segments.

    Gradient: exact in every number, in the thresholds except where an energy of the spectrum meets one.
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
      a positive `tilt_x_deg` lifts the lower half of the image's side (+y), a positive `tilt_y_deg` lifts the right
      (+x).
    - `offset_x_mm`, `offset_y_mm`: the plate's centre relative to the optical axis, mm, image axes.
    - `thickness_mm`: of the plate, mm (matters only to the field).

    Gradient: exact in every number.
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

    Gradient: exact in every number, through the field.
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
        inner_radius_mm: Number = 1.0,
        outer_radius_mm: Number = 5.0,
        distance_mm: Number = 6.0,
        energy_kev: Number = 10.0,
        start_deg: Number | None = None,
        specimen_bias_v: Number = 0.0,
        gap_mm: Number = 0.0,
        working_distance_mm: Number | None = None,
        **beam,
    ) -> Microscope:
        """A ring cut into `segments` equal sectors, counter-clockwise from `start_deg` (deg; by default half a sector
        before +x, so that the first segment faces right). Radii, gap and distances in mm, energy in keV, bias in V.
        Further keywords go to `Beam`. Gradient: exact.
        """
        segments = _check_annular(segments, beam)
        inner, outer, gap = (
            _one_number(name, value)
            for name, value in (
                ("inner_radius_mm", inner_radius_mm),
                ("outer_radius_mm", outer_radius_mm),
                ("gap_mm", gap_mm),
            )
        )
        span = 360.0 / segments
        first = _one_number("start_deg", -span / 2 if start_deg is None else start_deg)
        per_segment = jnp.ones(segments)
        starts = first + span * jnp.arange(segments, dtype=per_segment.dtype)
        active = Segments(
            inner_radius_mm=inner * per_segment,
            outer_radius_mm=outer * per_segment,
            start_deg=starts,
            stop_deg=starts + span,
            gap_mm=gap * per_segment,
            gain=per_segment,
            pedestal=0.0 * per_segment,
            threshold_kev=0.0 * per_segment,
            bias_v=0.0 * per_segment,
            rings=(0,) * segments,
            names=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[k] if segments <= 26 else f"S{k}" for k in range(segments)),
        )
        plate = Detector(active, distance_mm=_one_number("distance_mm", distance_mm))
        if working_distance_mm is None:
            working_distance_mm = plate.distance_mm + plate.thickness_mm + 0.5
        column = Column(
            working_distance_mm=_one_number("working_distance_mm", working_distance_mm),
            specimen_bias_v=_one_number("specimen_bias_v", specimen_bias_v),
        )
        beam = {name: _one_number(name, value) for name, value in ({"energy_kev": energy_kev} | beam).items()}
        return cls(Beam(**beam), plate, column)

    def save(self, path, force: bool = False) -> None:
        """Write the microscope to the YAML file `path`, every number with its unit; `load_microscope` reads it back.

        An existing file is replaced only with `force`. Gradient: none (a file holds plain numbers).
        """
        from eclipsjax.instrument.scope_file import save_microscope

        save_microscope(self, path, force)

    def turned(self, scan_rotation_deg: Number) -> Microscope:
        """This microscope in the axes of an image scanned with `scan_rotation_deg` (deg). Gradient: exact."""
        from eclipsjax.instrument.turned import turned

        return turned(self, scan_rotation_deg)

    @property
    def is_biased(self) -> bool:
        """Whether an electrode is off ground and electrons fly in a field; True while tracing, when nobody can know."""
        volts = [concrete(self.column.specimen_bias_v), concrete(self.detector.segments.bias_v)]
        return any(v is None or bool(np.any(v != 0.0)) for v in volts)


def _check_annular(segments: int, beam: dict) -> int:
    """The number of segments, if it is one and the further keywords are the beam's."""
    known = [field.name for field in dataclasses.fields(Beam) if field.name != "energy_kev"]
    for name in beam:
        if name not in known:
            raise InputError(f"annular has no keyword {name}: those of the beam are {', '.join(known)}.")
    if isinstance(segments, int) and segments < 1:
        raise InputError(f"segments is {segments}: a detector has at least one.")
    return whole_number("segments", segments, 1)


def _one_number(name: str, value: Number) -> Scalar:
    number = as_real(value, name)
    if number.ndim != 0:
        raise InputError(f"{name} has shape {number.shape}: give one number (jax.vmap serves many microscopes).")
    return number
