"""Electrons flying from the specimen to the detector plane.

Momentum form with the relativistic mass, in units made from the electron's own start: lengths in mm, momentum in units
of the initial momentum, time in mm flown at the initial speed. Everything is then of order one, also in float32.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eclipsjax._types import Scalar, as_real, image_direction
from eclipsjax.instrument.plane import Plane, Vector, level_plane

REST_ENERGY_KEV = 510.99895
LANDED, RETURNED, LOST = 0, 1, 2


class Flight(eqx.Module):
    """The end of one electron's flight.

    - `position_mm`: where it ended, mm, image axes (on the detector plane if landed, on the specimen's if returned).
    - `momentum`: `(3,)` at the end, in units of the initial momentum.
    - `status`: 0 landed on the detector plane, 1 returned to the specimen, 2 lost (left the chamber, ran out of steps).
    - `energy_error`: (kinetic - potential energy) at the end minus that at the start, over the initial kinetic energy.
    - `steps`: steps the integrator took.

    Gradient: as `trace`; zero in the status and the steps.
    """

    position_mm: Vector
    momentum: Vector
    status: Int[Array, ""]
    energy_error: Scalar
    steps: Int[Array, ""]

    @property
    def landed(self) -> Array:
        """Whether the electron reached the detector plane."""
        return self.status == LANDED


def trace(
    field: Any,
    start_mm: Vector,
    direction: Vector,
    energy_kev: Scalar,
    plane: Plane,
    *,
    floor: Plane | None = None,
    step: Any = 0.1,
    tolerance: float | None = None,
    solver: Any = None,
    controller: Any = None,
    adjoint: Any = None,
    max_steps: int = 256,
) -> Flight:
    """Fly one electron until it crosses `plane` upward (landed) or `floor` downward (returned).

    d x / d tau = p W0 / W,  d p / d tau = (W0 / P0^2) grad U,  W = sqrt(P0^2 p^2 + (m c^2)^2), with p in units of the
    initial momentum P0 and tau in mm flown at the initial speed. The integrator's own variable s runs slower near
    `plane`, where the rims of the electrodes are: d tau / d s = sqrt(h^2 + (D^2 + l^2) / 400), h the height left of the
    D at the start, l the distance from the start. The crossing is found on the step's interpolant.

    - `field`: anything whose `sample(position_mm)` gives the potential (V) and its gradient (V/mm).
    - `start_mm`, `direction`: `(3,)` image axes (x right, y down, z up), the direction a unit vector.
    - `energy_kev`: kinetic energy at the start.
    - `floor`: by default the level plane through the start.
    - `step`: constant step in s, about the share of the remaining way flown in a step; with `tolerance`, the first
      step.
    - `tolerance`: adapts the steps to this relative error each (the absolute one is a tenth of it, in mm). Where you
      differentiate stay above 1e-9 in float64, and at constant steps in float32: below, rounding decides the step
      sizes, the reverse pass repeats them differently, and its gradient is wrong (measured: by 7 % at 1e-11).
    - `solver`, `controller`, `adjoint`: diffrax objects (default `Tsit5()`, constant steps, `DirectAdjoint()`, which
      differentiates both ways; `RecursiveCheckpointAdjoint()` is reverse only and slow through a shared field).
    - `max_steps`: bound on their number; an electron that needs more is lost.

    Batch with `jax.vmap`. Gradient: exact for the discretised flight with constant steps, the moment of crossing
    included; it diverges where electrons just fail to reach the plane, and means nothing where the status is 2.
    """
    dtype = jnp.result_type(*map(as_real, (start_mm, direction, energy_kev)))
    start, heading, energy = (as_real(v).astype(dtype) for v in (start_mm, direction, energy_kev))
    floor = Plane(start, level_plane(start[2]).axes) if floor is None else floor
    return _trace(
        field, start, heading, energy, plane, floor, step, tolerance, (solver, controller, adjoint), max_steps
    )


@eqx.filter_jit
def _trace(field, start, direction, energy, plane, floor, step, tolerance, choices, max_steps) -> Flight:
    import diffrax
    import optimistix

    from eclipsjax.instrument.steady_steps import SteadySteps

    solver, controller, adjoint = choices
    dtype = start.dtype
    first_step = jnp.asarray(step, dtype)
    if controller is None and tolerance is None:
        controller, first_step = SteadySteps(first_step), None
    elif controller is None:
        controller = diffrax.PIDController(rtol=tolerance, atol=0.1 * tolerance)
    gap = jnp.maximum(jnp.abs(plane.height_mm(start)), 1e-3)
    momentum_squared = energy * (energy + 2 * REST_ENERGY_KEV)
    full_energy = energy + REST_ENERGY_KEV

    def motion(s, y, args):
        field, plane, start, gap, momentum_squared, full_energy = args
        position, momentum = y
        away = position - start
        pace = jnp.sqrt(plane.height_mm(position) ** 2 + 0.05**2 * (gap**2 + jnp.vdot(away, away)))
        _, slope = field.sample(position)
        total = jnp.sqrt(momentum_squared * jnp.vdot(momentum, momentum) + REST_ENERGY_KEV**2)
        return momentum * (pace * full_energy / total), slope * (1e-3 * pace * full_energy / momentum_squared)

    def above_plane(t, y, args, **kwargs):
        return plane.height_mm(y[0])

    def above_floor(t, y, args, **kwargs):
        return floor.height_mm(y[0])

    accuracy = 1e-12 if dtype == jnp.float64 else 1e-6
    flown = diffrax.diffeqsolve(
        diffrax.ODETerm(motion),
        diffrax.Tsit5() if solver is None else solver,
        t0=jnp.zeros((), dtype),
        t1=jnp.full((), 200.0, dtype),
        dt0=first_step,
        y0=(start, direction),
        args=(field, plane, start, gap, momentum_squared, full_energy),
        stepsize_controller=controller,
        adjoint=diffrax.DirectAdjoint() if adjoint is None else adjoint,
        event=diffrax.Event([above_plane, above_floor], optimistix.Newton(accuracy, accuracy), direction=[True, False]),
        max_steps=max_steps,
        throw=False,
    )
    position, momentum = flown.ys[0][-1], flown.ys[1][-1]
    landed, returned = flown.event_mask
    returned = returned | (~landed & (floor.height_mm(position) < 0))
    wall = getattr(field, "radius_mm", None)
    outside = jnp.array(False) if wall is None else position[0] ** 2 + position[1] ** 2 > wall**2
    status = jnp.where(outside, LOST, jnp.where(landed, LANDED, jnp.where(returned, RETURNED, LOST)))

    def excess(position, momentum):
        squared = momentum_squared * jnp.vdot(momentum, momentum)
        kinetic = squared / (jnp.sqrt(squared + REST_ENERGY_KEV**2) + REST_ENERGY_KEV)
        return kinetic - 1e-3 * field.sample(position)[0]

    drift = (excess(position, momentum) - excess(start, direction)) / energy
    return Flight(position, momentum, status.astype(jnp.int32), drift, flown.stats["num_steps"])


def uniform_landing_radius(distance_mm: Array, theta: Array, ratio: Array) -> Array:
    """Where an electron comes down, from the point under it, in a uniform field (not relativistic), mm.

    r = 2 D sin(theta) / (sqrt(cos^2 theta + u) + cos theta), the parabola written so that u -> 0 is no special case;
    an electron that turns round (`uniform_returns`) comes down on the specimen at r = 4 D sin(theta) cos(theta) / (-u).

    - `distance_mm`: specimen to plate; `theta`: polar angle of emission, radians, up to pi/2.
    - `ratio`: u, potential difference over emission energy, positive where it speeds electrons up.

    Gradient: exact on either side of the return condition, where it jumps (and diverges on the landing side).
    """
    cosine, sine = jnp.cos(theta), jnp.sin(theta)
    back = uniform_returns(theta, ratio)
    final = jnp.sqrt(jnp.where(back, 1.0, cosine**2 + ratio))
    landing = 2 * distance_mm * sine / jnp.where(back, 1.0, final + cosine)
    returning = 4 * distance_mm * sine * cosine / jnp.where(back, -ratio, 1.0)
    return jnp.where(back, returning, landing)


def uniform_returns(theta: Array, ratio: Array) -> Array:
    """Whether a uniform field turns the electron back: u < -cos^2(theta). Arguments as `uniform_landing_radius`.

    Gradient: zero (a truth value).
    """
    return ratio < -(jnp.cos(theta) ** 2)


def emission_direction(theta: Array, phi: Array) -> Float[Array, "... 3"]:
    """Unit vectors in image axes (x right, y down, z up) of polar angle `theta` and azimuth `phi` (radians,
    counter-clockwise as seen in the image). Gradient: exact."""
    along_x, along_y = image_direction(phi)
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    return jnp.stack(jnp.broadcast_arrays(sine * along_x, sine * along_y, cosine * jnp.ones_like(along_x)), axis=-1)
