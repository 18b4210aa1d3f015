"""Folders of results: filled all or nothing, cleared of what an earlier run left, and never of anything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eclipsjax._types import InputError
from eclipsjax.cli._running import stop_if_interrupted

# Names and digests of the files that the last run wrote, so that the next may know them from a person's own.
MANIFEST = ".eclipsjax-files.json"


@contextmanager
def results_folder(path: Path, force: bool, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """A hidden folder inside `path` to write to: its files move to `path` at the end, or vanish if anything fails.

    With `force` what an earlier run wrote there and this one does not is removed, unless somebody changed it since or
    it is among the `inputs`.
    """
    from eclipsjax.io.heights import prepare_folder

    existed = path.exists()
    prepare_folder(path, force)
    staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=path))
    try:
        yield staging
        stop_if_interrupted()
        written = sorted(staging.iterdir())
        manifest = json.dumps({file.name: sha256(file) for file in written}, indent=0)
        earlier = [name for name in _left_by_earlier_run(path) if not (staging / name).exists()]
        for file in written:
            os.replace(file, path / file.name)
        for name in earlier:
            if not any(_same(path / name, given) for given in inputs):
                (path / name).unlink(missing_ok=True)
        (staging / MANIFEST).write_text(manifest, encoding="utf-8")
        os.replace(staging / MANIFEST, path / MANIFEST)
    except OSError as error:
        # A full disk does not say where, and the hidden folder means nothing to a person.
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else staging
        if where == staging or staging in where.parents:
            error.filename = str(path / where.relative_to(staging))
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(path.iterdir()):
            path.rmdir()


def keep_inputs(folder: Path, inputs: Iterable[Path], results: Iterable[str]) -> None:
    """Raise `InputError` where one of the `results`, file names in `folder`, would replace one of the `inputs`."""
    names = list(results)
    for given in inputs:
        if any(_same(folder / name, given) for name in names):
            raise InputError(f"{given} would be replaced by the results in {folder}: choose another folder with -o.")


def _same(file: Path, other: Path) -> bool:
    try:
        return os.path.samefile(file, other)
    except OSError:
        return False


def _left_by_earlier_run(path: Path) -> list[str]:
    """The files of the last run that are still as it wrote them."""
    try:
        listed = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        plain = {name: digest for name, digest in listed.items() if Path(name).name == name}
    except (OSError, ValueError, AttributeError, TypeError):
        return []
    return [name for name, digest in plain.items() if (path / name).is_file() and sha256(path / name) == digest]


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
