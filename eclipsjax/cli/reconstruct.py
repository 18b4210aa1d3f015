"""`eclipsjax reconstruct`: segment images and a microscope's file in, heights in nanometres out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eclipsjax._types import InputError
from eclipsjax.cli._folder import keep_inputs, results_folder
from eclipsjax.cli._running import (
    Stages,
    force_option,
    microscope_option,
    open_in_browser,
    output_option,
    pixel_size_option,
    prepare_libraries,
    progress_option,
    show_option,
    solve_option,
    tell,
)

if TYPE_CHECKING:
    from eclipsjax.cli._images import Measured
    from eclipsjax.inverse.method import Method
    from eclipsjax.inverse.reconstruction import Reconstruction

EXPORTS = ("gwy", "nc", "stl", "ply", "glb")
STAGES = ["read", "reconstruct", "write", "page"]


@click.command()
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
@microscope_option()
@output_option()
@pixel_size_option
@click.option(
    "--method",
    type=click.Choice(["refined", "photometric", "supervised", "closed-loop", "closed-loop-refined"]),
    default="refined",
    show_default=True,
    help="Through the exact simulator; in closed form (a second; nothing hidden); by a trained network in one pass; or "
    "by the network, taught by these images first, alone or with the search after it.",
)
@solve_option
@click.option("--iterations", type=click.IntRange(1, 1000), default=80, show_default=True, help="Most steps (refined).")
@click.option(
    "--level-deg",
    type=click.FloatRange(0, min_open=True),
    default=4.0,
    show_default=True,
    help="How level the specimen lies (standard deviation; inf: not known). Counts where numbers are solved along.",
)
@click.option("--export", "exports", type=click.Choice(EXPORTS), multiple=True, help="Heights in this format, too.")
@show_option
@force_option
@progress_option
def reconstruct(
    images: tuple[Path, ...],
    microscope: Path,
    output: Path,
    pixel_size_nm: float | None,
    method: str,
    solve: tuple[str, ...],
    iterations: int,
    level_deg: float,
    exports: tuple[str, ...],
    show: bool,
    force: bool,
    progress: bool | None,
) -> None:
    """Heights from the IMAGEs of all segments: one file for each (.tif, .png, .npy), or one that holds them all.

    Writes height.npz (heights and standard deviations), height.tif, normals.png, profile.csv, scope.yaml and a page,
    index.html. Ctrl-C while it refines keeps the best heights so far. A calibrated microscope's numbers are solved
    along, unless --solve names others.
    """
    if solve and method != "refined":
        raise InputError(f"--solve needs --method refined: {method} takes the microscope as it is.")
    prepare_libraries()
    from eclipsjax.cli._images import read_measured, solved_along

    inputs = (*images, microscope)
    keep_inputs(output, inputs, file_names(exports))
    with Stages(STAGES, progress) as stages:
        measured = stages.run("read", read_measured, images, microscope, pixel_size_nm, stages.note)
        for sentence in measured.warnings:
            stages.note(f"warning: {sentence}")
        solved = solved_along(solve) or ({} if measured.note is None else dict(measured.note.std))
        with results_folder(output, force, inputs) as folder:
            chosen = _method(method, iterations, level_deg, solved)
            result = stages.run("reconstruct", _reconstruct, measured, chosen, stages)
            stages.run("write", write_results, result, folder, exports)
            title = f"{images[0].stem} and {len(measured.set.names) - 1} more segments"
            stages.run("page", write_page, result, measured.set.images, folder, title, measured.files)
    page = output / "index.html"
    tell(f"{'opened' if show and open_in_browser(page) else 'open'} {page.resolve()}")


def file_names(exports: tuple[str, ...] = ()) -> list[str]:
    """All files that `write_results` and `write_page` write."""
    fixed = ["height.npz", "height.tif", "normals.png", "profile.csv", "scope.yaml", "index.html"]
    return [*fixed, *(f"height.{kind}" for kind in exports)]


def _method(name: str, iterations: int, level_deg: float, solved: dict[str, float]) -> Method:
    from eclipsjax.inverse.closed_loop import ClosedLoop
    from eclipsjax.inverse.pipeline import Photometric
    from eclipsjax.inverse.refine import Refined
    from eclipsjax.inverse.supervised import Supervised

    if name == "refined":
        return Refined(iterations=iterations, level_deg=level_deg, uncertain=solved)
    if name.startswith("closed-loop"):
        then = Refined(iterations=iterations) if name == "closed-loop-refined" else None
        return ClosedLoop(level_deg=level_deg, then=then)
    return Photometric() if name == "photometric" else Supervised()


def _reconstruct(measured: Measured, method: Method, stages: Stages) -> Reconstruction:
    import dataclasses

    from eclipsjax.inverse.pipeline import reconstruct

    result = stages.refine(reconstruct, **measured.recorded(stages.note), method=method)
    stages.note(f"{result.sentence} chi-square {float(result.chi_square):.3g} per degree of freedom.")
    for sentence in result.warnings:
        if sentence != result.sentence:
            stages.note(f"warning: {sentence}")
    return dataclasses.replace(result, warnings=(*measured.warnings, *result.warnings))


def write_results(result: Reconstruction, folder: Path, exports: tuple[str, ...] = ()) -> None:
    """Heights, normals, a profile along the steepest direction, and the microscope as it was used."""
    import numpy as np

    from eclipsjax import __version__
    from eclipsjax.instrument.scope_file import save_microscope
    from eclipsjax.io.export import export_height, export_normals, export_profile
    from eclipsjax.report.figures import sample_map, steepest_azimuth_deg
    from eclipsjax.report.maps import profile_line
    from eclipsjax.specimen.surface import Surface

    height, pixel = np.asarray(result.height_nm), float(result.pixel_size_nm)
    notes: dict[str, Any] = {
        "made_by": f"eclipsjax {__version__}",
        "method": type(result.method).__name__,
        "outcome": result.sentence,
        "chi_square_per_degree_of_freedom": float(result.chi_square),
        "warnings": list(result.warnings),
    }
    std = np.asarray(result.height_std_nm)
    for kind in ("npz", "tif", *exports):
        holds_std = kind not in ("tif", "stl")
        export_height(
            height,
            pixel,
            folder / f"height.{kind}",
            height_std_nm=std if holds_std else None,
            notes=None if kind == "stl" else notes,
        )
    export_normals(np.asarray(result.normals), folder / "normals.png")
    azimuth = steepest_azimuth_deg(Surface(result.height_nm, result.pixel_size_nm))
    column, row, distance = profile_line(height.shape, azimuth)
    columns = {"height_nm": sample_map(height, column, row), "height_std_nm": sample_map(std, column, row)}
    export_profile(distance * pixel, columns, folder / "profile.csv")
    save_microscope(result.scope, folder / "scope.yaml")


def write_page(
    result: Reconstruction,
    images: Any,
    folder: Path,
    title: str,
    files: Any = (),
    truth_nm: Any = None,
    notes: tuple[str, ...] = (),
) -> None:
    """`index.html`."""
    from eclipsjax.report.reconstruction_page import reconstruction_page

    text = reconstruction_page(result, images, title, files=files, truth_nm=truth_nm, notes=notes)
    (folder / "index.html").write_text(text, encoding="utf-8")
