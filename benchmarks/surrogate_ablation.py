"""What do the parts of the simulators from normals bring, and those of their training? One taken away at a time.

    python benchmarks/surrogate_ablation.py [--quick] [--steps 300]

Writes benchmarks/results/surrogate_ablation.md (surrogate_ablation_<backend>.md on an accelerator); `--quick` checks
the benchmark itself and writes nothing. The trainings are short ones, all of the same lessons, in a folder that is
thrown away; what the parts bring is measured with the shipped weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from _machine import header, write_results  # noqa: E402
from _surrogates import AZIMUTHS, Errors, Look, Method, looked, network, noisy_normals, scenes  # noqa: E402
from _trainings import Trained, by_optimiser, trained, trainings_table  # noqa: E402

import eclipsjax as ej  # noqa: E402
from eclipsjax.learn.distil import PRESETS, Pupil, Recipe, distil, figures  # noqa: E402
from eclipsjax.learn.pupils import PUPILS  # noqa: E402
from eclipsjax.specimen.from_slopes import relief_of_slopes  # noqa: E402

NOISES_DEG = (0.0, 3.0)
# The restraint of the relief's shortest waves where no network sets one: next to none.
_RESTRAINT = 1e-6


def recipes(base: Recipe) -> dict[str, Recipe]:
    """The trainings: as shipped, and with one thing changed."""
    return by_optimiser(base) | {"no hard examples": dataclasses.replace(base, hard_every=0)}


def trainings(base: Recipe, batches: int) -> list[str]:
    """Tables of the trainings of both pupils."""
    lines = [
        f"{base.steps} steps of {base.batch} reliefs of {base.size}^2 pixels, seed {base.seed}, one after another on "
        "the same machine. Errors are rms of the signals in % of their mean, on "
        f"{batches * base.batch} reliefs that were not taught; seconds include compilation, except in the last row, "
        "whose program is the first one's.", "",
    ]  # fmt: skip
    for name in ("vft", "dsm"):
        pupil = PUPILS[name]()
        start = jax.jit(pupil.config.initial_parameters)(jax.random.key(base.seed))
        rows = {"not trained at all": Trained.not_at_all(figures(pupil, base, start, batches))}
        for label, recipe in recipes(base).items():
            print(f"training {name}: {label}", file=sys.stderr)
            errors_of = partial(_errors, pupil, recipe, batches)
            rows[label] = trained(partial(distil, pupil=pupil), recipe, errors_of)
        lines += [f"### {name.upper()}", "", *trainings_table(rows, " %"), ""]
    return lines


def _errors(pupil: Pupil, recipe: Recipe, batches: int, parameters: Any) -> dict[str, float]:
    return figures(pupil, recipe, parameters, batches)


def variants(vft: Any) -> dict[str, Method]:
    """The Vision Field Transformer with one thing changed, by what that is."""
    config = vft.config

    def changed(**values):
        return network(dataclasses.replace(vft, config=dataclasses.replace(config, **values)))

    shipped = f"as shipped: {ej.PeakHorizon(config.octaves).radius_px} px, {config.azimuths} azimuths"
    found = {shipped: network(vft), "without the learned correction": _not_learned(config)}
    found |= {f"radius {ej.PeakHorizon(k).radius_px} px": changed(octaves=k) for k in range(5) if k != config.octaves}
    return found | {f"{k} azimuths": changed(azimuths=k) for k in (8, 16, 32, 48, 64, 96) if k != config.azimuths}


def _not_learned(config: Any) -> Method:
    """The same rays over the relief of the given normals, which are believed."""
    look = ej.PeakHorizon(config.octaves)

    def image(normals, table, pixel_nm):
        slopes = ej.slopes_of_normals(normals)
        height = relief_of_slopes(*slopes, jnp.asarray(_RESTRAINT, slopes[0].dtype))
        return ej.render(ej.Facets(height * pixel_nm, pixel_nm, *slopes), table, config.azimuths, horizon=look)

    return image


def _coarse(dsm: Any) -> Method:
    """The deep simulator without its convolutions: the coarse look alone."""
    nothing = jax.tree.map(jnp.zeros_like, dsm.parameters["head"])
    return network(dataclasses.replace(dsm, parameters=dsm.parameters | {"head": nothing}))


def parts(size: int) -> list[str]:
    """The table of the parts."""
    looks = {name: looked(relief, ej.Microscope.annular()) for name, relief in scenes(size).items()}
    dsm = ej.load_pretrained("dsm")
    lines = [
        f"{len(looks)} scenes of {size}^2, the default detector; rms in % of the mean signal, all pixels / hidden "
        f"pixels. The exact simulator they are measured against has {AZIMUTHS} azimuths.", "",
        f"| VFT | {' | '.join(f'normals off by {deg:g} deg' if deg else 'exact normals' for deg in NOISES_DEG)} |",
        "|---|" + "---|" * len(NOISES_DEG),
    ]  # fmt: skip
    for label, method in variants(ej.load_pretrained("vft")).items():
        print(f"measuring {label}", file=sys.stderr)
        lines.append(f"| {label} | {' | '.join(_cell(looks, method, deg) for deg in NOISES_DEG)} |")
    lines += ["", "| DSM | exact normals |", "|---|---|"]
    for label, method in {"as shipped": network(dsm), "without its convolutions": _coarse(dsm)}.items():
        lines.append(f"| {label} | {_cell(looks, method, 0.0)} |")
    return [*lines, ""]


def _cell(looks: dict[str, Look], method: Method, noise_deg: float) -> str:
    errors = [
        Errors.of(look, look.image(method, noisy_normals(look.surface, noise_deg, seed)))
        for seed, look in enumerate(looks.values())
    ]
    pooled = Errors.pooled(errors)
    return f"{pooled.rms:.3f} / {pooled.hidden_rms:.2f}"


def measured(base: Recipe, quick: bool) -> str:
    """The page."""
    lines = ["# What the parts of the simulators from normals bring", "", *header(), ""]
    lines += ["Quick run: only shows that the benchmark works.", ""] if quick else []
    lines += ["## Parts", "", *parts(48 if quick else 192)]
    return "\n".join([*lines, "## Trainings", "", *trainings(base, 1 if quick else 16)])


def main() -> None:
    """Train, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="next to no training, small maps, nothing written")
    parser.add_argument("--steps", type=int, default=300, help="of every training (300)")
    asked = parser.parse_args()
    base = dataclasses.replace(PRESETS["cpu"], steps=asked.steps, size=64)
    base = dataclasses.replace(PRESETS["tiny"], steps=4) if asked.quick else base
    with tempfile.TemporaryDirectory() as cache:
        # Trainings that only differ in their lessons are one program.
        jax.config.update("jax_compilation_cache_dir", cache)
        page = measured(base, asked.quick)
    print(page)
    if not asked.quick:
        write_results("surrogate_ablation", page)


if __name__ == "__main__":
    main()
