"""A reconstruction in tables: what was solved along, the settings, roughness, errors, files, versions."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eclipsjax.inverse.reconstruction import Reconstruction
from eclipsjax.metrology.compare import HeightError
from eclipsjax.metrology.roughness import Roughness
from eclipsjax.report.page import Table

_LONGEST = 120
_FILE_COLUMNS = {
    "name": "file",
    "segment": "segment",
    "bytes": "bytes",
    "sha256": "SHA-256",
    "pixel_size_nm": "pixel size (nm)",
}


def solved_table(result: Reconstruction) -> Table:
    """Numbers of the instrument that the images decided along with the heights."""
    before = result.calibration
    expected = {} if before is None else dict(zip(before.instrument.names, before.instrument.std, strict=True))
    rows = [
        (name, f"{float(value):.6g}", f"{float(std):.2g}", f"{float(expected[name]):.3g}" if name in expected else "")
        for name, (value, std) in result.solved.items()
    ]
    head = ("number of the instrument", "value found", "standard deviation", "standard deviation before")
    return Table(head, rows, (1, 2, 3))


def settings_table(result: Reconstruction) -> Table:
    """The method's fields, each with its value as the user or the default set it."""
    method = result.method
    fields = dataclasses.fields(method) if dataclasses.is_dataclass(method) else ()
    rows = [("method", type(method).__name__), *((f.name, value_text(getattr(method, f.name))) for f in fields)]
    return Table(("setting", "value"), rows)


def value_text(value: Any) -> str:
    """A setting for a person: numbers in 6 digits, records by name and fields, None as what it means here."""
    if value is None:
        return "chosen by the program"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = ", ".join(f"{f.name}={value_text(getattr(value, f.name))}" for f in dataclasses.fields(value))
        return _short(f"{type(value).__name__}({inside})")
    if isinstance(value, bool | str):
        return _short(str(value))
    if isinstance(value, tuple | list):
        return _short(", ".join(_pair_text(v) for v in value) or "none")
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError):
        return _short(str(value))
    if numbers.ndim == 0:
        return f"{float(numbers):.6g}"
    return f"array of shape {numbers.shape}" if numbers.size > 6 else ", ".join(f"{v:.6g}" for v in numbers.ravel())


def _pair_text(value: Any) -> str:
    named = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
    return f"{value[0]} ± {value_text(value[1])}" if named else value_text(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def roughness_table(found: Roughness) -> Table:
    """The areal parameters with their unit and what they are."""
    rows = [
        ("Sa", found.sa_nm, "nm", "mean size of the heights"),
        ("Sq", found.sq_nm, "nm", "root mean square of the heights"),
        ("Sz", found.sz_nm, "nm", "highest less lowest"),
        ("Ssk", found.ssk, "", "skewness: below 0 pits prevail, above 0 peaks"),
        ("Sku", found.sku, "", "kurtosis: 3 for Gaussian heights, more for rare extremes"),
        ("Sdq", found.sdq, "", "root mean square slope"),
        ("Sdr", found.sdr_percent, "%", "surface in excess of its projection"),
    ]
    head = ("parameter", "value", "unit", "meaning")
    return Table(head, [(name, number_text(value), unit, text) for name, value, unit, text in rows], (1,))


def error_table(error: HeightError) -> Table:
    """Root mean square errors against the truth, by what was taken off first."""
    names = ("nothing", "mean", "plane", "parabola")
    rows = [
        (name, number_text(getattr(error.rms_nm, name)), number_text(getattr(error.percent, name))) for name in names
    ]
    return Table(("taken off first", "rms error (nm)", "% of the truth's peak to valley"), rows, (1, 2))


def number_text(value: Any) -> str:
    """Four digits, or a word where there is no number."""
    value = float(value)
    return f"{value:.4g}" if np.isfinite(value) else "not defined"


def file_table(files: Sequence[Mapping[str, Any]]) -> Table:
    """The files that were read. Known keys come first, in their order; others follow under their own name."""
    keys = [key for key in _FILE_COLUMNS if any(key in file for file in files)]
    keys += list(dict.fromkeys(key for file in files for key in file if key not in _FILE_COLUMNS))
    rows = [["" if file.get(key) is None else _cell(file[key]) for key in keys] for file in files]
    numbers = [k for k, key in enumerate(keys) if key in ("bytes", "pixel_size_nm")]
    return Table([_FILE_COLUMNS.get(key, str(key)) for key in keys], rows, numbers)


def _cell(value: Any) -> str:
    if isinstance(value, str | int | np.integer):
        return str(value)
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return str(value)


def versions_table() -> Table:
    """What made the page: eclipsjax, jax, numpy, python, and where it ran."""
    device = jax.devices()[0]
    return Table(
        ("software", "version"),
        [
            ("eclipsjax", str(getattr(sys.modules.get("eclipsjax"), "__version__", "not known"))),
            ("jax", jax.__version__),
            ("numpy", np.__version__),
            ("python", platform.python_version()),
            ("computed on", f"{device.platform}, {device.device_kind}"),
        ],
    )
