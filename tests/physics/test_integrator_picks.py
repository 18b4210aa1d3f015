"""Integrators that look at the slopes before they believe them, and masks that fall into islands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from integrators import centred, grid, noise

import eclipsjax as ej
from eclipsjax.inverse.integrators.closed_walls import Mended
from eclipsjax.inverse.integrators.dislocations import hidden_dislocations
from eclipsjax.inverse.integrators.outlying import lone_spikes, median_of_nine


def test_islands_have_their_own_mean():
    x, y = grid((20, 30))
    mask = ((x - 6) ** 2 + (y - 9) ** 2 < 25) | ((x - 20) ** 2 + (y - 9) ** 2 < 36)
    mask[19, 29] = True
    z = 0.05 * (x - 3) ** 2 - 0.4 * y
    found = ej.integration(0.1 * (x - 3), np.full(x.shape, -0.4), 1.0, ej.Poisson(1e-13), mask)
    labels = np.asarray(found.islands)
    assert found.island_count == 3 and (labels >= 0).sum() == mask.sum() and (labels[~mask] == -1).all()
    assert found.why == "as asked for"
    for label in np.unique(labels[mask]):
        own = labels == label
        np.testing.assert_allclose(np.asarray(found.height_nm)[own], centred(z[own]), atol=1e-8)


@pytest.mark.parametrize("method", [ej.LeastAbsolute(), ej.Bilateral(), ej.Despiked(ej.Poisson())])
def test_other_weighable_methods_on_islands(method):
    x, y = grid((20, 30))
    mask = (x < 12) | (x > 15)
    found = np.asarray(ej.integrate(np.where(mask, 0.3, np.nan), np.where(mask, -0.1, np.nan), 1.0, method, mask))
    z = 0.3 * x - 0.1 * y
    for own in (x < 12, x > 15):
        np.testing.assert_allclose(found[own], centred(z[own]), atol=1e-3)


def scene_slopes(scene, noise_deg, outliers, seed=0):
    rng = np.random.default_rng(seed)
    p, q = (np.array(s) for s in (scene.truth.slope_x, scene.truth.slope_y))
    p, q = (s + np.radians(noise_deg) * rng.normal(size=s.shape) for s in (p, q))
    hit = rng.random(p.shape) < outliers
    return tuple(np.where(hit, s + rng.normal(size=s.shape), s) for s in (p, q))


def percent(height_nm, scene):
    return float(ej.height_error(height_nm, scene.surface.height_nm).percent.plane)


@pytest.fixture(scope="module")
def rough():
    return ej.synthetic.rough((96, 96), 2.0, key=jax.random.key(1), rms_slope=0.3)


def test_median_of_nine_is_the_median():
    values = noise((14, 11))[0]
    around = np.pad(np.asarray(values), 2, mode="reflect")
    wanted = [[np.median(around[i : i + 5 : 2, j : j + 5 : 2]) for j in range(11)] for i in range(14)]
    np.testing.assert_array_equal(median_of_nine(values, 2), wanted)


def test_spikes_are_found_and_little_else(rough):
    p, q = (np.array(s) for s in scene_slopes(rough, 1.0, 0.0))
    rng = np.random.default_rng(3)
    hit = rng.random(p.shape) < 0.02
    found = np.asarray(lone_spikes(jnp.where(hit, p + 1.0, p), jnp.asarray(q), jnp.radians(1.0)))
    assert found[hit].mean() > 0.85 and found[~hit].mean() < 0.002


def test_despiked_wiener_is_nearly_as_good_as_without_outliers(rough):
    clean = percent(ej.integrate(*scene_slopes(rough, 1.0, 0.0), 2.0, ej.Wiener()), rough)
    spiked = scene_slopes(rough, 1.0, 0.02)
    plain = percent(ej.integrate(*spiked, 2.0, ej.Wiener()), rough)
    despiked = percent(ej.integrate(*spiked, 2.0, ej.Despiked(ej.Wiener())), rough)
    assert despiked < 2 * clean and plain > 5 * clean


def test_despiking_leaves_edges_alone():
    scene = ej.synthetic.islands((96, 96), 2.0, count=6)
    slopes = scene_slopes(scene, 0.0, 0.0)
    plain, despiked = (ej.integrate(*slopes, 2.0, m) for m in (ej.Wiener(), ej.Despiked(ej.Wiener())))
    assert percent(despiked, scene) < 1.05 * percent(plain, scene)


def seen_by_pixels(fine, noise_deg, seed=0):
    """Mean heights, and slopes of mean normals, of 8 x 8 samples, with noise."""
    size = fine.surface.height_nm.shape[0] // 8

    def mean(values):
        return np.asarray(values).reshape(size, 8, size, 8).mean((1, 3))

    p, q = (np.asarray(s) for s in (fine.truth.slope_x, fine.truth.slope_y))
    upright = 1.0 / np.sqrt(1 + p**2 + q**2)
    rng = np.random.default_rng(seed)
    slopes = (mean(s * upright) / mean(upright) + np.radians(noise_deg) * rng.normal(size=(size, size)) for s in (p, q))
    return mean(fine.surface.height_nm), tuple(slopes)


@pytest.mark.parametrize("noise_deg", [0.0, 3.0])
def test_walls_that_no_pixel_resolves_are_closed(noise_deg):
    fine = ej.synthetic.spiral((1024, 1024), 0.25, facet_deg=86.0, step_height_nm=12.0, spacing_nm=70.0)
    truth, slopes = seen_by_pixels(fine, noise_deg)
    plain, closed = (
        float(ej.height_error(ej.integrate(*slopes, 2.0, m), truth).percent.plane)
        for m in (ej.Wiener(), ej.ClosedWalls(ej.Wiener()))
    )
    assert plain > 8 and closed < 3


def test_pixels_across_an_edge_are_unmixed():
    fine = ej.synthetic.islands((1024, 1024), 0.25, count=6, wall_deg=75.0)
    truth, slopes = seen_by_pixels(fine, 0.0)
    plain, unmixed = (
        float(ej.height_error(ej.integrate(*slopes, 2.0, m), truth).percent.plane)
        for m in (ej.Wiener(), ej.Unmixed(ej.Wiener()))
    )
    assert plain > 6 and unmixed < 2


def test_unmixing_leaves_a_plane_and_resolved_facets_alone():
    x = np.broadcast_to(np.arange(40.0), (30, 40))
    for slope, close in ((np.full((30, 40), 1.5), 1e-12), (np.where((x > 12) & (x < 24), 0.36, 0.0), 1e-9)):
        one, other = (ej.integrate(slope, 0 * slope, 2.0, m) for m in (ej.Poisson(), ej.Unmixed(ej.Poisson())))
        np.testing.assert_allclose(one, other, atol=close)


def test_walls_that_close_already_stay(rough):
    for scene in (rough, ej.synthetic.spiral((128, 128), 2.0), ej.synthetic.islands((96, 96), 2.0, count=6)):
        slopes = scene_slopes(scene, 1.0, 0.0)
        one, other = (ej.integrate(*slopes, 2.0, m) for m in (ej.Despiked(ej.Wiener()), ej.ClosedWalls(ej.Wiener())))
        np.testing.assert_allclose(one, other, atol=1e-9)


def helicoid(shape, row, column, rise_px):
    """Slopes of a screw dislocation, and the angle around it."""
    x, y = grid(shape)
    y, x = y - row, x - column
    turn = rise_px / (2 * np.pi * np.maximum(x**2 + y**2, 0.5))
    return -turn * y, turn * x, np.arctan2(y, x)


@pytest.mark.parametrize("rise_px", [5.0, -3.0])
def test_a_hidden_dislocation_is_found_and_taken_out(rough, rise_px):
    shape = (96, 96)
    p, q = scene_slopes(rough, 1.0, 0.0)
    dp, dq, angle = helicoid(shape, 60.3, 41.6, rise_px)
    found = hidden_dislocations(Mended.of(jnp.asarray(p + dp), jnp.asarray(q + dq)))
    assert int(jnp.sum(found.rise_px != 0)) == 1
    assert float(found.rise_px[0]) == pytest.approx(rise_px, rel=0.05)
    assert float(jnp.hypot(found.row[0] - 60.3, found.column[0] - 41.6)) < 1.0
    slopes = p + dp, q + dq
    whole = ej.integration(*slopes, 2.0, ej.Dislocated(ej.Wiener()))
    assert 0.02 < float(jnp.mean(whole.undetermined)) < 0.06
    # Heights agree with the helicoid's but for whole steps, wherever the method does not say that it cannot know.
    step = 2.0 * rise_px
    off = np.asarray(whole.height_nm) - np.asarray(rough.surface.height_nm) - step / (2 * np.pi) * angle
    off = (off - np.median(off) + 0.5 * step) % step - 0.5 * step
    left = np.sqrt(np.mean(off[~np.asarray(whole.undetermined)] ** 2))
    plain = ej.integrate(*slopes, 2.0, ej.Wiener()) - rough.surface.height_nm - step / (2 * np.pi) * angle
    assert left < 0.04 * abs(step) and float(jnp.std(plain)) > 5 * left


def test_no_dislocation_where_there_is_none(rough):
    for scene in (rough, ej.synthetic.spiral((128, 128), 2.0), ej.synthetic.islands((128, 128), 2.0)):
        for noise_deg, outliers in ((0.0, 0.0), (3.0, 0.0), (1.0, 0.02)):
            found = hidden_dislocations(Mended.of(*(jnp.asarray(s) for s in scene_slopes(scene, noise_deg, outliers))))
            assert not np.any(found.rise_px)


def test_noise_is_shrunk_where_it_drowns_the_surface(rough):
    slopes = tuple(0.02 * s for s in scene_slopes(rough, 0.0, 0.0))
    noisy = tuple(s + 0.05 * n for s, n in zip(slopes, noise((96, 96)), strict=True))
    truth = ej.Surface(0.02 * rough.surface.height_nm, 2.0).height_nm
    poisson_, wiener = (
        float(ej.height_error(ej.integrate(*noisy, 2.0, m), truth).rms_nm.mean) for m in (ej.Poisson(), ej.Wiener())
    )
    assert wiener < 0.8 * poisson_


CLASSICAL = ej.Auto(network=False)


@pytest.mark.parametrize(
    "noise_deg, outliers, wanted", [(3.0, 0.0, ej.Wiener()), (0.2, 0.02, ej.Despiked(ej.Robust()))]
)
def test_auto_picks_and_says_why(rough, noise_deg, outliers, wanted):
    slopes = scene_slopes(rough, noise_deg, outliers)
    found = ej.integration(*slopes, 2.0, CLASSICAL)
    assert found.method == wanted and "deg by the curl" in found.why
    np.testing.assert_array_equal(found.height_nm, ej.integrate(*slopes, 2.0, wanted))


def test_auto_mends_what_it_finds(rough):
    walls = ej.synthetic.spiral((1024, 1024), 0.25, facet_deg=86.0, step_height_nm=12.0, spacing_nm=70.0)
    assert isinstance(CLASSICAL.pick(*seen_by_pixels(walls, 0.3)[1])[0], ej.ClosedWalls)
    edges = ej.synthetic.islands((1024, 1024), 0.25, count=6, wall_deg=75.0)
    assert isinstance(CLASSICAL.pick(*seen_by_pixels(edges, 0.3)[1])[0], ej.Unmixed)
    dp, dq, _ = helicoid((96, 96), 50.0, 40.0, 4.0)
    method, why = CLASSICAL.pick(*(s + d for s, d in zip(scene_slopes(rough, 0.3, 0.0), (dp, dq), strict=True)))
    assert isinstance(method, ej.Dislocated) and "without a visible step: 1" in why


def test_auto_tells_a_smooth_bias_from_noise():
    p, q = scene_slopes(ej.synthetic.sinusoid((96, 96), 2.0, pitch_nm=60.0), 0.0, 0.0)
    wave = np.sin(np.linspace(0, 3, 96))
    # Along y in x and along x in y: nothing but curl.
    method, why = CLASSICAL.pick(p + 0.01 * wave[:, None], q - 0.01 * wave[None, :])
    assert method == ej.Poisson() and "bias" in why


@pytest.mark.parametrize("width_px", [2.0, 4.0, 10.0])
def test_auto_is_right_on_a_clean_hill(width_px):
    x, y = grid((64, 64))
    x, y = x - 32.0, y - 32.0
    z = 40.0 * np.exp(-0.5 * (x**2 + y**2) / width_px**2)
    found = ej.integration(-z * x / width_px**2 / 4.0, -z * y / width_px**2 / 4.0, 4.0)
    assert found.method in (ej.Robust(), ej.Robust(cutoff=1.0), ej.Wiener())
    assert float(ej.height_error(found.height_nm, z).rms_nm.plane) < 0.01


def test_auto_with_a_mask_takes_a_method_that_can(rough):
    mask = np.ones((96, 96), bool)
    mask[30:40, 20:50] = False
    for outliers, wanted in ((0.0, ej.Poisson()), (0.02, ej.Despiked(ej.LeastAbsolute()))):
        slopes = (np.where(mask, s, np.nan) for s in scene_slopes(rough, 2.0, outliers))
        assert ej.integration(*slopes, 2.0, mask=mask).method == wanted
