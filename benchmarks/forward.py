"""How fast, how big and how true is the forward model? One run, one table, side by side with an Embree ray caster.

    python benchmarks/forward.py [--quick]

Writes benchmarks/results/forward.md (forward_<backend>.md on an accelerator). Compile and run times apart: "first" is
the first call, compilation included, "run" the best of three later ones. `--quick` checks the benchmark itself on small
maps and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from _embree import DIRECTIONS, Caster  # noqa: E402
from _machine import cores, header, write_results  # noqa: E402
from _timing import Peak, Row, rows_table, seconds, timed  # noqa: E402
from reference.raymarch import Annulus, signals as marched  # noqa: E402

import eclipsjax as ej  # noqa: E402

jax.config.update("jax_enable_compilation_cache", False)

RADIUS_PX, AZIMUTHS, PIXEL_NM = 128, 64, 10.0
PAPER_SECONDS = 20 * 3600.0


def rough_map(pixels: int, steepest_deg: float = 75.0) -> np.ndarray:
    """Self-affine noise, heights in pixels, slopes of 48 deg on average."""
    noise = np.fft.rfft2(np.random.default_rng(1).standard_normal((pixels, pixels), dtype=np.float32))
    f = np.hypot(np.fft.fftfreq(pixels)[:, None], np.fft.rfftfreq(pixels)[None, :])
    keep = np.exp(-0.5 * (4 * np.pi * f) ** 2) / (f**2 + 1 / 40**2) ** 0.75
    height = np.fft.irfft2(noise * keep, s=(pixels, pixels))
    down, across = np.gradient(height)
    return (height * np.tan(np.radians(steepest_deg)) / np.quantile(np.hypot(down, across), 0.9998)).astype(np.float32)


def surface(height_px: Any) -> ej.Surface:
    """The map as a surface in the working precision."""
    return ej.Surface(jnp.asarray(height_px, jnp.float32) * PIXEL_NM, PIXEL_NM)


def against_embree(pixels: int, table, image: Callable[[], Any]) -> list[Row]:
    """The same image by rays: a block of rows on every core at once, scaled to all rows."""
    first, run = timed(image)
    rows = [
        Row(f"render, {pixels}^2, float32", seconds(first), seconds(run), f"{pixels**2 / run:.3g} pixels/s"),
        Row("  first call, compilation included", figure=seconds(first), bar="< 30 s", met=first < 30),
    ]
    try:
        cast, share = embree_seconds(rough_map(pixels))
    except ImportError:
        return [*rows, Row("  Embree ray caster", figure="not measured: install the extra `bench`")]
    paper = f"{PAPER_SECONDS / run:.0f} x this run" if pixels == 1024 else ""
    note = f"on {cores()} cores, from {100 * share:.0f} % of the pixels" if share < 1 else f"on {cores()} cores"
    return [
        *rows,
        Row(f"  Embree, {DIRECTIONS} directions a pixel, {note}", run=seconds(cast)),
        Row("  Embree / eclipsjax", figure=f"{cast / run:.1f}", bar=">= 30", met=cast / run >= 30),
        Row("  the paper's simulator: 1024^2 on 16 cores", run="20 h", figure=paper),
    ]


def embree_seconds(height: np.ndarray, most_rays: float = 3e8) -> tuple[float, float]:
    """Time for the whole map, and the share of its pixels that was cast to find it: all, unless over `most_rays`."""
    import embreex  # noqa: F401

    workers, total = cores(), height.shape[0]
    block = max(1, int(min(1.0, most_rays / (height.size * DIRECTIONS)) * total) // workers)
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "height.npy"
        np.save(stored, height)
        starts = [k * total // workers for k in range(workers)]
        asked = [[sys.executable, str(HERE / "_embree.py"), str(stored), str(s), str(block)] for s in starts]
        children = [subprocess.Popen(a, stdout=subprocess.PIPE, text=True) for a in asked]
        told = [json.loads(child.communicate()[0]) for child in children]
    share = sum(t["pixels"] for t in told) / height.size
    return max(t["seconds"] for t in told) / share, share


def accuracy(table) -> list[Row]:
    """Errors of both against the brute-force marcher on a small steep map, in percent of the mean signal."""
    height = rough_map(96)
    pixels = np.random.default_rng(3).integers(8, 88, (300, 2))
    truth = marched(height.astype(np.float64), pixels, Annulus(), azimuths=512, polars=192, step_px=0.1)

    def error(found):
        return 100 * math.sqrt(np.mean((found - truth) ** 2)) / truth.mean()

    image = np.asarray(ej.render(surface(height), table, azimuths=AZIMUTHS, radius_px=RADIUS_PX))
    ours = error(image[:, pixels[:, 0], pixels[:, 1]].T)
    rows = [Row("rms error, 96^2, slopes up to 75 deg, 98,304 rays a pixel as truth", figure=f"{ours:.3f} %")]
    try:
        theirs = error(Caster(height).signals(pixels))
    except ImportError:
        return rows
    return [
        *rows,
        Row(f"  Embree, {DIRECTIONS} directions", figure=f"{theirs:.3f} %", bar="ours lower", met=ours < theirs),
    ]


def gradient(pixels: int, table, forward_seconds: float) -> list[Row]:
    """Reverse mode with respect to all heights at once."""
    height = surface(rough_map(pixels)).height_nm
    target = jnp.full((len(table.names), pixels, pixels), 0.1, jnp.float32)

    def loss(h, target):
        return jnp.sum(
            (ej.render(ej.Surface(h, PIXEL_NM), table, azimuths=AZIMUTHS, radius_px=RADIUS_PX) - target) ** 2
        )

    descent = jax.jit(jax.grad(loss))
    first, run = timed(lambda: descent(height, target))
    ratio = run / forward_seconds
    return [
        Row(f"height gradient, {pixels}^2", seconds(first), seconds(run)),
        Row("  gradient / forward", figure=f"{ratio:.2f}", bar="<= 4", met=ratio <= 4),
        Row("  compilation", figure=seconds(first - run), bar="< 30 s", met=first - run < 30),
    ]


def with_a_field() -> list[Row]:
    """Laplace, trajectories and table of a specimen at -1 kV; the second time with other numbers."""

    def at(volts):
        return lambda: ej.acceptance(ej.Microscope.annular(specimen_bias_v=volts))

    straight_first, straight_run = timed(at(0.0))
    rows = [Row("acceptance, nothing biased", seconds(straight_first), seconds(straight_run))]
    first, run = timed(at(-1000.0), at(-900.0))
    return [
        *rows,
        Row("acceptance with a field, -1 kV", seconds(first), seconds(run)),
        Row("  with compilation", figure=seconds(first), bar="<= 20 s", met=first <= 20),
        Row("  after it, at other voltages", figure=seconds(run), bar="<= 2 s", met=run <= 2),
    ]


def variants(pixels: int, table) -> list[Row]:
    """What else can be asked of `render`, against the plain call at the same size."""
    relief = surface(rough_map(pixels))
    wide = ej.acceptance(ej.Microscope.annular(), field_mm=1.01e-6 * pixels * PIXEL_NM)
    calls = {
        "plain": partial(ej.render, relief, table),
        "wide field (nine beam positions)": partial(ej.render, relief, wide),
        "CosinePower": partial(ej.render, relief, table, emission=ej.CosinePower(1.5)),
        "ForwardLobe": partial(ej.render, relief, table, emission=ej.ForwardLobe(0.3)),
        "SmoothHorizon": partial(ej.render, relief, table, horizon=ej.SmoothHorizon(RADIUS_PX)),
        "NoRelief": partial(ej.render, relief, table, horizon=ej.NoRelief()),
        "128 azimuths": partial(ej.render, relief, table, azimuths=128),
    }
    return [Row(f"render, {pixels}^2, {name}", *map(seconds, timed(call))) for name, call in calls.items()]


def one_size(pixels: int) -> dict[str, float]:
    """Time and memory of this process for one map: run in a child, so that the peak is its own."""
    table = ej.acceptance(ej.Microscope.annular())
    relief = surface(rough_map(pixels))
    idle = Peak.now()
    first, run = timed(partial(ej.render, relief, table, azimuths=AZIMUTHS, radius_px=RADIUS_PX), repeats=2)
    peak = Peak.now()
    memory = {"idle_gib": idle.host_gib, "peak_gib": peak.host_gib, "device_gib": peak.device_gib}
    return {"first": first, "run": run, **memory}


def scaling(sizes: list[int]) -> tuple[list[str], list[Row]]:
    """A table of sizes, and the bars on how time and memory grow."""
    told = {}
    for pixels in sizes:
        asked = [sys.executable, str(HERE / "forward.py"), "--size", str(pixels)]
        told[pixels] = json.loads(subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout)
    lines = [
        "| map | first | run | us a pixel | peak, GiB | before the call, GiB | on the device, GiB |",
        "|---|" + "---|" * 6,
    ]
    for pixels, t in told.items():
        each = 1e6 * t["run"] / pixels**2
        lines.append(
            f"| {pixels}^2 | {seconds(t['first'])} | {seconds(t['run'])} | {each:.2f} | {t['peak_gib']:.2f} "
            f"| {t['idle_gib']:.2f} | {t['device_gib']:.2f} |"
        )
    small, large = told[sizes[0]], told[sizes[-1]]
    decades = math.log(sizes[-1] ** 2 / sizes[0] ** 2)
    power = math.log(large["run"] / small["run"]) / decades
    peak = max(large["peak_gib"], large["device_gib"])
    # A runtime takes some memory of its own: growth is between the two largest maps.
    before, ratio = told[sizes[-2]], (sizes[-1] / sizes[-2]) ** 2
    on = "device_gib" if large["device_gib"] else "peak_gib"
    growth = large[on] / before[on]
    return lines, [
        Row(
            f"time grows as pixels^p, {sizes[0]}^2 to {sizes[-1]}^2",
            figure=f"p = {power:.2f}",
            bar="<= 1.1",
            met=power <= 1.1,
        ),
        Row(
            f"memory, {sizes[-2]}^2 to {sizes[-1]}^2",
            figure=f"x {growth:.1f}",
            bar=f"<= {ratio:.1f}",
            met=growth <= ratio * 1.05,
        ),
        Row(f"peak memory, {sizes[-1]}^2", figure=f"{peak:.2f} GiB", bar="< 8 GB", met=peak * 1.0737 < 8),
    ]


def markdown(rows: list[Row], growth: list[str], quick: bool) -> str:
    """The page."""
    lines = ["# Forward model", "", *header(), f"- radius {RADIUS_PX} px, {AZIMUTHS} azimuths unless said", ""]
    lines += ["Quick run: only shows that the benchmark works.", ""] if quick else []
    return "\n".join([*lines, *rows_table(rows), "", *growth, ""])


def main() -> None:
    """Ask every question, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small maps, nothing written")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.size:
        print(json.dumps(one_size(asked.size)))
        return
    pixels, sizes = (128, [64, 128]) if asked.quick else (1024, [256, 512, 1024, 2048, 4096])
    growth, bars = scaling(sizes)
    table = ej.acceptance(ej.Microscope.annular())
    relief = surface(rough_map(pixels))
    image = partial(ej.render, relief, table, azimuths=AZIMUTHS, radius_px=RADIUS_PX)
    rows = against_embree(pixels, table, image) + accuracy(table) + bars
    rows += gradient(pixels, table, timed(image)[1]) + with_a_field() + variants(pixels // 2, table)
    page = markdown(rows, growth, asked.quick)
    print(page)
    if not asked.quick:
        write_results("forward", page)


if __name__ == "__main__":
    main()
