"""Distillation: learns, goes on after a stop as if nothing had happened, repeats what is hard, on any devices."""

import csv
import json
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.learn import distil as distilling
from eclipsjax.learn.distil import PRESETS, Recipe, card, distil, lesson_of
from eclipsjax.learn.hard_examples import HardExamples
from eclipsjax.learn.pupils import dsm_pupil
from eclipsjax.learn.relief_scenes import TAUGHT, crops, maps_of_folder, reliefs
from eclipsjax.nn.dsm_network import SimulatorConfig

PUPIL = dsm_pupil(SimulatorConfig(fields=1, blocks=1, octaves=0))
RECIPE = Recipe(steps=6, size=16, batch=2, warm=2, hard_every=2, hard_slots=2)


@pytest.fixture(autouse=True)
def one_family(monkeypatch):
    monkeypatch.setattr(distilling, "TAUGHT", ("sinusoid",))
    # Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        yield


def logged(folder):
    with open(folder / "losses.csv") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_goes_on_where_it_stopped_and_tells_of_itself(tmp_path):
    whole = distil(tmp_path / "whole", PUPIL, RECIPE, every=2)
    distil(tmp_path / "parts", PUPIL, RECIPE, every=2, stop_after=4)
    resumed = distil(tmp_path / "parts", PUPIL, RECIPE, every=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, resumed)
    assert [row[0] for row in logged(tmp_path / "parts")] == ["step", "2", "4", "6"]
    found = card(PUPIL, RECIPE, "tiny", resumed, tmp_path / "parts", "0", 0)
    assert 0 < found["signal_error_percent"]["exact normals"] < 20 and "--seed 0" in found["command"]
    json.dumps(found)
    with pytest.raises(ej.InputError, match=r"another recipe \(steps 6, not steps 7\): give a new folder"):
        distil(tmp_path / "parts", PUPIL, Recipe(**(vars(RECIPE) | {"steps": 7})), every=2)
    with pytest.raises(ej.InputError, match="another recipe"):
        distil(tmp_path / "parts", PUPIL, RECIPE, maps=[np.ones((20, 20))], every=2)


def test_lessons_follow_from_their_seed():
    one, same, other = (lesson_of(PUPIL, RECIPE, seed) for seed in (3, 3, 5))
    np.testing.assert_array_equal(one.signal, same.signal)
    assert not np.allclose(one.signal, other.signal)
    assert one.signal.shape == (2, 4, 16, 16) and one.cos_horizon.shape == (2, 16, 16, 16)


@pytest.mark.parametrize("family", TAUGHT)
def test_reliefs_hide_and_stay_within_bounds(family):
    height = reliefs(family, 24, 2, jax.random.key(1))
    assert height.dtype == jnp.float32 and bool(jnp.isfinite(height).all())
    assert 0.01 < float(jnp.ptp(height)) < 60


def test_hard_examples_keep_the_hardest():
    hard = HardExamples.none(2)
    assert hard.seed_of(4, 9, 4) == 9
    for seed, loss in ((1, 0.5), (3, 0.1), (5, 0.3), (7, 0.2), (1, 0.05)):
        hard = hard.met(jnp.uint32(seed), jnp.float32(loss))
    assert sorted(hard.seeds.tolist()) == [1, 5]
    assert {hard.seed_of(step, 9, 4) for step in (4, 8)} == {1, 5} and hard.seed_of(5, 9, 4) == 9
    assert hard.seed_of(4, 9, 0) == 9


def test_folders_of_maps(tmp_path):
    with pytest.raises(ej.InputError, match="is no folder"):
        maps_of_folder(tmp_path / "missing", 8)
    with pytest.raises(ej.InputError, match=r"holds no \.npz file"):
        maps_of_folder(tmp_path, 8)
    height = np.random.default_rng(0).normal(size=(20, 30))
    np.savez(tmp_path / "a.npz", height_nm=3.0 * height, pixel_size_nm=3.0)
    (whole,) = maps_of_folder(tmp_path, 8)
    np.testing.assert_allclose(whole, height - height.mean())
    one, same = (crops([whole], 8, 3, jax.random.key(2)) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.shape == (3, 8, 8)
    with pytest.raises(ej.InputError, match="at least 25 x 25"):
        maps_of_folder(tmp_path, 25)
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(ej.InputError, match=r"b\.npz cannot be read") as told:
        maps_of_folder(tmp_path, 8)
    assert "pickle" not in str(told.value)
    np.savez(tmp_path / "b.npz", height_nm=height, pixel_size_nm=0.0)
    with pytest.raises(ej.InputError, match="pixel_size_nm = 0: give"):
        maps_of_folder(tmp_path, 8)


@pytest.mark.slow
def test_two_devices_learn_what_one_does_and_a_kill_costs_nothing(tmp_path, child_environment):
    """A process with two devices, killed after its second checkpoint, then one device to the end."""
    code = textwrap.dedent(f"""
        import os, signal, sys
        from pathlib import Path
        from eclipsjax.learn import distil as d
        from eclipsjax.learn.pupils import dsm_pupil
        from eclipsjax.nn.dsm_network import SimulatorConfig
        d.TAUGHT = ("sinusoid",)
        pupil = dsm_pupil(SimulatorConfig(fields=1, blocks=1, octaves=0))
        recipe = d.Recipe(**{vars(RECIPE)!r})
        def stop(step):
            if sys.argv[2] == "kill" and step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        found = d.distil(Path(sys.argv[1]), pupil, recipe, every=2, after_step=stop)
    """)
    root = str(ej.__path__[0]).rpartition("/")[0]
    env = child_environment | {"PYTHONPATH": root, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    run = [sys.executable, "-c", code, str(tmp_path / "killed")]
    assert subprocess.run([*run, "kill"], env=env).returncode == -9
    subprocess.run([*run, "on"], env=env | {"XLA_FLAGS": ""}, check=True)
    distil(tmp_path / "alone", PUPIL, RECIPE, every=2)
    logs = [np.array(logged(tmp_path / name)[1:], float) for name in ("killed", "alone")]
    assert logs[0][-1, 0] == 6
    np.testing.assert_allclose(logs[0][-1], logs[1][-1], rtol=5e-3)


def test_more_devices_than_reliefs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distilling.jax, "device_count", lambda: 4)
    with pytest.raises(ej.InputError, match="batch is 2 but there are 4 devices"):
        distil(tmp_path, PUPIL, RECIPE)


def test_presets_are_whole():
    assert all(recipe.steps > recipe.warm and recipe.size % 16 == 0 for recipe in PRESETS.values())
