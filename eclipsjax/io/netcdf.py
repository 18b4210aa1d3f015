"""Height maps as NetCDF 4, with units and coordinates, through xarray, h5netcdf and h5py (the extra `stack`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eclipsjax._types import InputError

CONVENTIONS = "(y, x) as the image is seen: x right, y down the rows, row 0 at the top, heights up to the detector"


def write_netcdf(
    path: Path,
    height_nm: np.ndarray,
    pixel_size_nm: float,
    height_std_nm: np.ndarray | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Variables `height_nm` and `height_std_nm` over `y` and `x`, the pixels' centres in nm from the top left corner.

    Own precision, NaN as it is; the notes are the attribute `notes`, as JSON. Gradient: none.
    """
    try:
        # xarray would complain in its own words, and h5netcdf does not bring h5py along.
        import h5netcdf  # noqa: F401
        import h5py  # noqa: F401
        import xarray
    except ImportError as error:
        raise InputError(
            f".nc files need xarray, h5netcdf and h5py, of which {error.name} is missing: pip install eclipsjax[stack]."
        ) from None
    maps = {"height_nm": (("y", "x"), height_nm, {"long_name": "height", "units": "nm", "positive": "up"})}
    if height_std_nm is not None:
        attributes = {"long_name": "standard deviation of the height", "units": "nm"}
        maps["height_std_nm"] = (("y", "x"), height_std_nm, attributes)
        maps["height_nm"][2]["ancillary_variables"] = "height_std_nm"
    ways = {"y": "down the rows from the top edge", "x": "right along the columns from the left edge"}
    coordinates = {
        name: (
            name,
            (np.arange(count) + 0.5) * pixel_size_nm,
            {"long_name": f"distance {ways[name]}", "units": "nm"},
        )
        for name, count in zip(ways, height_nm.shape, strict=True)
    }
    attributes = {
        "title": "height map",
        "source": "eclipsjax",
        "orientation": CONVENTIONS,
        "pixel_size_nm": pixel_size_nm,
        **({} if notes is None else {"notes": json.dumps(notes)}),
    }
    data = xarray.Dataset(maps, coordinates, attributes)
    data.to_netcdf(path, engine="h5netcdf", encoding={name: {"zlib": True} for name in maps})
