"""A training that goes on where it stopped: states and losses in a folder, which belongs to one recipe."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from eclipsjax._types import InputError
from eclipsjax._whole_file import whole_file
from eclipsjax.nn.checkpoint import checkpoints


def train(
    folder: Path,
    recipe: dict,
    terms: tuple[str, ...],
    state: Any,
    take_step: Callable[[Any, int], tuple[Any, Array]],
    steps: int,
    every: int,
    report: Callable[[int, dict], None] | None = None,
    stop_after: int | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Any:
    """The state after `steps` of `take_step(state, step) -> state, (term,) losses`, from the last one saved.

    Every `every` steps the state goes to `folder/checkpoints` and the mean losses to `folder/losses.csv` (and to
    `report(step, losses)`); a second call goes on from there. `stop_after` ends this call at a step, unfinished;
    `after_step(step)` is called after each and may raise to end it there. A folder begun with another `recipe` is
    refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_recipe(folder / "recipe.json", recipe)
    with checkpoints(folder / "checkpoints") as saved:
        first = saved.latest or 0
        if first:
            state, _ = saved.restore(state)
        sums, summed = jnp.zeros(len(terms)), 0
        for step in range(first + 1, min(steps, stop_after or steps) + 1):
            state, losses = take_step(state, step)
            sums, summed = sums + losses, summed + 1
            if step % every == 0 or step == steps:
                means = dict(zip(terms, (sums / summed).tolist(), strict=True))
                saved.save(step, state, means)
                _log(folder / "losses.csv", step, means)
                sums, summed = jnp.zeros(len(terms)), 0
                if report is not None:
                    report(step, means)
            if after_step is not None:
                after_step(step)
    return state


def last_losses(folder: Path) -> dict[str, float]:
    """The newest line of a training's losses."""
    try:
        with open(folder / "losses.csv") as file:
            return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}
    except (OSError, IndexError, TypeError, ValueError):
        raise InputError(f"{folder / 'losses.csv'} is gone or damaged: train again in a new folder.") from None


def _same_recipe(file: Path, asked: dict) -> None:
    """Refuse to go on with another recipe than the folder was begun with, and say where they differ."""
    if not file.exists():
        with whole_file(file) as place:
            place.write_text(json.dumps(asked, indent=1))
        return
    try:
        begun = dict(json.loads(file.read_text()))
    except (ValueError, TypeError):
        raise InputError(f"{file} is damaged: give a new folder.") from None
    if begun != asked:
        was, wanted = _difference(begun, asked)
        raise InputError(
            f"{file} says that this folder was begun with another recipe ({was}, not {wanted}): give a new folder."
        )


def _difference(begun: dict, asked: dict) -> tuple[str, str]:
    """What differs, as the folder has it and as it was asked for."""
    one, other = _flat(begun), _flat(asked)
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return tuple(", ".join(f"{name} {side.get(name, 'not said')}" for name in names) for side in (one, other))


def _flat(numbers: dict) -> dict:
    found = {}
    for name, value in numbers.items():
        found |= _flat(value) if isinstance(value, dict) else {name: value}
    return found


def _log(file: Path, step: int, means: dict) -> None:
    new = not file.exists()
    with open(file, "a", newline="") as out:
        writer = csv.writer(out)
        if new:
            writer.writerow(["step", *means])
        writer.writerow([step, *(f"{value:.6g}" for value in means.values())])
