"""Every mistake in Python ends in one sentence that names the field, the value and the way out.

Run as a user runs it: in float32, and without the shape checks that the other tests switch on (they would answer
first).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = """
import dataclasses, json, sys, warnings
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
import eclipsjax as ej
from eclipsjax.specimen.yields import DrescherReimerSeidel, HungerKuechler, Reimer

warnings.simplefilter("error")
scope, table = ej.Microscope.annular(), ej.acceptance(ej.Microscope.annular())
height = np.random.default_rng(0).normal(size=(8, 9))
surface = ej.Surface(height, 5.0)
signal, noise, law = np.full((4, 8, 9), 0.1), ej.LevelNoise(0.01), ej.Lambertian()
biased = ej.Microscope.annular(specimen_bias_v=-1000.0)

def changed(**numbers):
    \"\"\"The microscope with numbers replaced (section__field) and checked again.\"\"\"
    parts = {"beam": scope.beam, "detector": scope.detector, "column": scope.column}
    for name, value in numbers.items():
        section, field = name.split("__")
        if section == "segments":
            new = dataclasses.replace(parts["detector"].segments, **{field: value})
            parts["detector"] = dataclasses.replace(parts["detector"], segments=new)
        else:
            parts[section] = dataclasses.replace(parts[section], **{field: value})
    return ej.Microscope(**parts)
"""

# What a user types, and what the sentence must say.
WRONG = {
    # heights
    "ej.Surface('abc', 5.0)": "height_nm is 'abc'",
    "ej.Surface(None, 5.0)": "height_nm is None",
    "ej.Surface([[1, 2], [3]], 5.0)": "height_nm is [[1, 2], [3]]: give a number or an array of numbers",
    "ej.Surface(np.array(['2020-01-01'], 'datetime64[D]'), 5.0)": "height_nm holds datetime64[D], not numbers",
    "ej.Surface(np.ma.masked_greater(height, 0.0), 5.0)": "masked values, and a mask would be lost: fill them first",
    "ej.Surface(height + 1j, 5.0)": "height_nm is complex (complex128)",
    "ej.Surface(jnp.asarray(height) + 1j, 5.0)": "height_nm is complex (complex64)",
    "ej.Surface(height, [5.0, 5.0])": "pixel_size_nm is [5. 5.]: give one positive number",
    "ej.Surface(height, '5')": "pixel_size_nm is '5': give a number, not text",
    "ej.Surface(height + 1e5, 5.0)": "where float32 rounds to 0.0078 nm",
    "ej.Surface(height - 5e6, 5.0)": "subtract the mean height in float64 before (only differences matter)",
    "ej.Surface(jnp.asarray(height + 1e6), 5.0)": "subtract the mean height",
    "ej.Surface(0.001 * height + 1000.0, 5.0)": "too coarse for 0.00",
    # microscopes
    "ej.Microscope.annular(segments=2.5)": "segments is 2.5: give a whole number",
    "ej.Microscope.annular(energy_kev=[5, 10])": "energy_kev has shape (2,): give one number",
    "ej.Microscope.annular(distance_mm=[5.0, 6.0])": "distance_mm has shape (2,)",
    "ej.Microscope.annular(energy_kev='10')": "energy_kev is '10': give a number, not text",
    "ej.Microscope.annular(foo=1)": "annular has no keyword foo: those of the beam are current_na, dwell_us",
    "changed(beam__current_na=[1.0, 2.0])": "beam.current_na has shape (2,)",
    "changed(segments__names=('A', 'A', 'C', 'D'))": "segments.names is ('A', 'A', 'C', 'D'): give every segment a",
    "changed(segments__rings=(0, 0))": "segments.rings is (0, 0) for 4 segments",
    # laws and horizons
    "ej.CosinePower(1e4)": "exponent is 10000.0: give the power of the cosine, 0 to 50",
    "ej.SmoothHorizon(softness=0.0)": "softness is 0.0: give one number of at least 1e-06",
    "ej.SmoothHorizon(softness=-0.1)": "softness is -0.1",
    "ej.SmoothHorizon(softness=1e-12)": "take HardHorizon, which is its limit",
    "ej.SmoothHorizon(softness=np.inf)": "softness is inf",
    # calls
    "ej.render(height, table)": "surface is array(",
    "ej.render(surface, scope)": "table is Microscope(",
    "ej.render(surface, table, azimuths=0)": "azimuths is 0: give at least 4 directions",
    "ej.render(surface, table, azimuths=8.5)": "azimuths is 8.5: give a whole number of at least 4",
    "ej.render(surface, table, radius_px=2.5)": "radius_px is 2.5: give a whole number of at least 1",
    "ej.render(surface, table, emission=ej.Lambertian)": "emission is <class",
    "ej.render(surface, table, horizon=ej.HardHorizon)": "horizon is <class",
    "ej.HardHorizon(growth='fast')": "growth is 'fast'",
    "ej.horizon(surface, 0)": "azimuths is 0",
    "ej.sky_view(surface, 16, ej.HardHorizon)": "horizon is <class",
    "ej.acceptance(table)": "scope is AcceptanceTable(",
    "ej.acceptance(scope, field='x')": "field is 'x': give what solve_field(scope) returns, or NoField()",
    "ej.acceptance(scope, field=ej.NoField)": "field is <class",
    "ej.acceptance(scope, spectrum=0.5)": "spectrum is 0.5: give a Spectrum",
    "ej.acceptance(scope, field_mm=[0.1, 0.1, 0.1])": "field_mm has shape (3,)",
    "ej.solve_field(biased, ej.Axisymmetric(2))": "radial is 2: give a whole number of at least 8",
    "ej.Axisymmetric(-3)": "radial is -3",
    "ej.Axisymmetric(64, 0)": "below is 0",
    "ej.Axisymmetric(stretch=0.0)": "stretch is 0.0",
    "ej.Cartesian(above=1.5)": "above is 1.5",
    "ej.solve_field(biased, 'fine')": "grid is 'fine'",
    "ej.Spectrum.backscattered(nodes=0)": "nodes is 0",
    "ej.Spectrum.backscattered(spread=-1)": "spread is -1.0",
    "ej.Spectrum.backscattered(mean=np.nan)": "mean is nan",
    "ej.record(signal, scope, 0)": "key is 0: give one key of JAX's, jax.random.key(0)",
    "ej.record(signal, scope, jax.random.split(jax.random.key(0)))": "key is Array((2,)",
    "ej.record(signal * np.nan, scope)": "signal holds values that are not finite",
    "ej.record(signal, scope, yield_map=np.nan)": "yield_map holds nan",
    "ej.record(signal, scope, yield_map=-1)": "yield_map holds -1: a yield is a finite number of at least 0",
    "ej.exposure(signal, scope, bits=9)": "bits is 9: give 8 or 16",
    "ej.exposure(signal, scope, target=-1)": "target is -1.0",
    "ej.slope_information(surface, table, noise, yield_map=-1)": "yield_map holds -1",
    "ej.slope_error(jnp.zeros((3, 3)), surface, table, noise)": "derivative has shape (3, 3)",
    "ej.slope_response(height, table)": "surface is array(",
    "ej.slope_bound(jnp.zeros((3, 3)))": "information has shape (3, 3): give (y, x, 2, 2)",
    "ej.height_covariance(jnp.zeros((3, 3)))": "information has shape (3, 3): give (y, x, y, x)",
    "ej.height_covariance(jnp.zeros((2, 3, 3, 2)))": "information has shape (2, 3, 3, 2)",
    "ej.misread_tilt(scope, scope, np.nan)": "tilt_deg is nan",
    "ej.misread_tilt(scope, scope, 95)": "tilt_deg is 95.0: give one angle of the plane, below 90",
    "ej.misread_tilt(scope, scope, 5, np.inf)": "tilt_azimuth_deg is inf",
    "ej.backscatter_yield(1, 20, 0.5, Reimer(), DrescherReimerSeidel())": "law Reimer gives a yield of -0.00959",
    "ej.backscatter_yield(1, 0.1, law=HungerKuechler())": "law HungerKuechler gives a yield of 1.15",
    "ej.compound_yield([0.1, 0.9], [1, 8], 20, law=Reimer())": "law Reimer gives a yield of -0.00959",
    # synthetic surfaces
    "ej.synthetic.step_bunch(shape=32)": "shape is 32: give (rows, columns)",
    "ej.synthetic.rough(shape=32)": "shape is 32",
    "ej.synthetic.trench(shape=(5,))": "shape is (5,)",
    "ej.synthetic.v_groove(shape=(5,))": "shape is (5,)",
    "ej.synthetic.plane(shape=(5, 5.5))": "shape is (5, 5.5)",
    "ej.synthetic.plane(shape=(5, 0))": "shape is (5, 0)",
}

# What looks unusual but means one thing only.
RIGHT = [
    "ej.Surface(height + 100.0, 5.0)",
    "ej.Surface(0.0 * height + 1e7, 5.0)",  # flat: no difference to lose
    "ej.Surface(1e3 * np.arange(64.0).reshape(8, 8), 500.0)",  # tall by itself: no offset to subtract
    "ej.Surface([[1, 2], [3, 4]], 5)",
    "ej.Surface(np.ma.array(height), 5.0)",
    "ej.HardHorizon(np.int64(16), np.float32(1.0))",
    "ej.render(surface, table, np.int64(4), np.int64(2))",
    "ej.acceptance(scope, [0.1, 0.2])",
    "ej.acceptance(scope, np.array([0.1, 0.2]))",
    "ej.record(signal, scope, jax.random.PRNGKey(0))",
    "ej.synthetic.plane(shape=np.array([4, 5]))",
]


@pytest.fixture(scope="module")
def answers():
    lines = [
        SETUP,
        f"sources = {[*WRONG, *RIGHT]!r}",
        "said = {}",
        "for source in sources:",
        "    try:",
        "        eval(source)",
        "        said[source] = ['nothing', '']",
        "    except Exception as error:",
        "        said[source] = [type(error).__name__, str(error)]",
        "print(json.dumps(said))",
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("source", WRONG)
def test_mistakes_end_in_one_sentence(answers, source):
    kind, sentence = answers[source]
    assert (kind, WRONG[source] in sentence) == ("InputError", True), sentence
    assert sentence.endswith((".", ").")) and "\n" not in sentence


@pytest.mark.parametrize("source", RIGHT)
def test_unusual_but_clear_input_is_taken(answers, source):
    assert answers[source] == ["nothing", ""]
