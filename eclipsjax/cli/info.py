"""`eclipsjax info`: what image files say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eclipsjax._types import InputError
from eclipsjax.cli._running import tell

if TYPE_CHECKING:
    from eclipsjax.io.sem import SemImage

_WIDTH = 22
_NUMBERS = (
    ("energy", "energy_kev", "keV"),
    ("working distance", "working_distance_mm", "mm"),
    ("beam current", "current_na", "nA"),
    ("dwell time", "dwell_us", "us"),
    ("stage tilt", "stage_tilt_deg", "deg"),
    ("scan rotation", "scan_rotation_deg", "deg"),
    ("contrast", "contrast", ""),
    ("brightness", "brightness", ""),
)


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
def info(files: tuple[Path, ...]) -> int:
    """Print what each image FILE says: microscope, pixel size, detector, grey levels. Nothing is written."""
    from eclipsjax.cli import INPUT_ERROR
    from eclipsjax.io.sem import decoded, opened

    code = 0
    for path in files:
        try:
            with opened(path) as pages:
                for k, page in enumerate(pages):
                    tell(f"{path}, page {k}" if len(pages) > 1 else str(path))
                    for label, value in _lines(decoded(path, page)):
                        tell(f"  {label:<{_WIDTH}}{value}")
        except InputError as error:
            click.echo(f"eclipsjax: {error}", err=True)
            code = INPUT_ERROR
    return code


def _lines(image: SemImage) -> Iterator[tuple[str, str]]:
    """Label and value of everything that the file tells; what it does not tell is left out, but for the pixel size."""
    record = image.record
    rows, columns = record.shape
    yield "notes of", record.vendor
    yield "image", f"{columns} x {rows} pixels, {record.dtype}"
    if record.databar_rows:
        yield "data bar", f"{record.databar_rows} rows, cut off below the image"
    yield "pixel size", _pixel_size(image)
    for label, name, unit in _NUMBERS:
        value = getattr(record, name)
        if value is not None:
            yield label, f"{value:.6g} {unit}".rstrip()
    if record.stage_mm:
        yield "stage position", " ".join(f"{v:.6g}" for v in record.stage_mm) + " mm"
    for label, text in (("detector", record.detector), ("segment", record.segment), ("recorded", record.recorded)):
        if text:
            yield label, text
    yield from _levels(image)


def _pixel_size(image: SemImage) -> str:
    x, y = image.record.pixel_size_nm, image.record.pixel_size_y_nm
    if x is None:
        return "not in the file"
    rows, columns = image.record.shape
    y = y or x
    sides = f"{x:.6g}" if abs(x - y) <= 1e-3 * x else f"{x:.6g} x {y:.6g}"
    return f"{sides} nm (field of view {columns * x * 1e-3:.5g} x {rows * y * 1e-3:.5g} um)"


def _levels(image: SemImage) -> Iterator[tuple[str, str]]:
    values = image.image
    yield "values", f"{values.min():.6g} to {values.max():.6g}, mean {values.mean(dtype=float):.5g}"
    if image.lowest is not None and image.highest is not None:
        yield "grey levels", f"{image.lowest:g} to {image.highest:g} in steps of {image.step:g}"
        low, high = ((values == level).mean() for level in (image.lowest, image.highest))
        yield "clipped", f"{low:.3%} of the pixels at the lowest level, {high:.3%} at the highest"
