"""`eclipsjax demo`: the whole job on a specimen whose heights are known: images, heights, and the truth beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eclipsjax.cli._folder import results_folder
from eclipsjax.cli._running import (
    Stages,
    force_option,
    open_in_browser,
    open_option,
    output_option,
    prepare_libraries,
    progress_option,
    tell,
)

_TITLE = "eclipsjax demo: crystals on a rough terrace"
_NOTE = (
    "The specimen and its images are simulated: crystals with walls of 68 degrees on a rough terrace, under a "
    "four-quadrant backscattered-electron detector, 8-bit images at a signal-to-noise ratio of 12. The reconstruction "
    "was given the images, the size of a pixel and the microscope, and nothing else."
)


@click.command()
@output_option(default=Path("eclipsjax-demo"))
@click.option("--size", type=click.IntRange(32, 2048), default=256, show_default=True, help="Pixels along each side.")
@open_option
@force_option
@progress_option
def demo(output: Path, size: int, no_open: bool, force: bool, progress: bool | None) -> None:
    """Simulate the images of a specimen, reconstruct its heights from them, and show them beside the truth."""
    prepare_libraries()
    from eclipsjax.cli import _results as results
    from eclipsjax.cli.reconstruct import write_page, write_results
    from eclipsjax.instrument.microscope import Microscope
    from eclipsjax.io.heights import write_height

    scope = Microscope.annular(segments=4, gap_mm=0.2, energy_kev=5.0, current_na=0.5, dwell_us=20.0)
    names = ["specimen", *results.STAGES[:-1], "reconstruct", "write", "page"]
    with results_folder(output, force) as folder, Stages(names, progress) as stages:
        surface = stages.run("specimen", _specimen, size)
        simulated = results.run_simulation(surface, scope, results.Settings(bits=8), stages)
        found = stages.run("reconstruct", _reconstruct, simulated, stages)
        stages.note(_verdict(found, surface))
        write_height(surface, folder / "truth.npz")
        stages.run("write", write_results, found, folder)
        results.write_images(simulated, folder)
        _draw(found, simulated, folder)
        stages.run(
            "page",
            write_page,
            found,
            simulated.recorded.images,
            folder,
            _TITLE,
            truth_nm=surface.height_nm,
            notes=(_NOTE,),
        )
    page = output / "index.html"
    tell(f"{'opened' if not no_open and open_in_browser(page) else 'open'} {page.resolve()}")
    tell(f"next: eclipsjax reconstruct {output / 'segment_*.tif'} --microscope {output / 'scope.yaml'} -o again")


def _specimen(size: int) -> Any:
    """Hexagonal crystals 120 nm tall on a terrace of 2 nm roughness, in pixels of 10 nm."""
    import jax

    from eclipsjax.specimen import synthetic

    shape, pixel = (size, size), 10.0
    crystals = synthetic.islands(
        shape,
        pixel,
        key=jax.random.key(7),
        count=max(2, size * size // 5000),
        radius_nm=170.0,
        radius_spread=0.35,
        height_nm=120.0,
        wall_deg=68.0,
    )
    texture = synthetic.rough(shape, pixel, key=jax.random.key(8), rms_height_nm=2.0)
    return synthetic.add(crystals, texture).surface


def _reconstruct(simulated: Any, stages: Stages) -> Any:
    from eclipsjax.imaging.camera import Camera
    from eclipsjax.inverse.pipeline import reconstruct

    camera = Camera(simulated.counts_per_signal, bits=simulated.settings.bits)
    pixel = simulated.surface.pixel_size_nm
    return stages.refine(reconstruct, simulated.recorded.images, pixel, simulated.scope, camera=camera)


def _verdict(found: Any, surface: Any) -> str:
    from eclipsjax.metrology.compare import height_error

    error = height_error(found.height_nm, surface.height_nm)
    return (
        f"{found.sentence} Heights are {float(error.rms_nm.plane):.2g} nm from the truth (rms, plane removed), "
        f"{float(error.percent.plane):.2g} % of the relief."
    )


def _draw(found: Any, simulated: Any, folder: Path) -> None:
    """`overview.png`."""
    from eclipsjax.report.figures import to_png
    from eclipsjax.report.reconstruction_overview import overview_figure

    sheet = overview_figure(found, simulated.recorded.images, simulated.surface)
    (folder / "overview.png").write_bytes(to_png(sheet, compact=True))
