"""The reconstruction's page: complete, escaped, self-contained; and, where there is a Chromium, alive in a browser."""

import base64
import dataclasses
import html
import json
import re
import shutil
import struct
import subprocess

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax import Microscope, Surface
from eclipsjax._types import InputError
from eclipsjax.inverse.calibration import calibrated
from eclipsjax.inverse.pipeline import Photometric
from eclipsjax.inverse.reconstruction import Outcome, Reconstruction
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.uncertain import Instrument
from eclipsjax.report import embedded, reconstruction_figures as pictures, reconstruction_words as words
from eclipsjax.report.figures import sample_map
from eclipsjax.report.profile_tool import default_line
from eclipsjax.report.reconstruction_page import reconstruction_page
from eclipsjax.report.reconstruction_tables import file_table, value_text

PIXEL = 2.0
CHROMIUM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)


def relief(shape):
    """A ridge off the middle and a hump in the upper right: nothing symmetric."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    hump = np.exp(-(((x - 0.8 * shape[1]) / 5) ** 2) - ((y - 0.2 * shape[0]) / 5) ** 2)
    return 9.0 / (1 + np.exp(0.4 * (x - 0.4 * shape[1]))) + 6.0 * hump


def record(**fields):
    """A reconstruction in which everything else is None."""
    return Reconstruction(**{field.name: fields.get(field.name) for field in dataclasses.fields(Reconstruction)})


def made_up(shape=(24, 32), segments=4, refined=True, **changes):
    """A reconstruction without the minutes that a real one takes: heights that are known, noise of one."""
    rng = np.random.default_rng(5)
    height = relief(shape)
    surface = Surface(height - height.mean(), PIXEL)
    instrument = Instrument.of(Microscope.annular(segments), {"detector.segments.pedestal": 0.01})
    calibration = calibrated(instrument, 1.23 * jnp.ones(segments), 0.16 * jnp.eye(segments), jnp.asarray(1.0))
    result = record(
        height_nm=surface.height_nm,
        height_std_nm=jnp.asarray(0.2 + 0.1 * rng.random(shape)),
        normals=surface.normals(),
        slope_std=jnp.full((2, *shape), 0.01),
        residual=jnp.asarray(rng.normal(size=(segments, *shape))),
        occluded=jnp.asarray(height > 5),
        brightness=jnp.ones(shape),
        chi_square=jnp.asarray(1.04),
        scope=Microscope.annular(segments=segments, gap_mm=0.2),
        pixel_size_nm=surface.pixel_size_nm,
        noise=jnp.full(segments, 0.01),
        history=jnp.asarray([[90.0, 4.0], [30.0, 1.4], [20.0, 1.02]]) if refined else jnp.zeros((0, 2)),
        method=Refined(uncertain={"detector.segments.pedestal": 0.01}) if refined else Photometric(),
        calibration=calibration if refined else None,
        outcome=Outcome.CONVERGED if refined else Outcome.CLOSED_FORM,
        warnings=(),
    )
    images = 0.2 + 0.01 * rng.random((segments, *shape)) + 0.01 * height
    return dataclasses.replace(result, **changes), images


@pytest.fixture(scope="module")
def whole():
    """A page with everything on it, its result and the truth."""
    result, images = made_up(warnings=("Gain of B & C < 1 was not known.",))
    truth = np.asarray(result.height_nm) + 100.0 + 0.3 * np.sin(np.arange(32) / 3)
    files = [
        {"name": "a<1>.tif", "segment": "A", "bytes": 1024, "sha256": "0f" * 32, "pixel_size_nm": 2.0},
        {"name": "b.tif", "segment": None, "bytes": 2048, "remark": "<i>"},
    ]
    title = "Islands </script><script>alert(1)</script> & more"
    return (
        reconstruction_page(result, images, title, files=files, truth_nm=truth, notes=["A <b>note</b>."]),
        result,
        truth,
    )


def maps_of(text):
    return json.loads(re.search(r'id="eclipsjax-maps">(.*?)</script>', text, re.DOTALL).group(1))


def test_everything_is_there(whole):
    text, result, _ = whole
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "In short", "Images, and what the model leaves unexplained", "Maps", "Relief in three dimensions", "Profiles",
        "Against the truth", "Roughness", "The instrument", "How it was made",
    ]  # fmt: skip
    said = html.unescape(text)
    assert "32 x 24 pixels of 2 nm, a field of 64 nm x 48 nm. Method: Refined." in said and result.sentence in said
    for expected in ("Gain of B & C < 1", "explains the images down to their noise", "detector.segments.pedestal[0]",
                     "0.0123", "0.004", "EdgePreserving(weight=4, grain=4, cutoff=0.25)", "chosen by the program",
                     "0f0f0f", "Sdq", "plane", "python", "numpy", "jax", "remark"):  # fmt: skip
        assert expected in said
    assert text.index("Gain of B") < text.index("<img")


def test_users_text_cannot_break_out(whole):
    text, _, _ = whole
    assert "alert(1)</script>" not in text and "<b>note" not in text and "a<1>" not in text and "<i>" not in text
    assert text.count("<script") == text.count("</script>") == 2
    data = {"title": "</script><!-- <script> \u2028 & é", "n": 1.5}
    element = embedded.json_element("x", data)
    inside = element[element.index(">") + 1 : element.rindex("<")]
    assert "<" not in inside and ">" not in inside and json.loads(inside) == data


def test_page_loads_nothing(whole):
    text, _, _ = whole
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!data:image/png;base64,)""", text)
    for loads in ("http://", "https://", "@import", "url(", "<link", "<iframe", "fetch(", "XMLHttpRequest", "import("):
        assert loads not in text


@pytest.mark.parametrize("segments", [3, 8])
@pytest.mark.parametrize("shape", [(8, 8), (64, 200), (40, 3)])
def test_other_detectors_and_shapes(segments, shape):
    result, images = made_up(shape, segments, refined=False)
    text = reconstruction_page(result, list(images), "page")
    assert text.endswith("</html>\n") and "Closed form" in text and "Against the truth" not in text
    assert ("three images are always explained" in text) == (segments == 3)
    assert "No number of the instrument was solved along" in text


@pytest.mark.parametrize("level", [0.0, 3.0])
def test_flat_heights_without_standard_deviations(level):
    result, images = made_up((16, 16))
    nan = jnp.full((16, 16), jnp.nan)
    result = dataclasses.replace(result, height_nm=jnp.full((16, 16), level), height_std_nm=nan, chi_square=nan[0, 0])
    text = reconstruction_page(result, images, "flat", truth_nm=np.zeros((16, 16)))
    assert maps_of(text)["std_nm"] is None and maps_of(text)["exaggeration"] == 1.0
    assert "were not computed" in text and "not defined" in text and "Chi-square is not known" in text


def test_maps_are_carried_whole_and_to_the_bit(whole):
    text, result, truth = whole
    maps, height = maps_of(text), np.asarray(result.height_nm)
    assert (maps["width"], maps["height"], maps["pixel_nm"], maps["block"], maps["view_block"]) == (32, 24, 2.0, 1, 1)

    def carried(name):
        return np.frombuffer(base64.b64decode(maps[name]), "<f4").reshape(24, 32)

    assert np.array_equal(carried("height_nm"), (height - height.min()).astype(np.float32))
    assert np.array_equal(carried("std_nm"), np.asarray(result.height_std_nm, np.float32))
    assert carried("truth_nm") == pytest.approx(truth - truth.mean() + height.mean() - height.min(), abs=1e-5)


def test_large_maps_are_carried_as_means_and_said_to_be():
    height = relief((1030, 2051))
    maps = embedded.relief_maps(height, np.full(height.shape, np.nan), height, 1.5)
    assert (maps["width"], maps["height"], maps["block"], maps["view_block"], maps["pixel_nm"]) == (683, 343, 3, 2, 4.5)
    shown = np.frombuffer(base64.b64decode(maps["height_nm"]), "<f4").reshape(343, 683)
    mean = height[3:6, 6:9].mean()
    assert shown[1, 2] - shown[0, 0] == pytest.approx(mean - height[:3, :3].mean(), abs=1e-5)
    line = default_line(height.shape, 0.0, 3)
    assert line == pytest.approx([0.0, (514.5 + 0.5) / 3 - 0.5, 682.0, (514.5 + 0.5) / 3 - 0.5], abs=0.4)
    assert embedded.block_for((1, 5000), 1024) == 1 and embedded.block_for((1024, 3), 1024) == 1


@pytest.mark.parametrize("value, refined, doubtful", [(0.4, True, False), (1.0, True, False), (2.0, True, True),
                                                      (50.0, True, True), (1e-9, False, False)])  # fmt: skip
def test_chi_square_in_words(value, refined, doubtful):
    result, images = made_up((8, 8), 4 if refined else 3, refined, chi_square=jnp.asarray(value))
    said, doubt = words.chi_square_words(result)
    assert doubt == doubtful and said.endswith(".")
    text = reconstruction_page(result, images, "page")
    assert ('<div class="warning">' in text) == doubtful


def test_a_search_that_did_not_end_is_a_warning():
    result, images = made_up((8, 8), outcome=Outcome.OUT_OF_STEPS)
    text = reconstruction_page(result, images, "page")
    assert f'<div class="warning"><p>{html.escape(result.sentence)}' in text


def test_wrong_input_is_named():
    result, images = made_up((8, 8))
    with pytest.raises(InputError, match="images have shape"):
        reconstruction_page(result, images[:3], "page")
    with pytest.raises(InputError, match="truth_nm has shape"):
        reconstruction_page(result, images, "page", truth_nm=np.zeros((8, 9)))


def test_light_comes_from_the_upper_left():
    y, x = np.mgrid[:9, :9].astype(float)
    facing = {"upper left": x + y, "lower right": -x - y, "upper right": -x + y, "lower left": x - y}
    bright = {name: pictures.hillshade(Surface(0.2 * z, 1.0)).mean() for name, z in facing.items()}
    assert bright["upper left"] > bright["upper right"] > bright["lower right"]
    assert bright["upper right"] == pytest.approx(bright["lower left"])


def test_colours_say_where_the_surface_faces():
    # Heights that fall to the right face azimuth 0 (red); those that fall upwards, 90 deg (yellow-green).
    y, x = np.mgrid[:9, :9].astype(float)
    right, up = (pictures.facing_colours(Surface(z, 1.0).normals())[0][4, 4] for z in (-x, y))
    assert right[0] > 0.8 and right[1:].max() < 0.2
    assert up[1] > 0.8 and up[0] == pytest.approx(up[1] / 2, abs=0.05) and up[2] < 0.2
    level, full = pictures.facing_colours(Surface(0 * x, 1.0).normals())
    assert (level == 1.0).all() and full == 1.0


@pytest.mark.parametrize("relief_nm, factor", [(100.0, 1.0), (20.0, 1.0), (9.0, 2.0), (0.11, 100.0), (0.0, 1.0)])
def test_exaggeration_is_round_and_fits(relief_nm, factor):
    height = np.zeros((40, 50))
    height[3, 4] = relief_nm
    assert pictures.exaggeration(height, 2.0) == factor


def test_settings_and_files_as_text():
    assert value_text(None) == "chosen by the program" and value_text(()) == "none" and value_text(jnp.inf) == "inf"
    assert value_text((("detector.distance_mm", 0.1),)) == "detector.distance_mm ± 0.1"
    assert value_text(eqx.Module) and len(value_text("x" * 500)) < 130
    table = file_table([{"bytes": 3, "name": "a"}, {"name": "b", "other": 1.5}])
    assert table.head == ["file", "bytes", "other"] and table.rows == [["a", "3", ""], ["b", "", "1.5"]]


browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: nothing can run the page's scripts")

# Runs after the page's own scripts and leaves what it found in the document.
PROBE = """<script>
(() => {
  const out = {}, tools = window.eclipsjax;
  // A hand's events have a pointer that can be captured, these do not.
  const drag = (element, from, to) => {
    element.setPointerCapture = () => {};
    const box = element.getBoundingClientRect();
    for (const [type, [x, y]] of [["pointerdown", from], ["pointermove", to], ["pointerup", to]]) {
      const place = { clientX: box.left + x, clientY: box.top + y };
      element.dispatchEvent(new PointerEvent(type, { pointerId: 1, buttons: 1, bubbles: true, ...place }));
    }
  };
  try {
    const view = tools.relief, tool = tools.profileTool, data = tools.data;
    tool.state.line = LINE;
    const terraces = Float64Array.from({ length: 101 }, (_, i) => (i < 30 ? 0.1 * (i % 2) : 5));
    out.guess = tools.clearestStep({ height_nm: terraces });
    Object.assign(tool.state, { markers: [0.7, 0.2], placed: true });
    tool.draw();
    const found = tool.state.found;
    Object.assign(out, { numbers: tools.numbers(found, tool.state.markers), csv: tools.csv(found) });
    out.told = [...document.querySelectorAll("#eclipsjax-profile dd")].map((d) => d.textContent);
    const size = tool.state.size;
    drag(tool.map, [10.5 * size, 20.5 * size], [30.5 * size, 5.5 * size]);
    out.drawn = [...tool.state.line];
    drag(tool.map, [10.5 * size, 20.5 * size], [4.5 * size, 1.5 * size]);
    out.moved = [...tool.state.line];
    drag(tool.plot, [62 + 0.7 * (tool.plot.clientWidth - 76), 100], [62 + 0.5 * (tool.plot.clientWidth - 76), 100]);
    out.markers = tool.state.markers;
    out.bands = tools.mesh.bands(512, 512);
    if (view) {
      const pixels = () => {
        const flat = document.createElement("canvas"), paint = flat.getContext("2d", { willReadFrequently: true });
        Object.assign(flat, { width: view.canvas.width, height: view.canvas.height });
        paint.drawImage(view.canvas, 0, 0);
        return { at: (x, y) => [...paint.getImageData(x, y, 1, 1).data.slice(0, 3)],
                 all: paint.getImageData(0, 0, flat.width, flat.height).data };
      };
      view.draw();
      out.colours = new Set(new Uint32Array(pixels().all.buffer)).size;
      document.querySelector('[data-part="above"]').click();
      view.draw();
      const seen = tools.view.camera(view.shape, view.pose, view.canvas.width / view.canvas.height);
      const corner = (x, y) => {
        const [u, v] = seen.project([x, y, 0]);
        const { width, height } = view.canvas;
        return pixels().at(Math.round((0.5 + 0.5 * u) * width), Math.round((0.5 - 0.5 * v) * height));
      };
      out.above = { left: corner(-0.4, 0), right: corner(0.4, -0.2) };
      Object.assign(out.above, { hump: corner(0.29, 0.22), below: corner(0.29, -0.22) });
      out.axes = seen.turn;
      const stage = document.querySelector('[data-part="stage"]');
      drag(stage, [100, 100], [150, 100]);
      out.yaw = view.pose.yaw;
      document.querySelector('[data-part="reset"]').click();
      out.again = view.pose.yaw;
    } else out.why = document.querySelector('[data-part="why"]').textContent;
    out.live = document.getElementById("eclipsjax-relief").classList.contains("live");
    out.wide = document.documentElement.scrollWidth - window.innerWidth;
  } catch (error) { out.error = String(error.stack || error); }
  const note = document.createElement("pre");
  note.id = "found";
  note.textContent = JSON.stringify(out);
  document.body.append(note);
})();
</script>"""


def browse(folder, text, width=1200):
    """What the probe found in a headless Chromium, and what the console said."""
    file = folder / "page.html"
    file.write_text(text.replace("</body>", PROBE.replace("LINE", "[3.25, 20.5, 28.75, 4.5]") + "</body>"), "utf-8")
    options = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
               "--disable-dev-shm-usage", "--no-first-run", "--enable-logging=stderr", "--v=0",
               f"--user-data-dir={folder / 'profile'}", f"--window-size={width},1400", "--virtual-time-budget=4000",
               "--dump-dom", file.as_uri()]  # fmt: skip
    for _ in range(2):
        try:
            done = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, timeout=120)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        pytest.skip("Chromium did not come back within two minutes, twice: a machine too busy to judge the page")
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page's scripts did not run: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found.group(1))), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module")
def browsed(whole, tmp_path_factory):
    return browse(tmp_path_factory.mktemp("browser"), whole[0])


@browser
def test_no_errors_in_the_browser(browsed):
    found, console = browsed
    assert "error" not in found and not console
    assert found["wide"] <= 0


@browser
def test_profile_numbers_agree_with_numpy(browsed, whole):
    found, result, truth = browsed[0], *whole[1:]
    height = np.asarray(result.height_nm)
    x0, y0, x1, y1 = 3.25, 20.5, 28.75, 4.5
    count = int(np.ceil(np.hypot(x1 - x0, y1 - y0))) + 1
    t = np.linspace(0, 1, count)
    column, row = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    distance = t * np.hypot(x1 - x0, y1 - y0) * PIXEL
    line = sample_map(height - height.min(), column, row)
    std = sample_map(result.height_std_nm, column, row)
    true = sample_map(truth - truth.mean() + height.mean() - height.min(), column, row)
    read = np.genfromtxt(found["csv"].splitlines(), delimiter=",", names=True)
    expected = {"distance_nm": distance, "height_nm": line, "height_std_nm": std, "true_height_nm": true}
    assert read.dtype.names == tuple(expected)
    for name, values in expected.items():
        assert read[name] == pytest.approx(values, abs=2e-5)
    numbers, near, far = found["numbers"], distance <= 0.2 * distance[-1], distance >= 0.7 * distance[-1]
    assert numbers["length_nm"] == pytest.approx(distance[-1])
    assert numbers["rise_nm"] == pytest.approx(line[-1] - line[0], abs=1e-5)
    assert numbers["angle_deg"] == pytest.approx(np.degrees(np.arctan2(line[-1] - line[0], distance[-1])), abs=1e-4)
    assert numbers["step_nm"] == pytest.approx(line[far].mean() - line[near].mean(), abs=1e-5)
    assert numbers["true_step_nm"] == pytest.approx(true[far].mean() - true[near].mean(), abs=1e-5)
    assert "±" in found["told"][0] and "true" in found["told"][-1] and found["told"][3].endswith("°")


@browser
def test_relief_is_drawn_and_not_mirrored(browsed):
    found = browsed[0]
    if not found["live"]:
        pytest.skip(f"this Chromium has no WebGL: {found.get('why')}")
    assert found["colours"] > 100
    assert np.allclose(found["axes"], np.eye(3))
    # Viridis: high is yellow (green well above blue), low is violet (blue well above green).
    height = {name: rgb[1] - rgb[2] for name, rgb in found["above"].items()}
    assert height["left"] > 40 and height["right"] < -15
    assert height["hump"] > height["below"] + 40


@browser
def test_dragging_draws_moves_and_turns(browsed):
    found = browsed[0]
    assert found["drawn"] == pytest.approx([10, 20, 30, 5], abs=1e-6)
    assert found["moved"] == pytest.approx([4, 1, 30, 5], abs=1e-6)
    assert found["markers"] == pytest.approx([0.5, 0.2])
    assert found["guess"] == pytest.approx([0.245, 0.345])
    if found["live"]:
        assert found["yaw"] == pytest.approx(0.4) and found["again"] == pytest.approx(-0.5)


@browser
def test_bands_cover_every_row(browsed):
    bands = browsed[0]["bands"]
    rows = [r for band in bands for r in range(band["first"], band["first"] + band["rows"] - 1)]
    assert rows == list(range(511)) and max(band["rows"] for band in bands) * 512 <= 65535


def test_floats_are_little_endian():
    maps = embedded.relief_maps(np.array([[0.0, 1.5]]), np.full((1, 2), np.nan), np.ones((1, 2)), 1.0)
    assert base64.b64decode(maps["height_nm"]) == struct.pack("<2f", 0.0, 1.5)
