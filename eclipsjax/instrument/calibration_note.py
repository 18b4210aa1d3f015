"""The section `calibration` of a microscope's file: how well its numbers are known, and what setting they hold for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.scope_file import CALIBRATION_KEY, Group, microscope_to_yaml, read_group, write_scope_text

_SETTINGS = {
    "contrast": ("contrast of each segment, as the microscope displays it", 1e-3),
    "brightness": ("brightness of each segment, as the microscope displays it", 1e-3),
    "energy_kev": ("landing energy, keV", 0.01),
    "working_distance_mm": ("working distance, mm", 0.01),
}


@dataclass(frozen=True)
class CalibrationNote:
    """What a calibration holds for.

    - `std`: standard deviation of each calibrated number, dotted name -> in the number's unit.
    - `settings`: contrast and brightness per segment, energy (keV), working distance (mm): those that are known.
    - `source`: what it was made from, in words.

    Gradient: none.
    """

    std: Mapping[str, float]
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    source: str = ""

    def differences(self, settings: Mapping[str, tuple[float, ...]]) -> list[str]:
        """Sentences on settings that are not those of the calibration. Gradient: none."""
        said = []
        for name, (_, tolerance) in _SETTINGS.items():
            here, there = settings.get(name), self.settings.get(name)
            if here is None or there is None or len(here) != len(there):
                continue
            if any(abs(a - b) > tolerance * max(abs(b), 1e-12) for a, b in zip(here, there, strict=True)):
                said.append(
                    f"the images were taken at {name} {_listed(here)}, the calibration at {_listed(there)}: gains and "
                    "pedestals do not hold across settings, so calibrate at that of the images."
                )
        return said


def save_calibrated(scope: Microscope, note: CalibrationNote, path: str | os.PathLike, force: bool = False) -> None:
    """Write `scope` with its calibration to `path`; an existing file is replaced only with `force`.

    `load_microscope` reads the microscope, `load_calibration` the note. Gradient: none.
    """
    lines = [
        "",
        f"{CALIBRATION_KEY}:",
        f"  source: {json.dumps(note.source or 'not told')}",
        "  settings:  # what gains and pedestals hold for",
    ]
    lines += [
        f"    {name}: [{', '.join(f'{v:.9g}' for v in note.settings[name])}]  # {meaning}"
        for name, (meaning, _) in _SETTINGS.items()
        if name in note.settings
    ]
    if len(lines) == 4:
        lines[-1] = "  settings: {}  # not known: nothing can warn of images from another setting"
    lines.append("  std:  # standard deviation of each calibrated number, in its unit")
    lines += [f"    {json.dumps(name)}: {value:.6g}" for name, value in note.std.items()]
    write_scope_text(microscope_to_yaml(scope) + "\n".join(lines) + "\n", path, force)


def load_calibration(path: str | os.PathLike) -> CalibrationNote | None:
    """The calibration in a microscope's file, None where it has none. Raises `InputError`. Gradient: none."""
    root = read_group(Path(path))
    if CALIBRATION_KEY not in root.nodes:
        return None
    group = root.group(CALIBRATION_KEY)
    group.check_keys(("source", "settings", "std"), ("std",))
    std = group.group("std")
    settings: Group | None = group.group("settings") if "settings" in group.nodes else None
    if settings is not None:
        settings.check_keys(tuple(_SETTINGS), ())
    return CalibrationNote(
        std={name: std.number(name) for name in std.nodes},
        settings={} if settings is None else {name: settings.numbers(name) for name in settings.nodes},
        source=group.text("source")[0] if "source" in group.nodes else "",
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)
