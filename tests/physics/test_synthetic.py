"""Synthetic surfaces against closed forms: slopes, facet angles, step heights, handedness, statistics, gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.specimen import synthetic

SHAPE = (48, 64)
# Pixels so small that the curvature of the round families is below the tolerance of central differences.
FINE = {
    "plane": {"tilt_deg": 35.0, "azimuth_deg": 70.0},
    "step": {"direction_deg": 40.0},
    "trench": {"width_nm": 30.0},
    "v_groove": {"wall_deg": 31.0, "depth_nm": 20.0, "direction_deg": 65.0},
    "sphere": {"radius_nm": 40.0, "pixel_size_nm": 0.05},
    "bowl": {"radius_nm": 30.0, "depth_nm": 8.0},
    "vickers": {"diagonal_nm": 80.0, "diagonal_azimuth_deg": 17.0},
    "sinusoid": {"pitch_nm": 300.0, "direction_deg": 20.0},
    "grating": {"direction_deg": 30.0},
    "spiral": {"spacing_nm": 20.0, "step_height_nm": 2.0, "arms": 2},
    "step_bunch": {"terrace_nm": 30.0, "wander_nm": 4.0, "step_height_nm": 5.0, "terrace_deg": 2.0},
    "particles": {"count": 5, "radius_nm": 12.0, "contact_deg": 40.0},
    "pits": {"count": 5, "radius_nm": 12.0, "contact_deg": 40.0},
    "islands": {"count": 5, "radius_nm": 15.0, "height_nm": 6.0},
    "rough": {"shortest_nm": 25.0},
}


def make(name, shape=SHAPE, **overrides):
    numbers = {"pixel_size_nm": 1.5, **FINE[name], **overrides}
    return getattr(synthetic, name)(shape, numbers.pop("pixel_size_nm"), **numbers)


def inside(scene):
    """Pixels whose central differences see one piece only."""
    clear = ~np.array(scene.truth.edge)
    clear[[0, -1]], clear[:, [0, -1]] = False, False
    return clear


@pytest.mark.parametrize("name", FINE)
def test_slopes_are_those_of_the_heights(name):
    """Analytic slopes against central differences away from edges: planar families to rounding, curved ones closely."""
    scene = make(name)
    clear = inside(scene)
    assert scene.surface.height_nm.shape == SHAPE and clear.mean() > 0.2
    planar = name in ("plane", "step", "trench", "v_groove", "vickers", "grating", "islands")
    tolerance = 1e-11 if planar else {"rough": 0.03, "spiral": 0.08}.get(name, 0.015)
    for found, exact in zip(scene.surface.slopes(), (scene.truth.slope_x, scene.truth.slope_y), strict=True):
        np.testing.assert_allclose(np.array(found)[clear], np.array(exact)[clear], atol=tolerance)


@pytest.mark.parametrize("name", ["spiral", "step_bunch", "particles", "pits", "bowl"])
def test_slope_error_falls_with_the_square_of_the_pixel(name):
    """The same surface on half the pixel size: the difference left at a fixed point is curvature, four times less."""

    def error(pixel, rows):
        numbers = {"contact_deg": 40.0, "radius_nm": 16.0, "count": 1} if name in ("particles", "pits") else {}
        scene = make(name, (rows, rows), pixel_size_nm=pixel, **numbers)
        clear, found = inside(scene), scene.surface.slopes()
        both = zip(found, (scene.truth.slope_x, scene.truth.slope_y), strict=True)
        return np.sqrt(np.mean(sum((np.array(f) - np.array(t)) ** 2 for f, t in both)[clear & (away(scene) > 8.0)]))

    def away(scene):
        """Distance from the axis in nm, to leave out the spiral's core at every pixel size."""
        rows, pixel = scene.surface.height_nm.shape[0], float(scene.surface.pixel_size_nm)
        axis = (np.arange(rows) - (rows - 1) / 2) * pixel
        return np.hypot(*np.meshgrid(axis, axis)) if name == "spiral" else np.full((rows, rows), 9.0)

    coarse, fine = error(0.5, 96), error(0.25, 192)
    assert fine < 0.35 * coarse and coarse < 0.05


def test_plane_leans_as_asked():
    """Normal toward azimuth 90 deg (up in the image): the surface falls toward the top rows, at tan(tilt)."""
    scene = synthetic.plane((5, 7), 2.0, tilt_deg=30.0, azimuth_deg=90.0)
    height = np.array(scene.surface.height_nm)
    np.testing.assert_allclose(np.diff(height, axis=0), 2.0 * np.tan(np.radians(30.0)), rtol=1e-12)
    np.testing.assert_allclose(height[2], 0.0, atol=1e-12)


def test_facets_have_the_inclinations_stated():
    """arctan of the finite-difference slope on each planar piece = truth.facet_deg, to 1e-9 deg."""
    for name in ("plane", "v_groove", "vickers", "grating", "islands"):
        scene = make(name)
        check_facets(scene)
    check_facets(make("step_bunch", wander_nm=0.0, facet_deg=33.0))


def check_facets(scene):
    slope_x, slope_y = (np.array(v) for v in scene.surface.slopes())
    inclination = np.degrees(np.arctan(np.hypot(slope_x, slope_y)))
    clear, facet = inside(scene), np.array(scene.truth.facet)
    for k, angle in enumerate(np.array(scene.truth.facet_deg)):
        on = clear & (facet == k)
        assert on.any(), scene.truth.facet_names[k]
        np.testing.assert_allclose(inclination[on], angle, atol=1e-9)


def test_vickers_imprint_has_the_standard_geometry():
    """136 deg between opposite faces, depth = diagonal / 7.0006."""
    scene = synthetic.vickers((101, 101), 1.0, diagonal_nm=80.0)
    assert float(jnp.min(scene.surface.height_nm)) == pytest.approx(-80.0 / 7.0006, rel=1e-4)
    assert 180.0 - 2 * float(scene.truth.facet_deg[1]) == 136.0
    # A corner on the horizontal diagonal is still pressed in at 39 nm from the centre, a face's middle is not.
    height = np.array(scene.surface.height_nm)
    assert height[50, 50 + 39] < 0 and height[50 + 29, 50 + 29] == 0


def test_step_bunch_descends_by_its_step_heights():
    """Each bunch crossed along the miscut lowers the terrace by its own height; directions are azimuths as seen."""
    scene = synthetic.step_bunch((200, 6), 2.0, direction_deg=90.0, wander_nm=0.0)
    profile, facet = np.array(scene.surface.height_nm)[::-1, 0], np.array(scene.truth.facet)[::-1, 0]
    step = np.array(scene.truth.step)[::-1, 0]
    levels = profile[facet == 0]
    drops = -np.diff(levels)
    drops = drops[drops > 1e-9]
    crossed = [k for k in np.unique(step) if (facet[step == k] == 1).any() and (facet[step == k] == 0)[[0, -1]].all()]
    heights = np.array(scene.truth.step_height_nm)[crossed]
    assert len(crossed) >= 3
    np.testing.assert_allclose(drops, heights, rtol=1e-9)
    assert np.all((heights > 0.7 * 12.0) & (heights < 1.3 * 12.0))


def test_round_families_are_spheres():
    """Ball: (z - R)^2 + r^2 = R^2; bowl: centre R - depth above the plane; both exactly, with their rims in place."""
    x = np.arange(61) - 30.0
    square = x[None, :] ** 2 + x[:, None] ** 2
    ball = np.array(synthetic.sphere((61, 61), 1.0, radius_nm=25.0).surface.height_nm)
    on = square < 25.0**2
    np.testing.assert_allclose((ball[on] - 25.0) ** 2 + square[on], 25.0**2, rtol=1e-12)
    np.testing.assert_array_equal(ball[~on], 0.0)
    assert ball[30, 30] == 50.0
    bowl = np.array(synthetic.bowl((61, 61), 1.0, radius_nm=40.0, depth_nm=8.0).surface.height_nm)
    on = square < 40.0**2 - 32.0**2
    np.testing.assert_allclose((bowl[on] - 32.0) ** 2 + square[on], 40.0**2, rtol=1e-12)
    np.testing.assert_array_equal(bowl[~on], 0.0)


def test_grating_dimensions():
    """Width at half height = duty * pitch, top to floor = height, period = pitch."""
    scene = synthetic.grating((1, 1024), 0.25, pitch_nm=64.0, height_nm=20.0, sidewall_deg=70.0, duty=0.4)
    height = np.array(scene.surface.height_nm)[0]
    assert np.mean(height > 10.0) == pytest.approx(0.4, abs=0.01)
    assert height.max() == 20.0 and height.min() == 0.0
    np.testing.assert_allclose(height[256:], height[:-256], atol=1e-9)


@pytest.mark.parametrize("arms", [1, 3])
@pytest.mark.parametrize("hand", [1, -1])
@pytest.mark.parametrize("sides", [0, 4])
def test_spiral_terraces_rise_with_the_hand(arms, hand, sides):
    """Walk a small circle counter-clockwise as seen (up in the image is negative y), on terraces only: each turn gains
    hand * arms * H, which the steps crossed give back."""
    pixel, radius, step = 0.25, 14.0, 2.0
    scene = synthetic.spiral(
        (161, 161), pixel, arms=arms, handedness=hand, sides=sides, step_height_nm=step, spacing_nm=9.0, facet_deg=60.0
    )
    height, on_facet = np.array(scene.surface.height_nm), np.array(scene.truth.facet) == 1
    phi = np.linspace(0, 2 * np.pi, 4001)
    column, row = 80 + radius / pixel * np.cos(phi), 80 - radius / pixel * np.sin(phi)
    i, j = np.round(row).astype(int), np.round(column).astype(int)
    slope_x, slope_y = np.array(scene.truth.slope_x)[i, j], np.array(scene.truth.slope_y)[i, j]
    slope_phi = radius * (-np.sin(phi) * slope_x - np.cos(phi) * slope_y)
    terrace = ~on_facet[i, j]
    gained = np.mean(slope_phi[terrace]) * 2 * np.pi
    assert gained == pytest.approx(hand * arms * step, rel=0.03)
    # Heights agree: on the stretch of terrace with the finest sampling the walker climbs in the same sense.
    climbs = np.diff(height[i, j])[terrace[1:] & terrace[:-1]]
    small = climbs[np.abs(climbs) < 0.2 * step]
    assert np.sign(np.sum(small)) == hand


def test_spiral_is_a_single_valued_surface():
    """No cut: jumps between neighbours nowhere exceed what the steepest slope allows, across azimuth 180 deg too."""
    scene = synthetic.spiral((121, 121), 0.5, step_height_nm=2.0, spacing_nm=15.0, facet_deg=45.0)
    height = np.array(scene.surface.height_nm)
    far = np.hypot(*np.meshgrid(np.arange(121) - 60, np.arange(121) - 60)) > 6
    jumps = np.abs(np.diff(height, axis=0))[far[1:] & far[:-1]]
    assert jumps.max() < 0.5 * 1.3


def test_rough_statistics_are_those_asked_for():
    scene = synthetic.rough((96, 128), 2.0, rms_height_nm=3.0)
    assert float(jnp.std(scene.surface.height_nm)) == pytest.approx(3.0, rel=1e-9)
    assert float(jnp.mean(scene.surface.height_nm)) == pytest.approx(0.0, abs=1e-12)
    scene = synthetic.rough((96, 128), 2.0, rms_slope=0.4)
    square = scene.truth.slope_x**2 + scene.truth.slope_y**2
    assert float(jnp.sqrt(jnp.mean(square))) == pytest.approx(0.4, rel=1e-9)


def test_rough_is_periodic_and_its_slopes_exact():
    """Eighth-order differences that wrap round: any seam would show. Shortest wave of 20 pixels: error below 1e-5."""
    scene = synthetic.rough((80, 120), 2.0, rms_slope=0.5, shortest_nm=40.0)
    height = np.array(scene.surface.height_nm)
    weights = [4 / 5, -1 / 5, 4 / 105, -1 / 280]
    for axis, exact in ((1, scene.truth.slope_x), (0, scene.truth.slope_y)):
        found = sum(w * (np.roll(height, -k, axis) - np.roll(height, k, axis)) for k, w in enumerate(weights, 1)) / 2.0
        np.testing.assert_allclose(found, exact, atol=1e-5)


def test_rough_spectrum_has_the_hurst_exponent():
    """Ring-averaged power over two octaves falls as q^(-2 - 2 H): the fitted exponent within 0.15."""
    for hurst in (0.3, 0.9):
        scene = synthetic.rough((256, 256), 1.0, hurst=hurst, key=jax.random.key(5))
        power = np.abs(np.fft.fft2(scene.surface.height_nm)) ** 2
        f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
        rings = np.geomspace(0.03, 0.2, 9)
        mean = [power[(f >= a) & (f < b)].mean() for a, b in itertools.pairwise(rings)]
        slope = np.polyfit(np.log(np.sqrt(rings[:-1] * rings[1:])), np.log(mean), 1)[0]
        assert slope == pytest.approx(-2 - 2 * hurst, abs=0.15)


def test_scattered_objects_have_the_heights_stated():
    """The pixel on top of each object that shows is at most a pixel's sagitta below its stated height."""
    scene = synthetic.particles((128, 160), 1.0, count=12, radius_nm=12.0, contact_deg=70.0)
    height, step = np.array(scene.surface.height_nm), np.array(scene.truth.step)
    inner = set(np.unique(step)) - set(np.concatenate([step[0], step[-1], step[:, 0], step[:, -1]])) - {-1}
    assert len(inner) >= 5
    for k in inner:
        assert height[step == k].max() == pytest.approx(float(scene.truth.step_height_nm[k]), abs=0.05)
    islands = synthetic.islands((128, 160), 1.0, count=8, height_nm=7.0)
    np.testing.assert_allclose(np.array(islands.surface.height_nm)[np.array(islands.truth.facet) == 1], 7.0)


@pytest.mark.parametrize("name", ["rough", "step_bunch", "particles", "islands"])
def test_one_key_one_surface(name):
    first, again = make(name, key=jax.random.key(3)), make(name, key=jax.random.key(3))
    other = make(name, key=jax.random.key(4))
    np.testing.assert_array_equal(first.surface.height_nm, again.surface.height_nm)
    assert float(jnp.max(jnp.abs(first.surface.height_nm - other.surface.height_nm))) > 0.1


@pytest.mark.float32
@pytest.mark.parametrize("name", FINE)
def test_the_pixel_size_sets_the_precision(name):
    single, double = make(name, pixel_size_nm=jnp.float32(1.5)), make(name, pixel_size_nm=1.5)
    assert single.surface.height_nm.dtype == single.truth.slope_x.dtype == jnp.float32
    if name not in ("rough", "step_bunch", "particles", "pits", "islands"):  # other precision, other draw
        difference = np.abs(np.array(single.surface.height_nm) - np.array(double.surface.height_nm))
        assert np.quantile(difference, 0.99) < 1e-4


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [
        ("plane", "tilt_deg", 20.0),
        ("step", "height_nm", 10.0),
        ("trench", "depth_nm", 20.0),
        ("v_groove", "wall_deg", 52.0),
        ("sphere", "radius_nm", 30.0),
        ("bowl", "radius_nm", 30.0),
        ("vickers", "face_deg", 22.0),
        ("sinusoid", "pitch_nm", 40.0),
        ("grating", "sidewall_deg", 70.0),
        ("spiral", "facet_deg", 25.0),
        ("step_bunch", "facet_deg", 25.0),
        ("step_bunch", "wander_nm", 4.0),
        ("particles", "radius_nm", 12.0),
        ("islands", "wall_deg", 50.0),
        ("rough", "hurst", 0.7),
        ("rough", "pixel_size_nm", 1.5),
    ],
)
def test_derivatives_match_finite_differences(name, number, value):
    """Heights and slopes by one number, forward and reverse (no pixel changes its piece within the step of 1e-6)."""
    weights = jax.random.normal(jax.random.key(9), (3, 24, 32))

    @jax.jit
    def maps(v):
        scene = make(name, (24, 32), **{"pixel_size_nm": 1.5, number: v})
        return jnp.stack([scene.surface.height_nm, scene.truth.slope_x, scene.truth.slope_y])

    step = 1e-6 * value
    low, high = maps(value - step), maps(value + step)
    difference = float(jnp.sum(weights * (high - low))) / (2 * step)
    forward, backward = (d(lambda v: jnp.sum(weights * maps(v)))(jnp.asarray(value)) for d in (jax.jacfwd, jax.grad))
    assert float(forward) == pytest.approx(float(backward), rel=1e-9)
    assert float(forward) == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_numbers_are_traced():
    """jit equals eager, vmap equals a loop."""
    angles = jnp.asarray([15.0, 40.0])
    eager = [synthetic.spiral(SHAPE, 1.5, facet_deg=a).surface.height_nm for a in angles]
    many = jax.vmap(lambda a: synthetic.spiral(SHAPE, 1.5, facet_deg=a))(angles)
    once = jax.jit(lambda a: synthetic.spiral(SHAPE, 1.5, facet_deg=a))(angles[0])
    np.testing.assert_allclose(many.surface.height_nm, jnp.stack(eager), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(once.surface.height_nm, eager[0], rtol=1e-12, atol=1e-12)
    keys = jax.random.split(jax.random.key(0), 2)
    draws = jax.vmap(lambda k: synthetic.rough((16, 24), 2.0, key=k).surface.height_nm)(keys)
    np.testing.assert_allclose(draws[1], synthetic.rough((16, 24), 2.0, key=keys[1]).surface.height_nm, atol=1e-12)


def test_texture_adds_exactly():
    base, texture = synthetic.v_groove(SHAPE, 2.0, depth_nm=10.0), synthetic.rough(SHAPE, 2.0, rms_height_nm=0.5)
    both = synthetic.add(base, texture)
    np.testing.assert_allclose(both.surface.height_nm, base.surface.height_nm + texture.surface.height_nm)
    np.testing.assert_allclose(both.truth.slope_y, base.truth.slope_y + texture.truth.slope_y)
    np.testing.assert_array_equal(both.truth.facet, base.truth.facet)
    with pytest.raises(InputError, match="one shape"):
        synthetic.add(base, synthetic.rough((8, 8), 2.0))
    with pytest.raises(InputError, match="one pixel size"):
        synthetic.add(base, synthetic.rough(SHAPE, 1.0))


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("plane", {"pixel_size_nm": 0.0}, "pixel_size_nm"),
        ("plane", {"shape": (0, 4)}, "shape"),
        ("plane", {"tilt_deg": 90.0}, "tilt_deg"),
        ("trench", {"width_nm": 1e4}, "width_nm"),
        ("v_groove", {"wall_deg": 0.0}, "wall_deg"),
        ("v_groove", {"wall_deg": 5.0, "depth_nm": 100.0}, "enlarge the image"),
        ("bowl", {"radius_nm": 10.0, "depth_nm": 11.0}, "depth_nm"),
        ("sphere", {"radius_nm": -1.0}, "radius_nm"),
        ("vickers", {"diagonal_nm": float("nan")}, "diagonal_nm"),
        ("grating", {"sidewall_deg": 10.0}, "sidewall_deg"),
        ("spiral", {"handedness": 0}, "handedness"),
        ("spiral", {"arms": 0}, "arms"),
        ("spiral", {"facet_deg": 1.0}, "spacing_nm"),
        ("step_bunch", {"facet_deg": 90.0}, "facet_deg"),
        ("step_bunch", {"wander_nm": 80.0}, "facets would meet"),
        ("step_bunch", {"terrace_deg": -30.0}, "terrace_deg"),
        ("particles", {"count": 0}, "count"),
        ("particles", {"contact_deg": 120.0}, "contact_deg"),
        ("islands", {"sides": 2}, "sides"),
        ("rough", {"hurst": 1.5}, "hurst"),
        ("rough", {"rms_slope": 0.1, "rms_height_nm": 1.0}, "exclude each other"),
        ("rough", {"shortest_nm": 1.0}, "two pixels"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(name, arguments, named):
    with pytest.raises(InputError, match=named):
        getattr(synthetic, name)(**arguments)
