"""Short trainings from the beginning, each with one thing changed, all of the same lessons."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Rates that AdamW is given where Muon's .02 stands beside its own .003.
_ADAM_RATES = (3e-3, 1e-2)


class Trained(NamedTuple):
    """Seconds of a whole training, its mean loss over the last third of its steps, and errors on lessons kept back."""

    seconds: float
    loss: float
    errors: dict[str, float]

    @classmethod
    def not_at_all(cls, errors: dict[str, float]) -> Trained:
        """What the first parameters do."""
        return cls(0.0, math.nan, errors)


def by_optimiser(base: Any) -> dict[str, Any]:
    """The recipe, and the same by AdamW alone."""
    alone = {f"AdamW at {rate:g}": dataclasses.replace(base, muon=False, adam_rate=rate) for rate in _ADAM_RATES}
    return {f"Muon at {base.muon_rate:g}, AdamW at {base.adam_rate:g}": base, **alone}


def trained(train: Callable[..., Any], recipe: Any, errors_of: Callable[[Any], dict[str, float]]) -> Trained:
    """`train(folder, recipe=, every=, report=)` gives parameters, `errors_of` what they do."""
    with tempfile.TemporaryDirectory() as folder:
        started, last = time.perf_counter(), {}
        every = -(-recipe.steps // 3)
        parameters = train(Path(folder), recipe=recipe, every=every, report=lambda _, loss: last.update(loss))
        took = time.perf_counter() - started
    return Trained(took, last["loss"], errors_of(parameters))


def trainings_table(rows: dict[str, Trained], unit: str) -> list[str]:
    """A line for each training, a column for each error."""
    kinds = list(next(iter(rows.values())).errors)
    head = f"| training | {' | '.join(kinds)} | loss, last third | seconds |"
    lines = [head, "|---|" + "---|" * (len(kinds) + 2)]
    for label, row in rows.items():
        errors = " | ".join(f"{row.errors[kind]:.3f}{unit}" for kind in kinds)
        loss = "" if math.isnan(row.loss) else f"{row.loss:.4f}"
        lines.append(f"| {label} | {errors} | {loss} | {row.seconds:.0f} |")
    return lines
