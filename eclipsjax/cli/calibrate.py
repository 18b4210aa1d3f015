"""`eclipsjax calibrate`: gains, pedestals and geometry from frames of what is known, or from the images themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eclipsjax._types import InputError
from eclipsjax.cli._running import (
    Stages,
    finite,
    force_option,
    microscope_option,
    output_option,
    pixel_size_option,
    prepare_libraries,
    progress_option,
    solve_option,
    tell,
)

if TYPE_CHECKING:
    from eclipsjax.cli._images import Measured
    from eclipsjax.inverse.calibration import Calibration


def _frames(name: str, text: str) -> Any:
    return click.option(f"--{name}", type=click.Path(path_type=Path), multiple=True, help=text)


@click.command()
@microscope_option("The microscope as it is believed to be.")
@output_option("The calibrated microscope's file.")
@_frames("dark", "Frame with the beam blanked; once per segment, or one file that holds all.")
@_frames("flat", "Frame of a level specimen without relief. A wide one (0.1 mm and more) calibrates by itself.")
@_frames("shape", "Frame of a known relief, whose heights --heights gives.")
@click.option("--heights", type=click.Path(path_type=Path), help="Heights of the known relief on the frame's pixels.")
@_frames("images", "Images of an unknown relief: heights are solved along.")
@pixel_size_option
@click.option(
    "--flat-tilt-std-deg",
    type=click.FloatRange(0, 10),
    callback=finite,
    default=0.1,
    show_default=True,
    help="How level the flat specimen is.",
)
@solve_option
@force_option
@progress_option
def calibrate(
    microscope: Path,
    output: Path,
    dark: tuple[Path, ...],
    flat: tuple[Path, ...],
    shape: tuple[Path, ...],
    heights: Path | None,
    images: tuple[Path, ...],
    pixel_size_nm: float | None,
    flat_tilt_std_deg: float,
    solve: tuple[str, ...],
    force: bool,
    progress: bool | None,
) -> None:
    """Write a microscope's file whose gains, pedestals and more are measured, with their uncertainties.

    Give --dark and --flat frames, or a wide --flat alone, or a known --shape, or just --images. The file holds for
    the contrast and brightness it was made at, and images from another setting are warned of.
    """
    prepare_libraries()
    from eclipsjax.cli._images import solved_along
    from eclipsjax.instrument.calibration_note import CalibrationNote, save_calibrated
    from eclipsjax.instrument.parted import parted

    kinds = {"dark": dark, "flat": flat, "shape": shape, "images": images}
    _check(kinds, heights, output, force, microscope)
    solved = solved_along(solve)
    with Stages(["read", "calibrate"], progress) as stages:
        sets = stages.run("read", _read, kinds, microscope, pixel_size_nm, stages)
        if images:
            found = stages.run("calibrate", _from_images, sets["images"], solved, stages)
        else:
            found = stages.run("calibrate", _from_frames, sets, heights, flat_tilt_std_deg, solved)
        last = next(sets[kind] for kind in ("images", "shape", "flat", "dark") if kind in sets)
        source = ", ".join(
            f"{kind}: {', '.join(file.name for file in files)}" for kind, files in kinds.items() if files
        )
        note = CalibrationNote(found.std, last.settings, source)
        scope, said = parted(found.scope)
        save_calibrated(scope.turned(-last.set.scan_rotation_deg), note, output, force)
    for sentence in (*_told(found), *said):
        tell(sentence)
    tell(f"wrote {output}")


def _check(kinds: dict[str, tuple[Path, ...]], heights: Path | None, output: Path, force: bool, scope: Path) -> None:
    if not any(kinds.values()):
        raise InputError("nothing to calibrate from: give --dark and --flat, --flat alone, --shape or --images.")
    if kinds["images"] and any(files for kind, files in kinds.items() if kind != "images"):
        raise InputError(
            "--images solves for the heights along: give it alone, or calibrate with the other frames first."
        )
    if bool(kinds["shape"]) != (heights is not None):
        raise InputError("--shape and --heights belong together: give the frame and the known relief's heights.")
    if output.exists() and not force:
        raise InputError(f"{output} already exists: choose another name or allow overwriting with force.")
    if output.exists() and scope.exists() and output.samefile(scope):
        raise InputError(f"{output} is the microscope that is to be calibrated: write to another file.")


def _read(kinds: dict[str, tuple[Path, ...]], microscope: Path, pixel: float | None, stages: Stages) -> dict[str, Any]:
    from eclipsjax.cli._images import read_measured

    sets: dict[str, Measured] = {}
    for kind, files in kinds.items():
        if files:
            # A blanked frame has no scale that matters.
            size = 1.0 if kind == "dark" and pixel is None else pixel
            sets[kind] = read_measured(files, microscope, None if _tells(files) else size, stages.note)
    settings = {kind: found.settings for kind, found in sets.items()}
    first = next(iter(settings))
    for kind, found in settings.items():
        for name in ("contrast", "brightness"):
            if found.get(name) != settings[first].get(name):
                raise InputError(
                    f"the {first} frames were taken at {name} {settings[first].get(name)}, the {kind} frames at "
                    f"{found.get(name)}: all frames need one setting."
                )
    return sets


def _tells(files: tuple[Path, ...]) -> bool:
    """Whether a file knows its pixel size."""
    from eclipsjax.io.sem import opened

    with opened(files[0]) as pages:
        return bool(pages[0].facts.pixel_size_nm)


def _from_frames(sets: dict[str, Any], heights: Path | None, tilt_std_deg: float, solved: dict[str, float]) -> Any:
    from eclipsjax.inverse.calibrate import calibrate
    from eclipsjax.inverse.frames import Dark, Flat, Shape
    from eclipsjax.io.heights import read_height

    frames: list[Any] = []
    if "dark" in sets:
        frames.append(Dark(sets["dark"].set.images))
    if "flat" in sets:
        found = sets["flat"].set
        frames.append(Flat(found.images, found.pixel_size_nm, tilt_std_deg))
    if "shape" in sets:
        found = sets["shape"].set
        frames.append(Shape(found.images, read_height(heights, found.pixel_size_nm)))
    return calibrate(next(iter(sets.values())).scope, frames, solved)


def _from_images(measured: Measured, solved: dict[str, float], stages: Stages) -> Calibration:
    from eclipsjax.inverse.calibrate_from_images import calibrate_from_images

    images, pixel, scope = measured.set.images, measured.set.pixel_size_nm, measured.scope
    found = stages.refine(calibrate_from_images, images, pixel, scope, solved, grey_range=measured.grey_range)
    stages.note(found.sentence)
    return found.calibration


def _told(found: Calibration) -> list[str]:
    """The numbers with their errors, what they leave open, and what could not be determined."""
    from eclipsjax.imaging.sensitivity import stem
    from eclipsjax.inverse.uncertain import GAIN, PEDESTAL

    # Other names end in their unit.
    units = {GAIN: " grey levels per signal", PEDESTAL: " of signal (share of the emitted electrons)"}
    lines = [
        f"{name} = {found.instrument.value(name):.6g} +- {std:.2g}{units.get(stem(name), '')}"
        for name, std in found.std.items()
    ]
    lines.append(f"chi-square per degree of freedom: {float(found.chi_square):.3g}")
    lines.append(
        f"left open by the calibration: {found.angle_std_deg(0.0):.2g} deg on a level plane, "
        f"{found.angle_std_deg(20.0):.2g} deg of inclination on one of 20 deg."
    )
    return [*lines, *found.sentences()]
