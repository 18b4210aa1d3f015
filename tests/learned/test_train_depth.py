"""Training: learns, logs, and goes on after a kill as if nothing had happened."""

import csv
import json
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from eclipsjax import InputError
from eclipsjax.learn import train_depth as training
from eclipsjax.learn.depth_scenes import FAMILIES, lessons
from eclipsjax.learn.train_depth import Recipe, card, train_depth
from eclipsjax.nn.depth import DepthConfig

CONFIG = DepthConfig(fields=(1, 1))
RECIPE = Recipe(steps=8, size=16, batch=1, large_share=0.0, warm=2)


@pytest.fixture(autouse=True)
def few_families(monkeypatch):
    monkeypatch.setattr(training, "FAMILIES", {name: FAMILIES[name] for name in ("sinusoid",)})
    # Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        yield


def logged(folder):
    with open(folder / "losses.csv") as file:
        return list(csv.reader(file))


def test_goes_on_where_it_stopped(tmp_path):
    whole = train_depth(tmp_path / "whole", RECIPE, CONFIG, every=2)
    train_depth(tmp_path / "parts", RECIPE, CONFIG, every=2, stop_after=4)
    resumed = train_depth(tmp_path / "parts", RECIPE, CONFIG, every=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole, resumed)
    logs = [logged(tmp_path / name) for name in ("whole", "parts")]
    assert [row[0] for row in logs[0]] == ["step", "2", "4", "6", "8"]
    np.testing.assert_allclose(np.array(logs[0][1:], float), np.array(logs[1][1:], float), rtol=1e-4)


def test_the_card_tells_what_the_weights_reach(tmp_path):
    parameters = train_depth(tmp_path, RECIPE, CONFIG, every=4)
    found = card(RECIPE, CONFIG, parameters, tmp_path, "0")
    assert list(found["height_error_over_robust"]) == ["sinusoid"]
    assert 0 < found["height_error_over_robust"]["sinusoid"] < 10
    assert found["last_losses"]["step"] == 8 and "--seed 0" in found["command"]
    json.dumps(found)


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    train_depth(tmp_path, RECIPE, CONFIG, every=2, stop_after=2)
    with pytest.raises(InputError, match="another recipe"):
        train_depth(tmp_path, Recipe(steps=9), CONFIG)


def test_shorter_than_its_warm_up(tmp_path):
    train_depth(tmp_path, Recipe(steps=2, size=16, batch=1, large_share=0.0), CONFIG)
    assert [row[0] for row in logged(tmp_path)] == ["step", "2"]


def test_ends_after_the_step_that_is_told_to(tmp_path):
    def after_step(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_depth(tmp_path, RECIPE, CONFIG, every=2, after_step=after_step)
    train_depth(tmp_path, RECIPE, CONFIG, every=2)
    assert [row[0] for row in logged(tmp_path)] == ["step", "2", "4", "6", "8"]


@pytest.mark.slow
def test_survives_a_kill(tmp_path, child_environment):
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from eclipsjax.learn import train_depth as training
        from eclipsjax.learn.train_depth import Recipe
        from eclipsjax.nn.depth import DepthConfig
        training.FAMILIES = {{"sinusoid": training.FAMILIES["sinusoid"]}}
        def report(step, losses):
            if step == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        training.train_depth(Path({str(tmp_path)!r}), {RECIPE!r}, {CONFIG!r}, every=2, report=report)
    """)
    killed = subprocess.run([sys.executable, "-c", code], env=child_environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    train_depth(tmp_path, RECIPE, CONFIG, every=2)
    steps = [row[0] for row in logged(tmp_path)]
    assert steps[-1] == "8" and "4" in steps


@pytest.mark.parametrize("family", ["steps", "helicoid", "unresolved islands"])
def test_lessons_are_true(family):
    """Away from edges the slopes are the derivatives of the heights."""
    lesson = lessons(family, 48, 2, jax.random.key(3))
    for k in range(2):
        height = np.asarray(lesson.height_px[k], float)
        rows, columns = np.gradient(height)
        far = ~np.asarray(lesson.edge[k] | lesson.undetermined[k])
        far &= np.abs(np.diff(height, axis=0, prepend=height[:1])) < 1  # not across the cut of the helicoid
        far[[0, -1]] = far[:, [0, -1]] = False
        calm = far & np.roll(far, 1, 0) & np.roll(far, -1, 0) & np.roll(far, 1, 1) & np.roll(far, -1, 1)
        assert calm.sum() > 100
        np.testing.assert_allclose(rows[calm], np.asarray(lesson.true_y[k])[calm], atol=0.02)
        np.testing.assert_allclose(columns[calm], np.asarray(lesson.true_x[k])[calm], atol=0.02)
