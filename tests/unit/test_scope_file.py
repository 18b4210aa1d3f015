"""A microscope as YAML: there and back exactly, and every mistake told with its line and a remedy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.instrument.microscope import Beam, Column, Detector, Microscope, Segments
from eclipsjax.instrument.scope_file import (
    _NOTES,
    load_microscope,
    microscope_from_yaml,
    microscope_to_yaml,
    save_microscope,
)

MINIMAL = """\
eclipsjax: microscope 1
beam:
  energy_kev: 7
detector:
  distance_mm: 4e0
  segments:
    - name: left
      inner_radius_mm: 1.0
      outer_radius_mm: 5
      start_deg: 90
      stop_deg: 270
    - name: N
      inner_radius_mm: 1.0
      outer_radius_mm: 5.0
      start_deg: -90
      stop_deg: 90
      gain: 1.5
column:
  working_distance_mm: 5.0
"""


def odd_scope(dtype=float):
    """Three segments with numbers that no short decimal holds, some tiny, some large, one negative zero."""
    rng = np.random.default_rng(0)
    scope = Microscope.annular(segments=3, energy_kev=7.0, specimen_bias_v=-1e-7)
    scope = jax.tree.map(lambda leaf: jnp.asarray(leaf * (1 + 1e-4 * rng.random(leaf.shape)), dtype), scope)
    pedestal = jnp.asarray([1e-9 / 3, -0.0, 1e22], dtype)
    segments = scope.detector.segments
    apart = jnp.asarray(segments.stop_deg - 1 / 3, dtype)
    names = ('a "b"', "yes", "#3: µ")
    segments = dataclasses.replace(segments, pedestal=pedestal, stop_deg=apart, names=names)
    return eqx.tree_at(
        lambda s: (s.detector.segments, s.beam.current_na), scope, (segments, jnp.asarray(1 / 3e6, dtype))
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_round_trip_is_exact(tmp_path, dtype):
    scope = odd_scope(dtype)
    save_microscope(scope, tmp_path / "scope.yaml")
    back = load_microscope(tmp_path / "scope.yaml")
    assert back.detector.segments.names == ('a "b"', "yes", "#3: µ")
    for before, after in zip(jax.tree.leaves(scope), jax.tree.leaves(back), strict=True):
        assert before.shape == after.shape
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after).astype(dtype))


def test_a_read_microscope_has_the_structure_of_the_written_one():
    """Static parts (names, rings) agree too, so a compiled function serves both."""
    scope = Microscope.annular(segments=3, gap_mm=0.2)
    assert jax.tree.structure(microscope_from_yaml(microscope_to_yaml(scope))) == jax.tree.structure(scope)


def test_what_is_left_out_takes_the_records_defaults():
    scope = microscope_from_yaml(MINIMAL)
    expected = Beam(energy_kev=7.0)
    assert all(float(getattr(scope.beam, k)) == float(getattr(expected, k)) for k in _NOTES["beam"])
    assert scope.detector.segments.names == ("left", "N")
    assert float(scope.detector.distance_mm) == 4.0 and float(scope.detector.thickness_mm) == 1.0
    np.testing.assert_array_equal(scope.detector.segments.gain, [1.0, 1.5])
    np.testing.assert_array_equal(scope.detector.segments.gap_mm, [0.0, 0.0])
    assert float(scope.column.bore_radius_mm) == 1.0


def test_every_number_of_every_record_is_in_the_file_and_explained():
    records = {"beam": Beam, "detector": Detector, "segments": Segments, "column": Column}
    text = microscope_to_yaml(Microscope.annular())
    for section, record in records.items():
        keys = [field.name for field in dataclasses.fields(record) if field.name not in ("segments", "names", "rings")]
        assert keys == list(_NOTES[section])
        for key in keys:
            assert any(line.strip().startswith(f"{key}: ") and "# " in line for line in text.splitlines())


def edited(before, after):
    assert MINIMAL.count(before) == 1
    return MINIMAL.replace(before, after)


# Every entry: the text, and what the sentence must say.
BAD = [
    (
        edited("distance_mm: 4e0", "distance_um: 4000"),
        r"my.yaml, line 5: detector.distance_um is in micrometres, but "
        "millimetres are expected: convert and write distance_mm",
    ),
    (
        edited("energy_kev: 7", "energy_ev: 7000"),
        "line 3: beam.energy_ev is in electronvolts.* write energy_kev",
    ),
    (
        edited("energy_kev: 7", "energy: 7"),
        "line 3: beam.energy does not say its unit: write energy_kev, in kilo",
    ),
    (
        edited("gain: 1.5", "gian: 1.5"),
        r"line 17: detector.segments\[1\].gian is unknown; the nearest valid key is gain",
    ),
    (edited("distance_mm: 4e0", "distnce_mm: 4"), "line 5: .* the nearest valid key is distance_mm"),
    (edited("beam:", "baem:"), "line 2: baem is unknown; the nearest valid key is beam"),
    (
        edited("energy_kev: 7", "energy_kev: 7\n  working_distance_mm: 5"),
        "line 4: .*working_distance_mm belongs in column",
    ),
    (
        edited("distance_mm: 4e0", "distance_mm: 4e0\n  gain: 2"),
        "line 6: .* gain belongs in each of detector.segments",
    ),
    (
        edited("energy_kev: 7", "current_na: 7"),
        "beam.energy_kev is missing in the group that starts in line 3: add it, in kilo",
    ),
    (
        edited("      stop_deg: 90\n", ""),
        r"detector.segments\[1\].stop_deg is missing in the group that starts in line 12",
    ),
    (MINIMAL[: MINIMAL.index("column:")], "column is missing in the file"),
    (MINIMAL[MINIMAL.index("beam:") :], "eclipsjax is missing"),
    (
        edited("microscope 1", "microscope 9"),
        "line 1: 'eclipsjax: microscope 9' is not 'eclipsjax: microscope 1'",
    ),
    (
        edited("energy_kev: 7", "energy_kev: seven"),
        "line 3: beam.energy_kev is seven: give a plain number, in kilo",
    ),
    (edited("energy_kev: 7", "energy_kev: '7'"), "line 3: beam.energy_kev is '7': give a plain number"),
    (edited("energy_kev: 7", "energy_kev: 7,5"), "line 3: beam.energy_kev is 7,5"),
    (edited("energy_kev: 7", "energy_kev: 7 keV"), "line 3: beam.energy_kev is 7 keV"),
    (edited("energy_kev: 7", "energy_kev: .nan"), "line 3: beam.energy_kev is .nan"),
    (edited("energy_kev: 7", "energy_kev: nan"), "line 3: beam.energy_kev is nan"),
    (edited("energy_kev: 7", "energy_kev:"), "line 3: beam.energy_kev is empty: give a plain number"),
    (
        edited("energy_kev: 7", "energy_kev: [7]"),
        "line 3: beam.energy_kev must be one number, not a group or list",
    ),
    (
        edited("energy_kev: 7", "energy_kev: 7\n  energy_kev: 8"),
        "line 4: beam.energy_kev is given twice, first in line 3",
    ),
    (
        edited("gain: 1.5", "gain: 0.0"),
        r"my.yaml, line 17: detector.segments\[1\].gain is 0: give a positive number",
    ),
    (edited("gain: 1.5", "gain: -1"), "line 17: .*gain is -1: give a positive number"),
    ("[" * 20000, "my.yaml: its brackets are nested too deeply"),
    ("a: " + "{b: " * 20000, "my.yaml: its brackets are nested too deeply"),
    (edited("name: left", "name: N"), "line 12: name 'N' is taken in line 7"),
    (edited("name: left", "name:"), r"line 7: detector.segments\[0\].name is empty"),
    (edited("beam:\n  energy_kev: 7", "beam: 7"), "line 2: beam is not a group"),
    (edited("- name: left", "- left\n    - name: left"), r"line 7: detector.segments\[0\] is not a group"),
    (
        MINIMAL[: MINIMAL.index("    - name")] + "column: {working_distance_mm: 5}",
        "line 6: .* must be a list of segments",
    ),
    (edited("energy_kev: 7", "energy_kev: 7: 8"), "my.yaml, line 3: this is not YAML"),
    (MINIMAL + "---\n" + MINIMAL, "my.yaml, line 20: this is not YAML"),
    ("just words", "starts with the line 'eclipsjax: microscope 1'"),
    ("", "starts with the line"),
    ("\0", "this is not YAML"),
    (
        edited("outer_radius_mm: 5\n", "outer_radius_mm: 0.5\n"),
        "my.yaml: segment left has inner_radius_mm = 1",
    ),
    (edited("start_deg: -90", "start_deg: -91"), "my.yaml: segments left .* and N .* overlap by 1 deg"),
    (
        edited("distance_mm: 4e0", "distance_mm: 6"),
        r"my.yaml: detector.distance_mm 6 .* pass column.working_distance_mm 5",
    ),
]


@pytest.mark.parametrize("text, sentence", BAD)
def test_mistakes_end_in_one_sentence_with_a_place(text, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        microscope_from_yaml(text, name="my.yaml")
    assert str(caught.value).startswith("my.yaml") and str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_no_python_objects_are_built():
    with pytest.raises(InputError, match="line 3"):
        microscope_from_yaml(edited("energy_kev: 7", "energy_kev: !!python/object/apply:os.getcwd []"))


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml does not exist"):
        load_microscope(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_microscope(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary.yaml cannot be read"):
        load_microscope(tmp_path / "binary.yaml")
    with pytest.raises(InputError, match="cannot be written: No such file"):
        save_microscope(Microscope.annular(), tmp_path / "none" / "scope.yaml")


def test_saving_never_overwrites_without_force(tmp_path):
    path = tmp_path / "scope.yaml"
    path.write_text("precious")
    with pytest.raises(InputError, match="already exists"):
        save_microscope(Microscope.annular(), path)
    assert path.read_text() == "precious"
    save_microscope(Microscope.annular(), path, force=True)
    assert load_microscope(path).detector.segments.count == 4


def test_nothing_is_written_while_tracing():
    with pytest.raises(InputError, match="while JAX traces it"):
        jax.jit(microscope_to_yaml)(Microscope.annular())


def test_fitted_segments_that_run_into_each_other_are_written_apart(tmp_path):
    """As azimuths fitted one by one leave them: the file says so and loads; half of the overlap is taken from each."""
    scope = Microscope.annular(segments=4)
    turned = jnp.array([1.5, -0.5, 0.0, 0.0])
    rims = tuple(rim + turned for rim in (scope.detector.segments.start_deg, scope.detector.segments.stop_deg))
    fitted = eqx.tree_at(lambda s: (s.detector.segments.start_deg, s.detector.segments.stop_deg), scope, rims)
    save_microscope(fitted, tmp_path / "fitted.yaml")
    assert "fitted 2 deg into each other" in (tmp_path / "fitted.yaml").read_text()
    back = load_microscope(tmp_path / "fitted.yaml").detector.segments
    np.testing.assert_allclose(back.start_deg, rims[0] + jnp.array([0.0, 1.0, 0.0, 0.0]), atol=1e-6)
    np.testing.assert_allclose(back.stop_deg, rims[1] - jnp.array([1.0, 0.0, 0.0, 0.0]), atol=1e-6)
