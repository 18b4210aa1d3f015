"""What every command does around its work: compilation cache, progress, and folders that are filled all or nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

force_option = click.option("--force", is_flag=True, help="Overwrite results that are already there.")
progress_option = click.option(
    "--progress/--no-progress", default=None, help="Progress bar (on by default where stderr is a terminal)."
)
open_option = click.option("--no-open", is_flag=True, help="Do not open the page in a browser.")


def use_compilation_cache() -> None:
    """Keep XLA's compiled programs in the user's cache folder, unless JAX already has a place for them."""
    import jax

    if jax.config.jax_compilation_cache_dir:
        return
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "eclipsjax" / "xla"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


_ctrl_c = threading.Event()


@contextmanager
def remembering_ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt as always, and is not lost where other people's code swallows that."""

    def remember(number: int, frame: Any) -> None:
        _ctrl_c.set()
        raise KeyboardInterrupt

    _ctrl_c.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop_if_interrupted() -> None:
    if _ctrl_c.is_set():
        raise KeyboardInterrupt


@contextmanager
def results_folder(path: Path, force: bool) -> Iterator[Path]:
    """A hidden folder inside `path` to write to: its files move to `path` at the end, or vanish if anything fails."""
    from eclipsjax.io.heights import prepare_folder

    existed = path.exists()
    prepare_folder(path, force)
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=path))
    try:
        yield staging
        _stop_if_interrupted()
        for file in sorted(staging.iterdir()):
            os.replace(file, path / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()


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
        _stop_if_interrupted()
        self._bar.update()
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
