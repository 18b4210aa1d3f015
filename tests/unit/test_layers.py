"""The rules of the house: imports point one way between rooms; `import eclipsjax` is light and changes nothing."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[2] / "eclipsjax"
FLOOR = {
    "instrument": 1,
    "specimen": 1,
    "imaging": 2,
    "nn": 3,
    "inverse": 4,
    "learn": 4,
    "metrology": 5,
    "io": 5,
    "report": 5,
    "cli": 6,
}
PHYSICS = ("instrument", "specimen", "imaging")
LEARNING = {"flax", "optax", "orbax"}
# What a plain import must not pay for. JAX and Equinox are what it is for.
HEAVY = ["flax", "optax", "orbax", "diffrax", "optimistix", "matplotlib", "scipy", "click", "tifffile", "tqdm"]


def imported(source):
    """Every module that a source text imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(room, source):
    """What a module of `room` imports against the rules."""
    found = set()
    for name in imported(source):
        top, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if name.startswith("."):
            found.add(f"{room} uses the relative import {name}")
        if top == "eclipsjax" and target in FLOOR and target != room:
            if FLOOR[target] > FLOOR[room]:
                found.add(f"{room} imports {target}, which lies above it")
            if {room, target} == {"instrument", "specimen"}:
                found.add(f"{room} knows {target}")
        if name == "eclipsjax" and room != "cli":
            found.add(f"{room} imports the whole package")
        if room in PHYSICS and top in LEARNING:
            found.add(f"{room} imports {top}")
        if name.startswith("matplotlib.pyplot"):
            found.add(f"{room} imports pyplot, which holds global state")
    return found


def modules():
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[0] in FLOOR:
            yield parts[0], file


def test_every_room_is_known():
    rooms = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    assert rooms <= set(FLOOR)
    assert {"instrument", "specimen", "imaging", "cli"} <= rooms


def test_imports_point_one_way():
    found = {f"{file.name}: {b}" for room, file in modules() for b in breaches(room, file.read_text("utf-8"))}
    assert not found


def test_rooms_of_one_floor_do_not_lean_on_each_other():
    uses = {(room, n.split(".")[1]) for room, f in modules() for n in imported(f.read_text("utf-8")) if n.count(".")}
    pairs = {(a, b) for a, b in uses if a in FLOOR and b in FLOOR and a != b and FLOOR[a] == FLOOR[b]}
    assert not {(a, b) for a, b in pairs if (b, a) in pairs}


def test_base_modules_know_no_room():
    for file in (ROOT / "_types.py", ROOT / "_polar.py"):
        names = [n for n in imported(file.read_text("utf-8")) if n.startswith("eclipsjax.")]
        assert not [n for n in names if n.split(".")[1] in FLOOR]


@pytest.mark.parametrize(
    "room, source",
    [
        ("instrument", "from eclipsjax.specimen.surface import Surface"),
        ("specimen", "import eclipsjax.instrument"),
        ("imaging", "def f():\n    from eclipsjax.report import page"),
        ("imaging", "import optax"),
        ("specimen", "from flax import nnx"),
        ("report", "from eclipsjax import render"),
        ("report", "import matplotlib.pyplot as plt"),
        ("specimen", "from .surface import Surface"),
    ],
)
def test_the_checker_sees_a_breach(room, source):
    assert breaches(room, source)


def test_import_is_light_and_sets_no_flag():
    code = (
        "import json, sys, jax, equinox\n"
        "before = dict(jax.config.values)\n"
        "import eclipsjax\n"
        "after = dict(jax.config.values)\n"
        "changed = [k for k in after if before.get(k) is not after[k] and before.get(k) != after[k]]\n"
        f"print(json.dumps([changed, sorted(m for m in {HEAVY} if m in sys.modules)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert json.loads(done.stdout) == [[], []]


def test_readme_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT.parent / "README.md").read_text("utf-8"), flags=re.DOTALL)
    names = {}
    # As a user has it: Optax's own arithmetic mixes types.
    with jax.numpy_dtype_promotion("standard"):
        for code in blocks:
            exec(compile(code, "README.md", "exec"), names)
    assert names["gradient"].shape == (128, 128) and float(abs(names["gradient"]).max()) > 0
    (per_mm,) = names["by_distance"].values()
    # A detector farther away collects less from flat ground: the terraces, more than half of the image.
    assert float(np.median(per_mm)) < 0
    error = names["ej"].height_error(names["result"].height_nm, names["surface"].height_nm)
    assert error.percent.plane < 1 and names["result"].why


def test_public_names_are_there():
    import eclipsjax as ej

    wanted = (
        "Microscope load_microscope Surface acceptance AcceptanceTable render record Camera horizon sky_view "
        "HardHorizon SmoothHorizon NoRelief Lambertian CosinePower ForwardLobe Spectrum solve_field trace synthetic "
        "InputError reconstruct Refined Photometric Supervised ClosedLoop adapted NormalNet"
    )
    assert not [name for name in wanted.split() if not hasattr(ej, name)]
    assert ej.__version__.count(".") == 2
