"""The normalised record of one image, and the parts from which it is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a maker's tags say of one image, in the record's units; None where they are silent."""

    vendor: str
    pixel_size_nm: float | None = None
    pixel_size_y_nm: float | None = None
    energy_kev: float | None = None
    working_distance_mm: float | None = None
    current_na: float | None = None
    dwell_us: float | None = None
    stage_tilt_deg: float | None = None
    scan_rotation_deg: float | None = None
    detector: str | None = None
    segment: str | None = None
    contrast: float | None = None
    brightness: float | None = None
    recorded: str | None = None
    stage_mm: tuple[float, ...] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Rows and columns that the tags give the image, and rows of the data bar below it; None where not said."""

    rows: int | None = None
    columns: int | None = None
    databar_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageRecord(Facts):
    """One image in one vocabulary, whoever made the microscope; None where the file does not say.

    - `path`: the file; `vendor`: whose notes it holds ("plain" if nobody's).
    - `shape`: (rows, columns) below which nothing of the data bar remains; `databar_rows`: rows cut off there.
    - `dtype`: of the stored values.
    - `pixel_size_nm`, `pixel_size_y_nm`: along x and along y.
    - `energy_kev`: of the accelerating voltage; with a biased stage electrons land with another (see `raw`).
    - `working_distance_mm`, `current_na` (of the beam at the specimen), `dwell_us` (per pixel and pass).
    - `stage_tilt_deg`, `scan_rotation_deg` (0 to 360, the maker's sense of turning), `stage_mm` (x, y and, where
      told, z).
    - `detector`, `segment`: names; `contrast`, `brightness`: of this image's amplifier, in the maker's numbers.
    - `recorded`: date and time as the file writes them.
    - `raw`: everything that the maker's tags hold.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    databar_rows: int = 0

    @classmethod
    def of(cls, facts: Facts, path: Path, shape: tuple[int, int], dtype: str, databar_rows: int = 0) -> ImageRecord:
        """`facts` about the image of that shape."""
        told = {f.name: getattr(facts, f.name) for f in fields(Facts)}
        return cls(path=path, shape=shape, dtype=dtype, databar_rows=databar_rows, **told)
