"""`eclipsjax frames`: heights of one frame after the other, out of a folder that may still be filling."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eclipsjax._types import InputError
from eclipsjax.cli._running import (
    INTERRUPTED,
    finite,
    microscope_option,
    output_option,
    pixel_size_option,
    prepare_libraries,
    stop_if_interrupted,
    tell,
)

if TYPE_CHECKING:
    from eclipsjax.inverse.method import Method

# Seconds for which a file must not have grown, and between two looks at the folder.
_SETTLED_S, _LOOK_S = 0.5, 0.2
LOG, _COLUMNS = "frames.csv", ("frame", "seconds", "chi_square", "outcome", "warnings")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@microscope_option()
@output_option()
@pixel_size_option
@click.option(
    "--method",
    type=click.Choice(["supervised", "quick", "photometric", "adapted"]),
    default="supervised",
    show_default=True,
    help="A trained network in one pass; the same with the deep simulator; the closed form; or the network after the "
    "closed loop has taught it on the first frame.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    callback=finite,
    default=0.0,
    show_default=True,
    help="Seconds to wait for another frame before it ends.",
)
def frames(folder: Path, microscope: Path, output: Path, pixel_size_nm: float | None, method: str, wait: float) -> None:
    """Heights of every frame in FOLDER: a file that holds all segments, or a folder with one file for each.

    Writes NAME.height.npz per frame and a line in frames.csv. A frame that cannot be read is named and left out; one
    that has its heights already is not done again, so that Ctrl-C loses nothing. Prints frames per second at the end.
    """
    prepare_libraries()
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that frames are written to.")
    output.mkdir(parents=True, exist_ok=True)
    loop = _Frames(microscope, output, pixel_size_nm, method)
    try:
        for frame in _arriving(folder, output, wait):
            loop.take(frame)
    except KeyboardInterrupt:
        tell(f"interrupted: {loop.summary()}")
        click.get_current_context().exit(INTERRUPTED)
    tell(loop.summary())


class _Frames:
    """One frame after the other, with what was learned from the first, and the clock."""

    def __init__(self, microscope: Path, output: Path, pixel_size_nm: float | None, method: str):
        self.microscope, self.output, self.pixel_size_nm, self.name = microscope, output, pixel_size_nm, method
        self.method: Method | None = None
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self.told: set[str] = set()

    def take(self, frame: Path) -> None:
        """Heights of this frame, or its name among those that failed."""
        from eclipsjax.io.export import export_height

        began = time.perf_counter()
        try:
            result = self._reconstructed(frame)
            notes = {"frame": frame.name, "outcome": result.sentence, "warnings": list(result.warnings)}
            heights, pixel = result.height_nm, float(result.pixel_size_nm)
            export_height(heights, pixel, _place(self.output, frame), result.height_std_nm, notes=notes)
        except InputError as error:
            self.failed.append(frame.name)
            click.echo(f"eclipsjax: {frame.name} is left out: {error}", err=True)
            self._log(frame, "", "", "failed", str(error))
            return
        seconds = time.perf_counter() - began
        self.seconds.append(seconds)
        chi_square = f"{float(result.chi_square):.4g}"
        self._log(frame, f"{seconds:.3f}", chi_square, result.outcome.name, " ".join(result.warnings))
        tell(f"{frame.name}: {seconds:.2f} s, chi-square {chi_square}")

    def _reconstructed(self, frame: Path) -> Any:
        from eclipsjax.cli._images import read_measured
        from eclipsjax.inverse.pipeline import reconstruct

        files = sorted(f for f in frame.iterdir() if f.is_file()) if frame.is_dir() else [frame]
        measured = read_measured(files, self.microscope, self.pixel_size_nm, self._once)
        recorded = measured.recorded(self._once)
        if self.method is None:
            self.method = self._chosen(recorded)
        return reconstruct(**recorded, method=self.method)

    def _chosen(self, recorded: dict[str, Any]) -> Method:
        from eclipsjax.inverse.pipeline import Photometric, adapted
        from eclipsjax.inverse.supervised import Supervised
        from eclipsjax.nn.dsm import DeepSimulator

        if self.name == "adapted":
            return adapted(**recorded)
        if self.name == "quick":
            return Supervised(simulator=DeepSimulator.shipped())
        return Photometric() if self.name == "photometric" else Supervised()

    def _once(self, sentence: str) -> None:
        """The same for every frame is told once."""
        if sentence not in self.told:
            self.told.add(sentence)
            click.echo(sentence, err=True)

    def _log(self, frame: Path, *values: str) -> None:
        file = self.output / LOG
        is_new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if is_new:
                writer.writerow(_COLUMNS)
            writer.writerow([frame.name, *values])

    def summary(self) -> str:
        """How many, which failed, and how many a second, those aside that compiled."""
        failed = f", {len(self.failed)} left out ({', '.join(self.failed)})" if self.failed else ""
        count = len(self.seconds)
        if count < 2:
            return f"{count} frame{'' if count == 1 else 's'} done{failed}; heights in {self.output}"
        rate = (count - 1) / sum(self.seconds[1:])
        return f"{count} frames done{failed}; {rate:.3g} frames per second after the first; heights in {self.output}"


def _place(output: Path, frame: Path) -> Path:
    return output / f"{frame.name}.height.npz"


def _arriving(folder: Path, output: Path, wait: float) -> Iterator[Path]:
    """Frames by name as they are complete, those without heights yet; ends when none came for `wait` seconds."""
    done: set[str] = set()
    last = time.monotonic()
    while True:
        stop_if_interrupted()
        entries = [f for f in sorted(folder.iterdir()) if f != output and not f.name.startswith(".")]
        fresh = [f for f in entries if f.name not in done and not _place(output, f).exists()]
        ready = next((f for f in fresh if _is_settled(f)), None)
        if ready is not None:
            done.add(ready.name)
            yield ready
            last = time.monotonic()
        elif not fresh and time.monotonic() - last >= wait:
            return
        else:
            time.sleep(_LOOK_S)


def _is_settled(frame: Path) -> bool:
    """Whether nothing in it has changed for a moment (by a clock that may not be ours)."""
    try:
        files = [frame, *frame.iterdir()] if frame.is_dir() else [frame]
        return not 0.0 <= time.time() - max(f.stat().st_mtime for f in files) < _SETTLED_S
    except OSError:
        return False
