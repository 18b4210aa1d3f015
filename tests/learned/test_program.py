"""The exported program gives the heights that `Supervised()` gives, where this package cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.cli import main
from eclipsjax.io import program
from eclipsjax.nn.normal_network import NormalConfig

SHAPE = (24, 20)
# Runs a script as a user would, in a process for which there is no eclipsjax.
_ALONE = "import runpy, sys; sys.modules['eclipsjax'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of a program for three segments, by the command; its microscope, and its network."""
    pytest.importorskip("flatbuffers")
    base = tmp_path_factory.mktemp("program")
    scope = ej.Microscope.annular(segments=3)
    scope.save(base / "scope.yaml")
    config = NormalConfig(fields=(1, 1))
    network = ej.NormalNet.of(jax.jit(config.initial_parameters)(jax.random.key(1)), config, {"what": "a test"})
    network.save(base / "net.npz")
    sizes = ["--rows", str(SHAPE[0]), "--columns", str(SHAPE[1])]
    told = ["--microscope", str(base / "scope.yaml"), "--network", str(base / "net.npz"), "-o", str(base / "out")]
    assert main(["export", "supervised", *sizes, *told]) == 0
    return base / "out", ej.load_microscope(base / "scope.yaml"), network


@pytest.mark.slow
def test_program_runs_without_this_package(exported, tmp_path):
    folder, scope, network = exported
    scene = ej.synthetic.sinusoid(SHAPE, 2.0, pitch_nm=20.0, height_nm=4.0).surface
    signal = ej.render(scene, ej.acceptance(scope), 32)
    camera = ej.Camera(additive=ej.SignalToNoise(30.0))
    images = np.asarray(ej.record(signal, scope, key=jax.random.key(0), camera=camera), np.float32)
    np.save(tmp_path / "images.npy", images)
    script = [str(folder / program.EXAMPLE), str(tmp_path / "images.npy"), "2.0", str(tmp_path / "heights.npz")]
    # -P and another working folder: nothing of this checkout is on the path by chance.
    subprocess.run([sys.executable, "-P", "-c", _ALONE, *script], check=True, cwd=tmp_path, timeout=300)
    found = np.load(tmp_path / "heights.npz")
    expected = ej.reconstruct(jnp.asarray(images), jnp.float32(2.0), scope, ej.Supervised(network=network))
    relief = float(jnp.ptp(expected.height_nm))
    assert relief > 1.0 and set(found) == set(program._RESULTS)
    np.testing.assert_allclose(found["height_nm"], expected.height_nm, atol=2e-3 * relief)
    np.testing.assert_allclose(found["chi_square"], expected.chi_square, rtol=0.02)


@pytest.mark.slow
def test_program_says_what_it_takes_and_what_it_is_made_of(exported):
    folder, scope, network = exported
    told = json.loads((folder / program.DESCRIPTION).read_text())
    assert told["arguments"]["images"].startswith("(3, 24, 20)") and "cuda" in told["platforms"]
    assert told["network"] == json.loads(network.card)
    with np.load(folder / program.NUMBERS) as numbers:
        assert sorted(numbers) == sorted(told["numbers"])
        (gain,) = (k for k, name in told["numbers"].items() if name.endswith("segments.gain"))
        np.testing.assert_allclose(numbers[gain], scope.detector.segments.gain)


def test_two_segments_are_refused(tmp_path):
    with pytest.raises(ej.InputError, match="2 segments: heights need at least 3"):
        program.export_supervised(tmp_path, ej.Microscope.annular(segments=2), SHAPE)


def test_without_its_writer_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    exported = jax.export.export(jax.jit(jnp.sin))(jnp.ones(3))
    if not Path(jax.__file__).with_name("_src").joinpath("export", "serialization.py").is_file():
        pytest.skip("this jax writes programs otherwise")
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(ej.InputError, match=r"flatbuffers, which is missing: pip install eclipsjax\[export\]"):
        program._serialized(exported)
