"""What every command does around its work: libraries made ready, options that all have, Ctrl-C, progress."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from eclipsjax._types import InputError

# What a shell gives a command that Ctrl-C ended.
INTERRUPTED = 130

force_option = click.option("--force", is_flag=True, help="Overwrite results that are already there.")
progress_option = click.option(
    "--progress/--no-progress", default=None, help="Progress bar (on by default where stderr is a terminal)."
)
open_option = click.option("--no-open", is_flag=True, help="Do not open the page in a browser.")
show_option = click.option("--open/--no-open", "show", default=False, help="Open the page in a browser.")


def finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """For `callback=` of options: Click's floats take nan and inf, and its ranges let nan pass."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", context, option)
    return value


pixel_size_option = click.option(
    "--pixel-size-nm", type=float, callback=finite, help="Nanometres per pixel, where the files do not say."
)
solve_option = click.option(
    "--solve",
    multiple=True,
    metavar="NAME=STD",
    help="A number of the microscope that is only known within STD and is solved along, e.g. "
    "detector.distance_mm=0.2; may be given several times.",
)


def microscope_option(text: str = "The microscope's YAML file (eclipsjax scope new).") -> Any:
    """`--microscope FILE`."""
    return click.option("--microscope", type=click.Path(path_type=Path), required=True, help=text)


def output_option(text: str = "Folder for the results.", default: Path | None = None) -> Any:
    """`-o PATH`, which must be given unless there is a `default`."""
    needs = {"required": True} if default is None else {"default": default, "show_default": True}
    return click.option("-o", "--output", type=click.Path(path_type=Path), help=text, **needs)


def tell(sentence: str) -> None:
    """One line on stdout; letters that it cannot show (of file names that are not UTF-8) become question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(sentence.encode(encoding, errors="replace").decode(encoding))


def prepare_libraries() -> None:
    """Before a command computes or draws: a device for JAX, its compilation cache, a quiet Matplotlib."""
    check_device()
    use_compilation_cache()
    _quiet_matplotlib()


def check_device() -> None:
    """Raise `InputError` where JAX finds no device to compute on, as when JAX_PLATFORMS asks for one that is not."""
    import jax

    try:
        jax.devices()
    except Exception as error:
        asked = jax.config.jax_platforms
        reason = " ".join(str(error).split()).partition(" (set ")[0] or "that platform is not here"
        said = f"JAX_PLATFORMS is {asked}" if asked else "JAX finds no device"
        raise InputError(f"{said}, and JAX cannot start ({reason.rstrip('.')}): unset it or set it to cpu.") from None


def use_compilation_cache() -> None:
    """Keep XLA's compiled programs in the user's cache folder, unless JAX already has a place for them."""
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "eclipsjax" / "xla"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _quiet_matplotlib() -> None:
    """Our pictures have their own canvas, so the user's backend is no matter; nor is where it keeps its cache."""
    if "matplotlib" in sys.modules:
        return
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


_ctrl_c = threading.Event()


@contextmanager
def remembering_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt as always, also where other people's code swallows that or makes another error
    of it (JAX has many a bare `except:`)."""

    def remember(number: int, frame: Any) -> None:
        _ctrl_c.set()
        raise KeyboardInterrupt

    _ctrl_c.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unraisable(what: Any) -> None:
        # Ctrl-C within a callback of Python's own (garbage collection): nobody gets it, but it is remembered.
        if what.exc_type is not KeyboardInterrupt:
            hook(what)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    except Exception as error:
        if _ctrl_c.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if Ctrl-C came since `remembering_ctrl_c` began, even where somebody swallowed it."""
    if _ctrl_c.is_set():
        raise KeyboardInterrupt


class Stages:
    """A progress bar over named stages of work, with a clock that runs while a stage computes."""

    def __init__(self, names: list[str], shown: bool | None):
        self._names = list(names)
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._done = threading.Event()

    def __enter__(self) -> Stages:
        from tqdm import tqdm

        layout = "{desc:<28} {bar:24} {n}/{total} [{elapsed}]"
        self._bar = tqdm(total=len(self._names), disable=not self._shown, bar_format=layout, leave=False)
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._clock.join()
        self._bar.close()

    def _tick(self) -> None:
        while not self._done.wait(0.5):
            self._bar.refresh()

    def run(self, name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The finished result of `work`: JAX arrays are waited for, so that the bar tells the truth."""
        import jax

        if name not in self._names:
            raise KeyError(name)
        self._bar.set_description_str(name)
        result = jax.block_until_ready(work(*args, **kwargs))
        stop_if_interrupted()
        self._bar.update()
        return result

    def refine(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`work(..., report=...)` of a refinement, its steps shown; Ctrl-C ends it early, and the command goes on."""

        def report(step: Any) -> None:
            self._bar.set_description_str(f"step {step.step}, chi-square {step.chi_square:.4g}")
            stop_if_interrupted()

        result = work(*args, report=report, **kwargs)
        _ctrl_c.clear()
        return result

    def note(self, sentence: str) -> None:
        """One line on stderr, above the bar."""
        if self._shown:
            self._bar.write(sentence, file=sys.stderr)
        else:
            click.echo(sentence, err=True)


def open_in_browser(file: Path) -> bool:
    """Open a page if a person is at a terminal and there is a screen; whether that worked."""
    import webbrowser

    has_screen = sys.platform in ("win32", "darwin") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not (sys.stdout.isatty() and has_screen):
        return False
    try:
        return webbrowser.open(file.resolve().as_uri())
    except webbrowser.Error:
        return False
