"""Exports there and back, read by other means than wrote them; meshes are in `test_mesh_files.py`."""

import io
import json
import os
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image
from small_relief import COLUMN, HEIGHT, HOLES, MESHES, NOTES, PIXEL, ROW, STD

from eclipsjax._types import InputError
from eclipsjax.io import gwyddion
from eclipsjax.io.export import export_height, export_normals, export_profile
from eclipsjax.io.heights import read_height
from eclipsjax.specimen.surface import Surface

# What has to be installed for `.nc`, which no parser here reads.
NEEDS = {"nc": ("xarray", "h5netcdf", "h5py")}


def needs(ending):
    for name in NEEDS.get(ending, ()):
        pytest.importorskip(name)


# ---- an independent reader -------------------------------------------------------------------------------------------


def parse_gwy(path):
    data = path.read_bytes()
    assert data[:4] == b"GWYP"
    name, value, end = _gwy_object(data, 4)
    assert name == "GwyContainer" and end == len(data)
    return value


def _gwy_object(data, at):
    name, at = _gwy_text(data, at)
    (size,) = struct.unpack_from("<I", data, at)
    at, end, parts = at + 4, at + 4 + size, {}
    while at < end:
        key, at = _gwy_text(data, at)
        kind, at = chr(data[at]), at + 1
        if kind == "o":
            of, parts[key], at = _gwy_object(data, at)
            parts[key]["is"] = of
        elif kind == "s":
            parts[key], at = _gwy_text(data, at)
        elif kind == "D":
            (count,) = struct.unpack_from("<I", data, at)
            parts[key], at = np.frombuffer(data, "<f8", count, at + 4), at + 4 + 8 * count
        else:
            code = {"i": "<i", "d": "<d", "b": "<B"}[kind]
            (parts[key],), at = struct.unpack_from(code, data, at), at + struct.calcsize(code)
    assert at == end
    return name, parts, end


def _gwy_text(data, at):
    end = data.index(b"\0", at)
    return data[at:end].decode(), end + 1


# ---- maps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
def test_npz_keeps_precision_and_holes(tmp_path, dtype, convert):
    export_height(convert(HOLES.astype(dtype)), PIXEL, tmp_path / "a.npz", convert(STD.astype(dtype)), NOTES)
    with np.load(tmp_path / "a.npz") as file:
        assert file["height_nm"].dtype == file["height_std_nm"].dtype == dtype
        np.testing.assert_array_equal(file["height_nm"], HOLES.astype(dtype))
        np.testing.assert_array_equal(file["height_std_nm"], STD.astype(dtype))
        assert float(file["pixel_size_nm"]) == PIXEL and json.loads(str(file["notes"])) == NOTES


@pytest.mark.parametrize("name", ["a.npz", "a.NPZ", "a.tif", "a.TIFF"])
def test_what_the_package_reads_itself(tmp_path, name):
    export_height(HEIGHT.astype(np.float32), PIXEL, tmp_path / name)
    back = read_height(tmp_path / name)
    np.testing.assert_array_equal(back.height_nm, HEIGHT.astype(np.float32))
    assert float(back.pixel_size_nm) == PIXEL and os.listdir(tmp_path) == [name]


def test_tiff_states_units_and_notes_and_keeps_holes(tmp_path):
    export_height(HOLES, PIXEL, tmp_path / "a.tif", notes=NOTES)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        said = json.loads(file.pages[0].description)
        numerator, denominator = file.pages[0].tags["XResolution"].value
        np.testing.assert_array_equal(file.asarray(), HOLES.astype(np.float32))
    assert said["height_unit"] == "nm" and said["pixel_size_nm"] == PIXEL and said["notes"] == NOTES
    assert 1e7 * denominator / numerator == pytest.approx(PIXEL, rel=1e-6)


def test_gwyddion_is_si_with_masks_and_metadata(tmp_path):
    std = STD.copy()
    std[1, 1] = np.nan
    export_height(HOLES, PIXEL, tmp_path / "a.gwy", std, NOTES)
    file, hole = parse_gwy(tmp_path / "a.gwy"), np.isnan(HOLES)
    for k, values in enumerate((HOLES, std)):
        field, mask = file[f"/{k}/data"], file[f"/{k}/mask"]
        assert (field["xres"], field["yres"], field["is"]) == (7, 5, "GwyDataField")
        assert (field["xreal"], field["yreal"]) == pytest.approx((7 * PIXEL * 1e-9, 5 * PIXEL * 1e-9))
        assert field["si_unit_xy"]["unitstr"] == field["si_unit_z"]["unitstr"] == "m"
        data, covered = field["data"].reshape(5, 7), mask["data"].reshape(5, 7) == 1
        np.testing.assert_array_equal(covered, np.isnan(values))
        np.testing.assert_allclose(data[~covered], 1e-9 * values[~covered], rtol=1e-14)
        np.testing.assert_allclose(data[covered], 1e-9 * np.nanmean(values), rtol=1e-12)
        assert mask["si_unit_z"]["unitstr"] == ""
    assert file["/0/data/title"] == "Height" and "deviation" in file["/1/data/title"] and file["/0/data/visible"] == 1
    meta = file["/0/meta"]
    assert meta["sample"] == NOTES["sample"] and json.loads(meta["settings"]) == NOTES["settings"]
    assert "row 0 at the top" in meta["eclipsjax conventions"] and "not measured" in meta["eclipsjax mask"]
    export_height(np.where(hole, 0.0, HOLES), PIXEL, tmp_path / "whole.gwy")
    assert not [key for key in parse_gwy(tmp_path / "whole.gwy") if "mask" in key or key.startswith("/1")]


def test_gwyddion_through_gwyfile(tmp_path):
    gwyfile = pytest.importorskip("gwyfile")
    export_height(HOLES, PIXEL, tmp_path / "a.gwy", STD)
    file = gwyfile.load(str(tmp_path / "a.gwy"))
    field = gwyfile.util.get_datafields(file)["Height"]
    known = file["/0/mask"].data == 0
    np.testing.assert_allclose(field.data[known], 1e-9 * HOLES[known], rtol=1e-14)
    assert field.xreal == pytest.approx(7 * PIXEL * 1e-9) and field.si_unit_z.unitstr == "m"
    assert "Height standard deviation" in gwyfile.util.get_datafields(file)


def test_netcdf_has_units_and_coordinates(tmp_path):
    needs("nc")
    import xarray

    export_height(HOLES, PIXEL, tmp_path / "a.nc", STD, NOTES)
    with xarray.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as file:
        np.testing.assert_array_equal(file["height_nm"], HOLES)
        np.testing.assert_array_equal(file["height_std_nm"], STD)
        assert file["height_nm"].dims == ("y", "x") and file["height_nm"].attrs["positive"] == "up"
        assert {file[name].attrs["units"] for name in ("height_nm", "height_std_nm", "x", "y")} == {"nm"}
        np.testing.assert_allclose(file["x"], (np.arange(7) + 0.5) * PIXEL)
        np.testing.assert_allclose(file["y"], (np.arange(5) + 0.5) * PIXEL)
        assert json.loads(file.attrs["notes"]) == NOTES and file.attrs["pixel_size_nm"] == PIXEL
        assert "down the rows" in file.attrs["orientation"]


@pytest.mark.parametrize("missing", ["xarray", "h5netcdf", "h5py"])
def test_netcdf_without_its_extra_says_what_to_install(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install eclipsjax\[stack\]"):
        export_height(HEIGHT, PIXEL, tmp_path / "a.nc")
    assert not os.listdir(tmp_path)


def test_a_gwyddion_file_beyond_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gwyddion, "_LARGEST_BYTES", 8 * 35 * 2)
    export_height(HOLES, PIXEL, tmp_path / "a.gwy")
    with pytest.raises(InputError, match=r"with 3 such arrays a \.gwy file would pass its 4 GiB"):
        export_height(HOLES, PIXEL, tmp_path / "b.gwy", STD)


# ---- normals and profiles ------------------------------------------------------------------------------------------


def test_normals_are_opengl_with_green_up(tmp_path):
    """A slope that rises to the top of the image faces down in it: little green."""
    normals = Surface(PIXEL * (0.5 * COLUMN - 1.0 * ROW), PIXEL).normals()
    export_normals(normals, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB" and image.size == (7, 5)
        values, text = np.asarray(image).astype(float), image.text
    length = 1.5
    wanted = (np.array([-0.5, -1.0, 1.0]) / length + 1) / 2 * 255
    np.testing.assert_allclose(values, np.broadcast_to(wanted, values.shape), atol=0.5)
    assert "OpenGL" in text["Description"] and "y up" in text["Description"]


def test_flat_ground_and_the_extremes_of_a_byte(tmp_path):
    normals = np.array([[[0.0, 0, 1], [1, 0, 0], [0, 1, 0], [0, -1, 0]]])
    export_normals(normals, tmp_path / "a.PNG")
    with Image.open(tmp_path / "a.PNG") as image:
        np.testing.assert_array_equal(
            np.asarray(image)[0], [[128, 128, 255], [255, 128, 128], [128, 0, 128], [128, 255, 128]]
        )


@pytest.mark.parametrize(
    "normals, sentence",
    [
        (np.zeros((2, 3)), r"shape \(2, 3\): give an array \(y, x, 3\)"),
        (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
        (np.ones((2, 2, 3)), "not of length 1 at 4 pixels, first at row 0, column 0"),
        (np.full((2, 2, 3), np.nan), "not of length 1 at 4 pixels"),
    ],
)
def test_what_are_no_normals(tmp_path, normals, sentence):
    with pytest.raises(InputError, match=sentence):
        export_normals(normals, tmp_path / "a.png")
    assert not os.listdir(tmp_path)


def test_profile_is_exact_and_names_its_units(tmp_path):
    distance = np.arange(6) / 3
    columns = {
        "height_nm": jnp.asarray(np.sin(distance)),
        "height_std_nm": np.float32(distance) / 7,
    }
    columns["height_std_nm"][2] = np.nan
    export_profile(distance, {**columns, "segment": np.arange(6)}, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_bytes().decode().split("\n")
    comments = [line for line in lines if line.startswith("#")]
    assert "nm" in comments[1] and lines[len(comments)] == "distance_nm,height_nm,height_std_nm,segment"
    table = np.genfromtxt(io.StringIO("\n".join(lines)), delimiter=",", names=True, skip_header=len(comments))
    np.testing.assert_array_equal(table["distance_nm"], distance)
    np.testing.assert_array_equal(table["height_nm"], np.sin(distance))
    np.testing.assert_array_equal(table["height_std_nm"].astype(np.float32), columns["height_std_nm"])
    np.testing.assert_array_equal(table["segment"], np.arange(6))


def test_profile_through_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    export_profile(HEIGHT[0], {"height_nm": HEIGHT[1]}, tmp_path / "a.csv")
    table = pandas.read_csv(tmp_path / "a.csv", comment="#")
    np.testing.assert_allclose(table["height_nm"], HEIGHT[1], rtol=1e-14)


@pytest.mark.parametrize(
    "columns, sentence",
    [
        ({}, "columns holds nothing"),
        ({"distance_nm": HEIGHT[0]}, "columns holds distance_nm: give the values beside"),
        ({"a,b": HEIGHT[0]}, "holds the name 'a,b'"),
        ({"": HEIGHT[0]}, "holds the name ''"),
        ({"#height_nm": HEIGHT[0]}, "holds the name '#height_nm'"),
        ({"height_nm": HEIGHT[0, 1:]}, r"height_nm has shape \(6,\): give one number for each of the profile's 7"),
        ({"height_nm": HEIGHT}, r"height_nm has shape \(5, 7\)"),
        ({"height_nm": "high"}, "height_nm is 'high'"),
    ],
)
def test_what_is_no_profile(tmp_path, columns, sentence):
    with pytest.raises(InputError, match=sentence):
        export_profile(HEIGHT[0], columns, tmp_path / "a.csv")
    assert not os.listdir(tmp_path)


# ---- mistakes ------------------------------------------------------------------------------------------------------

# Every entry: name of the file, arguments beside the defaults, what the sentence says.
BAD = [
    ("a.xyz", {}, r"unknown kind \(.xyz\): heights are exported to .npz, .tif, .tiff, .gwy, .nc, .stl, .ply, .glb"),
    ("a", {}, "no ending"),
    ("a.npz", {"height_nm": HEIGHT[0]}, r"height_nm has shape \(7,\)"),
    ("a.npz", {"height_nm": HEIGHT[:0]}, "holds no pixel"),
    ("a.gwy", {"height_nm": np.where(HEIGHT > 3, np.inf, HEIGHT)}, r"not finite, the first \(inf\)"),
    ("a.gwy", {"height_nm": np.full((3, 3), np.nan)}, "NaN at all of its 9 pixels"),
    ("a.gwy", {"height_nm": HEIGHT * 1j}, "complex"),
    ("a.npz", {"height_nm": np.ma.masked_less(HEIGHT, 0)}, "a mask would be lost"),
    ("a.npz", {"pixel_size_nm": 0.0}, "pixel_size_nm is 0.0"),
    ("a.npz", {"pixel_size_nm": np.ones(2)}, "pixel_size_nm is"),
    ("a.npz", {"height_std_nm": STD[1:]}, r"height_std_nm has shape \(4, 7\) where height_nm has \(5, 7\)"),
    ("a.npz", {"height_std_nm": -STD}, "negative or infinite at 35 pixels"),
    ("a.npz", {"notes": {"a": np.nan}}, "notes cannot be stored as JSON"),
    ("a.npz", {"notes": {"a": object()}}, "notes cannot be stored as JSON"),
    ("a.stl", {"height_std_nm": STD}, "a .stl file cannot hold height_std_nm: .* one of .npz, .gwy, .nc, .ply, .glb"),
    ("a.tif", {"height_std_nm": STD}, "a .tif file cannot hold height_std_nm"),
    ("a.stl", {"notes": NOTES}, "a .stl file cannot hold notes"),
    *(
        (f"a.{ending}", {"height_nm": HOLES * 1e-2 + 1e6}, "float32 rounds to .* subtract the mean height")
        for ending in ("tif", *MESHES)
    ),
]


@pytest.mark.parametrize("name, given, sentence", BAD)
def test_what_cannot_be_exported_ends_in_one_sentence(tmp_path, name, given, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        export_height(**{"height_nm": HEIGHT, "pixel_size_nm": PIXEL, "path": tmp_path / name, **given})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value) and not os.listdir(tmp_path)


def test_numbers_of_any_kind_and_notes_with_arrays(tmp_path):
    export_height(
        [[1, 2], [3, 4]], 5, tmp_path / "a.npz", notes={"a": np.arange(2), "b": jnp.ones(()), "c": np.int8(3)}
    )
    with np.load(tmp_path / "a.npz") as file:
        assert file["height_nm"].dtype == np.float64 and file["pixel_size_nm"] == 5
        assert json.loads(str(file["notes"])) == {"a": [0, 1], "b": 1.0, "c": 3}


@pytest.mark.parametrize("what", ["height_nm", "pixel_size_nm"])
def test_traced_values_are_not_known_yet(tmp_path, what):
    def write(value):
        export_height(**{"height_nm": HEIGHT, "pixel_size_nm": PIXEL, "path": tmp_path / "a.npz", what: value})

    with pytest.raises(InputError, match=f"{what} cannot be written while JAX traces it"):
        jax.jit(write)(jnp.ones((2, 2)) if what == "height_nm" else 1.0)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("ending", ["npz", "tif", "gwy", "nc", *MESHES])
def test_an_older_file_stays_without_force_and_where_writing_fails(tmp_path, monkeypatch, ending):
    needs(ending)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="already exists: choose another name or allow overwriting with force"):
        export_height(HEIGHT, PIXEL, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(InputError, match=f"a.{ending} cannot be written: No space left on device"):
            export_height(HEIGHT, PIXEL, path, force=True)
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == [path.name]
    export_height(HEIGHT, PIXEL, path, force=True)
    assert path.read_bytes() != b"precious" and os.listdir(tmp_path) == [path.name]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    """Control-C after half of the file."""

    def interrupted(file, *_):
        file.write(b"half")
        file.flush()
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr("eclipsjax.io.mesh_files._put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_height(HEIGHT, PIXEL, tmp_path / "a.ply")
    assert not os.listdir(tmp_path)


def test_links_permissions_and_folders(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "real" / "a.npz")
    export_height(HEIGHT, PIXEL, tmp_path / "link.npz")
    export_height(HEIGHT, PIXEL, tmp_path / "link.npz", force=True)
    assert (tmp_path / "link.npz").is_symlink() and read_height(tmp_path / "real" / "a.npz").height_nm.shape == (5, 7)
    (tmp_path / "plain").touch()
    assert (tmp_path / "real" / "a.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="no file that could be replaced"):
        export_height(HEIGHT, PIXEL, tmp_path / "folder.npz", force=True)
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        export_height(HEIGHT, PIXEL, tmp_path / "none" / "a.npz")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        export_height(HEIGHT, PIXEL, tmp_path / "plain" / "a.npz")


def test_the_other_exports_know_their_ending_and_force(tmp_path):
    (tmp_path / "a.png").write_bytes(b"precious")
    flat = np.broadcast_to([0.0, 0.0, 1.0], (2, 2, 3))
    with pytest.raises(InputError, match="already exists"):
        export_normals(flat, tmp_path / "a.png")
    export_normals(flat, tmp_path / "a.png", force=True)
    with pytest.raises(InputError, match=r"unknown kind \(.jpg\): normals are exported to .png"):
        export_normals(flat, tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"unknown kind \(.txt\): profiles are exported to .csv"):
        export_profile([0.0, 1.0], {"height_nm": [1.0, 2.0]}, tmp_path / "a.txt")
