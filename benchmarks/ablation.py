"""What do the parts of the closed loop bring? One taken away, or exchanged, at a time.

    python benchmarks/ablation.py [--quick] [--size 96] [--resume FILE]

Writes benchmarks/results/ablation.md (ablation_<backend>.md on an accelerator); `--quick` checks the benchmark itself
and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _kept import keep, kept_in  # noqa: E402
from _looped import INSIDE, OUTSIDE, seen_from  # noqa: E402
from _machine import header, write_results  # noqa: E402
from _scenes import SCENES, Condition, Recording, Specimen  # noqa: E402
from _scores import scores_of  # noqa: E402

import eclipsjax as ej  # noqa: E402
from eclipsjax.imaging.facets import Facets  # noqa: E402
from eclipsjax.nn.from_normals import FromNormals  # noqa: E402

jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "eclipsjax-benchmark-programs"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

ASKED = ("islands", "particles", "rough", "AFM grains")
RATIOS = (30.0, 11.0)
WHOLE, ONE_PASS = "the loop", "without self-supervision: one pass (Supervised)"
NOTES = """\
- Every figure is a ratio to the whole loop's (first row, in its own units) in the same cell, geometric mean over the
  scenes: above 1 is worse. Heights: rms error, a plane removed. Normals: mean angle to those of the truth.
- believed: the microscope is as its owner believes. other: gains 1.08, .93, .94, 1.05 and 15 % farther, nobody told.
- the exact simulator in the loop: heights by least squares of the network's slopes, then ray marching, 16 azimuths.
- random weights: the network as it is initialised, in the loop and for the doubt.
""".splitlines()


class ExactSimulator(FromNormals):
    """Relief by least squares, then the true horizon: what the Vision Field Transformer stands for."""

    kind: ClassVar[str] = "exact simulator"
    name: ClassVar[str] = "exact"

    def seen(self, slope_x: Any, slope_y: Any, pixel_nm: Any, table: Any) -> tuple[Facets, ej.HardHorizon, int]:
        """Slopes as they are given, heights by least squares."""
        height_px = ej.Poisson().height_px(slope_x, slope_y, None, None)
        return Facets(height_px * pixel_nm, pixel_nm, slope_x, slope_y), ej.HardHorizon(), 16


def random_network() -> ej.NormalNet:
    """As a training finds it."""
    config = ej.NormalNet.shipped().config
    return ej.NormalNet.of(config.initial_parameters(jax.random.key(0)), config, {"steps": 0})


LOOPS: dict[str, Callable[[], Any]] = {
    WHOLE: ej.ClosedLoop,
    ONE_PASS: ej.Supervised,
    "without finetune": partial(ej.ClosedLoop, finetune=False),
    "finetune alone: the network stays": partial(ej.ClosedLoop, moves=None),
    "only the decoder moves": partial(ej.ClosedLoop, moves=ej.Decoder()),
    "only normalisation moves": partial(ej.ClosedLoop, moves=ej.Normalisation()),
    "only input features move": partial(ej.ClosedLoop, moves=ej.InputFeatures()),
    "without pretraining: random weights": lambda: ej.ClosedLoop(network=random_network()),
    "the exact simulator in the loop": lambda: ej.ClosedLoop(simulator=ExactSimulator({}, None, "")),
    "DSM instead of the VFT": lambda: ej.ClosedLoop(simulator=ej.DeepSimulator.shipped()),
    "PINN instead of least squares": lambda: ej.ClosedLoop(integrator=ej.DepthNet.shipped()),
    "Auto instead of least squares": lambda: ej.ClosedLoop(integrator=ej.Auto()),
}


def row(name: str, ratio: float, state: str, loop: str, pixels: int) -> dict[str, Any] | None:
    """Scores of one loop in one cell, ready for JSON; None where there is no specimen."""
    specimen = SCENES[name]((pixels, pixels), 1)
    if specimen is None:
        return None
    recording = seen_from(specimen, Condition(ratio, True, 4), name, 1, state)
    height, chi_square, seconds = _reconstructed(LOOPS[loop](), recording, specimen)
    scores = scores_of(height, specimen, recording.hidden)
    kept = {"height": scores["plane"], "normals": scores["normals"], "chi": chi_square, "seconds": seconds}
    return {"scene": name, "ratio": ratio, "state": state, "loop": loop, "pixels": pixels, **kept}


def _reconstructed(method: Any, recording: Recording, specimen: Specimen) -> tuple[np.ndarray, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        found = ej.reconstruct(recording.images, recording.pixel_nm, recording.scope, method, recording.camera)
        height = np.asarray(found.height_nm, np.float64)
    return height, float(found.chi_square), time.perf_counter() - began


def all_rows(scenes: tuple[str, ...], ratios: tuple[float, ...], pixels: int, resume: Path | None) -> list[dict]:
    """Every row whose specimen is there, those in the file `resume` not again; loop by loop, each compiled once."""
    done = {_key(e): e for e in kept_in(resume)}
    asked = [
        (s, r, state, loop, pixels) for loop in LOOPS for r in ratios for state in (INSIDE, OUTSIDE) for s in scenes
    ]
    found = []
    for k, key in enumerate(asked):
        made = done[key] if key in done else row(*key)
        if made is None:
            continue
        if key not in done:
            keep(resume, made)
            told = f"{made['height']:.2f} %, {made['normals']:.2f} deg, chi-square {made['chi']:.2f}"
            print(f"[{k + 1}/{len(asked)}] {', '.join(map(str, key))}: {told}", file=sys.stderr, flush=True)
            if k % len(scenes) == 0:
                # Compiled programs hold memory mappings, of which a Linux process may have 65,530.
                jax.clear_caches()
        found.append(made)
    return found


def _key(entry: dict[str, Any]) -> tuple:
    return tuple(entry[name] for name in ("scene", "ratio", "state", "loop", "pixels"))


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each loop, a column for each condition."""
    conditions = list(dict.fromkeys((r["ratio"], r["state"]) for r in rows))
    heads = " | ".join(f"S/N {ratio:g}, {'believed' if state == INSIDE else 'other'}" for ratio, state in conditions)
    lines = [f"| height, normals | {heads} |", "|---" * (len(conditions) + 1) + "|"]
    for loop in LOOPS:
        told = [_compared(rows, loop, condition) for condition in conditions]
        lines.append(f"| {loop} | {' | '.join(told)} |")
    return lines


def _compared(rows: list[dict[str, Any]], loop: str, condition: tuple[float, str]) -> str:
    def of(which: str) -> dict[str, dict]:
        return {r["scene"]: r for r in rows if r["loop"] == which and (r["ratio"], r["state"]) == condition}

    own, whole = of(loop), of(WHOLE)

    def mean(figure: str) -> float:
        over = [1.0 if loop == WHOLE else whole[scene][figure] for scene in own]
        return float(np.exp(np.mean(np.log([own[s][figure] / o for s, o in zip(own, over, strict=True)]))))

    units = (" %", " deg") if loop == WHOLE else ("", "")
    return ", ".join(f"{mean(figure):.2f}{unit}" for figure, unit in zip(("height", "normals"), units, strict=True))


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=96, help="pixels a side (default 96)")
    parser.add_argument("--resume", type=Path, help="a file of JSON lines that keeps finished rows")
    parser.add_argument("--quick", action="store_true", help="one scene and one condition, 48 pixels, nothing written")
    chosen = parser.parse_args()
    pixels = 48 if chosen.quick else chosen.size
    rows = all_rows(ASKED[:1] if chosen.quick else ASKED, RATIOS[: 1 if chosen.quick else 2], pixels, chosen.resume)
    scenes = ", ".join(dict.fromkeys(r["scene"] for r in rows))
    opening = [*header(), f"- {scenes}; {pixels} x {pixels} pixels, 4 segments, float32, one draw of noise"]
    page = "\n".join(["# What the parts of the closed loop bring", "", *opening, *NOTES, "", *table_of(rows), ""])
    print(page)
    if not chosen.quick:
        write_results("ablation", page)


if __name__ == "__main__":
    main()
