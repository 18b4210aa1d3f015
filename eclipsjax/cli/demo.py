"""`eclipsjax demo`: a step-bunched surface, a four-quadrant detector, and what it sees."""

from __future__ import annotations

from pathlib import Path

import click

from eclipsjax.cli._folder import results_folder
from eclipsjax.cli._running import (
    Stages,
    force_option,
    open_in_browser,
    open_option,
    prepare_libraries,
    progress_option,
    tell,
)

_LEAD = (
    "A vicinal crystal surface whose steps have bunched into facets, under a four-quadrant backscattered-electron "
    "detector. All of it is simulated: the heights from a formula, the images by integrating the emission over every "
    "direction that reaches a quadrant and that the relief does not hide."
)


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("eclipsjax-demo"),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--size", type=click.IntRange(32, 4096), default=384, show_default=True, help="Pixels along each side.")
@open_option
@force_option
@progress_option
def demo(output: Path, size: int, no_open: bool, force: bool, progress: bool | None) -> None:
    """Simulate a step-bunched surface and write a page of pictures."""
    prepare_libraries()
    from eclipsjax.cli import _results as results
    from eclipsjax.instrument.microscope import Microscope
    from eclipsjax.instrument.scope_file import save_microscope
    from eclipsjax.io.heights import write_height
    from eclipsjax.specimen import synthetic

    scope = Microscope.annular(segments=4, gap_mm=0.2, energy_kev=5.0, current_na=0.5, dwell_us=20.0)
    settings = results.Settings(bits=8, interaction_sigma_nm=20.0)
    with results_folder(output, force) as folder, Stages(["surface", *results.STAGES], progress) as stages:
        scene = stages.run("surface", _scene, synthetic, size)
        result = results.run_simulation(scene.surface, scope, settings, stages)
        save_microscope(scope, folder / "scope.yaml")
        write_height(scene.surface, folder / "height.npz")
        results.write_data(result, folder)
        files = [("height.npz", "the heights, nm"), ("scope.yaml", "the microscope: edit it and simulate again")]
        stages.run(
            "pictures", results.write_page, result, folder, "eclipsjax demo: a step-bunched surface", _LEAD, files
        )
    page = output / "index.html"
    tell(f"{'opened' if not no_open and open_in_browser(page) else 'open'} {page.resolve()}")
    tell(f"next: eclipsjax simulate {output / 'height.npz'} --microscope {output / 'scope.yaml'} -o simulated")


def _scene(synthetic, size):
    """Bunches about 60 nm high on terraces about 450 nm wide, in pixels of 10 nm."""
    return synthetic.step_bunch(
        (size, size),
        10.0,
        step_height_nm=60.0,
        terrace_nm=450.0,
        facet_deg=22.0,
        wander_nm=60.0,
        wander_length_nm=2200.0,
        terrace_spread=0.35,
    )
