"""What do the parts of the closed loop bring, and how is its network trained best? One thing changed at a time.

    python benchmarks/ablation.py [--quick] [--size 96] [--steps 300] [--resume FILE]

Writes benchmarks/results/ablation.md (ablation_<backend>.md on an accelerator); `--quick` checks the benchmark itself
and writes nothing.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _kept import kept_or_made, options  # noqa: E402
from _looped import INSIDE, LOOP, ONE_PASS, OUTSIDE, seen_from  # noqa: E402
from _machine import header, write_results  # noqa: E402
from _scenes import SCENES, Condition, Recording  # noqa: E402
from _scores import scores_of  # noqa: E402
from _trainings import Trained, by_optimiser, trained, trainings_table  # noqa: E402

import eclipsjax as ej  # noqa: E402
from eclipsjax.imaging.facets import Facets  # noqa: E402
from eclipsjax.learn.pretrain import PRESETS, Recipe, figures, pretrain  # noqa: E402
from eclipsjax.nn.from_normals import FromNormals  # noqa: E402

ASKED = ("step bunch", "islands", "particles", "rough", "AFM grains")
RATIOS = (30.0, 11.0)
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
    LOOP: ej.ClosedLoop,
    f"without self-supervision: one pass ({ONE_PASS})": ej.Supervised,
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
    height, chi_square = _reconstructed(LOOPS[loop](), recording)
    scores = scores_of(height, specimen, recording.hidden)
    kept = {"height": scores["plane"], "normals": scores["normals"], "chi": chi_square}
    return {"scene": name, "ratio": ratio, "state": state, "loop": loop, "pixels": pixels, **kept}


def _reconstructed(method: Any, recording: Recording) -> tuple[np.ndarray, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ej.reconstruct(recording.images, recording.pixel_nm, recording.scope, method, recording.camera)
    return np.asarray(found.height_nm, np.float64), float(found.chi_square)


def all_rows(scenes: tuple[str, ...], ratios: tuple[float, ...], pixels: int, resume: Path | None) -> list[dict]:
    """Every row whose specimen is there, those in the file `resume` not again."""
    keys = [
        (s, r, state, loop, pixels) for loop in LOOPS for r in ratios for state in (INSIDE, OUTSIDE) for s in scenes
    ]
    return kept_or_made({key: partial(row, *key) for key in keys}, _key, _told, resume)


def _key(entry: dict[str, Any]) -> tuple:
    return tuple(entry.get(name) for name in ("scene", "ratio", "state", "loop", "pixels"))


def _told(entry: dict[str, Any]) -> str:
    figures = f"{entry['height']:.2f} %, {entry['normals']:.2f} deg, chi-square {entry['chi']:.2f}"
    return f"{', '.join(map(str, _key(entry)))}: {figures}"


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each loop, a column for each condition."""
    conditions = list(dict.fromkeys((r["ratio"], r["state"]) for r in rows))
    heads = " | ".join(f"S/N {ratio:g}, {'believed' if state == INSIDE else 'other'}" for ratio, state in conditions)
    lines = [f"| height, normals | {heads} |", "|---" * (len(conditions) + 1) + "|"]
    for loop in LOOPS:
        told = [_compared(rows, loop, condition) for condition in conditions]
        lines.append(f"| {loop} | {' | '.join(told)} |")
    return lines


def trainings(base: Recipe, batches: int, resume: Path | None) -> list[str]:
    """A table of short trainings of the normal network: by which optimiser?"""
    config, recipes = ej.NormalNet.shipped().config, by_optimiser(base)
    start = jax.jit(config.initial_parameters)(jax.random.key(base.seed))

    def errors_of(parameters: Any) -> dict[str, float]:
        return _over_closed_form(figures(base, config, parameters, batches))

    def made(label: str) -> dict[str, Any]:
        recipe = recipes.get(label)
        found = (
            Trained.not_at_all(errors_of(start))
            if recipe is None
            else trained(partial(pretrain, config=config), recipe, errors_of)
        )
        return {"training": label, "steps": base.steps, **found._asdict()}

    keys = {(label, base.steps): partial(made, label) for label in ("not trained at all", *recipes)}
    kept = kept_or_made(keys, lambda e: (e.get("training"), e.get("steps")), str, resume)
    rows = {entry["training"]: Trained(*(entry[name] for name in Trained._fields)) for entry in kept}
    text = (
        f"{base.steps} steps of {base.batch} images of {base.size}^2 pixels, seed {base.seed}. Errors: rms over those "
        "of the closed form, geometric mean over the families of reliefs, on lessons that were not taught. Seconds "
        "include compiling, which the first training does for the others as far as they are alike."
    )
    return ["## Training", "", text, "", *trainings_table(rows, "")]


def _over_closed_form(families: dict[str, dict[str, float]]) -> dict[str, float]:
    return {
        name: float(
            np.exp(np.mean([np.log(errors[name] / errors[f"closed form {name}"]) for errors in families.values()]))
        )
        for name in ("normals deg", "heights px")
    }


def _compared(rows: list[dict[str, Any]], loop: str, condition: tuple[float, str]) -> str:
    def of(which: str) -> dict[str, dict]:
        return {r["scene"]: r for r in rows if r["loop"] == which and (r["ratio"], r["state"]) == condition}

    own, whole = of(loop), of(LOOP)

    def mean(figure: str) -> float:
        over = [1.0 if loop == LOOP else whole[scene][figure] for scene in own]
        return float(np.exp(np.mean(np.log([own[s][figure] / o for s, o in zip(own, over, strict=True)]))))

    units = (" %", " deg") if loop == LOOP else ("", "")
    return ", ".join(f"{mean(figure):.2f}{unit}" for figure, unit in zip(("height", "normals"), units, strict=True))


def main() -> None:
    """Ask, print and write."""
    parser = options(__doc__, 96, "one scene at one S/N, 48 pixels, next to no training")
    parser.add_argument("--steps", type=int, default=300, help="of every training (default 300)")
    chosen = parser.parse_args()
    pixels = 48 if chosen.quick else chosen.size
    rows = all_rows(ASKED[:1] if chosen.quick else ASKED, RATIOS[: 1 if chosen.quick else 2], pixels, chosen.resume)
    scenes = ", ".join(dict.fromkeys(r["scene"] for r in rows))
    opening = [*header(), f"- {scenes}; {pixels} x {pixels} pixels, 4 segments, float32, one draw of noise"]
    recipe = dataclasses.replace(PRESETS["cpu"], steps=chosen.steps, size=64)
    recipe = dataclasses.replace(PRESETS["tiny"], steps=4) if chosen.quick else recipe
    taught = trainings(recipe, 1 if chosen.quick else 4, chosen.resume)
    lines = ["# What the parts of the closed loop bring", "", *opening, *NOTES, "", *table_of(rows), "", *taught, ""]
    page = "\n".join(lines)
    print(page)
    if not chosen.quick:
        write_results("ablation", page)


if __name__ == "__main__":
    main()
