"""A file is there whole or not at all: it is written under another name beside its place and then moved there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eclipsjax._types import InputError


@contextmanager
def whole_file(path: str | os.PathLike, force: bool = False) -> Iterator[Path]:
    """The name to write to in the body; after the body has ended well, what lies there becomes the file `path`.

    Where the body fails or is interrupted, nothing of it stays and an older file `path` is as it was. An existing file
    is replaced only with `force`; `InputError` otherwise, and where the system refuses. Gradient: none.
    """
    path = Path(path)
    if path.exists() and not force:
        raise InputError(f"{path} already exists: choose another name or allow overwriting with force.")
    # Through a link to the file behind it. The ending stays: some writers read it.
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():
        raise InputError(f"{path} is no file that could be replaced (a folder or a device): give another name.")
    beside = place.with_name(f".eclipsjax-{uuid.uuid4().hex}{place.suffix}")
    try:
        # First of all, so that a folder that cannot be written to is noticed before any work and by Python itself.
        beside.touch(exist_ok=False)
        yield beside
        os.replace(beside, place)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):
            beside.unlink()
