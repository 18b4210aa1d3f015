"""Which integrator for which error? Heights from slopes: every method on every surface, and how long each takes.

    python benchmarks/integration.py [--quick]

Writes benchmarks/results/integration.md (integration_<backend>.md on an accelerator). The error is the rms height error
with a plane removed, in % of the truth's peak to valley, from `eclipsjax.height_error`, the mean over seeds. `--quick`
checks the benchmark itself on small maps and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _machine import header  # noqa: E402
from _slopes import ERRORS, PIXEL_NM, SURFACES, measured_slopes  # noqa: E402

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
}
ALLOWED = 1.05


def error_percent(height_nm, truth_nm) -> float:
    """The figure of the table."""
    return float(ej.height_error(height_nm, truth_nm).percent.plane)


def accuracy(pixels: int, seeds: tuple[int, ...]) -> tuple[list[str], dict[str, list[str]]]:
    """A table of errors, and the rows on which Auto misses its bars."""
    names = [*METHODS, "Auto"]
    lines = [f"| surface, error | {' | '.join(names)} | Auto / best | picked |", "|---|" + "---|" * (len(names) + 2)]
    missed = {"within 5 % of the best": [], "not worse than Poisson": []}
    rows = 0
    for surface, family in SURFACES.items():
        cases = [family((pixels, pixels), seed) for seed in seeds]
        for error in ERRORS:
            found, picks = [], []
            for case, seed in zip(cases, seeds, strict=True):
                truth = jnp.asarray(case.height_nm, jnp.float32)
                slopes = [jnp.asarray(s, jnp.float32) for s in measured_slopes(case, error, seed)]
                heights = [ej.integrate(*slopes, PIXEL_NM, method) for method in METHODS.values()]
                picked = ej.integration(*slopes, PIXEL_NM)
                picks.append(_name(picked.method))
                found.append([error_percent(h, truth) for h in [*heights, picked.height_nm]])
            mean = np.mean(found, axis=0)
            best = mean[:-1].min()
            ratio = mean[-1] / best
            rows += 1
            label = f"{surface}, {error}"
            if ratio > ALLOWED:
                missed["within 5 % of the best"].append(f"{label} ({ratio:.2f})")
            if mean[-1] > mean[0] * 1.001:
                missed["not worse than Poisson"].append(f"{label} ({mean[-1] / mean[0]:.3f})")
            figures = [f"**{v:.3f}**" if v == best else f"{v:.3f}" for v in mean]
            lines.append(f"| {label} | {' | '.join(figures)} | {ratio:.2f} | {', '.join(dict.fromkeys(picks))} |")
            print(lines[-1], flush=True)
    summary = {f"Auto {bar}: {rows - len(out)} of {rows} rows": out for bar, out in missed.items()}
    return lines, summary


def _name(method) -> str:
    """Which column Auto's pick is, or the method with its numbers."""
    same = [name for name, m in METHODS.items() if m == method]
    return same[0] if same else str(method).replace("\n", "")


def timing(sizes: list[int]) -> list[str]:
    """Seconds of the first call, compilation included, and the best of later ones."""
    head = " | ".join(f"{n}^2 first | {n}^2 run" for n in sizes)
    lines = [f"| method | {head} |", "|---|" + "---|" * (2 * len(sizes))]
    columns = {name: [] for name in [*METHODS, "Auto, picking alone"]}
    for pixels in sizes:
        case = SURFACES["islands"]((pixels, pixels), 0)
        slopes = [jnp.asarray(s, jnp.float32) for s in measured_slopes(case, "mix", 0)]
        for name, cells in columns.items():
            method = METHODS.get(name)

            def call(method=method, slopes=slopes):
                if method is None:
                    return ej.Auto().pick(*slopes)
                return jax.block_until_ready(ej.integrate(*slopes, PIXEL_NM, method))

            if cells and cells[-1] != "" and float(cells[-1]) > 5:
                cells += ["", ""]
                continue
            took = []
            while len(took) < 2 or (len(took) < 4 and sum(took) < 3):
                started = time.perf_counter()
                call()
                took.append(time.perf_counter() - started)
            cells += [f"{took[0]:.2f}", f"{min(took[1:]):.4f}"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in columns.items()]


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small maps, nothing written")
    quick = parser.parse_args().quick
    pixels, seeds, sizes = (64, (0,), [64, 96]) if quick else (256, (0, 1), [256, 512, 1024])
    # First of all, while nothing has been compiled yet.
    times = timing(sizes)
    table, summary = accuracy(pixels, seeds)
    lines = ["# From slopes to heights", "", *header()]
    lines += [f"- {pixels} x {pixels} pixels, float32, seeds {', '.join(map(str, seeds))}", ""]
    lines += ["Quick run: only shows that the benchmark works.", ""] if quick else []
    for bar, rows in summary.items():
        lines.append(f"- {bar}" + (f"; **missed**: {'; '.join(rows)}" if rows else ", met"))
    lines += ["", "Rms height error, plane removed, in % of peak to valley; the best of the methods in bold.", ""]
    lines += [*table, "", "Seconds, float32, islands with the mix of errors:", "", *times, ""]
    page = "\n".join(lines)
    print(page)
    if not quick:
        backend = jax.default_backend()
        name = "integration.md" if backend == "cpu" else f"integration_{backend}.md"
        (HERE / "results" / name).write_text(page)


if __name__ == "__main__":
    main()
