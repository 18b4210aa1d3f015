"""Which way from images to heights is nearest to the truth? Heights, normals, steps and facets, method by method.

    python benchmarks/reconstruction.py [--size 128] [--scenes islands pits] [--resume cells.jsonl] [--quick]

Writes benchmarks/results/reconstruction.md (reconstruction_<backend>.md on an accelerator). Methods see the images, the
pixel size, the microscope as its owner believes it to be, and the camera. `--resume` keeps finished cells in a file of
JSON lines and takes those it holds as done (remove it when the package changes); `--quick` checks the benchmark itself
on three scenes and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _kept import keep, kept_in  # noqa: E402
from _machine import header, write_results  # noqa: E402
from _scenes import CONDITIONS, SCENES, Condition  # noqa: E402
from _scores import SEED, bound_row, cell  # noqa: E402
from _verdict import Cells, bars, bound_table, draws_table, full_table, missed, ratios, summary  # noqa: E402

# Nobody asks here how long compiling takes: what an earlier run compiled is found again.
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "eclipsjax-benchmark-programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

_CELLS_KEPT = 12
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
- perturbed: images from a microscope with gains of 1 +- .05 and pedestals of .1 +- .02 of the flat signal (drawn per
  segment), turned by 2 deg, 3 % closer, .05 mm off the axis; reconstructed as if it were the nominal one.
- height %: rms error, a plane removed, in % of the truth's peak to valley; "parabola off" and "raw" (mean removed)
  likewise. hidden: pixels from which relief hides 2 % or more of a segment's signal; the plane is that of all pixels.
  Normals are those of the heights, by central differences. Steps and facets where the scene has some.
- Images are rendered from the truth at its own pixels, so that no method suffers from what lies between pixels, with
  128 directions around each, four times Refined's. Seconds are those of a call that compiles nothing.
""".splitlines()


def all_cells(
    names: list[str], conditions: list[Condition], pixels: int, resume: Path | None
) -> tuple[Cells, list[str]]:
    """Every scene under every condition, those in the file `resume` not again; and the scenes that are absent."""
    done = _done(resume, pixels).get(SEED, {})
    cells, absent, total = {}, [], len(names) * len(conditions)
    for k, (condition, name) in enumerate((c, n) for c in conditions for n in names):
        key = (name, condition.label)
        if name in absent:
            continue
        if key not in done:
            began = time.perf_counter()
            found = cell(name, condition, pixels)
            if found is None:
                absent.append(name)
                continue
            done[key] = keep(resume, found)
            _progress(k, total, found, time.perf_counter() - began)
            if k % _CELLS_KEPT == 0:
                # Compiled programs hold memory mappings, of which a Linux process may have 65,530.
                jax.clear_caches()
        cells[key] = done[key]
    return cells, absent


def _done(resume: Path | None, pixels: int) -> dict[int, Cells]:
    """Finished cells by their draw."""
    found: dict[int, Cells] = {}
    for entry in kept_in(resume):
        if entry.get("pixels") == pixels and "scores" in entry:
            found.setdefault(entry["draw"], {})[entry["scene"], entry["condition"]] = entry
    return found


def more_draws(cells: Cells, pixels: int, resume: Path | None) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells in which Refined is not the best in some figure, with other noise and other unknown numbers."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    conditions = {condition.label: condition for condition in CONDITIONS}
    done = _done(resume, pixels)
    for key in missed(cells):
        found[key] = [
            done.get(draw, {}).get(key) or keep(resume, cell(key[0], conditions[key[1]], pixels, draw))
            for draw in MORE_DRAWS
        ]
        print(f"{len(MORE_DRAWS)} more draws: {', '.join(key)}", file=sys.stderr, flush=True)
        jax.clear_caches()
    return found


def all_bounds(names: list[str], resume: Path | None) -> list[dict[str, Any]]:
    """The bound's rows, those in the file `resume` not again."""
    done = {e["scene"]: e for e in kept_in(resume) if "bound" in e}
    for name in names:
        if name not in done and (row := bound_row(name, MIDDLE, BOUND_SEEDS)) is not None:
            done[name] = keep(resume, row)
            print(f"bound, {name}: {row}", file=sys.stderr, flush=True)
    return [done[name] for name in names if name in done]


def _progress(k: int, total: int, found: dict[str, Any], seconds: float) -> None:
    errors = ", ".join(f"{m} {s['plane']:.3f}" for m, s in found["scores"].items())
    told = f"{found['scene']}, {found['condition']}: {errors} %; {found['refined']['outcome']}; {seconds:.0f} s"
    print(f"[{k + 1}/{total}] {told}", file=sys.stderr, flush=True)


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
    lines += ["Refined's height error over that of the best other method:", "", *ratios(cells, names), ""]
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default 128)")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES), help="only these")
    parser.add_argument("--resume", type=Path, help="a file of JSON lines that keeps finished cells")
    parser.add_argument("--quick", action="store_true", help="three scenes, two conditions, 64 pixels, nothing written")
    asked = parser.parse_args()
    names, conditions, pixels, bounded = asked.scenes, CONDITIONS, asked.size, BOUND_SCENES
    if asked.quick:
        names, conditions, pixels, bounded = list(QUICK_SCENES), list(QUICK_CONDITIONS), 64, ()
    opening = [*header(), f"- {pixels} x {pixels} pixels, float32, seed {SEED}, {len(conditions)} conditions"]
    cells, absent = all_cells(names, conditions, pixels, asked.resume)
    bounds = all_bounds([name for name in bounded if name in names], asked.resume)
    draws = {} if asked.quick else more_draws(cells, pixels, asked.resume)
    page = page_of(cells, draws, bounds, absent, names, opening)
    print(page)
    if not asked.quick:
        write_results("reconstruction", page)


if __name__ == "__main__":
    main()
