"""`Supervised()` as a program of its own: StableHLO with its numbers beside, that runs without this package.

One file holds the operations, for images of one size from one number of segments; another the numbers: the networks'
weights, the microscope and what its detector accepts. A third, `run.py`, calls them with nothing but jax (its
`flatbuffers` installed) and numpy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from eclipsjax._types import InputError, whole_number
from eclipsjax.imaging.camera import Camera
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import LEAST_SEGMENTS, Microscope
from eclipsjax.inverse.measurement import measure
from eclipsjax.inverse.method import Task
from eclipsjax.inverse.supervised import Supervised, networks, one_pass

PROGRAM, NUMBERS, DESCRIPTION, EXAMPLE = "supervised.stablehlo", "numbers.npz", "description.json", "run.py"
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_RESULTS = {
    "height_nm": "(y, x) heights, nm, mean 0",
    "height_std_nm": "(y, x) their standard deviation, nm",
    "normals": "(y, x, 3) unit normals, image axes: x right, y down, z up",
    "slope_std": "(2, y, x) standard deviations of dz/dx and dz/dy",
    "chi_square": "mean squared residual per degree of freedom: 1 where the model explains the images",
}
_EXAMPLE = '''"""Heights of segment images: python run.py IMAGES.npy PIXEL_SIZE_NM HEIGHTS.npz (with jax, flatbuffers).

IMAGES.npy: (segment, y, x), grey levels as recorded, of the size that description.json names.
"""

import sys
from pathlib import Path

import numpy as np
from jax import export

here = Path(__file__).resolve().parent
program = export.deserialize(bytearray((here / "{program}").read_bytes()))
with np.load(here / "{numbers}") as file:
    numbers = [file[f"{{k:04d}}"] for k in range(len(file.files))]
images = np.load(sys.argv[1]).astype(np.float32)
found = program.call(numbers, images, np.float32(sys.argv[2]))
np.savez(sys.argv[3], **{{name: np.asarray(values) for name, values in found.items()}})
'''


def export_supervised(
    folder: Path,
    scope: Microscope,
    shape: Sequence[int],
    method: Supervised | None = None,
    camera: Camera | None = None,
) -> None:
    """Write the program for images of `shape` `(y, x)`, single precision, of this microscope into an empty `folder`.

    Numbers of microscope, camera and networks lie beside it and may be replaced by others of the same shapes; neither
    images nor detector are checked by it. An image wider than 10 um, across which the detector's view changes, is
    taken as seen from its centre. Gradient: none.
    """
    method = Supervised() if method is None else method
    rows, columns = (whole_number(name, n, 1) for name, n in zip(("rows", "columns"), shape, strict=True))
    segments = scope.detector.segments.count
    if segments < LEAST_SEGMENTS:
        raise InputError(f"the microscope has {segments} segments: heights need at least {LEAST_SEGMENTS}.")
    table = acceptance(scope)
    network, simulator = networks(table, method.network, method.simulator)
    given = {
        "scope": scope,
        "table": table,
        "camera": Camera() if camera is None else camera,
        "network": network,
        "simulator": simulator,
        "integrator": method.integrator,
    }
    named, structure = jax.tree_util.tree_flatten_with_path(jax.tree.map(_single, given))
    numbers = [number for _, number in named]

    def program(numbers: list, images: Any, pixel_size_nm: Any) -> dict:
        of = jax.tree.unflatten(structure, numbers)
        measurement = measure(images, of["scope"], of["camera"])
        task = Task(measurement, of["table"], of["scope"], None, of["camera"].blur, pixel_size_nm, None)
        found = one_pass(task, of["network"], of["simulator"], of["integrator"], method.rounds)
        return {name: getattr(found, name) for name in _RESULTS}

    size = (segments, rows, columns)
    asked = jax.ShapeDtypeStruct(size, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    exported = export.export(jax.jit(program), platforms=_PLATFORMS)(numbers, *asked)
    (folder / PROGRAM).write_bytes(_serialized(exported))
    np.savez(folder / NUMBERS, **{f"{k:04d}": np.asarray(number) for k, number in enumerate(numbers)})
    (folder / EXAMPLE).write_text(_EXAMPLE.format(program=PROGRAM, numbers=NUMBERS), encoding="utf-8")
    described = {
        "made_by": f"eclipsjax, jax {jax.__version__}",
        "arguments": {
            "numbers": f"list of the arrays in {NUMBERS}, in the order of their names",
            "images": f"{size} (segment, y, x) float32, grey levels as recorded, segments "
            f"{', '.join(scope.detector.segments.names)}",
            "pixel_size_nm": "float32, nm",
        },
        "results": _RESULTS,
        "platforms": list(exported.platforms),
        "calling_convention": exported.calling_convention_version,
        "network": json.loads(network.card),
        "numbers": {f"{k:04d}": jax.tree_util.keystr(path) for k, (path, _) in enumerate(named)},
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1), encoding="utf-8")


def _serialized(program: export.Exported) -> bytearray:
    try:
        return program.serialize()
    except ImportError:
        raise InputError(
            "programs are written by flatbuffers, which is missing: pip install eclipsjax[export]."
        ) from None


def _single(number: Any) -> Any:
    """In single precision, if it is a real number."""
    return number.astype(jnp.float32) if jnp.issubdtype(number.dtype, jnp.floating) else number
