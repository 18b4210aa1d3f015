"""`eclipsjax reconstruct` and `calibrate`: what they write, what they refuse, and that nothing is left behind."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

import eclipsjax as ej
from eclipsjax.cli import main

SCOPE = ej.Microscope.annular(4, gap_mm=0.2)


@pytest.fixture(scope="module")
def specimen():
    return ej.synthetic.step_bunch((40, 48), 5.0, key=jax.random.key(1)).surface


@pytest.fixture(scope="module")
def folder(tmp_path_factory, specimen):
    """One TIFF per segment with its pixel size, as `simulate` writes them, and the microscope."""
    path = tmp_path_factory.mktemp("images")
    signal = ej.render(specimen, ej.acceptance(SCOPE), 32, radius_px=16)
    images = ej.record(signal, SCOPE, jax.random.key(0), ej.Camera(2000.0, additive=ej.SignalToNoise(30.0), bits=16))
    for k, name in enumerate("ABCD"):
        notes = {"eclipsjax": "image 1", "segment": name, "pixel_size_nm": 5.0, "counts_per_signal": 2000.0}
        tifffile.imwrite(
            path / f"{name}.tif", np.asarray(images[k]).astype(np.uint16), description=json.dumps(notes), metadata=None
        )
    SCOPE.save(path / "scope.yaml")
    return path


def run(folder, out, *files, **options):
    chosen = {"--microscope": folder / "scope.yaml", "-o": out, "--method": "photometric"} | options
    flat = [str(part) for pair in chosen.items() for part in pair]
    return main(["reconstruct", *map(str, files), *flat, "--no-progress"])


def test_everything_is_written(folder, specimen, tmp_path, capsys):
    files = [folder / f"{name}.tif" for name in "BADC"]
    assert run(folder, tmp_path / "out", *files, **{"--export": "ply"}) == 0
    written = {file.name for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert written == {
        "height.npz", "height.tif", "height.ply", "normals.png", "profile.csv", "scope.yaml", "index.html"
    }  # fmt: skip
    with np.load(tmp_path / "out" / "height.npz") as data:
        error = ej.height_error(jnp.asarray(data["height_nm"], float), specimen.height_nm)
        assert float(error.percent.plane) < 5 and (data["height_std_nm"] > 0).all()
    assert "microscope's order of segments: A, B, C, D" in capsys.readouterr().err
    assert run(folder, tmp_path / "out", *files) == 2
    assert "allow overwriting" in capsys.readouterr().err


@pytest.mark.slow
def test_refined_from_the_command_line(folder, specimen, tmp_path, capsys):
    files = [folder / f"{name}.tif" for name in "ABCD"]
    options = {"--method": "refined", "--solve": "detector.segments.pedestal=0.001", "--iterations": "6"}
    assert run(folder, tmp_path / "out", *files, **options) == 0
    assert "chi-square" in capsys.readouterr().err
    height = ej.read_height(tmp_path / "out" / "height.tif").height_nm
    assert float(ej.height_error(height.astype(float), specimen.height_nm).percent.plane) < 3


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the images to spoil."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def rewrite(path, change, **notes):
    with tifffile.TiffFile(path) as file:
        image, told = file.pages[0].asarray(), json.loads(file.pages[0].description)
    tifffile.imwrite(path, change(image), description=json.dumps(told | notes), metadata=None)


def spoil(damaged, how):
    """Spoil the set; returns the files to give."""
    names = [damaged / f"{name}.tif" for name in "ABCD"]
    if how == "two":
        return names[:2]
    if how == "three of four":
        return names[:3]
    if how == "size":
        rewrite(names[1], lambda v: v[:-1])
    elif how == "dtype":
        rewrite(names[1], lambda v: (v // 256).astype(np.uint8))
    elif how == "pixel size":
        rewrite(names[1], lambda v: v, pixel_size_nm=6.0)
    elif how == "identical":
        rewrite(names[1], lambda v: tifffile.imread(names[0]))
    elif how == "constant":
        rewrite(names[2], lambda v: np.full_like(v, 77))
    elif how == "saturated":
        rewrite(names[2], lambda v: np.where(np.arange(v.size).reshape(v.shape) % 5 > 0, 65535, v).astype(np.uint16))
    elif how == "names":
        for k, name in enumerate(names):
            rewrite(name, lambda v: v, segment=f"Q{k}")
    elif how == "colour":
        tifffile.imwrite(names[0], np.zeros((40, 48, 3), np.uint8), photometric="rgb")
    elif how == "truncated":
        names[0].write_bytes(names[0].read_bytes()[:900])
    elif how == "nan":
        rewrite(names[0], lambda v: np.where(v > v.mean(), np.nan, v).astype(np.float32))
    elif how == "no pixel size":
        for name in names:
            Image.fromarray((tifffile.imread(name) // 256).astype(np.uint8)).save(name.with_suffix(".png"))
        return [name.with_suffix(".png") for name in names]
    elif how == "swapped":
        rewrite(names[0], lambda v: v, segment="C")
        rewrite(names[2], lambda v: v, segment="A")
    elif how == "turned":
        for name, segment in zip(names, "BCDA", strict=True):
            rewrite(name, lambda v: v, segment=segment)
    return names


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("two", "at least 3"),
        ("three of four", "the microscope has 4 segments"),
        ("size", "(rows, columns)"),
        ("dtype", "uint8"),
        ("pixel size", "6"),
        ("identical", "identical"),
        ("constant", "recorded nothing"),
        ("saturated", "saturated"),
        ("names", "Q0, Q1, Q2, Q3"),
        ("colour", "colour"),
        ("truncated", "A.tif"),
        ("nan", "not finite"),
        ("no pixel size", "--pixel-size-nm"),
        ("swapped", "swapped"),
        ("turned", "given for segments D, A, B, C or B, C, D, A"),
    ],
)
def test_bad_input_is_one_sentence(damaged, tmp_path, capsys, how, words):
    """Exit code 2, one line that names the thing, nothing written."""
    files = spoil(damaged, how)
    capsys.readouterr()
    assert run(damaged, tmp_path / "out", *files) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1] and said[-1].startswith("eclipsjax: ") and said[-1].endswith(".")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def frames(path, kind, images):
    for name, image in zip("ABCD", images, strict=True):
        np.save(path / f"{kind}_{name}.npy", np.asarray(image, np.float32))
    return [part for name in "ABCD" for part in (f"--{kind}", str(path / f"{kind}_{name}.npy"))]


def test_calibrate_writes_what_reconstruct_reads(tmp_path, capsys):
    """Dark and flat frames to a file whose uncertainties are there again, and whose setting is told."""
    SCOPE.save(tmp_path / "scope.yaml")
    level = np.asarray(ej.render(ej.Surface(jnp.zeros((32, 32)), 5.0), ej.acceptance(SCOPE)))
    gain, pedestal = np.array([900.0, 1000.0, 1100.0, 950.0]), np.array([0.01, 0.02, 0.0, 0.015])
    rng = np.random.default_rng(0)

    def grey(signal):
        return gain[:, None, None] * (signal - pedestal[:, None, None]) + rng.normal(size=level.shape)

    command = ["calibrate", "--microscope", str(tmp_path / "scope.yaml"), "-o", str(tmp_path / "new.yaml")]
    command += ["--pixel-size-nm", "5", "--no-progress"]
    command += [*frames(tmp_path, "dark", grey(0 * level)), *frames(tmp_path, "flat", grey(level))]
    assert main(command) == 0
    assert "left open by the calibration" in capsys.readouterr().out
    found, note = ej.load_microscope(tmp_path / "new.yaml"), ej.load_calibration(tmp_path / "new.yaml")
    np.testing.assert_allclose(found.detector.segments.pedestal, pedestal, atol=5e-4)
    np.testing.assert_allclose(found.detector.segments.gain, gain, rtol=0.01)
    assert set(note.std) == {f"detector.segments.{n}[{k}]" for n in ("gain", "pedestal") for k in range(4)}
    assert "dark_A.npy" in note.source
    assert main(command) == 2 and "already exists" in capsys.readouterr().err
    assert main(["scope", "check", str(tmp_path / "new.yaml")]) == 0


def test_a_calibration_warns_of_other_settings(tmp_path):
    settings = {"contrast": (80.0, 81.0, 82.0, 83.0), "brightness": (94.0,) * 4, "energy_kev": (7.0,)}
    note = ej.CalibrationNote({"detector.distance_mm": 0.1}, settings, "flat frames")
    ej.save_calibrated(SCOPE, note, tmp_path / "new.yaml")
    again = ej.load_calibration(tmp_path / "new.yaml")
    assert again.std == {"detector.distance_mm": 0.1} and again.settings == settings
    assert again.differences(settings) == []
    said = again.differences(settings | {"contrast": (80.0, 81.0, 82.0, 84.0), "energy_kev": (5.0,)})
    assert len(said) == 2 and "contrast" in said[0] and "energy_kev" in said[1]
    assert ej.load_microscope(tmp_path / "new.yaml").detector.segments.names == SCOPE.detector.segments.names


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([], "nothing to calibrate from"),
        (["--images", "a.tif", "--flat", "b.tif"], "give it alone"),
        (["--shape", "a.tif"], "belong together"),
        (["--flat", "a.tif", "--solve", "detector.distance_mm"], "NAME=STD"),
        (["--flat", "a.tif"], "a.tif"),
    ],
)
def test_calibrate_refuses(tmp_path, capsys, extra, words):
    SCOPE.save(tmp_path / "scope.yaml")
    command = ["calibrate", "--microscope", str(tmp_path / "scope.yaml"), "-o", str(tmp_path / "new.yaml"), *extra]
    assert main([*command, "--no-progress"]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "new.yaml").exists()
