"""`eclipsjax scope new | check | show`: the file that describes a microscope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eclipsjax.cli._folder import keep_inputs, results_folder
from eclipsjax.cli._running import (
    Stages,
    check_device,
    finite,
    force_option,
    output_option,
    prepare_libraries,
    progress_option,
    tell,
)

_DRAWINGS = ("detector", "side", "sky")
_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def scope() -> None:
    """Write, check or draw a microscope's file."""


@scope.command()
@_FILE
@click.option("--segments", type=click.IntRange(1, 64), default=4, show_default=True, help="Equal sectors of the ring.")
@click.option("--inner-radius-mm", type=float, callback=finite, default=1.0, show_default=True)
@click.option("--outer-radius-mm", type=float, callback=finite, default=5.0, show_default=True)
@click.option(
    "--gap-mm", type=float, callback=finite, default=0.2, show_default=True, help="Between neighbouring segments."
)
@click.option(
    "--distance-mm", type=float, callback=finite, default=6.0, show_default=True, help="Specimen to detector."
)
@click.option("--energy-kev", type=float, callback=finite, default=10.0, show_default=True, help="Landing energy.")
@click.option(
    "--start-deg",
    type=float,
    callback=finite,
    help="Where the first segment starts (default: it is centred on the right).",
)
@click.option("--specimen-bias-v", type=float, callback=finite, default=0.0, show_default=True)
@force_option
def new(file: Path, force: bool, **numbers: Any) -> None:
    """Write a microscope with a ring detector to FILE, every number with its unit and meaning."""
    from eclipsjax.instrument.microscope import Microscope
    from eclipsjax.instrument.scope_file import save_microscope

    check_device()
    save_microscope(Microscope.annular(**numbers), file, force)
    tell(f"wrote {file}: edit it, then 'eclipsjax scope check {file}' or 'eclipsjax scope show {file} -o DIR'")


@scope.command()
@_FILE
def check(file: Path) -> None:
    """Validate FILE: silent on nothing, one line if all is well, one sentence with the line number if not."""
    import numpy as np

    from eclipsjax.instrument.scope_file import load_microscope

    check_device()
    found = load_microscope(file)
    segments = found.detector.segments
    inner, outer = float(np.min(segments.inner_radius_mm)), float(np.max(segments.outer_radius_mm))
    biased = (
        "electrodes biased: electrons fly in a field" if found.is_biased else "nothing biased: electrons fly straight"
    )
    tell(
        f"{file} is valid: {segments.count} segments ({', '.join(segments.names)}), radii {inner:g} to {outer:g} mm, "
        f"{float(found.detector.distance_mm):g} mm above the specimen, {float(found.beam.energy_kev):g} keV; {biased}."
    )


@scope.command()
@_FILE
@output_option("Folder for the pictures.")
@force_option
@progress_option
def show(file: Path, output: Path, force: bool, progress: bool | None) -> None:
    """Draw FILE: detector.png, side.png (field and flights), sky.png (acceptance), and a page, index.html."""
    prepare_libraries()
    from eclipsjax.instrument.acceptance import acceptance
    from eclipsjax.instrument.electrostatics import solve_field
    from eclipsjax.instrument.scope_file import load_microscope

    found = load_microscope(file)
    keep_inputs(output, [file], [*(f"{name}.png" for name in _DRAWINGS), "index.html"])
    names = ["field", "acceptance", "pictures"] if found.is_biased else ["acceptance", "pictures"]
    with results_folder(output, force, [file]) as folder, Stages(names, progress) as stages:
        field = stages.run("field", solve_field, found) if found.is_biased else None
        table = stages.run("acceptance", acceptance, found, field=field)
        stages.run("pictures", _draw, found, field, table, folder, file.name)
    tell(f"open {(output / 'index.html').resolve()}")


def _draw(found, field, table, folder: Path, name: str) -> None:
    import numpy as np

    from eclipsjax import __version__
    from eclipsjax.cli._results import DETECTOR_CAPTION, SKY_CAPTION
    from eclipsjax.imaging.bsesm import flat_signal
    from eclipsjax.report import drawings, figures, page

    flight = (
        "Electrons fly straight: nothing is biased."
        if field is None
        else "Electrons fly in the field of the biased electrodes."
    )
    azimuth = drawings.section_azimuth_deg(found)
    along = "the image's x" if abs(azimuth) < 0.05 else f"the steepest tilt, azimuth {azimuth:.4g}° in the image"
    side = f"Section through the optical axis along {along}. {flight} Numbers at the lines: polar angle of emission."
    drawn = {
        "detector": (drawings.detector_figure(found), DETECTOR_CAPTION),
        "side": (drawings.side_figure(found, field), side),
        "sky": (drawings.sky_figure(table, 100 * np.asarray(flat_signal(table))), SKY_CAPTION),
    }
    pictures = {}
    for key, (figure, caption) in drawn.items():
        pictures[key] = page.Picture(figures.to_png(figure), caption)
        (folder / f"{key}.png").write_bytes(pictures[key].png)
    sections = [
        page.Section("Detector", [pictures["detector"]]),
        page.Section("Side view", [pictures["side"]]),
        page.Section("Acceptance", [pictures["sky"]]),
        page.Section("Numbers", page.instrument_tables(found)),
    ]
    lead = "Geometry of the detector, flight of the electrons, and the directions of emission that reach each segment."
    text = page.page(f"Microscope {name}", lead, sections, f"Made by eclipsjax {__version__}.")
    (folder / "index.html").write_text(text, encoding="utf-8")
