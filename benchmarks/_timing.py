"""How long a call takes and how much memory, as rows of a table with the bar that each has to meet."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

VERDICT = {True: "met", False: "**missed**", None: ""}


class Row(NamedTuple):
    """One line of the table: what was asked, what came out, and the bar with whether it was met."""

    question: str
    first: str = ""
    run: str = ""
    figure: str = ""
    bar: str = ""
    met: bool | None = None


def rows_table(rows: list[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| question | first call | later calls, best | figure | bar | |", "|---|---|---|---|---|---|"]
    return lines + [f"| {r.question} | {r.first} | {r.run} | {r.figure} | {r.bar} | {VERDICT[r.met]} |" for r in rows]


class Peak(NamedTuple):
    """The most memory this process has held so far, GiB: its own, and of the accelerator's (0 where it has none)."""

    host_gib: float
    device_gib: float

    @classmethod
    def now(cls) -> Peak:
        """Up to now."""
        device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        return cls(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, device / 2**30)


def timed(call: Callable[[], Any], again: Callable[[], Any] | None = None, repeats: int = 3) -> tuple[float, float]:
    """Seconds of the first call, and of the best of `repeats` later ones (of `again`, if given)."""

    def once(f):
        started = time.perf_counter()
        jax.block_until_ready(f())
        return time.perf_counter() - started

    return once(call), min(once(again or call) for _ in range(repeats))


def seconds(value: float) -> str:
    """Three digits and a unit."""
    return f"{value:.3g} s" if value < 300 else f"{value / 60:.3g} min"
