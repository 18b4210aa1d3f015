"""A height map as triangles, right-handed: what the mesh files share.

The mesh's axes are x right, y up in the image and z up to the detector, so y runs against the rows: of vertex (row,
column), x = (column + 1/2) pixel and y = -(row + 1/2) pixel in nm, from the image's top left corner. Seen from the
detector each face runs counter-clockwise. A spiral keeps its hand.
"""

from __future__ import annotations

import numpy as np

from eclipsjax._types import InputError

AXES = "x right, y up in the image, z up to the detector, origin at the image's top left corner"
# 2**24 vertices: the largest file, an STL of 50 bytes for each of 2**25 faces, stays below 2 GiB, where readers end.
LARGEST = 4096 * 4096


def height_mesh(height_nm: np.ndarray, pixel_size_nm: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices `(n, 3)` in nm, single precision, and faces `(m, 3)`, indices of vertices.

    - `height_nm`: `(y, x)`; NaN is no vertex, and a face that touches it is left out. Vertices come row by row.
    - `pixel_size_nm`: nanometres per pixel.

    `InputError` where no face is left, or with more pixels than `LARGEST`. Gradient: none.
    """
    if height_nm.size > LARGEST:
        raise InputError(
            f"height_nm has {height_nm.shape[0]} x {height_nm.shape[1]} pixels, and a mesh is written of at most "
            f"{LARGEST} (4096 x 4096), because a larger file is beyond its readers: bin or crop the map, or choose "
            "a map's file (.npz, .tif, .nc, .gwy)."
        )
    known = np.isfinite(height_nm)
    rows, columns = np.nonzero(known)
    vertices = np.empty((rows.size, 3), np.float32)
    vertices[:, 0] = (columns + 0.5) * pixel_size_nm
    vertices[:, 1] = -(rows + 0.5) * pixel_size_nm
    vertices[:, 2] = height_nm[known]
    index = np.zeros(height_nm.shape, np.uint32)
    index[known] = np.arange(rows.size, dtype=np.uint32)
    here, right, below, across = _corners(index)
    faces = np.stack([here, below, right, right, below, across], axis=-1).reshape(*here.shape, 2, 3)
    faces = faces[np.stack(_whole(known), axis=-1)]
    if len(faces) == 0:
        raise InputError(
            f"height_nm has shape {height_nm.shape} with {rows.size} heights, no three of which make a face: a mesh "
            "needs neighbouring pixels in both directions."
        )
    return vertices, faces


def vertex_normals(height_nm: np.ndarray, pixel_size_nm: float) -> np.ndarray:
    """Unit normals `(n, 3)` at the vertices of `height_mesh`, in the mesh's axes, single precision.

    The mean of the adjoining faces' normals weighted with their areas, (0, 0, 1) at a vertex without a face.
    Gradient: none.
    """
    height = height_nm.astype(np.float64)
    here, right, below, across = _corners(height)
    # Every face covers half a pixel in x and y, so twice its area times its normal is pixel (-dz, -dz, pixel).
    steps = ((right - here, below - here), (across - below, across - right))
    touched = ((0, 2, 1), (1, 2, 3))
    total = np.zeros((*height.shape, 3))
    corners = _corners(total)
    for (step_x, step_y), whole, at in zip(steps, _whole(np.isfinite(height)), touched, strict=True):
        normal = np.stack([-step_x, step_y, np.full_like(step_x, pixel_size_nm)], axis=-1)
        normal[~whole] = 0.0
        for corner in at:
            corners[corner][...] += normal
    total[total[..., 2] == 0] = (0.0, 0.0, 1.0)
    total /= np.linalg.norm(total, axis=-1, keepdims=True)
    return total[np.isfinite(height)].astype(np.float32)


def _corners(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Views of what stands at the corners of every cell between pixels: here, right, below, across."""
    return grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]


def _whole(known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which cells have all the corners of their first face (here, below, right) and second (right, below, across)."""
    here, right, below, across = _corners(known)
    return here & right & below, right & below & across
