"""Results in the files that other programs open; each says its units and which way its axes point.

Heights are nm on pixels of `pixel_size_nm` (field / number of pixels), samples at pixel centres, row 0 at the top of
the image, z up to the detector. By the ending of the name, heights become

- `.npz`: `height_nm`, `pixel_size_nm`, `height_std_nm`, and `notes` as JSON; own precision. `read_height` reads it.
- `.tif`, `.tiff`: single precision, nm; pixel size in the description (JSON) and the resolution tags. `read_height`
  reads it.
- `.gwy`: Gwyddion, metres, double precision; NaN under a mask.
- `.nc`: NetCDF 4 with units and coordinates; own precision. Needs `pip install eclipsjax[stack]`.
- `.stl`, `.ply`: triangles in nm; x right, y up in the image, z up.
- `.glb`: triangles for web viewers and Blender; one unit is 1 um, y up, as `asset.extras` says.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, as_real, at_pixels, concrete, shown
from eclipsjax._whole_file import whole_file
from eclipsjax.io.gwyddion import write_gwyddion
from eclipsjax.io.heights import write_npz
from eclipsjax.io.mesh_files import write_glb, write_ply, write_stl
from eclipsjax.io.netcdf import write_netcdf
from eclipsjax.io.tiff import write_tiff
from eclipsjax.specimen.surface import Surface, check_height, check_pixel_size


class _Kind(NamedTuple):
    """How a kind of file is written: by what, what it can hold beside the heights, and whether in single precision."""

    write: Callable[..., None]
    holds: tuple[str, ...] = ("height_std_nm", "notes")
    single: bool = False


_KINDS = {
    ".npz": _Kind(write_npz),
    ".tif": _Kind(write_tiff, ("notes",), single=True),
    ".tiff": _Kind(write_tiff, ("notes",), single=True),
    ".gwy": _Kind(write_gwyddion),
    ".nc": _Kind(write_netcdf),
    ".stl": _Kind(write_stl, (), single=True),
    ".ply": _Kind(write_ply, single=True),
    ".glb": _Kind(write_glb, single=True),
}
_UNIT_LENGTH = 1e-3


def export_height(
    height_nm: Any,
    pixel_size_nm: Any,
    path: str | os.PathLike,
    height_std_nm: Any = None,
    notes: Mapping[str, Any] | None = None,
    force: bool = False,
) -> None:
    """Write a height map to `path`, in the format of its ending; see the module for what each holds.

    - `height_nm`: `(y, x)`, nanometres, NumPy or JAX; NaN where unknown: meshes leave out the faces that touch it.
    - `pixel_size_nm`: nanometres per pixel.
    - `height_std_nm`: `(y, x)`, standard deviation of each height, NaN where unknown.
    - `notes`: anything that JSON can hold, to be stored with the heights.

    What a format cannot hold is refused, not left out: no `height_std_nm` in `.tif` and `.stl`, no `notes` in `.stl`,
    no heights so far from 0 that single precision would show (`.tif` and the meshes), no mesh beyond 4096 x 4096
    pixels. An existing file is replaced only with `force`, and only by a whole one. Gradient: none, a file holds
    numbers.
    """
    path = Path(path)
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{path} is of an unknown kind ({path.suffix or 'no ending'}): heights are exported to {', '.join(_KINDS)}."
        )
    height, pixel = _numbers("height_nm", height_nm), _numbers("pixel_size_nm", pixel_size_nm)
    _check_map(height, pixel, kind.single)
    beside = {}
    if height_std_nm is not None:
        beside["height_std_nm"] = _checked_std(_numbers("height_std_nm", height_std_nm), height.shape)
    if notes is not None:
        beside["notes"] = _as_json(notes)
    for name in beside:
        if name not in kind.holds:
            able = ", ".join(ending for ending, other in _KINDS.items() if name in other.holds)
            raise InputError(f"a {path.suffix} file cannot hold {name}: leave it out, or choose one of {able}.")
    with whole_file(path, force) as file:
        kind.write(file, height, float(pixel), **beside)


def export_normals(normals: Any, path: str | os.PathLike, force: bool = False) -> None:
    """Write a normal map as PNG, 8 bit RGB: each channel is (component + 1) / 2 of 255, rounded.

    - `normals`: `(y, x, 3)`, unit vectors in image axes (x right, y down, z up to the detector), as `Surface.normals`.

    Red is x to the right, green is y UP in the image (the "OpenGL" normal map of Blender, Unity and glTF; "DirectX"
    maps have y down), blue is z to the detector. The picture holds numbers, not colours: load it as "linear" or
    "non-color" data. Its text chunks say all this. Gradient: none.
    """
    from PIL import Image, PngImagePlugin

    path = _of_kind(path, ".png", "normals are")
    array = _numbers("normals", normals)
    if array.ndim != 3 or array.shape[-1] != 3 or array.size == 0:
        raise InputError(f"normals has shape {array.shape}: give an array (y, x, 3) of unit vectors.")
    # NaN compares as False, so it is found too.
    wrong = ~(np.abs(np.linalg.norm(array, axis=-1) - 1.0) <= _UNIT_LENGTH)
    if wrong.any():
        raise InputError(f"normals is not of length 1 {at_pixels(wrong)}: a PNG holds unit vectors at every pixel.")
    colours = np.rint((array * (1.0, -1.0, 1.0) + 1.0) * 127.5).clip(0, 255).astype(np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "eclipsjax")
    text.add_text(
        "Description",
        'Normal map of the "OpenGL" kind: red = x right, green = y up in the image, blue = z up to the detector; '
        "value = round((component + 1) / 2 * 255); linear data, not colours",
    )
    with whole_file(path, force) as file:
        Image.fromarray(colours).save(file, format="png", pnginfo=text)


def export_profile(distance_nm: Any, columns: Mapping[str, Any], path: str | os.PathLike, force: bool = False) -> None:
    """Write a profile as CSV: comments that start with `#`, a line of names, a line for each sample.

    - `distance_nm`: `(n,)`, nanometres along the profile.
    - `columns`: name to `(n,)` values; a name ends with its unit, as in `height_nm` and `height_std_nm`.

    Decimal points, commas between, as many digits as the precision holds, `nan` where unknown. Gradient: none.
    """
    path = _of_kind(path, ".csv", "profiles are")
    if "distance_nm" in columns or not columns:
        raise InputError(f"columns holds {', '.join(columns) or 'nothing'}: give the values beside distance_nm.")
    arrays = {"distance_nm": _numbers("distance_nm", distance_nm)}
    for name, values in columns.items():
        if not re.fullmatch(r"\w[\w./%() -]*", name):
            raise InputError(f"columns holds the name {shown(name)}: use letters, digits and _, the unit at the end.")
        arrays[name] = _numbers(name, values)
    count = arrays["distance_nm"].size
    for name, array in arrays.items():
        if array.shape != (count,) or count == 0:
            raise InputError(
                f"{name} has shape {array.shape}: give one number for each of the profile's {count} samples."
            )
    rows = zip(*(array.astype(str).tolist() for array in arrays.values()), strict=True)
    with whole_file(path, force) as file:
        head = ["# eclipsjax profile 1", "# units end the names: nm are nanometres; heights point up to the detector"]
        lines = [*head, ",".join(arrays), *(",".join(row) for row in rows), ""]
        file.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def _of_kind(path: str | os.PathLike, ending: str, what: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != ending:
        raise InputError(f"{path} is of an unknown kind ({path.suffix or 'no ending'}): {what} exported to {ending}.")
    return path


def _numbers(name: str, value: Any) -> np.ndarray:
    """`value` in its own single or double precision, anything else in double."""
    if concrete(value) is None:
        raise InputError(f"{name} cannot be written while JAX traces it: its values are not known yet.")
    # Only for what it refuses: the conversion may lose a NumPy array's digits.
    as_real(value, name)
    array = np.asarray(value)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _check_map(height: np.ndarray, pixel: np.ndarray, single: bool) -> None:
    # Where a caller's own program is traced, JAX would hide even these known numbers from the checks.
    with jax.ensure_compile_time_eval():
        check_pixel_size(as_real(pixel, "pixel_size_nm"))
        unknown = np.isnan(height)
        check_height(as_real(np.where(unknown, 0.0, height)))
        if unknown.all():
            raise InputError(f"height_nm is NaN at all of its {height.size} pixels: there is nothing to write.")
        if single:
            # A surface of the same numbers knows whether single precision is enough for them.
            level = np.where(unknown, height[~unknown][0], height)
            Surface(jnp.asarray(level, jnp.float32), jnp.asarray(pixel, jnp.float32))


def _checked_std(std: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if std.shape != shape:
        raise InputError(f"height_std_nm has shape {std.shape} where height_nm has {shape}: give one number per pixel.")
    wrong = (std < 0) | np.isinf(std)
    if wrong.any():
        raise InputError(
            f"height_std_nm is negative or infinite {at_pixels(wrong)}: give nanometres, NaN where nothing is known."
        )
    return std


def _as_json(notes: Mapping[str, Any]) -> dict[str, Any]:
    """`notes` after a way through JSON, so that every format stores the same; arrays become lists."""
    try:
        return json.loads(json.dumps(dict(notes), default=lambda value: value.tolist(), allow_nan=False))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"notes cannot be stored as JSON ({reason}): give text, finite numbers, lists and dictionaries of them."
        ) from None
