"""How long do one pass, the loop and a step of training take, where does the time go, and how does it grow?

    python benchmarks/learning_speed.py [--quick]

Writes benchmarks/results/learning_speed.md (learning_speed_<backend>.md on an accelerator); `--quick` checks the
benchmark itself on small images and writes nothing. The scene is that of walls of 76 degrees (`islands`) at S/N 30
under four segments; later calls see other noise, so that they compile nothing but have all of the work to do.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _machine import header, write_results  # noqa: E402
from _scenes import SCENES, Condition, Recording, acceptance, recorded  # noqa: E402
from _timing import Peak, Row, rows_table, seconds, timed  # noqa: E402

import eclipsjax as ej  # noqa: E402
from eclipsjax.inverse.measurement import measure  # noqa: E402
from eclipsjax.inverse.method import Task  # noqa: E402
from eclipsjax.inverse.supervised import found_by_network, one_pass  # noqa: E402
from eclipsjax.inverse.unhidden import Fit, evidence_with, unseen_by  # noqa: E402
from eclipsjax.learn.descent import learnt, optimiser_of, start_of  # noqa: E402
from eclipsjax.learn.pretrain import PRESETS, lesson_of, losses  # noqa: E402

CONDITION = Condition(30.0, True, 4)
ROUNDS = ej.Supervised().rounds
NOTES = """\
- first call: with compiling; JAX's compilation cache on disk is off. later calls: the best of a few.
- parts of one pass: what is hidden takes four rounds of fitting, simulating and comparing; "the rest" is reading the
  images, the detector's acceptance and the search for exchanged segments.
- memory: the most that a process of its own has held, above what it held before the call.
- frames: `reconstruct_frames`, one after the other, results fetched. batch: one program for all images of a batch.
""".splitlines()


def recordings(size: int) -> Iterator[Recording]:
    """Of one specimen, each with other noise."""
    specimen = SCENES["islands"]((size, size), 1)
    return (recorded(specimen, CONDITION, "islands", draw) for draw in itertools.count(1))


def reconstructed(method: Any, images: Iterator[Recording]) -> Callable[[], Any]:
    """A call that reconstructs the next images."""

    def call() -> jax.Array:
        shown = next(images)
        return ej.reconstruct(shown.images, shown.pixel_nm, shown.scope, method, shown.camera).height_nm

    return call


def ahead(images: Iterator[Recording], count: int) -> Iterator[Recording]:
    """The first so many, made before they are asked for."""
    return iter([next(images) for _ in range(count)])


def one_size(size: int) -> dict[str, float]:
    """Times and memory of one pass in this process: run in a child, so that the peak is its own."""
    shown, idle = ahead(recordings(size), 5), Peak.now()
    first, later = timed(reconstructed(ej.Supervised(), shown))
    peak = Peak.now()
    held = peak.device_gib or peak.host_gib - idle.host_gib
    return {"first": first, "later": later, "gib": held}


def by_size(sizes: list[int]) -> list[Row]:
    """One pass by size, and how memory grows from the last size but one to the last."""
    rows, told = [], {}
    for size in sizes:
        asked = [sys.executable, str(HERE / "learning_speed.py"), "--size", str(size)]
        told[size] = one = json.loads(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout)
        bar = {"bar": "<= 2 s", "met": one["later"] <= 2.0} if size == 512 else {}
        each = f"{1e6 * one['later'] / size**2:.2f} us, {2**30 * one['gib'] / size**2:.0f} bytes a pixel"
        rows.append(Row(f"Supervised(), {size}^2", seconds(one["first"]), seconds(one["later"]), each, **bar))
    growth, pixels = told[sizes[-1]]["gib"] / told[sizes[-2]]["gib"], (sizes[-1] / sizes[-2]) ** 2
    asked, met = f"  memory, {sizes[-2]}^2 to {sizes[-1]}^2", growth <= 1.05 * pixels
    return [*rows, Row(asked, figure=f"x {growth:.1f}", bar=f"<= {pixels:.1f}", met=met)]


def task_of(shown: Recording) -> Task:
    """As `reconstruct` makes it."""
    measurement = measure(shown.images, shown.scope, shown.camera)
    pixel = jnp.asarray(shown.pixel_nm, measurement.level.dtype)
    surface = ej.Surface(measurement.level[0], pixel)
    return Task(measurement, acceptance(shown.scope, surface), shown.scope, None, None, pixel, None)


def of_one_pass(size: int) -> list[Row]:
    """Where the time of one pass goes."""
    task, network, simulator = task_of(next(recordings(size))), ej.NormalNet.shipped(), ej.load_pretrained("vft")
    fit = Fit.of(task.measurement, task.table)
    unseen = unseen_by(fit, simulator, ROUNDS)
    evidence = evidence_with(unseen, fit)
    whole = timed(reconstructed(ej.Supervised(), ahead(recordings(size), 5)))
    parts = {
        "what is hidden, by the Vision Field Transformer": partial(unseen_by, fit, simulator, ROUNDS),
        "what the levels say of normals": partial(evidence_with, unseen, fit),
        "the network": partial(network, evidence),
        "heights, and the images they would make": partial(
            found_by_network, task, simulator, evidence, network(evidence), ej.Poisson()
        ),
    }
    return _shares(f"one pass, {size}^2", whole, {name: timed(call)[1] for name, call in parts.items()})


def _shares(name: str, whole: tuple[float, float], parts: dict[str, float]) -> list[Row]:
    rest = {"the rest": max(whole[1] - sum(parts.values()), 0.0)}
    rows = [
        Row(f"  {part}", run=seconds(took), figure=f"{took / whole[1]:.0%}") for part, took in (parts | rest).items()
    ]
    return [Row(name, *map(seconds, whole)), *rows]


def of_training(preset: str) -> list[Row]:
    """Where the time of a step of the normal network's training goes."""
    recipe, config = PRESETS[preset], ej.NormalNet.shipped().config
    optimiser, terms = optimiser_of(recipe), partial(losses, config)
    state = start_of(optimiser, config.initial_parameters(jax.random.key(0)))
    # One family of reliefs and one number of segments: others are programs of their own.
    seeds = iter(2 * 3 * k + 1 for k in itertools.count())
    draw = lambda: lesson_of(recipe, next(seeds), "rough")  # noqa: E731
    lesson = draw()
    mean = jax.jit(lambda parameters: jnp.mean(jax.vmap(partial(terms, parameters))(lesson)[:, 0]))
    slope = jax.jit(jax.grad(mean))

    def step() -> Any:
        return learnt(optimiser, recipe.averaging, terms, state, draw())

    forward = timed(partial(mean, state["parameters"]))[1]
    parts = {
        "scenes, microscopes, images, what physics says": timed(draw)[1],
        "network and heights, forward": forward,
        "backward": timed(partial(slope, state["parameters"]))[1] - forward,
    }
    name = f"a step of training, {recipe.batch} images of {recipe.size}^2 (preset {preset})"
    rows = _shares(name, timed(step), parts)
    return [*rows[:-1], rows[-1]._replace(question="  the rest: Muon, AdamW, averaging")]


def of_the_loop(size: int) -> list[Row]:
    """The whole loop."""
    first, later = timed(reconstructed(ej.ClosedLoop(), ahead(recordings(size), 3)), repeats=2)
    bar = {"bar": "<= 60 s", "met": later <= 60.0} if size == 512 else {}
    return [Row(f"ClosedLoop(), {size}^2", seconds(first), seconds(later), **bar)]


def frames(size: int, count: int = 4) -> list[Row]:
    """Frames per second of a stream, with the Vision Field Transformer and with the deep simulator."""
    methods = {"VFT": ej.Supervised(), "deep simulator": ej.Supervised(simulator=ej.DeepSimulator.shipped())}
    rows, shown = [], list(itertools.islice(recordings(size), count))
    for name, method in methods.items():

        def stream(method: Any = method) -> list[Any]:
            one, rest = shown[0], (s.images for s in shown)
            found = ej.reconstruct_frames(rest, one.pixel_nm, one.scope, method, one.camera)
            return [jax.device_get(f.height_nm) for f in found]

        took = timed(stream, repeats=2)[1]
        rows.append(Row(f"frames, {size}^2, {name}", figure=f"{count / took:.3g} a second"))
    return rows


def batches(size: int, counts: tuple[int, ...]) -> list[Row]:
    """Frames per second of one program for a whole batch."""
    task, network, simulator = task_of(next(recordings(size))), ej.NormalNet.shipped(), ej.load_pretrained("vft")

    def height(level: jax.Array) -> jax.Array:
        measurement = dataclasses.replace(task.measurement, level=level)
        one = dataclasses.replace(task, measurement=measurement)
        return one_pass(one, network, simulator, ej.Poisson(), ROUNDS).height_nm

    rows, program = [], jax.jit(jax.vmap(height))
    for count in counts:
        levels = jnp.stack([task.measurement.level] * count)
        first, later = timed(partial(program, levels))
        told = seconds(first), seconds(later), f"{count / later:.3g} a second"
        rows.append(Row(f"batch of {count}, {size}^2", *told))
    return rows


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small images, nothing written")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    if asked.size:
        print(json.dumps(one_size(asked.size)))
        return
    opening = header()
    many = (1, 4, 16, 64) if jax.default_backend() != "cpu" else (1,)
    preset = "gpu" if jax.default_backend() != "cpu" else "cpu"
    sizes, middle, wide = ([48, 64], 48, 64) if asked.quick else ([256, 512, 1024, 2048], 512, 1024)
    asking = [
        partial(by_size, sizes),
        partial(of_one_pass, middle),
        *(partial(frames, size) for size in (middle, wide)),
        *(partial(batches, size, many) for size in (middle, wide)),
        partial(of_training, "tiny" if asked.quick else preset),
        partial(of_the_loop, middle),
    ]
    rows: list[Row] = []
    for ask in asking:
        rows += ask()
        print(rows[-1], file=sys.stderr, flush=True)
    page = "\n".join(
        ["# One pass, the loop and a step of training", "", *opening, "", *NOTES, "", *rows_table(rows), ""]
    )
    print(page)
    if not asked.quick:
        write_results("learning_speed", page)


if __name__ == "__main__":
    main()
