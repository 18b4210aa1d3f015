"""Meshes in the files that 3D programs open: STL, PLY and GLB, all binary, little endian, single precision.

The formats are those of the specifications ("StL" of 3D Systems, 1989; "PLY Polygon File Format", Turk 1994; "glTF 2.0"
of Khronos, section 4 for GLB). See `eclipsjax.io.mesh` for the axes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from eclipsjax.io.mesh import AXES, height_mesh, vertex_normals

_BLOCK = 2**20
_STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
# Some readers of PLY keep a line in 1024 bytes.
_PLY_LINE = 200
# glTF's codes: a number's type, and what a buffer is for.
_FLOAT, _UINT, _VERTICES, _INDICES = 5126, 5125, 34962, 34963
STD_UNKNOWN = -1.0


def write_stl(path: Path, height_nm: np.ndarray, pixel_size_nm: float) -> None:
    """Binary STL in nm; the 80 bytes of its header say so. Gradient: none."""
    vertices, faces = height_mesh(height_nm, pixel_size_nm)
    with open(path, "wb") as file:
        file.write(b"eclipsjax height: nm, x right, y up, z up to the detector".ljust(80))
        file.write(np.uint32(len(faces)).astype("<u4").tobytes())
        for start in range(0, len(faces), _BLOCK):
            # Double precision, because squares of a pixel may leave the range of single.
            corners = vertices[faces[start : start + _BLOCK]].astype(np.float64)
            normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            block = np.zeros(len(corners), _STL_FACE)
            block["normal"] = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
            block["corners"] = corners
            _put(file, block)


def write_ply(
    path: Path,
    height_nm: np.ndarray,
    pixel_size_nm: float,
    height_std_nm: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Binary PLY in nm; comments say so, and `height_std_nm` is a property of the vertices (NaN where unknown).

    The notes are JSON, cut to the comments that start with "notes "; set together they are whole. Gradient: none.
    """
    vertices, faces = height_mesh(height_nm, pixel_size_nm)
    names, columns = ["x", "y", "z"], vertices
    if height_std_nm is not None:
        names.append("height_std_nm")
        columns = np.column_stack([vertices, height_std_nm[np.isfinite(height_nm)].astype(np.float32)])
    text = "" if notes is None else json.dumps(notes)
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment eclipsjax height 1",
        f"comment lengths in nm: {AXES}",
        f"comment pixel_size_nm {pixel_size_nm!r}",
        *(f"comment notes {text[start : start + _PLY_LINE]}" for start in range(0, len(text), _PLY_LINE)),
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in names),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    with open(path, "wb") as file:
        file.write("\n".join(lines).encode("ascii"))
        _put(file, columns.astype("<f4", copy=False))
        for start in range(0, len(faces), _BLOCK):
            part = faces[start : start + _BLOCK]
            block = np.empty(len(part), _PLY_FACE)
            block["count"], block["corners"] = 3, part
            _put(file, block)


def write_glb(
    path: Path,
    height_nm: np.ndarray,
    pixel_size_nm: float,
    height_std_nm: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """GLB (glTF 2.0 in one file), for web viewers and Blender: one unit of the scene is 1 um, its y points up.

    glTF asks for metres, but viewers lose or clip what measures 1e-6 of them. So the positions are stored in nm in the
    axes of the other mesh files, and the node above them scales by 1/1000 and turns z, to the detector, to glTF's y;
    the top of the image points to -z. `asset.extras` says this and holds the notes. `height_std_nm` becomes the
    attribute `_HEIGHT_STD_NM`, -1 where it is NaN, which glTF does not allow. Gradient: none.
    """
    vertices, faces = height_mesh(height_nm, pixel_size_nm)
    attributes = {"POSITION": vertices, "NORMAL": vertex_normals(height_nm, pixel_size_nm)}
    if height_std_nm is not None:
        std = height_std_nm[np.isfinite(height_nm)]
        attributes["_HEIGHT_STD_NM"] = np.where(np.isnan(std), STD_UNKNOWN, std).astype(np.float32)
    arrays = [faces, *attributes.values()]
    scene = _scene(arrays, list(attributes))
    scene["asset"]["extras"] = {
        "eclipsjax": "height 1",
        "scene_unit": "um",
        "stored_unit": "nm",
        "scene_axes": "x right, y up to the detector, z down in the image",
        "stored_axes": AXES,
        "pixel_size_nm": pixel_size_nm,
        **({} if height_std_nm is None else {"height_std_unknown": STD_UNKNOWN}),
        **({} if notes is None else {"notes": notes}),
    }
    head = json.dumps(scene).encode("ascii")
    head += b" " * (-len(head) % 4)
    # Everything counts in units of four bytes, so the numbers need no padding.
    size = sum(array.nbytes for array in arrays)
    with open(path, "wb") as file:
        file.write(b"glTF" + _uints(2, 12 + 8 + len(head) + 8 + size))
        file.write(_uints(len(head)) + b"JSON" + head)
        file.write(_uints(size) + b"BIN\0")
        for array in arrays:
            _put(file, array.astype(array.dtype.newbyteorder("<"), copy=False))


def _scene(arrays: list[np.ndarray], names: list[str]) -> dict[str, Any]:
    """glTF's description of one mesh: its faces, then the arrays of its vertices called `names`, end to end."""
    views, accessors, start = [], [], 0
    for k, array in enumerate(arrays):
        target = _VERTICES if k else _INDICES
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target})
        start += array.nbytes
        whole = {"type": "SCALAR", "componentType": _UINT, "count": array.size}
        numbers = {"type": "SCALAR" if array.ndim == 1 else "VEC3", "componentType": _FLOAT, "count": len(array)}
        accessors.append({"bufferView": k, **(numbers if k else whole)})
    positions = arrays[1 + names.index("POSITION")]
    accessors[1 + names.index("POSITION")] |= {
        "min": positions.min(axis=0).tolist(),
        "max": positions.max(axis=0).tolist(),
    }
    # A quarter of a turn about x: (x, y, z) becomes (x, z, -y).
    turn = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]
    matt = {"baseColorFactor": [0.8, 0.8, 0.8, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
    primitive = {"attributes": {n: k + 1 for k, n in enumerate(names)}, "indices": 0, "material": 0, "mode": 4}
    return {
        "asset": {"version": "2.0", "generator": "eclipsjax"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "height", "mesh": 0, "rotation": turn, "scale": [1e-3] * 3}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": matt, "doubleSided": True}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }


def _uints(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


def _put(file: BinaryIO, array: np.ndarray) -> None:
    file.write(np.ascontiguousarray(array).view(np.uint8).data)
