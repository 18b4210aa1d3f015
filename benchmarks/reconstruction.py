"""Which way from images to heights is nearest to the truth? Heights, normals, steps and facets, method by method.

    python benchmarks/reconstruction.py [--size 128] [--scenes islands pits] [--resume cells.jsonl] [--quick]

Writes benchmarks/results/reconstruction.md (reconstruction_<backend>.md on an accelerator). Methods see the images, the
pixel size, the microscope as its owner believes it to be, and the camera. `--resume` keeps finished cells in a file of
JSON lines and takes those it holds as done (remove it when the package changes); `--quick` checks the benchmark itself
on three scenes and writes nothing.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _kept import kept_or_made, options  # noqa: E402
from _machine import header, write_results  # noqa: E402
from _scenes import CONDITIONS, SCENES, Condition  # noqa: E402
from _scores import SEED, bound_row, cell  # noqa: E402
from _verdict import MORE_DRAWN, Cells, bars, bound_table, draws_table, full_table, missed, ratios, summary  # noqa: E402

MIDDLE = Condition(30.0, True, 4)
BOUND_SCENES = ("step bunch", "rough", "nearly flat", "pits", "islands", "particles")
BOUND_SEEDS = range(5)
MORE_DRAWS = range(SEED + 1, SEED + 7)
QUICK_SCENES, QUICK_CONDITIONS = ("step bunch", "islands", "particles"), (MIDDLE, Condition(30.0, False, 3))
NOTES = """\
- closed form + Frankot: each pixel by itself, then Frankot and Chellappa's integration (Fourier modes).
- closed form + Poisson: the same slopes by least squares in cosine modes. This is `ej.Photometric()`.
- singular vectors: the way of sem2surface 0.2.2, written anew from its description. It knows nothing of the microscope,
  so it was **told** the truth's best scale (and sign) and the truth's own parabola, tilt included, none of which it
  measures. Its axes are those of least curl, not of the least Radon transform, which is far off on images this small.
  Its heights are compared with Refined's told the same ("told %": parabola removed, best factor); its other figures
  are shown but not compared.
- formula: NFH-SEM's forward formula (arXiv 2508.04728), calibrated on rendered planes of the nominal microscope, in
  place of a simulator: its levels are fitted to the images, from closed form + Poisson on. One view and a height map
  here, several views and a neural field there. "masked": what deviates by more than 3 standard deviations is taken for
  shadow and left out, estimated anew three times.
- Refined: `ej.Refined()`, through the exact simulator; in perturbed cells told the standard deviations of gains,
  pedestals, distance and offset (not of the azimuths), and, as ever, that specimens lie level within 4 deg. Frankot and
  Chellappa's heights have no mean slope at all: right to the last digit on scenes without one, whatever the gains.
- Supervised, ClosedLoop: `ej.Supervised()`, `ej.ClosedLoop()`, told nothing of what is not known of the microscope.
  "ClosedLoop, then Refined": `ej.ClosedLoop(then=...)` with Refined as above.
- perturbed: images from a microscope with gains of 1 +- .05 and pedestals of .1 +- .02 of the flat signal (drawn per
  segment), turned by 2 deg, 3 % closer, .05 mm off the axis; reconstructed as if it were the nominal one.
- height %: rms error, a plane removed, in % of the truth's peak to valley; "parabola off" and "raw" (mean removed)
  likewise. hidden: pixels from which relief hides 2 % or more of a segment's signal; the plane is that of all pixels.
  Normals are those of the heights, by central differences. Steps and facets where the scene has some.
- Images are rendered from the truth at its own pixels, so that no method suffers from what lies between pixels, with
  128 directions around each, four times Refined's. Seconds are those of a call that compiles nothing.
""".splitlines()


def all_cells(names: list[str], conditions: list[Condition], pixels: int, resume: Path | None) -> Cells:
    """Every scene that is there under every condition, those in the file `resume` not again."""
    asked = [(name, condition) for condition in conditions for name in names]
    made = {(name, c.label, SEED, pixels): partial(cell, name, c, pixels) for name, c in asked}
    return {(e["scene"], e["condition"]): e for e in kept_or_made(made, _key, _told, resume)}


def more_draws(cells: Cells, pixels: int, resume: Path | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells in which Refined is not the best in some figure, with other noise and other unknown numbers."""
    conditions = {condition.label: condition for condition in CONDITIONS}
    made = {
        (name, label, draw, pixels): partial(cell, name, conditions[label], pixels, draw, MORE_DRAWN)
        for name, label in missed(cells)
        for draw in MORE_DRAWS
    }
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in kept_or_made(made, _key, _told, resume):
        found.setdefault((entry["scene"], entry["condition"]), []).append(entry)
    return found


def _key(entry: dict[str, Any]) -> tuple:
    return tuple(entry.get(name) for name in ("scene", "condition", "draw", "pixels"))


def _told(entry: dict[str, Any]) -> str:
    errors = ", ".join(f"{m} {s['plane']:.3f}" for m, s in entry["scores"].items())
    return f"{entry['scene']}, {entry['condition']}: {errors} %; {entry['refined']['outcome']}"


def all_bounds(names: list[str], resume: Path | None) -> list[dict[str, Any]]:
    """The bound's rows, those in the file `resume` not again."""
    made = {(name, True): partial(bound_row, name, MIDDLE, BOUND_SEEDS) for name in names}
    return kept_or_made(made, lambda entry: (entry["scene"], "bound" in entry), str, resume)


def page_of(
    cells: Cells,
    draws: dict[tuple[str, str], list[dict[str, Any]]],
    bounds: list[dict[str, Any]],
    absent: list[str],
    names: list[str],
    opening: list[str],
) -> str:
    """The whole page."""
    lines = ["# From images to heights", "", *opening, ""]
    lines += [
        f"- {name}: left out, its map is not at ../shared/data/afm (or smaller than the image)" for name in absent
    ]
    lines += [*bars(cells), ""]
    lines += [f"Rms height error, plane removed, in % of peak to valley; {MIDDLE.label}:", ""]
    lines += [*summary(cells, names, MIDDLE.label), "", *NOTES, ""]
    lines += [
        "Refined's height error over that of the best peer (what stands left of it):",
        "",
        *ratios(cells, names),
        "",
    ]
    if draws:
        text = (
            f"Wherever Refined is not the best in heights, normals, steps or facets, {len(MORE_DRAWS)} more draws of "
            "the noise and of the numbers that are not known (root mean square over them): which losses are chance?"
        )
        lines += [text, "", *draws_table(cells, draws), ""]
    if bounds:
        text = (
            f"Maps of 48 x 48 pixels, {MIDDLE.label}, {len(BOUND_SEEDS)} draws of the noise: rms of the Cramer-Rao "
            "bound of heights about their mean (`ej.height_bound`, brightness known), and of what is reached, mean "
            "removed. The bound holds for estimates without expectations; most of it lies in modes from pixel to pixel "
            "that central differences hardly see, and of which every method here expects something:"
        )
        lines += [text, "", *bound_table(bounds), ""]
    for condition in CONDITIONS:
        if any(label == condition.label for _, label in cells):
            lines += [f"## {condition.label}", "", *full_table(cells, names, condition.label), ""]
    return "\n".join(lines)


def main() -> None:
    """Ask, print and write."""
    parser = options(__doc__, 128, "three scenes, two conditions, 64 pixels")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES), help="only these")
    asked = parser.parse_args()
    names, conditions, pixels, bounded = asked.scenes, CONDITIONS, asked.size, BOUND_SCENES
    if asked.quick:
        names, conditions, pixels, bounded = list(QUICK_SCENES), list(QUICK_CONDITIONS), 64, ()
    opening = [*header(), f"- {pixels} x {pixels} pixels, float32, seed {SEED}, {len(conditions)} conditions"]
    cells = all_cells(names, conditions, pixels, asked.resume)
    absent = [name for name in names if name not in {scene for scene, _ in cells}]
    bounds = all_bounds([name for name in bounded if name in names], asked.resume)
    draws = {} if asked.quick else more_draws(cells, pixels, asked.resume)
    page = page_of(cells, draws, bounds, absent, names, opening)
    print(page)
    if not asked.quick:
        write_results("reconstruction", page)


if __name__ == "__main__":
    main()
