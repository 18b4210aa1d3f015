"""Laplace's equation against closed forms, a boundary-element reference and itself in another number of dimensions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.instrument.block_solve import positive_inverse
from eclipsjax.instrument.chamber import Cartesian
from eclipsjax.instrument.electrostatics import Axisymmetric, choose_grid, solve_field
from eclipsjax.instrument.laplace import (
    Electrode,
    cartesian_areas,
    connect,
    deepest,
    polar_areas,
    solve_direct,
    solve_iterative,
    two_sections,
)
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.spline import EVEN, OPEN, spline_coefficients, spline_sample

COARSE = Axisymmetric(radial=48, below=32, above=24)


def biased(**kwargs) -> Microscope:
    return Microscope.annular(specimen_bias_v=-1000.0, outer_radius_mm=9.0, **kwargs)


def shells(inner, outer):
    def radius(*position):
        return jnp.sqrt(sum(x**2 for x in position))

    return [
        Electrode(lambda *p: radius(*p) - inner, 100.0),
        Electrode(lambda *p: outer - radius(*p), 0.0),
    ]


def shell_error(kind: str, count: int) -> float:
    """rms error (V of 100) between two curved electrodes, over eight placements of the surfaces in the grid."""
    nodes = jnp.linspace(0.0, 4.0, count + 1)
    axes = (nodes,) * (3 if kind == "spheres in 3D" else 2)
    areas = polar_areas(nodes, nodes) if kind == "spheres" else cartesian_areas(*axes)
    solver = solve_iterative if len(axes) == 3 else solve_direct

    @jax.jit
    @jax.vmap
    def squared(inner, outer):
        found = solver(connect(axes, areas, shells(inner, outer))).potential_v
        radius = jnp.sqrt(sum(x**2 for x in jnp.meshgrid(*axes, indexing="ij")))
        between = (radius > inner) & (radius < outer)
        r = jnp.where(between, radius, inner)
        if kind == "cylinders":
            truth = 100.0 * jnp.log(outer / r) / jnp.log(outer / inner)
        else:
            truth = 100.0 * (1 / r - 1 / outer) / (1 / inner - 1 / outer)
        return jnp.sum(jnp.where(between, found - truth, 0.0) ** 2) / jnp.sum(between, dtype=float)

    rng = np.random.default_rng(1)
    placements = 2 if len(axes) == 3 else 8
    shift = rng.uniform(0, 0.25, (2, placements))
    return float(jnp.sqrt(jnp.mean(squared(jnp.asarray(1.0 + shift[0]), jnp.asarray(3.6 + shift[1])))))


@pytest.mark.parametrize(
    ("kind", "counts"), [("cylinders", (12, 24, 48)), ("spheres", (12, 24, 48)), ("spheres in 3D", (10, 20, 40))]
)
def test_second_order_at_curved_electrodes(kind, counts):
    """V ln(r/a)/ln(b/a) and V (1/r - 1/b)/(1/a - 1/b): the error falls with the square of the spacing."""
    errors = [shell_error(kind, count) for count in counts]
    order = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -2.6 < order < -1.7, errors
    assert errors[-1] < 0.2, errors


def test_hole_in_a_thin_plate():
    """Axisymmetric field E1 below and 0 above a plate with a hole (oblate spheroidal closed form, physics.md 2.6)."""
    field, hole = 1000.0 / 6.0, 1.0

    def truth(z, r):
        total = z**2 + r**2 - hole**2
        zeta = jnp.sqrt(0.5 * (total + jnp.sqrt(total**2 + 4 * hole**2 * z**2)) + 1e-30) / hole
        mu = jnp.abs(z) / (hole * zeta)
        mu = jnp.where(z == 0, jnp.sqrt(jnp.maximum(1 - (r / hole) ** 2, 0.0)), mu)
        return -field * z / 2 + field / jnp.pi * (jnp.abs(z) * jnp.arctan(zeta) + hole * mu)

    r, z = 0.1 * jnp.arange(61.0), 0.1 * jnp.arange(-60.0, 61.0)
    # Minus below: the plate is at 0 V, the specimen (z = -6) at +1000 V here.
    plate = Electrode(lambda z, r: deepest(jnp.abs(z), hole - r), 0.0)
    border = Electrode(lambda z, r: deepest_of_box(z, r), truth)

    def deepest_of_box(z, r):
        return jnp.minimum(6.0 - jnp.abs(z), 6.0 - r)

    found = jax.jit(lambda: solve_direct(connect((z, r), polar_areas(r, z), [plate, border])).potential_v)()
    grid_z, grid_r = jnp.meshgrid(z, r, indexing="ij")
    wrong = jnp.abs(found - truth(grid_z, grid_r))
    rim = jnp.hypot(grid_z, grid_r - hole) < 1.5 * 0.1
    assert float(jnp.max(jnp.where(rim, 0.0, wrong))) < 10.0
    assert float(found[60, 0]) == pytest.approx(field * hole / np.pi, abs=2.5)


def test_boundary_element_reference():
    """Traceon's potentials (physics.md 3). The note leaves out the specimen's radius, the plate's thickness and the
    chamber: 10 mm, 0.5 mm and 15 mm from z = -2 to 8 mm reproduce its table with Traceon itself within 0.16 V."""
    reference = [-830.39, -494.98, -173.16, -829.33, -492.49, -164.01, -825.31, -484.57, -159.28]
    radius = 15.0 * jnp.sinh(2.0 * jnp.linspace(0, 1, 96)) / jnp.sinh(2.0)
    below = jnp.linspace(-2.0, 0.0, 17)[:-1]
    height = jnp.concatenate([below, two_sections(jnp.array(0.0), jnp.array(6.0), jnp.array(8.0), 48, 32)])
    electrodes = [
        Electrode(lambda z, r: deepest(jnp.abs(z), r - 10.0), -1000.0),
        Electrode(lambda z, r: deepest(6.0 - z, z - 6.5, 1.0 - r, r - 9.0), 0.0),
        Electrode(lambda z, r: jnp.minimum(jnp.minimum(15.0 - r, 8.0 - z), z + 2.0), 0.0),
    ]
    areas = polar_areas(radius, height)
    found = jax.jit(lambda: solve_direct(connect((height, radius), areas, electrodes)).potential_v)()
    coefficients = spline_coefficients(found[16:65], (OPEN, EVEN))
    places = np.arcsinh(np.repeat([0.0, 2.0, 4.0], 3) * np.sinh(2.0) / 15.0) * (95 / 2.0)
    rows = 8.0 * np.tile([1.0, 3.0, 5.0], 3)
    sampled = jax.vmap(lambda *place: spline_sample(coefficients, place)[0])(jnp.asarray(rows), jnp.asarray(places))
    np.testing.assert_allclose(sampled, reference, atol=1.0)


def test_three_dimensions_agree_with_two():
    """Within 0.5 % of V, one 3D cell away from the plate's rims."""
    scope = biased()
    flat, solid = solve_field(scope), solve_field(scope, Cartesian())
    assert float(flat.residual) < 1e-12 and float(solid.residual) < 1e-9
    r, phi, z = jnp.meshgrid(jnp.linspace(0, 8, 33), jnp.array([0.0, 0.4, 2.0]), jnp.linspace(0, 6, 13), indexing="ij")
    positions = jnp.stack([r * jnp.cos(phi), r * jnp.sin(phi), z], axis=-1).reshape(-1, 3)
    gap = jnp.abs(jax.vmap(flat.potential_v)(positions) - jax.vmap(solid.potential_v)(positions)).reshape(r.shape)
    rim = jnp.hypot(z - 6.0, r - 1.0) < 0.2
    assert float(jnp.max(jnp.where(rim, 0.0, gap))) < 5.0


def test_tilted_plates_stay_parallel():
    """Stage and plate tilted alike: in their frame the potential of the level pair, here midway between them."""
    scope = Microscope.annular(specimen_bias_v=-1000.0, distance_mm=4.0, working_distance_mm=8.0, inner_radius_mm=0.5)
    tilts, level = (-6.0, 9.0), solve_field(scope)
    scope = eqx.tree_at(
        lambda s: (
            s.column.stage_tilt_x_deg,
            s.column.stage_tilt_y_deg,
            s.detector.tilt_x_deg,
            s.detector.tilt_y_deg,
        ),
        scope,
        tuple(jnp.array(t) for t in tilts * 2),
    )
    field = solve_field(scope, Cartesian(lateral=45, below=24, above=12))
    tan = np.tan(np.radians(tilts))
    # e_x and e_y rise by tan(ty) along x and tan(tx)/cos(ty) along y.
    slope_x, slope_y = tan[1], tan[0] / np.cos(np.radians(tilts[1]))
    for x, y in ((2.0, 0.5), (-1.5, -2.0), (0.5, 2.5)):
        position = jnp.array([x, y, slope_x * x + slope_y * y + 2.0])
        along = np.hypot(np.linalg.norm([x, y]), slope_x * x + slope_y * y)
        expected = float(level.potential_v(jnp.array([along, 0.0, 2.0])))
        assert float(field.potential_v(position)) == pytest.approx(expected, abs=10.0)


def test_unequal_biases_follow_their_segments():
    """Just under each quadrant's middle the potential is that segment's bias (segment B faces up, at y < 0)."""
    scope = Microscope.annular(distance_mm=4.0)
    biases = jnp.array([100.0, 200.0, 300.0, 400.0])
    scope = eqx.tree_at(lambda s: s.detector.segments.bias_v, scope, biases)
    assert isinstance(choose_grid(scope), Cartesian)
    field = solve_field(scope, Cartesian(lateral=45, below=24, above=12))
    for (x, y), bias in zip(((3, 0), (0, -3), (-3, 0), (0, 3)), biases, strict=True):
        assert float(field.potential_v(jnp.array([x, y, 4.0]))) == pytest.approx(float(bias), rel=1e-2)


def test_derivatives_by_voltage_sum_to_one():
    """Every electrode raised by 1 V raises every potential by 1 V."""
    r, z = jnp.linspace(0, 5, 31), jnp.linspace(0, 4, 25)

    def potential(volts):
        electrodes = [
            Electrode(lambda z, r: z, volts[0]),
            Electrode(lambda z, r: deepest(2.03 - z, z - 2.9, 0.77 - r, r - 3.1), volts[1]),
            Electrode(lambda z, r: jnp.minimum(5.0 - r, 4.0 - z), volts[2]),
        ]
        return solve_direct(connect((z, r), polar_areas(r, z), electrodes)).potential_v[9, 4]

    potential = jax.jit(potential)
    volts = jnp.array([-1000.0, 20.0, 3.0])
    reverse, forward = jax.jit(jax.grad(potential))(volts), jax.jit(jax.jacfwd(potential))(volts)
    assert float(jnp.sum(reverse)) == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)
    assert float(reverse @ volts) == pytest.approx(float(potential(volts)), rel=1e-12)


GEOMETRY = {
    "bias": lambda s: (s.column.specimen_bias_v,),
    "distance": lambda s: (s.detector.distance_mm,),
    "hole": lambda s: (s.detector.segments.inner_radius_mm,),
    "outer": lambda s: (s.detector.segments.outer_radius_mm,),
    "thickness": lambda s: (s.detector.thickness_mm,),
    "working distance": lambda s: (s.column.working_distance_mm,),
    "chamber": lambda s: (s.column.chamber_radius_mm,),
    "offset": lambda s: (s.detector.offset_x_mm,),
}


def test_derivatives_by_geometry_are_exact():
    """Forward and reverse against central differences, axisymmetric."""
    scope = Microscope.annular(
        specimen_bias_v=-1000.0, inner_radius_mm=1.037, outer_radius_mm=5.041, working_distance_mm=7.41
    )
    names = list(GEOMETRY)
    position = jnp.array([0.9, 0.4, 5.3])

    @jax.jit
    def potential(changes):
        changed = scope
        for name, change in zip(names, changes, strict=True):
            (leaf,) = GEOMETRY[name](scope)
            changed = eqx.tree_at(GEOMETRY[name], changed, (leaf + change * jnp.ones_like(leaf),))
        return solve_field(changed, COARSE).potential_v(position)

    zero = jnp.zeros(len(names))
    reverse, mix = jax.jit(jax.grad(potential))(zero), jnp.linspace(0.5, 1.5, len(names))
    forward = jax.jit(lambda c: jax.jvp(potential, (c,), (mix,))[1])(zero)
    assert float(forward) == pytest.approx(float(reverse @ mix), rel=1e-8)
    step = 1e-5
    for k, name in enumerate(names):
        change = zero.at[k].set(step)
        difference = (potential(change) - potential(-change)) / (2 * step)
        assert float(reverse[k]) == pytest.approx(float(difference), rel=1e-5, abs=1e-6), name
        assert abs(float(reverse[k])) > 1e-6, name


def test_derivatives_in_three_dimensions():
    scope = Microscope.annular(specimen_bias_v=-1000.0, inner_radius_mm=1.037, working_distance_mm=8.41)
    grid = Cartesian(lateral=25, below=14, above=10)
    position = jnp.array([0.9, 0.4, 4.8])

    @jax.jit
    def potential(changes):
        column, plate = scope.column, scope.detector
        leaves = (column.stage_tilt_y_deg, plate.tilt_x_deg, plate.distance_mm, plate.segments.bias_v)
        moved = (leaves[0] + 3.0 + changes[0], leaves[1] + 2.0 + changes[1], leaves[2] + changes[2])
        changed = eqx.tree_at(
            lambda s: (
                s.column.stage_tilt_y_deg,
                s.detector.tilt_x_deg,
                s.detector.distance_mm,
                s.detector.segments.bias_v,
            ),
            scope,
            (*moved, leaves[3].at[0].add(changes[3])),
        )
        return solve_field(changed, grid).potential_v(position)

    zero = jnp.zeros(4)
    reverse = jax.jit(jax.grad(potential))(zero)
    for k, step in enumerate((1e-4, 1e-4, 1e-5, 1.0)):
        change = zero.at[k].set(step)
        difference = (potential(change) - potential(-change)) / (2 * step)
        assert float(reverse[k]) == pytest.approx(float(difference), rel=1e-4), k


def test_field_is_the_gradient_of_its_potential_and_linear_in_bias():
    scope = biased()
    field = solve_field(scope, COARSE)
    twice = solve_field(eqx.tree_at(lambda s: s.column.specimen_bias_v, scope, jnp.array(-2000.0)), COARSE)
    for position in (jnp.array([0.3, -0.8, 4.0]), jnp.array([4.0, 2.0, 0.1]), jnp.array([0.0, 0.0, 5.9])):
        np.testing.assert_allclose(
            jax.grad(field.potential_v)(position), field.gradient_v_per_mm(position), rtol=1e-9, atol=1e-9
        )
        assert float(twice.potential_v(position)) == pytest.approx(2 * float(field.potential_v(position)), rel=1e-10)


def test_batches_equal_loops_and_numbers_do_not_retrace():
    scope = biased()
    position = jnp.array([0.5, 0.0, 5.0])
    traces = []

    @jax.jit
    def potential(distance):
        traces.append(None)
        changed = eqx.tree_at(lambda s: s.detector.distance_mm, scope, distance)
        return solve_field(changed, COARSE).potential_v(position)

    distances = jnp.array([5.5, 6.0, 6.3])
    one_by_one = [float(potential(d)) for d in distances]
    assert len(traces) == 1
    np.testing.assert_allclose(jax.vmap(potential)(distances), one_by_one, rtol=1e-10)


def test_working_precision():
    """float32 gives the float64 potential within 1e-4 of V."""
    scope = biased()
    single = jax.tree.map(lambda x: x.astype(jnp.float32), scope)
    exact, rough = solve_field(scope, COARSE), solve_field(single, COARSE)
    assert rough.coefficients.dtype == jnp.float32
    position = jnp.array([1.5, 0.2, 4.4])
    found = float(rough.potential_v(position.astype(jnp.float32)))
    assert found == pytest.approx(float(exact.potential_v(position)), abs=0.1)


def test_spline_reproduces_cubics():
    """Not-a-knot ends: every cubic is exact, with its slope; one sample beyond the end it goes on along its slope."""
    x = jnp.arange(9.0)
    coefficients = spline_coefficients(0.3 * x**3 - x**2 + 2.0, (OPEN,))
    for u in (0.0, 0.4, 3.7, 8.0):
        value, (slope,) = spline_sample(coefficients, (jnp.array(u),))
        assert float(value) == pytest.approx(0.3 * u**3 - u**2 + 2.0, abs=1e-9)
        assert float(slope) == pytest.approx(0.9 * u**2 - 2 * u, abs=1e-9)
    beyond, (slope,) = spline_sample(coefficients, (jnp.array(9.5),))
    assert float(slope) == pytest.approx(0.9 * 81 - 18, abs=1e-8)
    assert float(beyond) == pytest.approx(0.3 * 729 - 81 + 2 + 0.5 * (0.9 * 81 - 18), abs=1e-8)


@pytest.mark.parametrize("count", [5, 8, 19])
def test_positive_inverse(count):
    matrix = np.random.default_rng(0).standard_normal((count, count))
    matrix = matrix @ matrix.T + np.eye(count)
    np.testing.assert_allclose(positive_inverse(jnp.asarray(matrix)), np.linalg.inv(matrix), rtol=1e-8, atol=1e-10)


def test_choice_of_grid_and_impossible_tilts():
    scope = biased()
    assert isinstance(choose_grid(scope), Axisymmetric)
    tilted = eqx.tree_at(lambda s: s.column.stage_tilt_x_deg, scope, jnp.array(50.0))
    assert isinstance(choose_grid(tilted), Cartesian)
    with pytest.raises(InputError, match="stage_tilt"):
        solve_field(tilted)
    with pytest.raises(InputError, match="pole piece"):
        solve_field(eqx.tree_at(lambda s: s.detector.tilt_y_deg, scope, jnp.array(20.0)))
