"""A training's folder: means over the steps since the last line, one recipe, damage told in a sentence."""

import csv

import jax.numpy as jnp
import pytest

from eclipsjax._types import InputError
from eclipsjax.learn.training import last_losses, train

STATE = {"parameters": jnp.zeros(())}


def run(folder, every, **choices):
    """Six steps whose losses are their numbers."""
    step = lambda state, number: (state, jnp.asarray([float(number)]))  # noqa: E731
    return train(folder, {"recipe": 1}, ("loss",), STATE, step, 6, every, **choices)


def test_means_are_of_the_steps_since_the_last_line(tmp_path):
    run(tmp_path, 2, stop_after=2)
    run(tmp_path, 5)
    with open(tmp_path / "losses.csv") as file:
        assert list(csv.reader(file)) == [["step", "loss"], ["2", "1.5"], ["5", "4"], ["6", "6"]]
    assert last_losses(tmp_path) == {"step": 6.0, "loss": 6.0}


@pytest.mark.parametrize("text", ["", "3", "[1]"])
def test_damaged_folders_are_told(tmp_path, text):
    run(tmp_path, 3)
    (tmp_path / "losses.csv").write_text("")
    with pytest.raises(InputError, match=r"losses\.csv is gone or damaged"):
        last_losses(tmp_path)
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.json is damaged"):
        run(tmp_path, 3)
