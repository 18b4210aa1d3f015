"""How true and how quick are the networks that make images from normals? Next to the exact simulator.

    python benchmarks/surrogates.py [--quick] [--only accuracy,gradient,speed,taps] [--pictures FOLDER] [--size 192]

Writes benchmarks/results/surrogates.md (surrogates_<backend>.md on an accelerator), unless only some questions are
asked. `--quick` checks the benchmark itself on small maps; `--vft FILE` and `--dsm FILE` take other weights than the
shipped ones; both write nothing. `--pictures` draws three real surfaces instead, each made steeper.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _machine import header, write_results  # noqa: E402
from _surrogates import (  # noqa: E402
    AZIMUTHS,
    NONE,
    PLAIN,
    PLAIN_PX,
    RADIUS_PX,
    STEEPER,
    Errors,
    draw_pictures,
    instruments,
    looked,
    methods,
    network,
    noisy_normals,
    plain_formula,
    scenes,
    taller,
)
from _timing import VERDICT, Row, rows_table, seconds  # noqa: E402
from forward import rough_map  # noqa: E402

import eclipsjax as ej  # noqa: E402

jax.config.update("jax_enable_compilation_cache", False)

QUESTIONS = ("accuracy", "taps", "gradient", "speed")
NOISES_DEG = (0.0, 3.0, 5.0)
PLAIN_RADII_PX, OCTAVES = (8, 16, 32, 48, 64), (0, 1, 2, 3)
# A scene's hidden pixels are judged by themselves from this share on.
ENOUGH_HIDDEN = 1e-3
_STEPS, _MOST_HALVINGS = 10, 30
# Of the timed maps, nm: the largest is narrow enough to see the detector from one place.
_TIMED_PIXEL_NM = 5.0


class Answer(NamedTuple):
    """Rows with bars, and tables below them."""

    rows: list[Row]
    details: list[str]


class Sizes(NamedTuple):
    """How much to do: pixels of the scenes, of those with gradients, of the timed maps; rounds of timing; and how
    many instruments."""

    scene: int
    gradient: int = 128
    timed: tuple[int, ...] = (256, 512, 1024)
    rounds: int = 7
    instruments: int = 4


def at_most(question: str, value: float, bar: float, unit: str = "", note: str = "") -> Row:
    """A row whose figure must not be above a bar."""
    return Row(question, figure=f"{value:.3g}{unit}{note}", bar=f"<= {bar:.3g}{unit}", met=bool(value <= bar))


def accuracy(nets: dict[str, Any], sizes: Sizes) -> Answer:
    """Errors of every method for every instrument, scene and noise of the normals."""
    surfaces, columns, rows, details = scenes(sizes.scene), methods(nets), [], []
    for number, (name, scope) in enumerate(list(instruments().items())[: sizes.instruments]):
        looks = {scene: looked(relief, scope) for scene, relief in surfaces.items()}
        errors = {
            noise: {scene: _errors(look, columns, noise, seed) for seed, (scene, look) in enumerate(looks.items())}
            for noise in NOISES_DEG
        }
        rows += [Row(f"**{name}**{'' if number == 0 else ', not in training'}"), *_bars(errors)]
        for noise in NOISES_DEG if number == 0 else NOISES_DEG[:1]:
            details += _error_table(name, noise, errors[noise], list(columns))
    return Answer(rows, details)


def _errors(look, columns, noise_deg: float, seed: int) -> dict[str, Errors]:
    normals = noisy_normals(look.surface, noise_deg, seed)
    return {label: Errors.of(look, look.image(method, normals)) for label, method in columns.items()}


def _bars(errors: dict[float, dict[str, dict[str, Errors]]]) -> list[Row]:
    """What the issue asks of one instrument."""
    exact = {scene: e["VFT"] for scene, e in errors[0.0].items()}
    pooled = Errors.pooled(list(exact.values()))
    worst = max(exact, key=lambda scene: exact[scene].rms)
    telling = {s: e.hidden_rms for s, e in exact.items() if e.hidden_pixels > ENOUGH_HIDDEN * e.pixels}
    rows = [
        at_most("VFT, exact normals, all scenes", pooled.rms, 0.3, " %"),
        at_most("  worst scene", exact[worst].rms, 1.0, " %", f" ({worst})"),
        at_most("  hidden pixels", pooled.hidden_rms, 1.0, " %"),
    ]
    if telling:
        hardest = max(telling, key=lambda scene: telling[scene])
        rows.append(Row("  hidden pixels, worst scene", figure=f"{telling[hardest]:.3g} % ({hardest})"))
    for noise in NOISES_DEG[1:]:
        vft, plain = (Errors.pooled([e[label] for e in errors[noise].values()]) for label in ("VFT", PLAIN))
        asked = f"VFT / ray formula, normals off by {noise:g} deg"
        note = f" ({vft.rms:.3g} % / {plain.rms:.3g} %)"
        rows.append(at_most(asked, vft.rms / plain.rms, 0.7, note=note))
        note = f" ({vft.hidden_rms:.3g} % / {plain.hidden_rms:.3g} %)"
        rows.append(at_most("  hidden pixels", vft.hidden_rms / plain.hidden_rms, 0.7, note=note))
    deep = [e["DSM"] for e in errors[0.0].values() if "DSM" in e]
    if not deep:
        return [*rows, Row("DSM", figure="not measured: no weights")]
    return [*rows, at_most("DSM, exact normals, all scenes", Errors.pooled(deep).rms, 2.0, " %")]


def _error_table(name: str, noise_deg: float, errors: dict[str, dict[str, Errors]], labels: list[str]) -> list[str]:
    normals = f"normals off by {noise_deg:g} deg" if noise_deg else "exact normals"
    lines = [f"### {name}, {normals}", "", "rms error in % of the mean signal: all pixels / hidden pixels.", ""]
    lines += [f"| scene | hidden | {' | '.join(labels)} |", "|---|---|" + "---|" * len(labels)]

    def cells(by_label: dict[str, Errors]) -> str:
        one = by_label["VFT"]
        each = [f"{e.rms:.3f} / " + (f"{e.hidden_rms:.2f}" if e.hidden_pixels else "-") for e in by_label.values()]
        return " | ".join([f"{100 * one.hidden_pixels / one.pixels:.1f} %", *each])

    lines += [f"| {scene} | {cells(by_label)} |" for scene, by_label in errors.items()]
    pooled = {label: Errors.pooled([e[label] for e in errors.values()]) for label in labels}
    return [*lines, f"| **all** | {cells(pooled)} |", ""]


def taps(nets: dict[str, Any], sizes: Sizes) -> Answer:
    """How many places on a ray each method looks at for which error, on exact normals with the default detector."""
    looks = [looked(relief, ej.Microscope.annular()) for relief in scenes(sizes.scene).values()]

    def pooled(method) -> Errors:
        return Errors.pooled([Errors.of(look, look.image(method, look.surface.normals())) for look in looks])

    plain = {radius: pooled(plain_formula(radius)) for radius in PLAIN_RADII_PX}
    vft = {}
    for octaves in OCTAVES:
        config = dataclasses.replace(nets["VFT"].config, octaves=octaves, azimuths=AZIMUTHS)
        vft[ej.PeakHorizon(octaves).places] = pooled(network(dataclasses.replace(nets["VFT"], config=config)))
    lines = [
        "### Places looked at on a ray", "",
        "A place is one position on a ray, two pixels interpolated. Exact normals, all scenes, the default detector, "
        f"{AZIMUTHS} azimuths for both; rms in % of the mean signal: all pixels / hidden pixels.", "",
        "| method | reach | places | all | hidden |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {PLAIN} | {r} px | {r} | {e.rms:.3f} | {e.hidden_rms:.2f} |" for r, e in plain.items()]
    for octaves, (places, e) in zip(OCTAVES, vft.items(), strict=True):
        lines.append(f"| VFT | {ej.PeakHorizon(octaves).radius_px} px | {places} | {e.rms:.3f} | {e.hidden_rms:.2f} |")
    rows = []
    for radius, reached in plain.items():
        enough = [p for p, e in vft.items() if e.rms <= reached.rms and e.hidden_rms <= reached.hidden_rms]
        asked = f"places of the VFT / of the ray formula to {radius} px, at its error or less"
        if not enough:
            found = Row(asked, figure="none reaches it")
        else:
            found = Row(asked, figure=f"{min(enough) / radius:.3g} ({min(enough)} / {radius})")
        if radius == PLAIN_PX:
            found = found._replace(bar="<= 0.25", met=bool(enough) and min(enough) / radius <= 0.25)
        rows.append(found)
    return Answer(rows, [*lines, ""])


def gradient(nets: dict[str, Any], sizes: Sizes) -> Answer:
    """Do heights go the same way by a network's gradient as by the exact one's?"""
    descents = {"exact": jax.jit(jax.value_and_grad(_exact_loss))}
    descents |= {label: jax.jit(jax.value_and_grad(_network_loss)) for label in nets}
    lines = [
        "### Gradients", "",
        f"Of half the squared difference to the exact image of heights x 0.8, {sizes.gradient}^2. Cosine to the exact "
        f"gradient; and the exact loss after {_STEPS} steps down the VFT's loss, over that before.", "",
        f"| scene | {' | '.join(f'cosine, {label}' for label in nets)} | exact loss after / before |",
        "|---|" + "---|" * (len(nets) + 1),
    ]  # fmt: skip
    cosines, ratios = {}, {}
    for name, relief in scenes(sizes.gradient).items():
        look = looked(relief, ej.Microscope.annular())
        target = ej.render(taller(relief, 0.8), look.table, AZIMUTHS, RADIUS_PX)
        fixed = (relief.pixel_size_nm, look.table, target)
        before, true = descents["exact"](relief.height_nm, *fixed)
        found = [descents[label](relief.height_nm, *fixed, net)[1] for label, net in nets.items()]
        told = [_cosine(true, g) for g in found]
        lowered = _descended(lambda h, f=fixed: descents["VFT"](h, *f, nets["VFT"]), relief.height_nm, look.pixel_nm)
        cosines[name], ratios[name] = told[0], float(descents["exact"](lowered, *fixed)[0] / before)
        lines.append(f"| {name} | {' | '.join(f'{c:.4f}' for c in told)} | {ratios[name]:.3g} |")
    worst = min(cosines, key=lambda scene: cosines[scene])
    lower = sum(r < 1 for r in ratios.values())
    return Answer(
        [
            Row(
                "cosine of VFT's and exact height gradients, least",
                figure=f"{cosines[worst]:.4f} ({worst})",
                bar=">= 0.95",
                met=cosines[worst] >= 0.95,
            ),
            Row(
                f"{_STEPS} steps down the VFT's loss lower the exact loss",
                figure=f"in {lower} of {len(ratios)} scenes",
                bar="all",
                met=lower == len(ratios),
            ),
        ],
        [*lines, ""],
    )


def _exact_loss(height, pixel_nm, table, target):
    image = ej.render(ej.Surface(height, pixel_nm), table, AZIMUTHS, RADIUS_PX)
    return 0.5 * jnp.sum((image - target) ** 2)


def _network_loss(height, pixel_nm, table, target, net):
    image = net(ej.Surface(height, pixel_nm).normals(), table, pixel_size_nm=pixel_nm)
    return 0.5 * jnp.sum((image - target) ** 2)


def _cosine(one, other) -> float:
    a, b = (np.asarray(g, np.float64).ravel() for g in (one, other))
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _descended(loss_and_slope: Callable, height, pixel_nm):
    """Heights after steps along the gradient, each halved until the loss falls."""
    loss, slope = loss_and_slope(height)
    step = 0.1 * pixel_nm / jnp.sqrt(jnp.mean(slope**2))
    for _ in range(_STEPS):
        for _ in range(_MOST_HALVINGS):
            tried = height - step * slope
            next_loss, next_slope = loss_and_slope(tried)
            if next_loss < loss:
                break
            step = 0.5 * step
        else:
            return height
        height, loss, slope, step = tried, next_loss, next_slope, 2.0 * step
    return height


class Times(NamedTuple):
    """Seconds of the first call, and of each later one."""

    first: float
    later: np.ndarray

    @property
    def best(self) -> float:
        """The least of the later ones."""
        return float(self.later.min())


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Times]:
    """Every call once, then all of them in turn: what else the machine does falls on all alike."""

    def once(call):
        started = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - started

    first = {name: once(call) for name, call in calls.items()}
    later = [{name: once(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: Times(first[name], np.array([turn[name] for turn in later])) for name in calls}


def speed(nets: dict[str, Any], sizes: Sizes) -> Answer:
    """Seconds of images and gradients, by size."""
    table = ej.acceptance(ej.Microscope.annular())
    limits = {"VFT": 1.0, "DSM": 1 / 3}
    rows, grown = [], {}
    for pixels in sizes.timed:
        height = jnp.asarray(rough_map(pixels), jnp.float32)
        relief = ej.Surface(_TIMED_PIXEL_NM * height, _TIMED_PIXEL_NM)
        for kind, calls in (("image", _images(relief, table, nets)), ("gradient", _gradients(relief, table, nets))):
            told = interleaved(calls, sizes.rounds)
            exact = told["exact"]
            for name, times in told.items():
                grown.setdefault((name, kind), []).append(times.best)
                rows.append(Row(f"{kind}, {pixels}^2, {name}", seconds(times.first), seconds(times.best)))
            for name in nets:
                note = f" (median of rounds {np.median(told[name].later / exact.later):.3g})"
                rows.append(at_most(f"  {name} / exact", told[name].best / exact.best, limits[name], note=note))
    for (name, kind), best in grown.items():
        power = np.polyfit(2 * np.log(sizes.timed), np.log(best), 1)[0]
        asked = f"time of {kind} grows as pixels^p, {name}"
        rows.append(
            at_most(asked, power, 1.1)._replace(figure=f"p = {power:.2f}")
            if name == "VFT"
            else Row(asked, figure=f"p = {power:.2f}")
        )
    return Answer(rows, [])


def _images(relief: ej.Surface, table, nets: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    normals = relief.normals()
    calls: dict[str, Callable[[], Any]] = {"exact": lambda: ej.render(relief, table, AZIMUTHS, RADIUS_PX)}
    return calls | {name: lambda net=net: net(normals, table) for name, net in nets.items()}


def _gradients(relief: ej.Surface, table, nets: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Of the sum of squared signals: in the heights for the exact simulator, in the normals for networks."""
    normals = relief.normals()

    def of_heights(height, table):
        return jnp.sum(ej.render(ej.Surface(height, _TIMED_PIXEL_NM), table, AZIMUTHS, RADIUS_PX) ** 2)

    def of_normals(normals, table, net):
        return jnp.sum(net(normals, table) ** 2)

    exact, by_normals = jax.jit(jax.grad(of_heights)), jax.jit(jax.grad(of_normals))
    calls: dict[str, Callable[[], Any]] = {"exact": lambda: exact(relief.height_nm, table)}
    return calls | {name: lambda net=net: by_normals(normals, table, net) for name, net in nets.items()}


def networks(vft: Path | None, dsm: Path | None) -> dict[str, Any]:
    """The shipped networks, or those of the files; without the deep simulator where its weights are not there."""
    from eclipsjax.nn.dsm import DeepSimulator
    from eclipsjax.nn.vft import VisionFieldTransformer

    nets = {"VFT": VisionFieldTransformer.load(vft) if vft else ej.load_pretrained("vft")}
    try:
        nets["DSM"] = DeepSimulator.load(dsm) if dsm else ej.load_pretrained("dsm")
    except ej.InputError as error:
        print(f"Without the deep simulator: {error}", file=sys.stderr)
    return nets


def markdown(answers: dict[str, Answer], nets: dict[str, Any], sizes: Sizes, quick: bool) -> str:
    """The page."""
    azimuths = nets["VFT"].config.azimuths
    steeper = ", ".join(f"{name} x{times}" for name, times in STEEPER.items())
    lines = [
        "# Networks instead of the simulator", "", *header(),
        f"- exact: {AZIMUTHS} azimuths, radius {RADIUS_PX} px; VFT: {azimuths} azimuths; {PLAIN}: {AZIMUTHS} azimuths, "
        f"{PLAIN_PX} px; {NONE}: every pixel by itself; float32",
        f"- scenes of {sizes.scene}^2 pixels; AFM maps are real, {steeper} are real maps made that much taller",
        "- hidden pixels: occlusion changes the signal of a segment by more than 5 %; errors are rms, in % of the "
        "scene's mean signal; over scenes all pixels count alike", "",
    ]  # fmt: skip
    lines += ["Quick run: only shows that the benchmark works.", ""] if quick else []
    for question, answer in answers.items():
        lines += [f"## {question.capitalize()}", ""]
        if question == "speed":
            lines += rows_table(answer.rows)
        else:
            lines += ["| question | figure | bar | |", "|---|---|---|---|"]
            lines += [f"| {r.question} | {r.figure} | {r.bar} | {VERDICT[r.met]} |" for r in answer.rows]
        lines += ["", *answer.details]
    return "\n".join([*lines, ""]).replace("\n\n\n", "\n\n")


def main() -> None:
    """Ask every question, print and write the table; or draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small maps, nothing written")
    parser.add_argument("--only", default=",".join(QUESTIONS), help="questions with commas between; nothing written")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw real surfaces into it, ask nothing")
    parser.add_argument("--size", type=int, help="pixels along a scene's side (192)")
    parser.add_argument("--vft", type=Path, metavar="FILE", help="weights of the VFT; nothing written")
    parser.add_argument("--dsm", type=Path, metavar="FILE", help="weights of the DSM; nothing written")
    asked = parser.parse_args()
    wanted = asked.only.split(",")
    if not set(wanted) <= set(QUESTIONS):
        parser.error(f"--only is {asked.only}: give some of {','.join(QUESTIONS)}.")
    nets = networks(asked.vft, asked.dsm)
    if asked.pictures:
        print("\n".join(draw_pictures(asked.pictures, nets, asked.size or 192)))
        return
    sizes = Sizes(asked.size or 64, 64, (64, 96), 2, 2) if asked.quick else Sizes(asked.size or 192)
    ask = {"accuracy": accuracy, "taps": taps, "gradient": gradient, "speed": speed}
    answers = {}
    for question in [q for q in QUESTIONS if q in wanted]:
        started = time.perf_counter()
        answers[question] = ask[question](nets, sizes)
        print(f"{question}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    page = markdown(answers, nets, sizes, asked.quick)
    print(page)
    if not (asked.quick or asked.vft or asked.dsm or len(answers) < len(QUESTIONS)):
        write_results("surrogates", page)


if __name__ == "__main__":
    main()
