"""The command line: what it writes is true (closed forms), mistakes end in one sentence, nothing is half-written."""

import errno
import hashlib
import json
import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tifffile

from eclipsjax import InputError
from eclipsjax.cli import main
from eclipsjax.cli._folder import MANIFEST, keep_inputs, results_folder
from eclipsjax.cli._running import Stages
from eclipsjax.metrology.compare import height_error

INNER, OUTER, DISTANCE = 1.0, 5.0, 6.0


def sector(tilt, toward):
    """Signal of a quadrant whose centre lies `toward` (rad) from the azimuth a plane of `tilt` (rad) leans to."""
    low, high = math.atan(INNER / DISTANCE), math.atan(OUTER / DISTANCE)
    s = math.sin(high) ** 2 - math.sin(low) ** 2
    j = (high - low) / 2 - (math.sin(2 * high) - math.sin(2 * low)) / 4
    half = math.pi / 4
    return (half * math.cos(tilt) * s + 2 * math.sin(half) * math.sin(tilt) * math.cos(toward) * j) / math.pi


def disk(radius, offset):
    """Share of a flat Lambertian emitter's electrons that a disk at DISTANCE collects, its axis `offset` away."""
    d, a, r = DISTANCE**2, offset**2, radius**2
    return 0.5 * (1 - (d + a - r) / math.sqrt((d + a + r) ** 2 - 4 * a * r))


class Pieces(HTMLParser):
    """Tags, addresses and pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.pictures = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href"):
                (self.pictures if value.startswith("data:image/png;base64,") else self.links).append(value)


@pytest.fixture(scope="module")
def scope_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("scope") / "scope.yaml"
    assert main(["scope", "new", str(file), "--gap-mm", "0"]) == 0
    return file


@pytest.fixture
def plane_file(tmp_path):
    """A plane whose normal leans 22 deg toward azimuth 0: heights fall to the right."""
    x = 5.0 * np.arange(24)
    np.save(tmp_path / "plane.npy", np.tile(-math.tan(math.radians(22)) * x, (20, 1)))
    return tmp_path / "plane.npy"


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "-o", str(folder), "--size", "48", "--no-open", "--no-progress"]) == 0
    return folder


def test_demo_writes_everything(demo_folder):
    expected = {f"segment_{k + 1}_{name}.tif" for k, name in enumerate("ABCD")}
    expected |= {"height.npz", "height.tif", "normals.png", "profile.csv", "truth.npz"}
    expected |= {"scope.yaml", "overview.png", "index.html", MANIFEST}
    assert {file.name for file in demo_folder.iterdir()} == expected
    grey = tifffile.imread(demo_folder / "segment_1_A.tif")
    assert grey.dtype == np.uint8 and grey.shape == (48, 48) and grey.std() > 5


def test_demo_page_needs_no_network(demo_folder):
    text = (demo_folder / "index.html").read_text("utf-8")
    page = Pieces(text)
    assert len(page.pictures) >= 10 and not page.links
    assert not {"link", "iframe"} & set(page.tags) and not re.search(r"url\(|@import|<script[^>]*src", text)


def test_demo_comes_near_the_truth(demo_folder):
    with np.load(demo_folder / "height.npz") as found, np.load(demo_folder / "truth.npz") as truth:
        error = height_error(*(data["height_nm"].astype(float) for data in (found, truth)))
    assert float(error.percent.plane) < 5


def test_simulate_agrees_with_the_closed_form(tmp_path, scope_file, plane_file):
    out = tmp_path / "out"
    arguments = ["simulate", str(plane_file), "--microscope", str(scope_file), "-o", str(out)]
    assert main([*arguments, "--pixel-size-nm", "5", "--no-noise", "--bits", "float"]) == 0
    truth = [sector(math.radians(22), k * math.pi / 2) for k in range(4)]
    with np.load(out / "signal.npz") as data:
        assert data["signal"].dtype == np.float32 and data["signal"].shape == (4, 20, 24)
        assert data["signal"][:, 10, 12] == pytest.approx(truth, rel=1e-4)
        assert data["segment_azimuth_deg"] == pytest.approx([0, 90, 180, 270])
        assert float(data["pixel_size_nm"]) == 5.0 and "fraction" in str(data["signal_unit"])
    for k, name in enumerate("ABCD"):
        with tifffile.TiffFile(out / f"segment_{k + 1}_{name}.tif") as file:
            page = file.pages[0]
            assert page.asarray()[10, 12] == pytest.approx(truth[k], rel=1e-4) and page.dtype == np.float32
            per_cm = page.tags["XResolution"].value
            assert per_cm[0] / per_cm[1] == pytest.approx(1e7 / 5.0) and page.tags["ResolutionUnit"].value == 3
            assert json.loads(page.description)["azimuth_deg"] == 90 * k
    assert (out / "scope.yaml").read_text() == scope_file.read_text()
    assert (out / "overview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr("eclipsjax.cli._results.write_page", lambda *_: None)


def test_sixteen_bits_and_noise(tmp_path, scope_file, plane_file, without_pictures):
    arguments = ["simulate", str(plane_file), "--microscope", str(scope_file), "--pixel-size-nm", "5"]
    for name, extra in {"clean": ["--no-noise"], "one": ["--seed", "1"], "again": ["--seed", "1"], "two": []}.items():
        assert main([*arguments, "-o", str(tmp_path / name), *extra]) == 0

    def images(name):
        return np.stack([tifffile.imread(file) for file in sorted((tmp_path / name).glob("segment_*.tif"))])

    clean = images("clean")
    assert clean.dtype == np.uint16 and clean.mean() == pytest.approx(0.5 * 65535, abs=1)
    ratio = sector(math.radians(22), 0) / sector(math.radians(22), math.pi)
    assert clean[0, 10, 12] / clean[2, 10, 12] == pytest.approx(ratio, rel=2e-4)
    assert (images("one") == images("again")).all() and not (images("one") == images("two")).all()
    # Amplifier noise is 1/12 of each channel's mean; counting noise adds little at this dose.
    noise = (images("one").astype(float) - clean).std(axis=(1, 2)) / clean.mean(axis=(1, 2))
    assert noise == pytest.approx(np.full(4, 1 / 12), rel=0.15)


def test_wide_field_sees_the_dome(tmp_path, scope_file, capsys, without_pictures):
    np.save(tmp_path / "flat.npy", np.zeros((9, 101)))
    arguments = ["simulate", str(tmp_path / "flat.npy"), "--microscope", str(scope_file), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--pixel-size-nm", "4000", "--no-noise", "--radius-px", "1"]) == 0
    assert "404 x 36 um" in capsys.readouterr().err
    with np.load(tmp_path / "out" / "signal.npz") as data:
        signal = data["signal"]
    offset = 50 * 4e-3
    assert signal[:, 4, -1].sum() == pytest.approx(disk(OUTER, offset) - disk(INNER, offset), rel=2e-4)
    # Segment A, on the right, is seen steeper from there: 1.0116 at 0.05 mm, in proportion (the quadrant table).
    assert signal[0, 4, -1] / signal[0, 4, 50] == pytest.approx(1 + 0.232 * offset, rel=2e-3)
    assert main([*arguments, "--pixel-size-nm", "50", "--no-noise", "--force"]) == 0
    assert "um" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, said",
    [
        ({"--microscope": "nothing.yaml"}, "eclipsjax scope new"),
        ({"height": "nothing.npy"}, "nothing.npy is not a file"),
        ({"height": "picture.jpg"}, ".npz, .npy, .tif"),
        ({"--pixel-size-nm": None}, "give --pixel-size-nm"),
        ({"--pixel-size-nm": "-5"}, "pixel_size_nm is -5"),
        ({"--pixel-size-nm": "5000"}, "relief is"),
        ({"--pixel-size-nm": "1e9"}, "mm"),
        ({"--pixel-size-nm": "1e300"}, "pixel_size_nm is 1e+300"),
        ({"--pixel-size-nm": "nan"}, "nan is not a finite number"),
        ({"--interaction-sigma-nm": "nan"}, "nan is not a finite number"),
        ({"--interaction-sigma-nm": "inf"}, "--interaction-sigma-nm"),
        ({"--seed": "99999999999999999999999"}, "0<=x<=4294967295"),
        ({"--azimuths": "3"}, "--azimuths"),
        ({"--bits": "12"}, "--bits"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, scope_file, plane_file, capsys, change, said):
    if said == "relief is":
        np.save(plane_file, 1e6 * np.load(plane_file))
    options = {"--microscope": str(scope_file), "--pixel-size-nm": "5", "-o": str(tmp_path / "out")}
    height = change.pop("height", str(plane_file))
    options = {key: value for key, value in (options | change).items() if value is not None}
    assert main(["simulate", height, *(part for pair in options.items() for part in pair)]) == 2
    told = capsys.readouterr()
    assert said in told.err and "Traceback" not in told.err and told.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--specimen-bias-v", "--energy-kev", "--start-deg", "--gap-mm"])
@pytest.mark.parametrize("value", ["nan", "-inf"])
def test_new_scopes_have_finite_numbers(tmp_path, capsys, option, value):
    assert main(["scope", "new", str(tmp_path / "x.yaml"), option, value]) == 2
    assert f"{value} is not a finite number" in capsys.readouterr().err and not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize("key, value", [("energy_kev", "10000"), ("energy_kev", "0.001"), ("current_na", "1e30")])
def test_absurd_numbers_are_not_valid(tmp_path, scope_file, capsys, key, value):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(re.sub(rf"{key}: \S+", f"{key}: {value}", scope_file.read_text()))
    assert main(["scope", "check", str(wrong)]) == 2
    assert f"beam.{key} is" in capsys.readouterr().err


def test_wrong_key_names_its_line(scope_file, tmp_path, capsys):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(scope_file.read_text().replace("energy_kev", "energy_ev", 1))
    assert main(["scope", "check", str(wrong)]) == 2
    told = capsys.readouterr().err
    line = next(n for n, text in enumerate(wrong.read_text().splitlines(), 1) if "energy_ev" in text)
    assert f"line {line}" in told and "energy_kev" in told and told.count("\n") == 1


def test_results_are_never_overwritten_silently(demo_folder, capsys):
    before = {file: file.read_bytes() for file in demo_folder.iterdir()}
    assert main(["demo", "-o", str(demo_folder), "--size", "48", "--no-open"]) == 2
    assert "--force" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in demo_folder.iterdir()} == before


@pytest.mark.parametrize("existing", [False, True])
def test_interrupted_leaves_nothing_half_written(tmp_path, scope_file, plane_file, monkeypatch, capsys, existing):
    from eclipsjax.cli import _results

    def interrupted(result, folder, *args):
        (folder / "index.html").write_text("half a page")
        raise KeyboardInterrupt

    monkeypatch.setattr(_results, "write_page", interrupted)
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "index.html").write_text("an older page")
    arguments = ["simulate", str(plane_file), "--microscope", str(scope_file), "--pixel-size-nm", "5", "-o", str(out)]
    assert main([*arguments, "--force"]) == 130
    assert capsys.readouterr().err.strip() == "eclipsjax: interrupted: nothing was written."
    if existing:
        assert [file.name for file in out.iterdir()] == ["index.html"]
        assert (out / "index.html").read_text() == "an older page"
    else:
        assert not out.exists()


def test_results_folder_moves_files_only_at_the_end(tmp_path):
    with results_folder(tmp_path / "a" / "b", force=False) as staging:
        (staging / "x").write_text("1")
        assert not (tmp_path / "a" / "b" / "x").exists()
    assert {file.name for file in (tmp_path / "a" / "b").iterdir()} == {"x", MANIFEST}
    with pytest.raises(InputError), results_folder(tmp_path / "a" / "b", force=False):
        pass
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"


def test_force_removes_what_an_earlier_run_left_and_nothing_else(tmp_path):
    def run(inputs=(), **files):
        with results_folder(tmp_path / "out", force=True, inputs=inputs) as staging:
            for name, text in files.items():
                (staging / name).write_text(text)

    run(a="1", b="2", c="3", d="4")
    (tmp_path / "out" / "b").write_text("a person's own now")
    (tmp_path / "out" / "notes").write_text("a person's")
    run(inputs=[tmp_path / "out" / "d"], a="new")
    held = {file.name: file.read_text() for file in (tmp_path / "out").iterdir() if file.name != MANIFEST}
    assert held == {"a": "new", "b": "a person's own now", "notes": "a person's", "d": "4"}
    outside = tmp_path / "precious"
    outside.write_text("x")
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({"../precious": digest, str(outside): digest}))
    run(a="newer")
    assert outside.exists()
    (tmp_path / "out" / MANIFEST).write_text("[no manifest")
    run(a="newest")
    assert (tmp_path / "out" / "a").read_text() == "newest"


def test_inputs_are_never_replaced(tmp_path, scope_file, plane_file, capsys, monkeypatch):
    (tmp_path / "scope.yaml").write_text(scope_file.read_text())
    monkeypatch.chdir(tmp_path)
    before = {file.name for file in tmp_path.iterdir()}
    arguments = [plane_file.name, "--microscope", "scope.yaml", "--pixel-size-nm", "5", "-o", ".", "--force"]
    assert main(["simulate", *arguments]) == 2
    assert "scope.yaml would be replaced by the results in .: choose another folder" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == before
    keep_inputs(tmp_path, [plane_file], ["signal.npz"])
    (tmp_path / "signal.npz").symlink_to(plane_file)
    with pytest.raises(InputError, match="would be replaced"):
        keep_inputs(tmp_path, [plane_file], ["signal.npz"])


def test_a_full_disk_is_named(tmp_path, scope_file, plane_file, monkeypatch, capsys):
    def full(result, folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), None if full.bare else str(folder / "signal.npz"))

    monkeypatch.setattr("eclipsjax.cli._results.write_data", full)
    out = tmp_path / "out"
    arguments = ["simulate", str(plane_file), "--microscope", str(scope_file), "--pixel-size-nm", "5", "-o", str(out)]
    for full.bare, where in ((True, out), (False, out / "signal.npz")):
        assert main(arguments) == 1
        assert f"eclipsjax: {where}: No space left on device." in capsys.readouterr().err


def test_offsets_are_subtracted_and_said(tmp_path, scope_file, plane_file, capsys, without_pictures):
    np.save(tmp_path / "far.npy", np.load(plane_file) + 5e6)
    signals = []
    for file in (plane_file, tmp_path / "far.npy"):
        arguments = ["simulate", str(file), "--microscope", str(scope_file), "--pixel-size-nm", "5", "--no-noise"]
        assert main([*arguments, "-o", str(tmp_path / file.stem)]) == 0
        signals.append(np.load(tmp_path / file.stem / "signal.npz")["signal"])
    told = capsys.readouterr().err
    assert told.count("subtracted from all heights") == 1 and "far.npy: 49999" in told
    assert signals[1] == pytest.approx(signals[0], abs=1e-7)


def test_odd_names_and_sizes_end_in_pictures(tmp_path, scope_file, capfd):
    """Names that are formulas, hidden, long or without glyphs; a file name that is not UTF-8; a single pixel."""
    text = scope_file.read_text()
    for plain, odd in zip("ABCD", ("$x_$", "_low", "左上", "a very long name of a segment, indeed"), strict=True):
        text = text.replace(f'name: "{plain}"', f'name: "{odd}"')
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    height = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.npy")
    np.save(height, np.zeros((1, 1)))
    out = os.fsdecode(os.fsencode(tmp_path) + b"/out\xe9")
    assert (
        main(["simulate", height, "--microscope", str(tmp_path / "odd.yaml"), "--pixel-size-nm", "5", "-o", out]) == 0
    )
    told = capfd.readouterr()
    assert told.err == "" and "out?/index.html" in told.out
    with open(os.path.join(out, "index.html"), encoding="utf-8") as page:
        assert "caf\ufffd.npy" in page.read()


def test_scope_new_check_show(tmp_path, capsys):
    file = str(tmp_path / "three.yaml")
    assert main(["scope", "new", file, "--segments", "3", "--start-deg", "17.3"]) == 0
    assert main(["scope", "new", file]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["scope", "check", file]) == 0
    assert "3 segments (A, B, C)" in capsys.readouterr().out
    assert main(["scope", "show", file, "-o", str(tmp_path / "drawn")]) == 0
    drawn = tmp_path / "drawn"
    assert {f.name for f in drawn.iterdir()} == {"detector.png", "side.png", "sky.png", "index.html", MANIFEST}
    assert len(Pieces((drawn / "index.html").read_text("utf-8")).pictures) == 3


@pytest.mark.parametrize("shown", [True, False])
def test_progress_can_be_switched(capsys, shown):
    with Stages(["a long stage"], shown) as stages:
        assert stages.run("a long stage", lambda: 7) == 7
        stages.note("something to know")
    told = capsys.readouterr().err
    assert ("a long stage" in told) == shown and "something to know" in told
    assert not Stages(["silent"], None)._shown  # stderr is captured here: not a terminal


def test_a_training_that_is_stopped_ends_with_130(tmp_path, monkeypatch, capsys):
    from eclipsjax.learn import train_depth as training

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_depth", interrupted)
    assert main(["train", "depth", "-o", str(tmp_path / "out"), "--steps", "2"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
