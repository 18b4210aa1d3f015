"""Height files there and back, and one clear sentence for every file that is not one."""

import errno
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from eclipsjax._types import InputError
from eclipsjax.io.heights import prepare_folder, read_height, read_level_height, write_height
from eclipsjax.specimen.surface import Surface

AFM = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "afm"
HEIGHT = np.arange(12.0).reshape(3, 4) ** 2 / 7 - 3


def surface(dtype=float):
    return Surface(jnp.asarray(HEIGHT, dtype), jnp.asarray(12.7, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npz_round_trip_is_exact(tmp_path, dtype):
    write_height(surface(dtype), tmp_path / "map.npz")
    with np.load(tmp_path / "map.npz") as file:
        assert file["height_nm"].dtype == dtype
    back = read_height(tmp_path / "map.npz")
    np.testing.assert_array_equal(back.height_nm, HEIGHT.astype(dtype))
    assert float(back.pixel_size_nm) == float(dtype(12.7))


@pytest.mark.parametrize("ending", ["tif", "TIFF"])
def test_tiff_round_trip_is_exact_in_single_precision(tmp_path, ending):
    path = tmp_path / f"map.{ending}"
    write_height(surface(np.float32), path)
    back = read_height(path)
    np.testing.assert_array_equal(back.height_nm, HEIGHT.astype(np.float32))
    assert float(back.pixel_size_nm) == float(np.float32(12.7))


def test_tiff_states_unit_and_resolution_for_other_programs(tmp_path):
    write_height(surface(), tmp_path / "map.tif")
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        tags = file.pages[0].tags
        numerator, denominator = tags["XResolution"].value
        assert abs(1e7 / (numerator / denominator) / 12.7 - 1) < 1e-6 and tags["ResolutionUnit"].value == 3
        assert '"height_unit": "nm"' in file.pages[0].description
        assert file.pages[0].dtype == np.float32


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.txt", "# heights in nm\n1 2.5\n-3 4e1\n"),
        ("a.txt", "1\t2.5\n-3\t4e1\n\n"),
        ("a.csv", "1,2.5\n-3,4e1"),
        ("a.csv", "1; 2.5\n-3; 4e1"),
        ("a.csv", "\ufeff1,2.5\n-3,4e1"),
        ("a.csv", b"# H\xf6he in \xb5m\n1,2.5\n-3,4e1"),
    ],
)
def test_text_matrices(tmp_path, name, text):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    back = read_height(tmp_path / name, pixel_size_nm=2.0)
    np.testing.assert_array_equal(back.height_nm, [[1, 2.5], [-3, 40]])
    assert float(back.pixel_size_nm) == 2.0


def test_npy_plain_tiff_and_a_scale(tmp_path):
    np.save(tmp_path / "a.npy", HEIGHT)
    np.testing.assert_array_equal(read_height(tmp_path / "a.npy", 5.0).height_nm, HEIGHT)
    np.testing.assert_array_equal(read_height(tmp_path / "a.npy", 5.0, 1e3).height_nm, HEIGHT * 1e3)
    tifffile.imwrite(tmp_path / "a.tif", HEIGHT.astype(np.float32))
    np.testing.assert_array_equal(read_height(tmp_path / "a.tif", 5.0).height_nm, HEIGHT.astype(np.float32))
    counts = np.array([[0, 65535], [100, 7]], np.uint16)
    tifffile.imwrite(tmp_path / "b.tif", counts)
    np.testing.assert_array_equal(read_height(tmp_path / "b.tif", 5.0, 0.25).height_nm, counts * 0.25)


def test_pixels_within_a_thousandth_are_square_and_a_repeated_pixel_size_is_accepted(tmp_path):
    np.savez(tmp_path / "a.npz", height_nm=HEIGHT, pixel_size_nm=10.0, pixel_size_y_nm=10.009)
    assert float(read_height(tmp_path / "a.npz", pixel_size_nm=10.0).pixel_size_nm) == 10.0


@pytest.mark.skipif(not AFM.is_dir(), reason="the measured AFM maps (../shared/data/afm) are not here")
def test_measured_maps():
    """Pixel sizes, shapes and ranges as documented beside the data."""
    steps = read_height(AFM / "picoview_steps_20um.npz")
    assert steps.height_nm.shape == (256, 256) and float(steps.pixel_size_nm) == 78.125
    assert abs(float(jnp.ptp(steps.height_nm)) - 165.6) < 0.1
    grains = read_height(AFM / "park_grains_1um.npz")
    assert grains.height_nm.shape == (512, 512) and abs(float(grains.pixel_size_nm) - 1.953) < 1e-3
    assert abs(float(jnp.ptp(grains.height_nm)) - 36.69) < 0.01


# Every entry: file name, what is in it, how it is read, what the sentence says.
BAD = [
    ("a.xyz", b"1 2", {}, r"unknown kind \(.xyz\): heights are read from .npz, .npy, .tif"),
    ("a", b"1 2", {}, "no ending"),
    ("a.npy", HEIGHT, {}, "does not say how large a pixel is: give pixel_size_nm"),
    ("a.npy", HEIGHT, {"pixel_size_nm": -1.0}, "pixel_size_nm is -1.0"),
    ("a.npy", HEIGHT, {"pixel_size_nm": 1.0, "height_scale_nm": 0.0}, "height_scale_nm is 0.0"),
    ("a.npy", HEIGHT[0], {"pixel_size_nm": 1.0}, r"a.npy: height_nm has shape \(4,\)"),
    (
        "a.npy",
        HEIGHT.astype(np.int16),
        {"pixel_size_nm": 1.0},
        r"whole numbers \(int16\): give height_scale_nm",
    ),
    ("a.npy", HEIGHT * 1j, {"pixel_size_nm": 1.0}, "complex128: heights are real"),
    ("a.npy", np.where(HEIGHT > 5, np.nan, HEIGHT), {"pixel_size_nm": 1.0}, "first .nan. at row 2, column 0"),
    ("a.npy", b"no array", {"pixel_size_nm": 1.0}, "a.npy cannot be read"),
    ("a.npy", {"height_nm": HEIGHT}, {"pixel_size_nm": 1.0}, "several arrays in one file end in .npz"),
    ("a.npz", b"PK no archive", {}, "a.npz cannot be read .*heights are read from"),
    ("a.npz", HEIGHT, {}, "a.npz cannot be read"),
    ("a.npz", {"z": HEIGHT, "dx": 1.0}, {}, "no array height_nm, only z, dx"),
    ("a.npz", {"height_nm": HEIGHT}, {}, "give pixel_size_nm"),
    ("a.npz", {"height_nm": HEIGHT, "pixel_size_nm": np.ones(2)}, {}, "a.npz cannot be read"),
    (
        "a.npz",
        {"height_nm": HEIGHT, "pixel_size_nm": 9.0, "pixel_size_y_nm": 9.1},
        {},
        "9 x 9.1 nm: only square",
    ),
    (
        "a.npz",
        {"height_nm": HEIGHT, "pixel_size_nm": 9.0},
        {"pixel_size_nm": 8.0},
        "measure 9 nm but pixel_size_nm = 8",
    ),
    ("a.tif", b"no tiff", {"pixel_size_nm": 1.0}, "a.tif cannot be read"),
    ("a.txt", b"", {"pixel_size_nm": 1.0}, "holds no numbers"),
    ("a.tif", b"II*\0garbagegarbage", {"pixel_size_nm": 1.0}, "a.tif cannot be read .no page in it"),
    ("a.npy", HEIGHT * 1e307, {"pixel_size_nm": 1.0}, "a.npy holds heights of 1.*e.308 nm"),
    ("a.npy", HEIGHT, {"pixel_size_nm": 1e300}, r"pixel_size_nm is 1e\+300: give one positive"),
    ("a.npy", HEIGHT, {"pixel_size_nm": np.nan}, "pixel_size_nm is nan"),
    ("a.npy", HEIGHT, {"pixel_size_nm": 1.0, "height_scale_nm": 1e308}, "a.npy holds heights of"),
    ("a.txt", b"1 2\n3\n", {"pixel_size_nm": 1.0}, "a.txt, line 2: 1 number where line 1 has 2"),
    ("a.csv", b"1,2\n3,x\n", {"pixel_size_nm": 1.0}, "a.csv, line 2: 'x' is not a number"),
    ("a.csv", b"1,2\n3,\xff\n", {"pixel_size_nm": 1.0}, "line 2: .* is not a number"),
    ("a.csv", b"# made by\nx,y\n1,2\n", {"pixel_size_nm": 1.0}, "line 2: 'x,y' is a heading: delete .* or put #"),
    ("a.csv", b"1,5;2,5\n3;4\n", {"pixel_size_nm": 1.0}, "line 1: '1,5' has decimal commas: write decimal points"),
    ("a.txt", b"1,5 2,5\n3,5 4,5\n", {"pixel_size_nm": 1.0}, "line 1: '1,5 2,5' has decimal commas"),
    ("a.csv", b"1,2,\n3,4,\n", {"pixel_size_nm": 1.0}, "line 1: it ends with a comma: remove the delimiter"),
    ("a.csv", b"1,2,3\n3,,4\n", {"pixel_size_nm": 1.0}, "line 2: nothing stands between two delimiters .commas"),
    ("a.csv", "1,2\n3,4\n".encode("utf-16"), {"pixel_size_nm": 1.0}, "a.csv is UTF-16 text: save it as UTF-8"),
]


@pytest.mark.parametrize("name, content, how, sentence", BAD)
def test_unusable_files_end_in_one_sentence(tmp_path, name, content, how, sentence):
    path = tmp_path / name
    with open(path, "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        elif isinstance(content, dict):
            np.savez(file, **content)
        else:
            np.save(file, content)
    with pytest.raises(InputError, match=sentence) as caught:
        read_height(path, **how)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_missing_file_and_several_pages(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_height(tmp_path / "none.npy")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 8, 8), np.float32), photometric="minisblack")
    with pytest.raises(InputError, match="holds 3 pages"):
        read_height(tmp_path / "stack.tif", 1.0)


def test_what_is_wrong_with_a_tiff_is_said_once_and_first(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match=r"has shape \(8, 9, 3\)"):
        read_height(tmp_path / "rgb.tif")
    (tmp_path / "garbage.tif").write_bytes(b"II*\0garbagegarbage")
    with pytest.raises(InputError, match="cannot be read"):
        read_height(tmp_path / "garbage.tif", 1.0)
    assert capfd.readouterr().err == ""
    notes = '{"eclipsjax": "image 1"}'
    tifffile.imwrite(tmp_path / "image.tif", HEIGHT.astype(np.float32), description=notes, metadata=None)
    with pytest.raises(InputError, match="image that eclipsjax simulated, not a height map"):
        read_height(tmp_path / "image.tif", 1.0)


TAGGED = {
    "imagej nm": ({"imagej": True, "resolution": (0.2, 0.2), "metadata": {"unit": "nm"}}, 5.0),
    "imagej micron": ({"imagej": True, "resolution": (200.0, 200.0), "metadata": {"unit": "um"}}, 5.0),
    "imagej without": ({"imagej": True}, None),
    "centimetre": ({"resolution": (2e6, 2e6), "resolutionunit": "CENTIMETER"}, 5.0),
    "inch": ({"resolution": (2.54e6, 2.54e6), "resolutionunit": "INCH"}, 10.0),
    "for a printer": ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
    "no unit": ({"resolution": (2e6, 2e6), "resolutionunit": "NONE"}, None),
}


@pytest.mark.parametrize("kind", TAGGED)
def test_a_tiffs_own_resolution_counts(tmp_path, kind):
    how, pixel = TAGGED[kind]
    tifffile.imwrite(tmp_path / "a.tif", HEIGHT.astype(np.float32), **how)
    if pixel is None:
        assert float(read_height(tmp_path / "a.tif", 7.0).pixel_size_nm) == 7.0
        return
    assert float(read_height(tmp_path / "a.tif").pixel_size_nm) == pytest.approx(pixel, rel=1e-6)
    with pytest.raises(InputError, match=f"measure {pixel:g} nm but pixel_size_nm = 7"):
        read_height(tmp_path / "a.tif", 7.0)


@pytest.mark.parametrize("offset", [1e5, -3e6])
def test_offsets_that_single_precision_cannot_carry_are_subtracted(tmp_path, offset):
    np.save(tmp_path / "a.npy", HEIGHT + offset)
    level, subtracted = read_level_height(tmp_path / "a.npy", 5.0)
    assert subtracted == pytest.approx(offset + 0.5 * (HEIGHT.min() + HEIGHT.max()))
    np.testing.assert_allclose(level.height_nm + subtracted - offset, HEIGHT, atol=1e-8)
    np.testing.assert_array_equal(read_height(tmp_path / "a.npy", 5.0).height_nm, HEIGHT + offset)


@pytest.mark.parametrize("height", [HEIGHT, HEIGHT + 100.0, 1e6 * HEIGHT])
def test_heights_that_single_precision_carries_stay(tmp_path, height):
    """The last map's relief itself is large: nothing to gain from any offset."""
    np.save(tmp_path / "a.npy", height)
    level, subtracted = read_level_height(tmp_path / "a.npy", 5.0)
    assert subtracted == 0.0
    np.testing.assert_array_equal(level.height_nm, height)


@pytest.mark.parametrize("name", ["map.npz", "map.tif"])
def test_writing_never_overwrites_without_force(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="already exists"):
        write_height(surface(), path)
    assert path.read_bytes() == b"precious"
    write_height(surface(), path, force=True)
    assert read_height(path).height_nm.shape == (3, 4)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"unknown kind \(.png\): heights are written to .npz"):
        write_height(surface(), tmp_path / "map.png")
    with pytest.raises(InputError, match="cannot be written: No such file"):
        write_height(surface(), tmp_path / "none" / "map.npz")
    with pytest.raises(InputError, match="while JAX traces it"):
        jax.jit(lambda h: write_height(Surface(h, 1.0), tmp_path / "map.npz"))(jnp.ones((2, 2)))


def test_prepare_folder_makes_it_and_guards_what_it_holds(tmp_path):
    folder = prepare_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and prepare_folder(folder) == folder
    (folder / "result.npz").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"already holds result.npz"):
        prepare_folder(folder)
    assert prepare_folder(folder, force=True) == folder
    assert (folder / "result.npz").read_bytes() == b"precious" and len(list(folder.iterdir())) == 1


def test_prepare_folder_where_none_can_be(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file: results need a folder"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(InputError, match="cannot be made or read: Not a directory"):
        prepare_folder(tmp_path / "file" / "sub")


def test_prepare_folder_that_is_read_only(tmp_path, monkeypatch):
    """The superuser may write anywhere, so the refusal is staged."""

    def refuse(**_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot be written to: Permission denied"):
        prepare_folder(tmp_path)
