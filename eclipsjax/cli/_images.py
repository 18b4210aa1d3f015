"""Segment images for the commands: matched to the microscope's segments, turned with the scan, hashed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError
from eclipsjax.cli._folder import sha256
from eclipsjax.instrument.calibration_note import CalibrationNote, load_calibration
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.scope_file import load_microscope
from eclipsjax.inverse.measurement import typical_counts
from eclipsjax.io.sem import SegmentImages, read_segments

_SAME_ENERGY, _SAME_DISTANCE = 0.01, 0.01
# Materials differ in brightness by less than this factor: images that differ more are in another unit.
_LIKELY_BRIGHTNESS = 5.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a command knows before it computes.

    - `set`: the images, in the order of the microscope's segments. `scope`: turned as the scan was.
    - `note`: the calibration in the microscope's file. `settings`: of the images. `warnings`: sentences.
    - `files`: name, segment, bytes, sha256 and pixel size of each file, for the page.
    """

    set: SegmentImages
    scope: Microscope
    note: CalibrationNote | None
    settings: dict[str, tuple[float, ...]]
    warnings: tuple[str, ...]
    files: tuple[dict[str, Any], ...]

    def counts_per_signal(self, tell: Callable[[str], None]) -> float | None:
        """Grey levels per signal; None where the microscope's gains hold them. `tell` gets a sentence on a guess."""
        if self.note is not None:
            return None
        told = self._counts_told()
        if told is not None:
            return told
        typical = float(typical_counts(self.set.images, self.scope))
        if max(typical, 1.0 / typical) < _LIKELY_BRIGHTNESS:
            return None
        tell(
            f"the microscope's gains hold no grey levels: {typical:.4g} of them are taken for a signal of 1, by which "
            "a typical pixel is as bright as level ground; calibrate it to know pedestals in this unit."
        )
        return typical

    def recorded(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """What `reconstruct` takes of it, by name."""
        from eclipsjax.imaging.camera import Camera

        return {
            "images": self.set.images,
            "pixel_size_nm": self.set.pixel_size_nm,
            "scope": self.scope,
            "camera": Camera(self.counts_per_signal(tell)),
            "grey_range": self.grey_range,
        }

    def _counts_told(self) -> float | None:
        """What eclipsjax wrote into the images when it simulated them."""
        told = {record.raw.get("counts_per_signal") for record in self.set.records}
        value = told.pop() if len(told) == 1 else None
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None

    @property
    def grey_range(self) -> tuple[float | None, float | None]:
        """Where the digitiser cuts off."""
        return self.set.lowest, self.set.highest


def read_measured(
    files: Sequence[Path], microscope: Path, pixel_size_nm: float | None, tell: Callable[[str], None]
) -> Measured:
    """Images and microscope, checked against each other; `tell` gets a sentence for every decision."""
    scope, note = load_microscope(microscope), load_calibration(microscope)
    found = in_scope_order(read_segments(files, pixel_size_nm), scope, tell)
    for record in found.records:
        if record.databar_rows:
            tell(f"{record.path}: data bar of {record.databar_rows} rows cut off below the image.")
    if found.scan_rotation_deg:
        tell(f"the scan was rotated by {found.scan_rotation_deg:.4g} deg: the detector is turned against the image.")
        scope = scope.turned(found.scan_rotation_deg)
    settings = _settings(found)
    warnings = [*_disagreements(found, scope), *([] if note is None else note.differences(settings))]
    return Measured(found, scope, note, settings, tuple(warnings), tuple(_described(found)))


def in_scope_order(found: SegmentImages, scope: Microscope, tell: Callable[[str], None]) -> SegmentImages:
    """The images by the microscope's order of segments; `InputError` where their names are not its segments'."""
    names = scope.detector.segments.names
    if len(found.names) != len(names):
        raise InputError(
            f"there are {len(found.names)} images ({', '.join(found.names)}) but the microscope has {len(names)} "
            f"segments ({', '.join(names)}): give one image for each, or another microscope's file."
        )
    if set(found.names) == set(names):
        order = [found.names.index(name) for name in names]
        if order != sorted(order):
            tell(f"images put into the microscope's order of segments: {', '.join(names)}.")
        return dataclasses.replace(
            found, images=found.images[order], names=names, records=tuple(found.records[k] for k in order)
        )
    if any(record.segment for record in found.records):
        raise InputError(
            f"the files are of segments {', '.join(found.names)}, the microscope has {', '.join(names)}: rename the "
            "segments in the microscope's file, or give the file of the microscope that took these images."
        )
    pairs = ", ".join(f"{a} is {b}" for a, b in zip(found.names, names, strict=True))
    tell(f"the files do not name their segments; taken in the order given: {pairs}.")
    return dataclasses.replace(found, names=names)


def _settings(found: SegmentImages) -> dict[str, tuple[float, ...]]:
    records, settings = found.records, {}
    for name in ("contrast", "brightness"):
        values = tuple(getattr(record, name) for record in records)
        if all(value is not None for value in values):
            settings[name] = values
    for name in ("energy_kev", "working_distance_mm"):
        value = getattr(records[0], name)
        if value is not None:
            settings[name] = (value,)
    return settings


def _disagreements(found: SegmentImages, scope: Microscope) -> list[str]:
    """Sentences on what the files say otherwise than the microscope's file."""
    record, said = found.records[0], []
    energy, distance = float(scope.beam.energy_kev), float(scope.column.working_distance_mm)
    if record.energy_kev is not None and abs(record.energy_kev - energy) > _SAME_ENERGY * energy:
        said.append(
            f"the images were taken at {record.energy_kev:.4g} kV but the microscope's file says {energy:.4g} keV: "
            "correct beam.energy_kev, unless the specimen was biased."
        )
    told = record.working_distance_mm
    if told is not None and abs(told - distance) > _SAME_DISTANCE * distance:
        said.append(
            f"the images were taken at a working distance of {told:.4g} mm but the microscope's file says "
            f"{distance:.4g} mm: correct column.working_distance_mm, and detector.distance_mm with it."
        )
    return said


def _described(found: SegmentImages) -> list[dict[str, Any]]:
    described = []
    for record, name in zip(found.records, found.names, strict=True):
        described.append(
            {
                "name": record.path.name,
                "segment": name,
                "bytes": record.path.stat().st_size,
                "sha256": sha256(record.path),
                "pixel_size_nm": found.pixel_size_nm,
            }
        )
    return described


def solved_along(pairs: Sequence[str]) -> dict[str, float]:
    """`NAME=STD` of the command line as numbers of the microscope and their standard deviations."""
    solved = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not equals or not (np.isfinite(value) and value > 0):
            raise InputError(
                f"--solve {pair} is not NAME=STD: give a number of the microscope and how well it is known, such as "
                "detector.segments.pedestal=0.01."
            )
        solved[name.strip()] = value
    return solved
