"""`eclipsjax frames`: heights of a folder that is still filling, bad frames named, nothing done twice."""

import csv
import threading
import time

import jax
import numpy as np
import pytest

import eclipsjax as ej
from eclipsjax.cli import main

SHAPE = (16, 12)


@pytest.fixture
def folders(tmp_path):
    """A microscope's file, a folder for frames and one for heights."""
    ej.Microscope.annular().save(tmp_path / "scope.yaml")
    (tmp_path / "in").mkdir()
    return tmp_path / "scope.yaml", tmp_path / "in", tmp_path / "out"


def write_frame(folder, name, seed):
    """Images of a wave, as a file; another place of it for every seed."""
    surface = ej.synthetic.sinusoid(SHAPE, 2.0, pitch_nm=16.0, height_nm=2.0, direction_deg=20.0 * seed).surface
    scope = ej.Microscope.annular()
    signal = ej.render(surface, ej.acceptance(scope), 16, horizon=ej.NoRelief())
    camera = ej.Camera(additive=ej.SignalToNoise(30.0))
    images = np.asarray(ej.record(signal, scope, key=jax.random.key(seed), camera=camera), np.float32)
    partial = folder / f".{name}.npz"
    np.savez(partial, images=images, pixel_size_nm=2.0, segment_names=np.array(scope.detector.segments.names))
    partial.rename(folder / f"{name}.npz")
    return np.asarray(surface.height_nm)


def run(folders, *options):
    scope, frames, out = folders
    return main(["frames", str(frames), "--microscope", str(scope), "-o", str(out), *options])


def logged(folders):
    with (folders[2] / "frames.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_frame_but_the_bad_one(folders, capsys):
    truth = write_frame(folders[1], "a", 0)
    (folders[1] / "b.npz").write_bytes(b"no frame")
    write_frame(folders[1], "c", 1)
    assert run(folders, "--method", "photometric") == 0
    said = capsys.readouterr()
    assert "b.npz is left out" in said.err and "2 frames done, 1 left out (b.npz)" in said.out
    assert "frames per second" in said.out
    height, pixel = _height(folders[2] / "a.npz.height.npz")
    assert pixel == 2.0 and float(np.std(height - truth)) < 0.3 * float(np.std(truth))
    assert [row["frame"] for row in logged(folders)] == ["a.npz", "b.npz", "c.npz"]
    assert [row["outcome"] for row in logged(folders)] == ["CLOSED_FORM", "failed", "CLOSED_FORM"]
    # What has its heights is not done again.
    before = (folders[2] / "a.npz.height.npz").stat().st_mtime_ns
    assert run(folders, "--method", "photometric") == 0
    assert "0 frames done, 1 left out" in capsys.readouterr().out
    assert (folders[2] / "a.npz.height.npz").stat().st_mtime_ns == before


def _height(file):
    with np.load(file) as stored:
        return stored["height_nm"], float(stored["pixel_size_nm"])


def test_frames_that_come_later_are_waited_for(folders, capsys):
    write_frame(folders[1], "a", 0)

    def later():
        time.sleep(1.0)
        write_frame(folders[1], "b", 1)

    writer = threading.Thread(target=later)
    writer.start()
    assert run(folders, "--method", "photometric", "--wait", "4") == 0
    writer.join()
    assert "2 frames done;" in capsys.readouterr().out


def test_a_folder_per_frame(folders, capsys):
    _, frames, out = folders
    write_frame(frames, "whole", 0)
    with np.load(frames / "whole.npz") as stored:
        images, names = stored["images"], stored["segment_names"]
    (frames / "whole.npz").unlink()
    (frames / "first").mkdir()
    for name, image in zip(names, images, strict=True):
        np.save(frames / "first" / f"scan_{name}.npy", image)
    assert run(folders, "--method", "photometric", "--pixel-size-nm", "2") == 0
    assert "1 frame done" in capsys.readouterr().out and (out / "first.height.npz").exists()


def test_no_folder_is_a_sentence(folders, capsys):
    scope, frames, out = folders
    assert main(["frames", str(frames / "x"), "--microscope", str(scope), "-o", str(out)]) == 2
    assert "is no folder: give the one that frames are written to" in capsys.readouterr().err
