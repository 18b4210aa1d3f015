"""Finished cells of a long benchmark in a file of JSON lines, so that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kept_in(path: Path | None) -> list[dict[str, Any]]:
    """All that are whole: a kill may have cut the last line."""
    if path is None or not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def keep(path: Path | None, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, added to the file if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    return entry
