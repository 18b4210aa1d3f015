"""How long from images to heights, by size: closed form and refinement, the first call and the next.

    python benchmarks/reconstruction_speed.py [--sizes 256 512 1024 2048] [--most-seconds 1500]

Writes benchmarks/results/reconstruction_speed.md (reconstruction_speed_<backend>.md on an accelerator). The scene is
that of walls of 76 degrees (`islands`) at S/N 30 under four segments; every size has its own draw of it, and the second
call other noise, so that it compiles nothing but has all of the work to do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _machine import header, write_results  # noqa: E402
from _scenes import SCENES, Condition, Recording, fitted, recorded  # noqa: E402

import eclipsjax as ej  # noqa: E402

CONDITION = Condition(30.0, True, 4)
# Seconds at one size beyond which the next is called once.
_LONG = 100.0
METHODS: dict[str, Callable[[], Any]] = {"Photometric()": ej.Photometric, "Refined()": ej.Refined}
NOTES = """\
- seconds: of a second call, on other noise, standard deviations included. compiling: what the first call took longer;
  sizes that take minutes are called once, and their seconds hold the compiling too.
- us per pixel: seconds over pixels: equal numbers down the column are time linear in the pixels.
- height %: rms error, a plane removed, in % of the truth's peak to valley.
- Nothing is kept from one run to the next: the compilation cache of JAX is off.
""".splitlines()


def timed(recording: Recording, method: Any) -> tuple[float, ej.Reconstruction]:
    """Seconds and result of one call."""
    began = time.perf_counter()
    found = ej.reconstruct(recording.images, recording.pixel_nm, recording.scope, method, recording.camera)
    jax.block_until_ready(found.height_nm)
    return time.perf_counter() - began, found


def row(name: str, size: int, once: bool) -> tuple[str, float]:
    """One line of the table, and the seconds of its last call."""
    specimen = SCENES["islands"]((size, size), 1)
    first, found = timed(recorded(specimen, CONDITION, "islands", 1), METHODS[name]())
    seconds = first
    if not once:
        seconds, found = timed(recorded(specimen, CONDITION, "islands", 2), METHODS[name]())
    error = np.asarray(found.height_nm, np.float64) - specimen.height_nm
    percent = 100.0 * np.std(error - fitted(error, 3)) / np.ptp(specimen.height_nm)
    ended = f"{found.outcome.name.lower().replace('_', ' ')}, {max(len(found.history) - 1, 0)} steps"
    cells = [name, f"{size} x {size}", f"{seconds:.2f}", f"{1e6 * seconds / size**2:.2f}"]
    cells += ["" if once else f"{max(first - seconds, 0.0):.1f}", f"{percent:.3f}", ended]
    return f"| {' | '.join(cells)} |", seconds


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], help="pixels a side")
    parser.add_argument("--most-seconds", type=float, default=1500.0, help="larger sizes are left out beyond this")
    asked = parser.parse_args()
    lines = ["# How long from images to heights", "", *header(), "", *NOTES, ""]
    lines += [
        "| method | pixels | seconds | us per pixel | compiling | height % | ended |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        seconds = 0.0
        for size in sorted(asked.sizes):
            line, seconds = row(name, size, once=seconds > _LONG)
            print(line, file=sys.stderr, flush=True)
            lines.append(line)
            if 5.0 * seconds > asked.most_seconds:
                break
    page = "\n".join([*lines, ""])
    print(page)
    write_results("reconstruction_speed", page)


if __name__ == "__main__":
    main()
