"""`eclipsjax train depth | normals | vft | dsm`: make the networks' weights again, or others by another recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eclipsjax.cli._running import INTERRUPTED, prepare_libraries, progress_option, stop_if_interrupted

_PRESETS = ("tiny", "cpu", "gpu")

_folder_option = click.option(
    "-o",
    "--output",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of this training.",
)
_seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of weights and lessons."
)


def _save_option(steps: int) -> Any:
    return click.option(
        "--save-every", type=click.IntRange(1), default=steps, show_default=True, help="Steps between checkpoints."
    )


@click.group()
def train() -> None:
    """Train a network; every training goes on where it was stopped."""


@train.command()
@_folder_option
@click.option("--steps", type=click.IntRange(1), default=12000, show_default=True, help="Training steps in all.")
@_seed_option
@_save_option(200)
@progress_option
def depth(output: Path, steps: int, seed: int, save_every: int, progress: bool | None) -> None:
    """Train the depth network on random synthetic surfaces.

    OUTPUT gets checkpoints, losses.csv, recipe.json and, at the end, depth.npz with its card: weights for
    DepthNet.load. The same command goes on after an interruption. An hour or two on two cores.
    """
    prepare_libraries()
    from eclipsjax import __version__
    from eclipsjax.inverse.pinn import DepthNet
    from eclipsjax.learn.train_depth import Recipe, card, train_depth
    from eclipsjax.nn.depth import DepthConfig

    recipe, config = Recipe(steps=steps, seed=seed), DepthConfig()

    def told(losses: dict) -> str:
        return f"height error {losses['height']:.3f} of the robust method's"

    def learn(report: Callable, after_step: Callable) -> Any:
        return train_depth(output, recipe, config, save_every, report, after_step=after_step)

    def trained(parameters: Any) -> Any:
        return DepthNet.of(parameters, config, card(recipe, config, parameters, output, __version__))

    _save(_with_progress(learn, trained, steps, progress, told), output / "depth.npz")


def _simulator(name: str, weights_for: str, about: str) -> click.Command:
    """`eclipsjax train NAME`, for the simulators that are distilled from the exact one."""

    @_folder_option
    @click.option(
        "--preset", type=click.Choice(_PRESETS), default="cpu", show_default=True, help="Size of the training."
    )
    @click.option("--steps", type=click.IntRange(1), help="Training steps in all, if not the preset's.")
    @_seed_option
    @click.option("--heights", type=click.Path(path_type=Path), help="Folder of measured height maps to teach along.")
    @_save_option(100)
    @progress_option
    def command(
        output: Path,
        preset: str,
        steps: int | None,
        seed: int,
        heights: Path | None,
        save_every: int,
        progress: bool | None,
    ) -> None:
        prepare_libraries()
        from dataclasses import replace

        import eclipsjax
        from eclipsjax.learn.distil import PRESETS, card, distil
        from eclipsjax.learn.pupils import PUPILS
        from eclipsjax.learn.relief_scenes import maps_of_folder

        recipe, pupil = replace(PRESETS[preset], seed=seed), PUPILS[name]()
        recipe = replace(recipe, steps=steps or recipe.steps)
        maps = maps_of_folder(heights, recipe.size) if heights else []

        def told(losses: dict) -> str:
            return f"signals off by {100 * losses['signal']:.2f} %"

        def learn(report: Callable, after_step: Callable) -> Any:
            return distil(output, pupil, recipe, maps, save_every, report, after_step=after_step)

        def trained(parameters: Any) -> Any:
            about_it = card(pupil, recipe, preset, parameters, output, eclipsjax.__version__, len(maps))
            return getattr(eclipsjax, weights_for).of(parameters, pupil.config, about_it)

        _save(_with_progress(learn, trained, recipe.steps, progress, told), output / f"{name}.npz")

    command.__doc__ = f"""{about}

    OUTPUT gets checkpoints, losses.csv, recipe.json and, at the end, {name}.npz with its card: weights for
    {weights_for}.load. The same command goes on after an interruption. Half an hour on two cores.
    """
    return train.command(name)(command)


@train.command()
@_folder_option
@click.option("--preset", type=click.Choice(_PRESETS), default="cpu", show_default=True, help="Size of the training.")
@click.option("--steps", type=click.IntRange(1), help="Training steps in all, if not the preset's.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="Folder of measured images with their heights to teach along: .npz files (images, height_nm, pixel_size_nm) "
    "and the microscope's scope.yaml.",
)
@_seed_option
@_save_option(100)
@progress_option
def normals(
    output: Path,
    preset: str,
    steps: int | None,
    pairs: Path | None,
    seed: int,
    save_every: int,
    progress: bool | None,
) -> None:
    """Train the network that makes normals of segment images, on random reliefs in random microscopes.

    OUTPUT gets checkpoints, losses.csv, recipe.json and, at the end, normals.npz with its card: weights for
    NormalNet.load. The same command goes on after an interruption. An hour on two cores.
    """
    prepare_libraries()
    from dataclasses import replace

    from eclipsjax import __version__
    from eclipsjax.learn.measured_pairs import pairs_of_folder
    from eclipsjax.learn.pretrain import PRESETS, card, pretrain
    from eclipsjax.nn.normal_network import NormalConfig
    from eclipsjax.nn.unet import NormalNet

    config, recipe = NormalConfig(), replace(PRESETS[preset], seed=seed)
    recipe = replace(recipe, steps=steps or recipe.steps)
    measured = None if pairs is None else pairs_of_folder(pairs, recipe.size)
    count = 0 if measured is None else len(measured.images)

    def told(losses: dict) -> str:
        return f"normals off by {losses['angle']:.3f} of what they were"

    def learn(report: Callable, after_step: Callable) -> Any:
        return pretrain(output, config, recipe, measured, save_every, report, after_step=after_step)

    def trained(parameters: Any) -> Any:
        return NormalNet.of(parameters, config, card(recipe, preset, config, parameters, output, __version__, count))

    _save(_with_progress(learn, trained, recipe.steps, progress, told), output / "normals.npz")


vft = _simulator("vft", "VisionFieldTransformer", "Train the Vision Field Transformer on random reliefs.")
dsm = _simulator("dsm", "DeepSimulator", "Train the deep simulator on random reliefs.")


def _with_progress(
    learn: Callable[[Callable, Callable], Any],
    trained: Callable[[Any], Any],
    steps: int,
    progress: bool | None,
    told: Callable[[dict], str],
) -> Any:
    """What `trained` makes of what `learn(report, after_step)` returns, a bar running along; Ctrl-C ends it with a
    word on how to go on."""
    import sys

    from tqdm import tqdm

    saved = 0
    shown = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=steps, disable=not shown, desc="training", unit="step", leave=False) as bar:

        def report(step: int, losses: dict) -> None:
            nonlocal saved
            saved = step
            bar.set_postfix_str(told(losses))

        def after_step(step: int) -> None:
            bar.update(step - bar.n)
            stop_if_interrupted()

        try:
            parameters = learn(report, after_step)
            bar.set_description_str("measuring what it reached")
            return trained(parameters)
        except KeyboardInterrupt:
            where = f"after step {saved}" if saved else "before its first checkpoint of this run"
            click.echo(f"eclipsjax: stopped {where}: the same command goes on from the last checkpoint.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _save(network: Any, file: Path) -> None:
    network.save(file, force=True)
    click.echo(f"wrote {file}")
