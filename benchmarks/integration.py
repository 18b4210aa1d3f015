"""Which integrator for which error? Heights from slopes: every method on every surface, and how long each takes.

    python benchmarks/integration.py [--quick]

Writes benchmarks/results/integration.md (integration_<backend>.md on an accelerator). The error is the rms height error
with a plane removed, in % of the truth's peak to valley, from `eclipsjax.height_error`, the mean over seeds, which
nothing was trained or tuned on. `--quick` checks the benchmark itself on small maps and writes nothing.
"""

from __future__ import annotations

import argparse
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
from _slopes import CUT_STEP_NM, ERRORS, PIXEL_NM, SURFACES, measured_slopes  # noqa: E402

import eclipsjax as ej  # noqa: E402

jax.config.update("jax_enable_compilation_cache", False)

# One entry per column: anything that `ej.integrate(..., method=...)` takes.
METHODS: dict[str, Any] = {
    "Poisson": ej.Poisson(),
    "Spectral": ej.SpectralPoisson(),
    "Frankot": ej.FrankotChellappa(),
    "Harker": ej.HarkerOLeary(),
    "Path": ej.PathIntegration(both_ways=True),
    "Wiener": ej.Wiener(),
    "L1": ej.LeastAbsolute(),
    "Robust": ej.Robust(),
    "Bilateral": ej.Bilateral(),
    "Despiked W": ej.Despiked(ej.Wiener()),
    "Despiked R": ej.Despiked(ej.Robust()),
    "Closed R": ej.ClosedWalls(ej.Robust()),
    "Unmixed R": ej.Unmixed(ej.Robust()),
    "Dislocated R": ej.Dislocated(ej.Robust()),
    "DepthNet": ej.DepthNet.shipped(),
}
ALLOWED = 1.05
_SLOW, _TURNS = 5.0, 7
SEEDS = (11, 12)
WHITE = tuple(e for e in ERRORS if e.startswith("white"))
HARD = ("outliers 2 %", "mix")
# The network's error over that of the best other method: at most this much, by surface, for white noise and for HARD.
NET_WHITE = {"rough": 1.0, "sinusoid": 1.0, "nearly flat": 0.95, "step bunch": 0.9, "spiral": 0.9, "islands": 0.9}
NET_HARD = 0.9
# And at most this much, in %, whatever the others do.
NET_PERCENT = {"unresolved riser": 3.0, "branch cut": 10.0}


def error_percent(surface: str, result: ej.Integration, truth_nm) -> float:
    """The figure of the table."""
    if surface != "branch cut":
        return float(ej.height_error(result.height_nm, truth_nm).percent.plane)
    # Where the cut runs is not in the slopes: heights count up to whole steps, and not where the method says that it
    # cannot know.
    off = (np.asarray(result.height_nm, float) - truth_nm)[~np.asarray(result.undetermined)]
    off = (off - np.median(off) + 0.5 * CUT_STEP_NM) % CUT_STEP_NM - 0.5 * CUT_STEP_NM
    return float(100 * np.sqrt(np.mean(off**2)) / np.ptp(truth_nm))


def _ratio(one: float, other: float) -> float:
    """Of two errors in %: below .001, where the table ends, they are equal."""
    return max(one, 1e-3) / max(other, 1e-3)


class Row(NamedTuple):
    """Errors in % (mean over seeds) of every method and of Auto, and what Auto picked."""

    surface: str
    error: str
    percent: np.ndarray
    picked: str

    @property
    def label(self) -> str:
        return f"{self.surface}, {self.error}"

    @property
    def auto_ratio(self) -> float:
        return _ratio(self.percent[-1], self.percent[:-1].min())

    @property
    def net_ratio(self) -> float:
        others = [self.percent[k] for k, name in enumerate(METHODS) if name != "DepthNet"]
        return _ratio(self.percent[list(METHODS).index("DepthNet")], min(others))

    def written(self) -> str:
        best = self.percent[:-1].min()
        figures = [f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in self.percent]
        return (
            f"| {self.label} | {' | '.join(figures)} | {self.net_ratio:.2f} | {self.auto_ratio:.2f} | {self.picked} |"
        )


def accuracy(pixels: int, seeds: tuple[int, ...]) -> list[Row]:
    """Every surface with every error, by every method."""
    rows = []
    for surface, family in SURFACES.items():
        cases = [family((pixels, pixels), seed) for seed in seeds]
        for error in ERRORS:
            found, picks = [], []
            for case, seed in zip(cases, seeds, strict=True):
                slopes = [jnp.asarray(s, jnp.float32) for s in measured_slopes(case, error, seed)]
                results = [ej.integration(*slopes, PIXEL_NM, method) for method in [*METHODS.values(), ej.Auto()]]
                picks.append(_name(results[-1].method))
                found.append([error_percent(surface, result, case.height_nm) for result in results])
            rows.append(Row(surface, error, np.mean(found, axis=0), ", ".join(dict.fromkeys(picks))))
            print(rows[-1].written(), flush=True)
    return rows


def bars(rows: list[Row]) -> list[str]:
    """Which rows meet what is asked of Auto and of the network, and which do not, by how much."""
    net = list(METHODS).index("DepthNet")
    white, hard = ([r for r in rows if r.error in errors] for errors in (WHITE, HARD))
    asked = {
        "Auto within 5 % of the best": [(r, r.auto_ratio, ALLOWED) for r in rows],
        "Auto not worse than Poisson": [(r, _ratio(r.percent[-1], r.percent[0]), 1.001) for r in rows],
        "DepthNet over the best other method, white noise": [
            (r, r.net_ratio, NET_WHITE[r.surface]) for r in white if r.surface in NET_WHITE
        ],
        f"DepthNet over the best other method, outliers and mix, at most {NET_HARD}": [
            (r, r.net_ratio, NET_HARD) for r in hard if r.surface in NET_WHITE
        ],
        "DepthNet in %": [(r, r.percent[net], NET_PERCENT[r.surface]) for r in rows if r.surface in NET_PERCENT],
    }
    lines = []
    for bar, found in asked.items():
        out = [f"{r.label} ({value:.2f} > {most:.2f})" for r, value, most in found if value > most]
        met = f"- {bar}: {len(found) - len(out)} of {len(found)} rows"
        lines.append(met + (f"; **missed**: {'; '.join(out)}" if out else ", met"))
    return lines


def _name(method) -> str:
    """Which column Auto's pick is, or the method with its numbers."""
    same = [name for name, m in METHODS.items() if m == method]
    return same[0] if same else str(method).replace("\n", "")


def timing(sizes: list[int]) -> tuple[list[str], list[str]]:
    """Seconds of the first call, compilation included, and of the best of later ones, which take turns: machines are
    noisy. What takes longer than `_SLOW` is not asked again, nor at larger sizes. And whether the network keeps up."""
    head = " | ".join(f"{n}^2 first | {n}^2 run" for n in sizes)
    lines = [f"| method | {head} |", "|---|" + "---|" * (2 * len(sizes))]
    net = METHODS["DepthNet"]
    calls: dict[str, Callable] = {
        name: lambda slopes, method=method: ej.integrate(*slopes, PIXEL_NM, method) for name, method in METHODS.items()
    }
    calls["Auto, picking alone"] = lambda slopes: ej.Auto().pick(*slopes)
    calls["DepthNet, 40 steps of refinement"] = lambda slopes: ej.integrate(*slopes, PIXEL_NM, net.refined(*slopes))
    columns, ratios = {name: [] for name in calls}, []
    for pixels in sizes:
        case = SURFACES["islands"]((pixels, pixels), 0)
        slopes = [jnp.asarray(s, jnp.float32) for s in measured_slopes(case, "mix", 0)]
        asked = {name: call for name, call in calls.items() if not columns[name] or columns[name][-1][1] < _SLOW}
        first = {name: _seconds(call, slopes) for name, call in asked.items()}
        run = {name: _seconds(call, slopes) for name, call in asked.items()}
        for _ in range(_TURNS):
            for name, call in asked.items():
                if run[name] < _SLOW:
                    run[name] = min(run[name], _seconds(call, slopes))
        for name in asked:
            columns[name].append((first[name], run[name]))
            print(f"{name}, {pixels}^2: {first[name]:.2f} s, then {run[name]:.4f} s", flush=True)
        ratios.append((pixels, run["DepthNet"] / run["L1"]))
    for name, cells in columns.items():
        told = [f"{one:.2f} | {later:.4f}" for one, later in cells] + [" | "] * (len(sizes) - len(cells))
        lines.append(f"| {name} | {' | '.join(told)} |")
    told = ", ".join(f"{ratio:.2f} at {pixels}^2" for pixels, ratio in ratios)
    met = "met" if all(ratio <= 1 for _, ratio in ratios) else "**missed**"
    return lines, [f"- DepthNet's time over that of L1, at most 1: {told}, {met}"]


def _seconds(call: Callable, slopes: list) -> float:
    started = time.perf_counter()
    jax.block_until_ready(call(slopes))
    return time.perf_counter() - started


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small maps, nothing written")
    quick = parser.parse_args().quick
    pixels, seeds, sizes = (64, (0,), [64, 96]) if quick else (256, SEEDS, [256, 512, 1024])
    # First of all, while nothing has been compiled yet.
    times, keeps_up = timing(sizes)
    rows = accuracy(pixels, seeds)
    names = [*METHODS, "Auto", "DepthNet / best other", "Auto / best", "picked"]
    lines = ["# From slopes to heights", "", *header()]
    lines += [f"- {pixels} x {pixels} pixels, float32, seeds {', '.join(map(str, seeds))}", ""]
    lines += ["Quick run: only shows that the benchmark works.", ""] if quick else []
    lines += [*bars(rows), *keeps_up, ""]
    lines += ["Rms height error, plane removed, in % of peak to valley; the best of the methods in bold.", ""]
    lines += [f"| surface, error | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [row.written() for row in rows]
    lines += [
        "",
        "Branch cut: up to whole steps, and not where heights are marked as undetermined. In ratios .001 % and less "
        "count as equal.",
        "",
    ]
    lines += ["Seconds, float32, islands with the mix of errors:", "", *times, ""]
    page = "\n".join(lines)
    print(page)
    if not quick:
        write_results("integration", page)


if __name__ == "__main__":
    main()
