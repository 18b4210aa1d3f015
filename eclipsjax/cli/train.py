"""`eclipsjax train depth`: make the depth network's weights again, or others by another recipe."""

from __future__ import annotations

from pathlib import Path

import click

from eclipsjax.cli._running import prepare_libraries, progress_option, stop_if_interrupted

_INTERRUPTED = 130


@click.group()
def train() -> None:
    """Train a network; every training goes on where it was stopped."""


@train.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of this training."
)
@click.option("--steps", type=click.IntRange(1), default=12000, show_default=True, help="Training steps in all.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of weights and lessons.")
@click.option("--save-every", type=click.IntRange(1), default=200, show_default=True, help="Steps between checkpoints.")
@progress_option
def depth(output: Path, steps: int, seed: int, save_every: int, progress: bool | None) -> None:
    """Train the depth network on random synthetic surfaces.

    OUTPUT gets checkpoints, losses.csv, recipe.json and, at the end, depth.npz with its card: weights for
    DepthNet.load. The same command goes on after an interruption. An hour or two on two cores.
    """
    prepare_libraries()
    import sys

    from tqdm import tqdm

    from eclipsjax import __version__
    from eclipsjax.inverse.pinn import DepthNet
    from eclipsjax.learn.train_depth import Recipe, card, train_depth
    from eclipsjax.nn.depth import DepthConfig

    recipe, config = Recipe(steps=steps, seed=seed), DepthConfig()
    shown = sys.stderr.isatty() if progress is None else progress
    saved = 0
    with tqdm(total=steps, disable=not shown, desc="training", unit="step", leave=False) as bar:

        def report(step: int, losses: dict) -> None:
            nonlocal saved
            saved = step
            bar.set_postfix_str(f"height error {losses['height']:.3f} of the robust method's")

        def after_step(step: int) -> None:
            bar.update(step - bar.n)
            stop_if_interrupted()

        try:
            parameters = train_depth(output, recipe, config, save_every, report, after_step=after_step)
        except KeyboardInterrupt:
            where = f"after step {saved}" if saved else "before its first checkpoint of this run"
            click.echo(f"eclipsjax: stopped {where}: the same command goes on from the last checkpoint.", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from None
    weights = output / "depth.npz"
    DepthNet.of(parameters, config, card(recipe, config, parameters, output, __version__)).save(weights)
    click.echo(f"wrote {weights}")
