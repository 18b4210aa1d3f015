"""Two real three-segment scans of one specimen by one microscope, 500 and 100 um wide, the second rotated by 30 deg.

No height is known independently: what can be held is that both tell of one instrument and one relief.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax.imaging.bsesm import flat_signal, render, wide_field_mm
from eclipsjax.imaging.camera import record
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibrate_from_images import calibrate_from_images
from eclipsjax.inverse.closed_loop import ClosedLoop
from eclipsjax.inverse.pipeline import reconstruct
from eclipsjax.inverse.reconstruction import Outcome, Reconstruction
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.supervised import Supervised
from eclipsjax.io.sem import read_segments
from eclipsjax.specimen.surface import Surface

BSE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bse"
pytestmark = [
    pytest.mark.skipif(not BSE.is_dir(), reason="the real BSE images (../shared/data/bse) are not here"),
    pytest.mark.slow,
    pytest.mark.xdist_group("real sets"),
]
SIDE, PEDESTAL = 96, 0.4
NOMINAL_DEG = np.array([210.0, 90.0, 330.0])


def believed(names) -> Microscope:
    """Segments where the maker says they are; plate and pedestals as good as a guess."""
    scope = Microscope.annular(segments=3, outer_radius_mm=4.5, distance_mm=4.0, energy_kev=7.0, gap_mm=0.2)
    pedestal = PEDESTAL * flat_signal(acceptance(scope))
    start, stop = (jnp.asarray(NOMINAL_DEG + side) for side in (-60.0, 60.0))
    segments = dataclasses.replace(
        scope.detector.segments, names=names, start_deg=start, stop_deg=stop, pedestal=pedestal
    )
    return dataclasses.replace(scope, detector=dataclasses.replace(scope.detector, segments=segments))


def middle(images, every):
    """The middle of every so manyth pixel: their noise is that of the scan."""
    sparse = images[:, ::every, ::every]
    rows, columns = (slice((n - SIDE) // 2, (n + SIDE) // 2) for n in sparse.shape[1:])
    return np.asarray(sparse[:, rows, columns], float)


class Scan(NamedTuple):
    """The scan's rotation, 62 um of its middle in pixels of 651 nm, and what these tell of the microscope."""

    rotation_deg: float
    images: np.ndarray
    grey_range: tuple[float, float]
    result: Reconstruction


@pytest.fixture(scope="module")
def scans():
    """Both."""
    found = {}
    for name, every in (("surface_1", 2), ("surface_2", 10)):
        scan = read_segments(sorted((BSE / name).glob("*.tif")))
        scope = believed(scan.names).turned(scan.scan_rotation_deg)
        grey_range = (scan.lowest, scan.highest)
        images, pixel = middle(scan.images, every), every * scan.pixel_size_nm
        result = calibrate_from_images(images, pixel, scope, grey_range=grey_range)
        found[name] = Scan(scan.scan_rotation_deg, images, grey_range, result)
    return found


def azimuths(result) -> np.ndarray:
    return np.array([result.solved[f"detector.segments.azimuth_deg[{k}]"][0] for k in range(3)])


def test_no_crash_and_chi_square(scans):
    for result in (scan.result for scan in scans.values()):
        assert result.outcome in (Outcome.CONVERGED, Outcome.OUT_OF_STEPS)
        assert 0.5 < float(result.chi_square) < 3.0
        relief = float(jnp.ptp(result.height_nm))
        assert 1.0 < relief / float(result.pixel_size_nm) < 0.5 * SIDE


def test_azimuths_turn_with_the_scan(scans):
    """In the images segments lie 30 deg apart; on the plate they are where they were, some degrees off nominal."""
    first, second = (azimuths(scan.result) for scan in scans.values())
    turned = (first - second + 180.0) % 360.0 - 180.0
    assert scans["surface_2"].rotation_deg == pytest.approx(30.0, abs=0.1)
    np.testing.assert_allclose(turned, 30.0, atol=5.0)
    assert turned.mean() == pytest.approx(30.0, abs=1.5)
    assert np.all(np.abs((first - NOMINAL_DEG + 180.0) % 360.0 - 180.0) < 10.0)


def test_heights_of_both_scans_have_one_scale(scans):
    """The steepest facets lean as much, and black lies as far below level ground, at either magnification."""
    tilt, pedestal = [], []
    for result in (scan.result for scan in scans.values()):
        slopes = Surface(result.height_nm, result.pixel_size_nm).slopes()
        tilt.append(float(np.degrees(np.arctan(np.percentile(np.hypot(*slopes), 95)))))
        pedestal.append([result.solved[f"detector.segments.pedestal[{k}]"] for k in range(3)])
    assert all(10.0 < angle < 45.0 for angle in tilt) and 0.75 < tilt[0] / tilt[1] < 1.33, tilt
    (first, first_std), (second, second_std) = (np.moveaxis(np.array(p), -1, 0) for p in pedestal)
    assert np.all(np.abs(first - second) < 3.0 * np.hypot(first_std, second_std))


@pytest.mark.parametrize("name", ["surface_1", "surface_2"])
def test_cycle(scans, name):
    """Heights -> simulated images -> heights: the same within 1 % of peak to valley."""
    result = scans[name].result
    scope, pixel = result.scope, result.pixel_size_nm
    table = acceptance(scope, field_mm=wide_field_mm((SIDE, SIDE), pixel))
    signal = render(Surface(result.height_nm, pixel), table, 64, radius_px=64)
    images = record(signal, scope, yield_map=result.brightness)
    again = reconstruct(images, pixel, scope, Refined(draws=0))
    off = np.asarray(again.height_nm - result.height_nm)
    assert off.std() <= 0.01 * float(jnp.ptp(result.height_nm))


@pytest.mark.parametrize("name", ["surface_1", "surface_2"])
def test_the_loop_lowers_chi_square_and_leaves_heights_where_the_search_finds_them(scans, name):
    scan = scans[name]
    images, pixel = jnp.asarray(scan.images, jnp.float32), jnp.asarray(scan.result.pixel_size_nm, jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        plain, loop, refined = (
            reconstruct(images, pixel, scan.result.scope, method, grey_range=scan.grey_range)
            for method in (Supervised(), ClosedLoop(), Refined())
        )
    assert float(loop.chi_square) < float(plain.chi_square)
    off = np.asarray(loop.height_nm - refined.height_nm)
    deviation = np.hypot(*(np.asarray(r.height_std_nm) for r in (loop, refined)))
    assert (np.abs(off - off.mean()) < 2.0 * deviation).mean() > 0.9
