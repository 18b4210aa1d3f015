"""Long benchmarks, cell by cell: finished cells stay in a file of JSON lines, from which a stopped run goes on."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# Compiled programs hold memory mappings, of which a Linux process may have 65,530: dropped after so many cells.
_CELLS_HELD = 12


def options(doc: str, pixels: int, quick: str) -> argparse.ArgumentParser:
    """`--size`, `--resume` and `--quick`. From here on compiled programs are kept on disk as well: nobody asks long
    benchmarks how long compiling takes."""
    programs = Path(tempfile.gettempdir()) / "eclipsjax-benchmark-programs"
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("--size", type=int, default=pixels, help=f"pixels a side (default {pixels})")
    parser.add_argument("--resume", type=Path, help="a file of JSON lines that keeps finished cells")
    parser.add_argument("--quick", action="store_true", help=f"{quick}, nothing written")
    return parser


def kept_or_made(
    asked: dict[tuple, Callable[[], dict[str, Any] | None]],
    key_of: Callable[[dict[str, Any]], tuple],
    told: Callable[[dict[str, Any]], str],
    resume: Path | None,
) -> list[dict[str, Any]]:
    """Every cell that is asked, in order: as it stands in the file `resume`, or else made, told and kept there. Without
    those that cannot be made (None)."""
    done = {key_of(entry): entry for entry in _kept_in(resume)}
    found, made = [], 0
    for k, (key, make) in enumerate(asked.items(), 1):
        if key not in done:
            if (entry := make()) is None:
                continue
            done[key] = _keep(resume, entry)
            print(f"[{k}/{len(asked)}] {told(entry)}", file=sys.stderr, flush=True)
            made += 1
            if made % _CELLS_HELD == 0:
                jax.clear_caches()
        found.append(done[key])
    return found


def _kept_in(path: Path | None) -> list[dict[str, Any]]:
    """All that are whole: a kill may have cut the last line."""
    if path is None or not path.is_file():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def _keep(path: Path | None, entry: dict[str, Any]) -> dict[str, Any]:
    """The entry, added to the file if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
    return entry
