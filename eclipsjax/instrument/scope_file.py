"""A microscope as a YAML file that a person writes: every key has its unit, every mistake its line number."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from eclipsjax._types import InputError, as_real, concrete
from eclipsjax.instrument.microscope import Beam, Column, Detector, Microscope, Segments
from eclipsjax.instrument.parted import parted

HEADER_KEY, HEADER_VALUE = "eclipsjax", "microscope 1"
# An optional section, written and read by `calibration_note`.
CALIBRATION_KEY = "calibration"

# What stands behind each key in a written file.
_NOTES = {
    "beam": {
        "energy_kev": "landing energy of the primary electrons, keV",
        "current_na": "beam current, nA",
        "dwell_us": "time per pixel, microseconds",
        "probe_fwhm_nm": "full width at half maximum of the probe, nm",
        "position_x_mm": "centre of the image relative to the optical axis, mm to the right",
        "position_y_mm": "the same, mm down the image",
    },
    "detector": {
        "distance_mm": "specimen to the active face along the axis, mm",
        "tilt_x_deg": "plate turned about the image's x axis, deg; positive lifts the lower side",
        "tilt_y_deg": "plate turned about the image's y axis, deg; positive lifts the right side",
        "offset_x_mm": "plate centre relative to the optical axis, mm to the right",
        "offset_y_mm": "the same, mm down the image",
        "thickness_mm": "of the plate, mm; it must fit below the pole piece",
    },
    "segments": {
        "inner_radius_mm": "from the plate's centre, mm",
        "outer_radius_mm": "from the plate's centre, mm",
        "start_deg": "first azimuth, deg, counter-clockwise from the image's right",
        "stop_deg": "last azimuth, deg, above start_deg by at most 360",
        "gap_mm": "width of the insensitive gap to a neighbour, mm",
        "gain": "image = gain * (signal - pedestal)",
        "pedestal": "in units of the signal (fraction of the emitted electrons)",
        "threshold_kev": "energy below which the diode is blind, keV",
        "bias_v": "potential of the segment's surface, V",
    },
    "column": {
        "working_distance_mm": "specimen to pole piece, mm",
        "bore_radius_mm": "of the pole piece, mm",
        "pole_radius_mm": "outer radius of the pole piece, mm",
        "chamber_radius_mm": "of the grounded wall around it all, mm",
        "specimen_bias_v": "potential of the specimen, V; negative speeds electrons toward the detector",
        "stage_tilt_x_deg": "specimen plane turned about the image's x axis, deg (matters only to the field)",
        "stage_tilt_y_deg": "specimen plane turned about the image's y axis, deg (matters only to the field)",
    },
}
_SEGMENT_DEFAULTS = {"gap_mm": 0.0, "gain": 1.0, "pedestal": 0.0, "threshold_kev": 0.0, "bias_v": 0.0}
_UNITS = {
    "nm": "nanometres", "um": "micrometres", "mm": "millimetres", "cm": "centimetres", "m": "metres",
    "ev": "electronvolts", "kev": "kiloelectronvolts", "v": "volts", "mv": "millivolts", "kv": "kilovolts",
    "pa": "picoamperes", "na": "nanoamperes", "ua": "microamperes", "a": "amperes",
    "ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds",
    "deg": "degrees", "rad": "radians", "mrad": "milliradians",
}  # fmt: skip


def load_microscope(path: str | os.PathLike) -> Microscope:
    """The microscope that the YAML file `path` describes. Raises `InputError` with file, line and remedy.

    Gradient: none (a file holds plain numbers); with respect to what was read, as everywhere.
    """
    path = Path(path)
    return microscope_from_yaml(_read_text(path), name=str(path))


def read_group(path: Path) -> Group:
    """The whole file as one group of keys. Raises `InputError`."""
    return Group(_parse(_read_text(path), str(path)), str(path), "")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: write one with save_microscope(scope, path).") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a microscope's YAML text: {error}.") from None


def save_microscope(scope: Microscope, path: str | os.PathLike, force: bool = False) -> None:
    """Write `scope` to `path` as commented YAML; an existing file is replaced only with `force`.

    Gradient: none (a file holds plain numbers).
    """
    write_scope_text(microscope_to_yaml(scope), path, force)


def write_scope_text(text: str, path: str | os.PathLike, force: bool) -> None:
    """Write a microscope's file; an existing one is replaced only with `force`."""
    path = Path(path)
    if path.exists() and not force:
        raise InputError(f"{path} already exists: choose another name or allow overwriting with force.")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


def microscope_to_yaml(scope: Microscope) -> str:
    """The file's text: every number to its full precision, units and meanings as comments.

    Rims that were fitted into each other are written where they meet halfway, with a comment that says so.
    """
    scope, said = parted(scope)
    plate, segments = scope.detector, scope.detector.segments
    lines = [
        "# A scanning electron microscope with a segmented backscattered-electron detector.",
        "# x runs right and y down in the image; azimuths run counter-clockwise from the image's right.",
        f"{HEADER_KEY}: {HEADER_VALUE}",
        "",
        *_section_lines("beam", scope.beam),
        "",
        *_section_lines("detector", plate),
        "  segments:",
        *(f"  # {sentence}" for sentence in said),
    ]
    for k, name in enumerate(segments.names):
        quoted = yaml.safe_dump(name, default_style='"', allow_unicode=True, width=math.inf).strip()
        lines.append(f"    - name: {quoted}")
        for key, note in _NOTES["segments"].items():
            pair = f"      {key}: {_number_text(getattr(segments, key)[k])}"
            lines.append(f"{pair:<35} # {note}" if k == 0 else pair)
    lines += ["", *_section_lines("column", scope.column)]
    return "\n".join(lines) + "\n"


def _section_lines(section: str, record: Any) -> list[str]:
    pairs = {key: f"  {key}: {_number_text(getattr(record, key))}" for key in _NOTES[section]}
    return [f"{section}:", *(f"{pair:<31} # {_NOTES[section][key]}" for key, pair in pairs.items())]


def _number_text(leaf: Any) -> str:
    value = concrete(leaf)
    if value is None:
        raise InputError("a microscope cannot be written while JAX traces it: its numbers are not known yet.")
    # Adding 0 makes a plain 0 of -0.0.
    value, size = value + np.zeros_like(value), abs(float(value))
    if size == 0 or 1e-4 <= size < 1e7:
        return np.format_float_positional(value[()], unique=True, trim="0")
    return np.format_float_scientific(value[()], unique=True, trim="0")


def microscope_from_yaml(text: str, name: str = "the microscope's YAML text") -> Microscope:
    """The microscope that `text` describes; `name` stands for it in error messages. Raises `InputError`."""
    root = Group(_parse(text, name), name, "")
    required = (HEADER_KEY, "beam", "detector", "column")
    root.check_keys((*required, CALIBRATION_KEY), required)
    header, line = root.text(HEADER_KEY)
    if header != HEADER_VALUE:
        raise InputError(f"{name}, line {line}: '{HEADER_KEY}: {header}' is not '{HEADER_KEY}: {HEADER_VALUE}'.")
    detector = root.group("detector")
    required = {key for key, field in _fields(Detector).items() if field.default is dataclasses.MISSING}
    detector.check_keys(
        (*_NOTES["detector"], "segments"),
        (key for key in (*_NOTES["detector"], "segments") if key in required),
    )
    segments = _segments(detector)
    beam, column = _record_of(Beam, root.group("beam")), _record_of(Column, root.group("column"))
    plate = {key: detector.number(key) for key in _NOTES["detector"] if key in detector.nodes}
    try:
        return Microscope(beam, Detector(segments, **plate), column)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _fields(record: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(record)}


def _record_of(record: type, group: Group) -> Any:
    fields = _fields(record)
    group.check_keys(tuple(fields), (k for k, f in fields.items() if f.default is dataclasses.MISSING))
    return record(**{key: group.number(key) for key in fields if key in group.nodes})


def _segments(detector: Group) -> Segments:
    keys = tuple(_NOTES["segments"])
    rows: list[dict[str, float]] = []
    names: dict[str, int] = {}
    for group in detector.groups("segments"):
        group.check_keys(("name", *keys), ("name", *(key for key in keys if key not in _SEGMENT_DEFAULTS)))
        label, line = group.text("name")
        if label in names:
            raise InputError(
                f"{detector.file}, line {line}: name {label!r} is taken in line {names[label]}: rename one."
            )
        names[label] = line
        if "gain" in group.nodes and not (gain := group.number("gain")) > 0:
            raise InputError(
                f"{group.file}, line {group.lines['gain']}: {group.at('gain')} is {gain:g}: give a positive number; "
                "1 leaves the signal as it is."
            )
        rows.append({key: group.number(key) if key in group.nodes else _SEGMENT_DEFAULTS[key] for key in keys})
    return Segments(**{key: as_real(np.array([row[key] for row in rows])) for key in keys}, names=tuple(names))


def _parse(text: str, name: str) -> yaml.Node:
    try:
        # `compose` builds no Python objects: only marks, tags and text.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{name}{line}: this is not YAML ({error.problem or error.context}).") from None
    except yaml.YAMLError as error:
        raise InputError(f"{name}: this is not YAML ({' '.join(str(error).split())}).") from None
    except RecursionError:
        raise InputError(
            f"{name}: its brackets are nested too deeply: a microscope's file has sections and plain numbers."
        ) from None
    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"{name}: a microscope's file starts with the line '{HEADER_KEY}: {HEADER_VALUE}', then sections."
        )
    return node


class Group:
    """One mapping of the file: its values by key, and where they stand."""

    def __init__(self, node: yaml.Node, file: str, path: str):
        self.file, self.path, self.line = file, path, node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{file}, line {self.line}: {path} is not a group of 'key: value' lines.")
        self.nodes: dict[str, yaml.Node] = {}
        self.lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            word = key.value if isinstance(key, yaml.ScalarNode) else str(key.tag)
            if word in self.nodes:
                raise InputError(
                    f"{file}, line {line}: {self.at(word)} is given twice, first in line {self.lines[word]}."
                )
            self.nodes[word], self.lines[word] = value, line

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def check_keys(self, allowed, required) -> None:
        for key, line in self.lines.items():
            if key not in allowed:
                raise InputError(f"{self.file}, line {line}: {self._remedy(key, tuple(allowed))}")
        for key in required:
            if key not in self.nodes:
                where = f"in the group that starts in line {self.line}" if self.path else "in the file"
                raise InputError(f"{self.file}: {self.at(key)} is missing {where}: add it{_unit_hint(key)}.")

    def _remedy(self, key: str, allowed: tuple[str, ...]) -> str:
        """What to write instead of an unknown key: the right unit, the right section, or the nearest word."""
        stem, _, unit = key.rpartition("_")
        for known in allowed:
            base, _, wanted = known.rpartition("_")
            if wanted not in _UNITS:
                continue
            if stem == base and unit.lower() in _UNITS:
                wrong = f"{self.at(key)} is in {_UNITS[unit.lower()]}, but {_UNITS[wanted]} are expected"
                return f"{wrong}: convert and write {known}."
            if key == base:
                return f"{self.at(key)} does not say its unit: write {known}, in {_UNITS[wanted]}."
        homes = [section for section, notes in _NOTES.items() if key in notes]
        if homes:
            home = "each of detector.segments" if homes[0] == "segments" else homes[0]
            return f"{self.at(key)} is unknown here: {key} belongs in {home}."
        near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0)
        return f"{self.at(key)} is unknown; the nearest valid key is {near[0]}."

    def _scalar(self, key: str, kind: str) -> yaml.ScalarNode:
        node = self.nodes[key]
        if not isinstance(node, yaml.ScalarNode):
            raise InputError(
                f"{self.file}, line {self.lines[key]}: {self.at(key)} must be {kind}, not a group or list."
            )
        return node

    def number(self, key: str) -> float:
        return self._plain(key, self._scalar(key, "one number"))

    def numbers(self, key: str) -> tuple[float, ...]:
        """One number, or a list of them."""
        node = self.nodes[key]
        if not isinstance(node, yaml.SequenceNode):
            return (self.number(key),)
        return tuple(self._plain(key, item) for item in node.value)

    def _plain(self, key: str, node: yaml.Node) -> float:
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        try:
            value = float(node.value if plain else "quoted")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            mark = getattr(node, "style", "") or ""
            shown = f"{mark}{node.value}{mark}" if mark in ("'", '"', "") else node.value
            raise InputError(
                f"{self.file}, line {self.lines[key]}: {self.at(key)} is {shown or 'empty'}: give a plain number"
                f"{_unit_hint(key)}."
            )
        return value

    def text(self, key: str) -> tuple[str, int]:
        node = self._scalar(key, "one word")
        if not node.value:
            raise InputError(f"{self.file}, line {self.lines[key]}: {self.at(key)} is empty: give it a word.")
        return node.value, self.lines[key]

    def group(self, key: str) -> Group:
        return Group(self.nodes[key], self.file, self.at(key))

    def groups(self, key: str) -> list[Group]:
        node = self.nodes[key]
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            raise InputError(
                f"{self.file}, line {self.lines[key]}: {self.at(key)} must be a list of segments, "
                "each beginning with '- name: ...'."
            )
        return [Group(item, self.file, f"{self.at(key)}[{k}]") for k, item in enumerate(node.value)]


def _unit_hint(key: str) -> str:
    unit = key.rpartition("_")[2]
    return f", in {_UNITS[unit]}" if unit in _UNITS else ""
