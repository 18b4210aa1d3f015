"""A page that a browser opens without a network: text, tables and pictures in one HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eclipsjax.instrument.microscope import Microscope

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c2430; }
body { background: #f4f5f7; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.7rem; margin: 8px 0 4px; }
h2 { font-size: 1.15rem; margin: 0 0 8px; }
p.lead { color: #47515e; margin: 0 0 20px; max-width: 70ch; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 18px 20px; margin: 0 0 18px; }
section p { margin: 0 0 12px; max-width: 80ch; }
figure { margin: 10px 0 0; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { font-size: 0.88rem; color: #47515e; margin-top: 6px; max-width: 90ch; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; margin: 6px 0 10px; }
th, td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid #e8ebef; vertical-align: top; }
th { color: #47515e; font-weight: 600; }
td.number, th.number { text-align: right; }
code, pre { font: 0.88rem ui-monospace, Menlo, Consolas, monospace; background: #f0f2f5; border-radius: 4px; }
code { padding: 1px 5px; }
pre { padding: 10px 12px; overflow-x: auto; }
footer { color: #6a7480; font-size: 0.85rem; }
@media (max-width: 640px) {
  main { padding: 12px 8px 40px; }
  section { padding: 12px 10px; }
  table { font-size: 0.68rem; }
  th, td { padding: 4px 6px 4px 0; }
  td:first-child { overflow-wrap: anywhere; min-width: 3.5em; }
}
"""


@dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that explains it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; columns whose index is in `numbers` are set flush right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Markup:
    """HTML that this package wrote itself. What a user typed must have been escaped before it gets in here."""

    html: str


Part = str | Picture | Table | Markup


@dataclass(frozen=True)
class Section:
    """A heading, and what stands under it: strings are paragraphs, the rest pictures, tables, markup, in order."""

    title: str
    parts: Sequence[Part]


def page(title: str, lead: str, sections: Sequence[Section], footer: str, style: str = "", script: str = "") -> str:
    """The HTML text of a whole page. Everything given is text, not markup: it is escaped.

    Except `Markup`, and `style` and `script`, which this package wrote: further CSS, and JavaScript run at the end.
    """
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escaped(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}{style}</style>\n</head>\n<body>\n<main>\n<h1>{escaped(title)}</h1>\n"
        f'<p class="lead">{escaped(lead)}</p>\n{body}\n<footer>{escaped(footer)}</footer>\n'
        f"</main>\n{_script(script)}</body>\n</html>\n"
    )


def _script(code: str) -> str:
    return f"<script>\n{code}</script>\n" if code else ""


def escaped(text: str) -> str:
    """Text as markup; halves of surrogate pairs (from file names that are not UTF-8) as the mark for the unreadable."""
    return html.escape(re.sub("[\ud800-\udfff]", "\ufffd", text))


def _section(section: Section) -> str:
    parts = "\n".join(part_html(part) for part in section.parts)
    return f"<section>\n<h2>{escaped(section.title)}</h2>\n{parts}\n</section>"


def part_html(part: Part) -> str:
    """One part of a section as HTML."""
    if isinstance(part, Markup):
        return part.html
    if isinstance(part, str):
        return f"<p>{escaped(part)}</p>"
    if isinstance(part, Picture):
        data, caption = base64.b64encode(part.png).decode("ascii"), escaped(part.caption)
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    rows = [_row("th", part.head, part.numbers), *(_row("td", row, part.numbers) for row in part.rows)]
    return '<div class="wide"><table>\n' + "\n".join(rows) + "\n</table></div>"


def _row(tag: str, cells: Sequence[str], numbers: Sequence[int]) -> str:
    marks = [' class="number"' if k in numbers else "" for k in range(len(cells))]
    return "<tr>" + "".join(f"<{tag}{m}>{escaped(c)}</{tag}>" for m, c in zip(marks, cells, strict=True)) + "</tr>"


def instrument_tables(scope: Microscope) -> list[Table]:
    """The instrument's numbers with units: beam, plate and column in one table, the segments in another."""
    beam, plate, column = scope.beam, scope.detector, scope.column
    numbers = [
        ("landing energy", beam.energy_kev, "keV"),
        ("beam current", beam.current_na, "nA"),
        ("time per pixel", beam.dwell_us, "µs"),
        ("probe, full width at half maximum", beam.probe_fwhm_nm, "nm"),
        ("beam position x, y", (beam.position_x_mm, beam.position_y_mm), "mm"),
        ("specimen to detector", plate.distance_mm, "mm"),
        ("detector tilt about x, y", (plate.tilt_x_deg, plate.tilt_y_deg), "deg"),
        ("detector offset x, y", (plate.offset_x_mm, plate.offset_y_mm), "mm"),
        ("plate thickness", plate.thickness_mm, "mm"),
        ("working distance", column.working_distance_mm, "mm"),
        ("pole piece, bore and outer radius", (column.bore_radius_mm, column.pole_radius_mm), "mm"),
        ("chamber radius", column.chamber_radius_mm, "mm"),
        ("specimen bias", column.specimen_bias_v, "V"),
        ("stage tilt about x, y", (column.stage_tilt_x_deg, column.stage_tilt_y_deg), "deg"),
    ]
    rows = [(name, _values(value), unit) for name, value, unit in numbers]
    s = plate.segments
    head = ("segment", "radii (mm)", "azimuths (deg)", "gap (mm)", "gain", "pedestal", "threshold (keV)", "bias (V)")
    each = [
        (
            name,
            f"{_number(s.inner_radius_mm[k])} to {_number(s.outer_radius_mm[k])}",
            f"{_number(s.start_deg[k])} to {_number(s.stop_deg[k])}",
            *(_number(v[k]) for v in (s.gap_mm, s.gain, s.pedestal, s.threshold_kev, s.bias_v)),
        )
        for k, name in enumerate(s.names)
    ]
    return [Table(("instrument", "value", "unit"), rows, (1,)), Table(head, each, tuple(range(1, len(head))))]


def _values(value: Any) -> str:
    return ", ".join(_number(v) for v in value) if isinstance(value, tuple) else _number(value)


def _number(value: Any) -> str:
    return f"{float(value):.6g}"
