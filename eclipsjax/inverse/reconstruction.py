"""What a reconstruction gives back, and how it ended."""

from __future__ import annotations

import enum
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from eclipsjax._types import Map, NormalMap, Scalar, SignalStack
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.calibration import Calibration

# Share of a segment's signal: where the relief takes as much, a pixel counts as occluded.
OCCLUDED = 0.02


class Outcome(enum.Enum):
    """How a reconstruction ended, with the sentence that says it."""

    CLOSED_FORM = "Solved in closed form: every pixel by itself, what the relief hides not accounted for."
    ONE_PASS = "Solved in one pass: a trained network's normals, what the relief hides taken out before."
    CONVERGED = "Converged: no small change of the heights explains the images better."
    STALLED = "Stalled: no step led further down although the slope is not 0; heights are the best found."
    OUT_OF_STEPS = "Out of steps: still improving when `iterations` were done; heights are the best found so far."
    UNEXPLAINED = "Settled, but the images differ from the model by more than their noise; heights are the best found."
    DIVERGED = "Diverged: numbers ran away; heights are the best found until then."
    INTERRUPTED = "Interrupted: heights are the best found until then."

    @property
    def as_hoped(self) -> bool:
        """Whether the method did all that it promises."""
        return self in (Outcome.CLOSED_FORM, Outcome.ONE_PASS, Outcome.CONVERGED)


class Found(eqx.Module):
    """What a method finds.

    - `height_nm`: `(y, x)`, nm, mean 0. `height_std_nm`: its standard deviation about the mean, nm.
    - `normals`: `(y, x, 3)` unit normals, image axes (x right, y down, z up).
    - `slope_std`: `(2, y, x)` standard deviations of dz/dx and dz/dy.
    - `residual`: `(segment, y, x)` measured less explained, in units of each channel's noise.
    - `occluded`: `(y, x)` true where the relief takes at least 2 % of a segment's signal away.
    - `brightness`: `(y, x)` what multiplies the signal, in the levels' units.
    - `chi_square`: mean squared residual per degree of freedom: 1 where the model explains the images.
    - `history`: `(step, 2)` value and chi-square per degree of freedom after each step.
    - `calibration`: the numbers that were solved along, with their covariance; None where there were none.
    - `outcome`: how it ended; `warnings`: sentences (both static).

    Gradient: none (a search made it); `photometric_slopes` and `integrate` are differentiable.
    """

    height_nm: Map
    height_std_nm: Map
    normals: NormalMap
    slope_std: Float[Array, "2 y x"]
    residual: SignalStack
    occluded: Bool[Array, "y x"]
    brightness: Map
    chi_square: Scalar
    history: Float[Array, "step 2"]
    calibration: Calibration | None
    outcome: Outcome = eqx.field(static=True)
    warnings: tuple[str, ...] = eqx.field(static=True)


class Reconstruction(Found):
    """Heights with all that is known about them: what was found and from what.

    See `Found` for `height_nm`, `height_std_nm`, `normals`, `slope_std`, `residual`, `occluded`, `brightness`,
    `chi_square`, `history`, `calibration`, `outcome` and `warnings`.

    - `scope`: the microscope as calibrated along the way; `pixel_size_nm`: nm.
    - `noise`: `(segment,)` standard deviation of each channel, in the levels' units.
    - `method`: what reconstructed.

    Gradient: none.
    """

    scope: Microscope
    pixel_size_nm: Scalar
    noise: Float[Array, "segment"]
    method: Any

    @property
    def solved(self) -> dict[str, tuple[float, float]]:
        """Value and standard deviation of each instrument number that was solved along, in its unit."""
        return {} if self.calibration is None else self.calibration.solved

    @property
    def sentence(self) -> str:
        """How it ended, in words."""
        return self.outcome.value

    @property
    def occluded_share(self) -> float:
        """Share of the pixels from which the relief hides part of the detector."""
        return float(jnp.mean(self.occluded))
