"""Aiming: what is aimed must land, and the aim's derivatives are those of the flight's inverse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax.instrument.aim import aim
from eclipsjax.instrument.electrostatics import Axisymmetric, solve_field
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.plane import detector_plane
from eclipsjax.instrument.trajectories import trace

COARSE = Axisymmetric(radial=48, below=32, above=24)
BEAM = jnp.array([0.2, 0.0])


def plate_points(plane, radii, azimuths):
    """Points of the plate, both rims included, in image axes."""
    r, phi = (a.ravel() for a in np.meshgrid(radii, azimuths, indexing="ij"))
    local = jnp.asarray(np.stack([r * np.cos(phi), r * np.sin(phi), 0 * r], axis=-1))
    return jax.vmap(plane.to_image)(local)


@jax.jit
def aim_and_fly(scope, field, energy, targets):
    directions, reachable = aim(scope, field, BEAM, energy, targets)
    start = jnp.append(BEAM, 0.0)
    plane = detector_plane(scope)
    flights = jax.vmap(lambda d: trace(field, start, d, energy, plane))(directions)
    return directions, reachable, flights


RADII, AZIMUTHS = np.linspace(1.0, 5.0, 9), np.linspace(0.1, 6.0, 12)


@pytest.mark.parametrize(("bias", "tilt"), [(-1000.0, 0.0), (500.0, 0.0), (-1000.0, 1.0)])
def test_aimed_electrons_land_on_target(bias, tilt):
    """5 keV, beam 0.2 mm off axis, accelerating and retarding, level and tilted plate: within 1e-4 mm."""
    scope = Microscope.annular(specimen_bias_v=bias, energy_kev=5.0)
    scope = eqx.tree_at(lambda s: s.detector.tilt_x_deg, scope, jnp.array(tilt))
    field = solve_field(scope, Axisymmetric())
    targets = plate_points(detector_plane(scope), RADII, AZIMUTHS)
    directions, reachable, flights = aim_and_fly(scope, field, jnp.array(5.0), targets)
    assert reachable.all() and flights.landed.all()
    np.testing.assert_allclose(jnp.linalg.norm(directions, axis=1), 1.0, rtol=1e-12)
    assert float(jnp.max(jnp.abs(flights.position_mm - targets))) < 1e-4


def test_no_field_straight_lines():
    scope = Microscope.annular()
    field = solve_field(scope, Axisymmetric())
    targets = plate_points(detector_plane(scope), RADII, AZIMUTHS)
    directions, reachable, _ = aim_and_fly(scope, field, jnp.array(5.0), targets)
    straight = np.asarray(targets) - np.array([0.2, 0.0, 0.0])
    np.testing.assert_allclose(directions, straight / np.linalg.norm(straight, axis=1)[:, None], atol=1e-6)
    assert reachable.all()


def test_out_of_reach():
    """Below the potential nothing arrives; a little above it only near the axis; the rest is clipped to the range."""
    scope = Microscope.annular(specimen_bias_v=500.0, energy_kev=5.0)
    field = solve_field(scope, Axisymmetric())
    targets = plate_points(detector_plane(scope), RADII, AZIMUTHS)
    directions, reachable, _ = aim_and_fly(scope, field, jnp.array(0.45), targets)
    assert not reachable.any()
    np.testing.assert_allclose(directions, np.tile([0.0, 0.0, 1.0], (len(targets), 1)), atol=1e-5)
    directions, reachable, flights = aim_and_fly(scope, field, jnp.array(0.55), targets)
    # Uniform field: 2 D sqrt((1 + u) / -u) = 3.8 mm from the emission point, the polar angle's cosine sqrt(-u).
    away = np.linalg.norm(np.asarray(targets)[:, :2] - np.asarray(BEAM), axis=1)
    assert reachable[away < 2.5].all() and not reachable[away > 4.5].any()
    misses = np.linalg.norm(flights.position_mm - targets, axis=1)
    assert flights.landed[reachable].all() and misses[reachable].max() < 0.3
    sines = np.linalg.norm(directions[away > 4.5][:, :2], axis=1)
    limit = np.sqrt(1 - 500 / 550)
    assert (sines < limit).all() and (sines > 0.9 * limit).all()


def test_derivatives_are_exact():
    """By bias, energy, distance, beam position, hole, target: forward and reverse against central differences."""
    names = ["bias", "energy", "distance", "beam", "hole", "target"]
    base = Microscope.annular(specimen_bias_v=-1000.0, energy_kev=5.0, inner_radius_mm=1.037, working_distance_mm=7.41)
    flat = plate_points(detector_plane(base), np.array([1.5, 4.0]), np.array([0.4, 2.0]))
    weights = jnp.array([[0.4, 1.0, 0.2]] * 4) * jnp.arange(1.0, 5.0)[:, None]

    @jax.jit
    def aimed(changes):
        c = dict(zip(names, changes, strict=True))
        scope = eqx.tree_at(
            lambda s: (s.column.specimen_bias_v, s.detector.distance_mm, s.detector.segments.inner_radius_mm),
            base,
            (-1000.0 + c["bias"], 6.0 + c["distance"], 1.037 + c["hole"] * jnp.ones(4)),
        )
        field = solve_field(scope, COARSE)
        targets = flat + jnp.stack([c["target"], jnp.array(0.0), c["distance"]])[None, :]
        beam = jnp.stack([0.2 + c["beam"], jnp.array(0.0)])
        directions, _ = aim(scope, field, beam, 5.0 + c["energy"], targets, radial=20, diameters=4)
        return jnp.sum(weights * directions)

    zero = jnp.zeros(len(names))
    reverse, mix = jax.jit(jax.grad(aimed))(zero), jnp.linspace(0.5, 1.5, len(names))
    forward = jax.jit(lambda c: jax.jvp(aimed, (c,), (mix,))[1])(zero)
    assert float(forward) == pytest.approx(float(reverse @ mix), rel=1e-8)
    steps = dict.fromkeys(names, 1e-4) | {"bias": 0.1}
    for k, name in enumerate(names):
        change = zero.at[k].set(steps[name])
        difference = (aimed(change) - aimed(-change)) / (2 * steps[name])
        assert float(reverse[k]) == pytest.approx(float(difference), rel=1e-5, abs=1e-9), name


def test_batches_equal_loops():
    scope = Microscope.annular(specimen_bias_v=-1000.0, energy_kev=5.0)
    field = solve_field(scope, COARSE)
    targets = plate_points(detector_plane(scope), np.array([1.0, 3.0, 5.0]), np.array([0.4, 2.0]))
    energies = jnp.array([2.0, 4.0])

    def aimed(energy):
        return aim(scope, field, BEAM, energy, targets, radial=20, diameters=4)[0]

    batch = jax.jit(jax.vmap(aimed))(energies)
    one = jax.jit(aimed)
    np.testing.assert_allclose(batch, jnp.stack([one(e) for e in energies]), atol=1e-9)
