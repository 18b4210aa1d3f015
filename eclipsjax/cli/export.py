"""`eclipsjax export supervised`: the way from images to heights as a program that runs without this package."""

from __future__ import annotations

from pathlib import Path

import click

from eclipsjax.cli._folder import keep_inputs, results_folder
from eclipsjax.cli._running import (
    Stages,
    force_option,
    microscope_option,
    output_option,
    prepare_libraries,
    progress_option,
    tell,
)


@click.group()
def export() -> None:
    """Write programs that run without eclipsjax."""


@export.command()
@microscope_option()
@click.option("--rows", type=click.IntRange(1), default=512, show_default=True, help="Pixels down the images.")
@click.option("--columns", type=click.IntRange(1), default=512, show_default=True, help="Pixels across the images.")
@click.option("--network", type=click.Path(path_type=Path), help="Weights (eclipsjax train normals); the shipped ones.")
@output_option()
@force_option
@progress_option
def supervised(
    microscope: Path, rows: int, columns: int, network: Path | None, output: Path, force: bool, progress: bool | None
) -> None:
    """Images to heights in one pass, as StableHLO with its numbers beside: run.py in the folder shows how to call it.

    For the images of one microscope at one size; numbers may be replaced, the size may not.
    """
    from eclipsjax.instrument.scope_file import load_microscope
    from eclipsjax.inverse.supervised import Supervised
    from eclipsjax.io.program import DESCRIPTION, EXAMPLE, NUMBERS, PROGRAM, export_supervised
    from eclipsjax.nn.unet import NormalNet

    prepare_libraries()
    given = [path for path in (microscope, network) if path is not None]
    keep_inputs(output, given, [PROGRAM, NUMBERS, DESCRIPTION, EXAMPLE])
    scope = load_microscope(microscope)
    method = Supervised(network=None if network is None else NormalNet.load(network))
    with results_folder(output, force, given) as folder, Stages(["tracing"], progress) as stages:
        stages.run("tracing", export_supervised, folder, scope, (rows, columns), method)
    tell(f"wrote {output}: python {output / EXAMPLE} IMAGES.npy PIXEL_SIZE_NM HEIGHTS.npz")
