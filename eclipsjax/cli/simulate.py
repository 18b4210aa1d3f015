"""`eclipsjax simulate`: a height file and a microscope's file in, segment images out."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from eclipsjax.cli._folder import keep_inputs, results_folder
from eclipsjax.cli._running import (
    Stages,
    finite,
    force_option,
    microscope_option,
    open_in_browser,
    output_option,
    pixel_size_option,
    prepare_libraries,
    progress_option,
    show_option,
    tell,
)


@click.command()
@click.argument("height_file", type=click.Path(path_type=Path))
@microscope_option()
@output_option()
@pixel_size_option
@click.option("--height-scale-nm", type=float, callback=finite, help="Nanometres per stored unit, where that is not 1.")
@click.option(
    "--azimuths", type=click.IntRange(4, 1024), default=64, show_default=True, help="Directions around each pixel."
)
@click.option(
    "--radius-px",
    type=click.IntRange(1, 8192),
    default=128,
    show_default=True,
    help="How far to look for relief that hides the detector, pixels.",
)
@click.option(
    "--noise/--no-noise", default=True, show_default=True, help="Amplifier noise (S/N 12) and counting noise."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the noise.")
@click.option(
    "--bits",
    type=click.Choice(["8", "16", "float"]),
    default="16",
    show_default=True,
    help="Grey levels of the images.",
)
@click.option(
    "--interaction-sigma-nm",
    type=click.FloatRange(0, 1e6),
    callback=finite,
    default=0.0,
    show_default=True,
    help="Blur by the interaction volume (standard deviation); with the probe of the microscope's file.",
)
@show_option
@force_option
@progress_option
def simulate(
    height_file: Path,
    microscope: Path,
    output: Path,
    pixel_size_nm: float | None,
    height_scale_nm: float | None,
    azimuths: int,
    radius_px: int,
    noise: bool,
    seed: int,
    bits: str,
    interaction_sigma_nm: float,
    show: bool,
    force: bool,
    progress: bool | None,
) -> None:
    """Simulate the segment images of HEIGHT_FILE (.npz, .npy, .tif, .txt, .csv).

    Writes signal.npz (fraction of the emitted electrons that each segment collects), one TIFF per segment,
    overview.png, scope.yaml and a page, index.html.
    """
    prepare_libraries()
    from eclipsjax.cli import _results as results
    from eclipsjax.instrument.scope_file import load_microscope
    from eclipsjax.io.heights import read_level_height

    scope = load_microscope(microscope)
    surface, offset_nm = read_level_height(height_file, pixel_size_nm, height_scale_nm)
    inputs = (height_file, microscope)
    keep_inputs(output, inputs, [*results.file_names(scope.detector.segments.names), "scope.yaml"])
    settings = results.Settings(
        azimuths, radius_px, noise, seed, None if bits == "float" else int(bits), interaction_sigma_nm
    )
    with results_folder(output, force, inputs) as folder, Stages(results.STAGES, progress) as stages:
        if offset_nm:
            stages.note(
                f"{height_file.name}: {offset_nm:.8g} nm subtracted from all heights, which single precision could not "
                "carry (only differences matter)."
            )
        result = results.run_simulation(surface, scope, settings, stages)
        shutil.copyfile(microscope, folder / "scope.yaml")
        results.write_data(result, folder)
        title = f"{height_file.name} under {microscope.name}"
        lead = (
            "Simulated images of a segmented backscattered-electron detector: a height map, and what each segment sees."
        )
        stages.run("pictures", results.write_page, result, folder, title, lead, [("scope.yaml", "the microscope")])
    page = output / "index.html"
    tell(f"{'opened' if show and open_in_browser(page) else 'open'} {page.resolve()}")
