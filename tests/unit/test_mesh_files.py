"""Mesh files there and back: read by parsers of their own here and by trimesh, right-handed, and nothing invented."""

import json
import os
import struct

import jax
import numpy as np
import pytest
from small_relief import COLUMN, HEIGHT, HOLES, MESHES, NOTES, PIXEL, ROW, STD

from eclipsjax._types import InputError
from eclipsjax.io import mesh
from eclipsjax.io.export import export_height
from eclipsjax.specimen.surface import Surface


def parse_stl(path):
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    assert len(data) == 84 + 50 * count
    numbers = np.array([struct.unpack_from("<12fH", data, 84 + 50 * k) for k in range(count)])
    return numbers[:, 3:12].reshape(-1, 3, 3), numbers[:, :3], data[:80]


def parse_ply(path):
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    counts = {line.split()[1]: int(line.split()[2]) for line in lines if line.startswith("element")}
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"] and max(map(len, lines)) < 256
    size = 4 * len(names) * counts["vertex"]
    vertices = np.frombuffer(body[:size], "<f4").reshape(-1, len(names))
    faces = [struct.unpack_from("<B3i", body, size + 13 * k) for k in range(counts["face"])]
    assert len(body) == size + 13 * counts["face"] and {f[0] for f in faces} == {3}
    notes = "".join(line.removeprefix("comment notes ") for line in lines if line.startswith("comment notes "))
    return vertices[:, :3], np.array(faces)[:, 1:], vertices[:, 3:], lines, notes


def parse_glb(path):
    data = path.read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<4s4I", data)
    assert (magic, version, total, kind) == (b"glTF", 2, len(data), 0x4E4F534A) and length % 4 == 0
    scene = json.loads(data[20 : 20 + length])
    size, kind = struct.unpack_from("<2I", data, 20 + length)
    blob = data[28 + length :]
    assert kind == 0x004E4942 and len(blob) == size == scene["buffers"][0]["byteLength"]

    def array(k):
        accessor = scene["accessors"][k]
        view = scene["bufferViews"][accessor["bufferView"]]
        part = blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        numbers = np.frombuffer(part, {5126: "<f4", 5125: "<u4"}[accessor["componentType"]])
        numbers = numbers.reshape(-1, {"SCALAR": 1, "VEC3": 3}[accessor["type"]])
        assert len(numbers) == accessor["count"]
        return numbers

    primitive = scene["meshes"][0]["primitives"][0]
    attributes = {name: array(k) for name, k in primitive["attributes"].items()}
    return attributes, array(primitive["indices"]).reshape(-1, 3), scene


def triangles(path):
    """Corners `(m, 3, 3)` of a mesh file's faces in its stored numbers."""
    if path.suffix == ".stl":
        return parse_stl(path)[0]
    if path.suffix == ".ply":
        vertices, faces, *_ = parse_ply(path)
    else:
        attributes, faces, _ = parse_glb(path)
        vertices = attributes["POSITION"]
    return vertices.astype(float)[faces]


def spiral(n=24):
    """A smooth ramp that winds up counter-clockwise in the image, shaken by an uneven tilt."""
    row, column = np.mgrid[:n, :n] - (n - 1) / 2
    radius, azimuth = np.hypot(row, column), np.arctan2(-row, column)
    return 4.0 * np.tanh(radius / 6) * np.cos(azimuth - 0.35 * radius) + 0.3 * column + 0.8 * row


def winding(corners):
    """Sign of the areas of faces seen from +z: +1 where they run counter-clockwise."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return np.sign(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])


def mean_normals_at(corners, height):
    """Area-weighted normals of the faces around each pixel, in image axes, for corners in the mesh's."""
    column = np.rint(corners[..., 0] / PIXEL - 0.5).astype(int)
    row = np.rint(-corners[..., 1] / PIXEL - 0.5).astype(int)
    assert row.min() == column.min() == 0 and (row.max() + 1, column.max() + 1) == height.shape
    np.testing.assert_allclose(height[row, column], corners[..., 2], rtol=1e-6, atol=1e-6)
    twice_area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((*height.shape, 3))
    for k in range(3):
        np.add.at(total, (row[:, k], column[:, k]), twice_area)
    total /= np.linalg.norm(total, axis=-1, keepdims=True)
    return total * (1.0, -1.0, 1.0)


@pytest.mark.parametrize("ending", MESHES)
def test_meshes_keep_the_hand_of_a_spiral(tmp_path, ending):
    """The mean normal of the six faces around a pixel differs from central differences by the curvature only.

    Measured: at most 0.011; meshes mirrored in x, in y, or with y down differ by 0.76, 1.27 and 1.29.
    """
    height, path = spiral(), tmp_path / f"a.{ending}"
    export_height(height, PIXEL, path)
    corners = triangles(path)
    assert len(corners) == 2 * 23 * 23 and (winding(corners) == 1).all()
    wanted = np.asarray(Surface(height, PIXEL).normals())
    inside = (slice(1, -1), slice(1, -1))
    found = mean_normals_at(corners, height)
    assert np.abs(found - wanted)[inside].max() < 0.02
    for mirrored in (found[:, ::-1] * (-1.0, 1.0, 1.0), found[::-1] * (1.0, -1.0, 1.0), found * (1.0, -1.0, 1.0)):
        assert np.abs(mirrored - wanted)[inside].max() > 0.5


@pytest.mark.parametrize("ending", MESHES)
def test_a_tilted_plane_has_one_normal_and_its_own_area(tmp_path, ending):
    """z = x - 2 y_down: normal (-1, 2, 1) / sqrt(6) in the image, (-1, -2, 1) / sqrt(6) in the mesh."""
    path = tmp_path / f"a.{ending}"
    export_height(PIXEL * (COLUMN - 2.0 * ROW), PIXEL, path)
    corners = triangles(path)
    twice_area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(twice_area / PIXEL**2, np.broadcast_to([-1.0, -2.0, 1.0], (48, 3)), atol=1e-5)
    stored = {"stl": lambda: parse_stl(path)[1], "glb": lambda: parse_glb(path)[0]["NORMAL"]}
    if ending in stored:
        np.testing.assert_allclose(stored[ending]() * 6**0.5 - [-1.0, -2.0, 1.0], 0, atol=1e-6)


def test_glb_normals_are_the_area_weighted_ones(tmp_path):
    height = spiral()
    export_height(height, PIXEL, tmp_path / "a.glb")
    attributes, faces, _ = parse_glb(tmp_path / "a.glb")
    wanted = mean_normals_at(attributes["POSITION"].astype(float)[faces], height) * (1.0, -1.0, 1.0)
    np.testing.assert_allclose(attributes["NORMAL"].reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("ending", MESHES)
def test_faces_that_touch_an_unknown_height_are_left_out(tmp_path, ending):
    """Of the 48 faces the hole inside takes 6, the corner (0, 0) one and the corner (4, 6) one."""
    path = tmp_path / f"a.{ending}"
    export_height(HOLES, PIXEL, path)
    corners = triangles(path)
    assert np.isfinite(corners).all() and len(corners) == 40 and (winding(corners) == 1).all()
    place = {(int(-y // PIXEL), int(x // PIXEL)): z for x, y, z in corners.reshape(-1, 3)}
    assert set(place) == {(r, c) for r, c in np.argwhere(~np.isnan(HOLES))}
    for (row, column), z in place.items():
        assert z == pytest.approx(HOLES[row, column], rel=1e-6)


def test_a_lonely_height_stays_a_vertex(tmp_path):
    height = np.array([[1.0, 2, np.nan, 5], [3, 4, np.nan, np.nan]])
    export_height(height, PIXEL, tmp_path / "a.glb")
    attributes, faces, _ = parse_glb(tmp_path / "a.glb")
    assert len(faces) == 2 and len(attributes["POSITION"]) == 5
    lonely = attributes["POSITION"][:, 2] == 5
    np.testing.assert_array_equal(attributes["NORMAL"][lonely], [[0, 0, 1]])


def test_stl_header_says_the_unit(tmp_path):
    export_height(HEIGHT, PIXEL, tmp_path / "a.stl")
    header = parse_stl(tmp_path / "a.stl")[2]
    assert b"nm, x right, y up, z up" in header and not header.startswith(b"solid")


def test_ply_has_unit_deviation_and_notes(tmp_path):
    std = STD.copy()
    std[1, 1] = np.nan
    long = {"text": "a b  c " * 100, **NOTES}
    export_height(HOLES, PIXEL, tmp_path / "a.ply", std, long)
    vertices, _, extra, lines, notes = parse_ply(tmp_path / "a.ply")
    known = ~np.isnan(HOLES)
    np.testing.assert_array_equal(vertices[:, 2], HOLES[known].astype(np.float32))
    np.testing.assert_array_equal(extra[:, 0], std[known].astype(np.float32))
    assert "property float height_std_nm" in lines and any("lengths in nm" in line for line in lines)
    assert json.loads(notes) == long


def test_glb_says_its_units_and_its_node_follows_gltf(tmp_path):
    std = STD.copy()
    std[1, 1] = np.nan
    export_height(HEIGHT, PIXEL, tmp_path / "a.glb", std, NOTES)
    attributes, _, scene = parse_glb(tmp_path / "a.glb")
    positions, extras, node = attributes["POSITION"], scene["asset"]["extras"], scene["nodes"][0]
    assert (extras["scene_unit"], extras["stored_unit"], extras["notes"]) == ("um", "nm", NOTES)
    (accessor,) = (a for a in scene["accessors"] if "min" in a)
    np.testing.assert_array_equal([accessor["min"], accessor["max"]], [positions.min(0), positions.max(0)])
    wanted = np.where(np.isnan(std), extras["height_std_unknown"], std).astype(np.float32)
    np.testing.assert_array_equal(attributes["_HEIGHT_STD_NM"][:, 0], wanted.ravel())
    # q v q* of the node's quaternion: right stays right, image up goes to -z, the detector's direction to y.
    x, y, z, w = node["rotation"]
    turn = np.eye(3) + 2 * w * _cross([x, y, z]) + 2 * _cross([x, y, z]) @ _cross([x, y, z])
    np.testing.assert_allclose(turn, [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12)
    assert node["scale"] == [1e-3] * 3


def _cross(v):
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


@pytest.mark.parametrize("ending", MESHES)
def test_meshes_through_trimesh(tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    height, path = spiral(), tmp_path / f"a.{ending}"
    export_height(height, PIXEL, path, *([] if ending == "stl" else [np.abs(height)]))
    read = trimesh.load(path, process=False)
    found = read.to_mesh() if isinstance(read, trimesh.Scene) else read
    corners = np.asarray(found.triangles)
    if ending == "glb":  # the scene: um, y to the detector, z down in the image
        np.testing.assert_allclose(found.vertex_attributes["_HEIGHT_STD_NM"].ravel(), np.abs(height).ravel(), rtol=1e-6)
        corners = 1e3 * corners[..., [0, 2, 1]] * (1.0, -1.0, 1.0)
    np.testing.assert_allclose(corners, triangles(path), rtol=1e-5, atol=1e-4)
    assert (winding(corners) == 1).all()


@pytest.mark.parametrize("ending", MESHES)
def test_meshes_that_readers_cannot_hold_are_refused(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(mesh, "LARGEST", 34)
    with pytest.raises(InputError, match=r"5 x 7 pixels, and a mesh is written of at most 34 .*bin or crop"):
        export_height(HEIGHT, PIXEL, tmp_path / f"a.{ending}")
    monkeypatch.undo()
    for flat in (HEIGHT[:1], np.where(np.eye(5, 7) > 0, HEIGHT, np.nan)):
        with pytest.raises(InputError, match="no three of which make a face"):
            export_height(flat, PIXEL, tmp_path / f"a.{ending}")
    assert not os.listdir(tmp_path)


def test_known_heights_are_written_and_checked_while_something_else_is_traced(tmp_path):
    def write(height, name):
        return jax.jit(lambda x: export_height(height, PIXEL, tmp_path / name) or x)(1.0)

    write(HEIGHT, "a.stl")
    np.testing.assert_allclose(triangles(tmp_path / "a.stl")[0, 0, 2], HEIGHT[0, 0])
    with pytest.raises(InputError, match="subtract the mean"):
        write(HEIGHT * 1e-2 + 1e6, "b.stl")
