"""Electrons flying from the specimen to the detector plane.

Momentum form with the relativistic mass, in units made from the electron's own start: lengths in mm, momentum in units of the
initial momentum, time in mm flown at the initial speed. Everything is then of order one, also in float32.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from eclipsjax._types import Scalar, as_real, image_direction
from eclipsjax.instrument.plane import Plane, Vector, level_plane

REST_ENERGY_KEV = 510.99895
LANDED, RETURNED, LOST = 0, 1, 2


class Flight(eqx.Module):
    """The end of one electron's flight.

    - `position_mm`: where it ended, mm, image axes (on the detector plane if landed, on the specimen's if returned).
    - `momentum`: `(3,)` at the end, in units of the initial momentum.
    - `status`: 0 landed on the detector plane, 1 returned to the specimen, 2 lost (left the chamber, or ran out of steps).
    - `energy_error`: (kinetic - potential energy) at the end minus that at the start, over the initial kinetic energy.
    - `steps`: steps the integrator took.
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
    tolerance: float | None = None,
    solver: Any = None,
    controller: Any = None,
    adjoint: Any = None,
    first_step: float = 0.1,
    max_steps: int = 256,
) -> Flight:
    """Fly one electron until it crosses `plane` upward (landed) or `floor` downward (returned).

    d x / d tau = p W0 / W,  d p / d tau = (W0 / P0^2) grad U,  W = sqrt(P0^2 p^2 + (m c^2)^2), with p in units of the
    initial momentum P0 and tau in mm flown at the initial speed; the crossing is found on the step's interpolant.

    - `field`: anything whose `sample(position_mm)` gives the potential (V) and its gradient (V/mm).
    - `start_mm`, `direction`: `(3,)` image axes (x right, y down, z up), the direction a unit vector.
    - `energy_kev`: kinetic energy at the start.
    - `floor`: by default the level plane through the start.
    - `tolerance`: relative, per step (default 1e-9 in float64, 1e-5 in float32); the absolute one is a tenth of it, in mm.
    - `solver`, `controller`, `adjoint`: diffrax objects (default `Tsit5()`, `PIDController`, `DirectAdjoint()`, which
      differentiates in both directions; `RecursiveCheckpointAdjoint()` is reverse only and slow through a shared field).
    - `first_step`: first (or constant) step in units of the distance to `plane`; `max_steps` bounds their number.

    Batch with `jax.vmap`. Gradient: exact for the discretised flight, the moment of crossing included; it diverges where
    electrons just fail to reach the plane, and means nothing where the status is 2.
    """
    dtype = jnp.result_type(*map(as_real, (start_mm, direction, energy_kev)))
    start, heading, energy = (as_real(v).astype(dtype) for v in (start_mm, direction, energy_kev))
    floor = Plane(start, level_plane(start[2]).axes) if floor is None else floor
    choices = solver, controller, adjoint
    return _trace(field, start, heading, energy, plane, floor, tolerance, choices, first_step, max_steps)


@eqx.filter_jit
def _trace(field, start, direction, energy, plane, floor, tolerance, choices, first_step, max_steps) -> Flight:
    import diffrax
    import optimistix

    solver, controller, adjoint = choices
    dtype = start.dtype
    if tolerance is None:
        tolerance = 1e-9 if dtype == jnp.float64 else 1e-5
    if controller is None:
        controller = diffrax.PIDController(rtol=tolerance, atol=0.1 * tolerance)
    scale = lax.stop_gradient(jnp.maximum(jnp.abs(plane.height_mm(start)), 1e-3))
    momentum_squared = energy * (energy + 2 * REST_ENERGY_KEV)
    full_energy = energy + REST_ENERGY_KEV

    def motion(t, y, args):
        field, momentum_squared, full_energy = args
        position, momentum = y
        _, slope = field.sample(position)
        total = jnp.sqrt(momentum_squared * jnp.vdot(momentum, momentum) + REST_ENERGY_KEV**2)
        return momentum * (full_energy / total), slope * (1e-3 * full_energy / momentum_squared)

    def above_plane(t, y, args, **kwargs):
        return plane.height_mm(y[0])

    def above_floor(t, y, args, **kwargs):
        return floor.height_mm(y[0])

    crossing = optimistix.Newton(rtol=0.1 * tolerance, atol=0.1 * tolerance)
    flown = diffrax.diffeqsolve(
        diffrax.ODETerm(motion),
        diffrax.Tsit5() if solver is None else solver,
        t0=jnp.zeros((), dtype),
        t1=60 * scale,
        dt0=first_step * scale,
        y0=(start, direction),
        args=(field, momentum_squared, full_energy),
        stepsize_controller=controller,
        adjoint=diffrax.DirectAdjoint() if adjoint is None else adjoint,
        event=diffrax.Event([above_plane, above_floor], crossing, direction=[True, False]),
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
    """Whether a uniform field turns the electron back: u < -cos^2(theta). Arguments as `uniform_landing_radius`."""
    return ratio < -(jnp.cos(theta) ** 2)


def emission_direction(theta: Array, phi: Array) -> Float[Array, "... 3"]:
    """Unit vectors in image axes (x right, y down, z up) of polar angle `theta` and azimuth `phi` (radians,
    counter-clockwise as seen in the image). Gradient: exact."""
    along_x, along_y = image_direction(phi)
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    return jnp.stack(jnp.broadcast_arrays(sine * along_x, sine * along_y, cosine * jnp.ones_like(along_x)), axis=-1)
