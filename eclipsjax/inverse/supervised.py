"""Heights in one pass: physics takes out what the relief hides, a trained network gives the normals, then integration.

A second where the search takes minutes, at the price of what only a search finds: heights that explain every pixel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import Map, Scalar, SignalStack, whole_number
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.inverse.brought_back import brought_back_px
from eclipsjax.inverse.explained import left_by
from eclipsjax.inverse.height_std import height_std
from eclipsjax.inverse.integrate import integrate
from eclipsjax.inverse.integrators.outlying import typical
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.method import Method, Progress, Task
from eclipsjax.inverse.photometric import check_directions
from eclipsjax.inverse.reconstruction import OCCLUDED, Found, Outcome
from eclipsjax.inverse.unhidden import believed_by, evidence_of
from eclipsjax.nn.dsm import HIGHEST_DEG, LOWEST_DEG, DeepSimulator, check_range, rims_rad
from eclipsjax.nn.evidence import Answer, Evidence, unit_normals
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.nn.unet import FEWEST_SEGMENTS, LEAST_RATIO, MOST_SEGMENTS, NormalNet
from eclipsjax.nn.vft import VisionFieldTransformer
from eclipsjax.specimen.surface import Surface

# Pixels each way behind the spread of the brightness.
_SAMPLED = 200
# Median of the mean square of two normal deviates.
_MEDIAN_OF_MEAN_OF_TWO = math.log(2.0)
_TRAINED, _COMPARE = "the network was trained for", "compare with Refined()"


class Supervised(Method):
    """Normals by a trained network in one pass, then integration, with what cleaning took of the relief brought back.

    - `network`: `NormalNet`, the shipped one unless given. `simulator`: what says from normals what is hidden:
      `VisionFieldTransformer` (the shipped one unless given), or `DeepSimulator`, quicker and coarser.
    - `integrator`: as `method` of `integrate`, least squares (`Poisson()`) unless given.
    - `rounds` (static): how often what is hidden is looked for anew.

    Standard deviations of normals are the network's own, for microscopes known as well as those of its lessons: half of
    them exactly, half within 5 % of gain and 10 % of distance. Those of heights follow from the images' noise or from
    these, whichever is more.
    Gradient: none through `reconstruct`; `evidence_of` and the network are differentiable.
    """

    network: NormalNet | None = None
    simulator: FromNormals | None = None
    integrator: Any = eqx.field(default_factory=Poisson)
    rounds: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        whole_number("rounds", self.rounds, 1)

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """In one go: nothing to report."""
        check_directions(task.table, task.law)
        network, simulator = networks(task.table, self.network, self.simulator)
        found = one_pass(task, network, simulator, self.integrator, self.rounds)
        return dataclasses.replace(found, warnings=unlike_training(task))


def networks(
    table: AcceptanceTable, network: NormalNet | None, simulator: FromNormals | None
) -> tuple[NormalNet, FromNormals]:
    """Those given, or the shipped ones; refuses a detector that the simulator does not know."""
    simulator = VisionFieldTransformer.shipped() if simulator is None else simulator
    if isinstance(simulator, DeepSimulator):
        check_range(table)
    return NormalNet.shipped() if network is None else network, simulator


def one_pass(task: Task, network: NormalNet, simulator: FromNormals, integrator: Any, rounds: int) -> Found:
    """Images to heights; may be traced. Gradient: exact in levels and parameters for what is hidden held fixed."""
    rest = task.emission, task.pixel_size_nm, rounds
    evidence = evidence_of(task.measurement, task.table, simulator, *rest)
    return found_by_network(task, simulator, evidence, network(evidence), integrator)


def found_by_network(task: Task, simulator: FromNormals, evidence: Evidence, answer: Answer, integrator: Any) -> Found:
    """Heights of the network's normals, with what the simulator makes of them compared with the images."""
    m, (cleaned, doubt) = task.measurement, answer
    height = integrate(*cleaned, task.pixel_size_nm, integrator)
    height = height + task.pixel_size_nm * brought_back_px(cleaned, evidence)
    surface = Surface(height - jnp.mean(height), task.pixel_size_nm)
    slopes = jnp.stack(surface.slopes())
    spread = task.spread_of(_sample(jnp.sqrt(jnp.sum(evidence.closed_form**2, axis=0))))
    seen = believed_by(simulator, slopes, task.table, task.emission, task.pixel_size_nm).signal
    left, brightness = _left(seen, task, spread)
    taken = 2.0 * _kept(slopes, evidence) + jnp.where(spread > 0, 1.0, 0.0)
    freedom = jnp.sum(m.measured.astype(height.dtype)) - taken * height.size
    residual = left / m.std[:, None, None]
    noise = jnp.maximum(typical(evidence.noise), typical(doubt))
    return Found(
        height_nm=surface.height_nm,
        height_std_nm=height_std(Poisson(), height.shape, noise, task.pixel_size_nm),
        normals=surface.normals(),
        slope_std=_slope_std(slopes, doubt),
        residual=residual,
        occluded=jnp.max(evidence.hidden, axis=0) > OCCLUDED,
        brightness=brightness,
        chi_square=(jnp.sum(residual**2) / jnp.maximum(freedom, 1.0)).astype(height.dtype),
        history=jnp.zeros((0, 2), height.dtype),
        calibration=None,
        outcome=Outcome.ONE_PASS,
        warnings=(),
    )


def _sample(brightness: Map) -> Map:
    """Some hundred pixels each way tell as well how it is spread, and are sorted sooner."""
    rows, columns = (max(n // _SAMPLED, 1) for n in brightness.shape)
    return brightness[::rows, ::columns]


def _kept(slopes: Float[Array, "2 y x"], evidence: Evidence) -> Scalar:
    """Share of the noise's variance that cleaning left in the slopes: each takes as much of a pixel's freedom."""
    removed = evidence.normals[:2] - unit_normals(slopes)[:2]
    square = typical(jnp.mean(removed**2, axis=0) / evidence.noise**2) / _MEDIAN_OF_MEAN_OF_TWO
    return jnp.clip(1.0 - square, 0.0, 1.0)


@jax.jit
def _left(seen: SignalStack, task: Task, spread: Scalar) -> tuple[SignalStack, Map]:
    """Levels less what the spot makes of a simulated signal, and the brightness."""
    return left_by(task.blurred(seen), task.measurement, spread)


def _slope_std(slopes: Float[Array, "2 y x"], doubt: Map) -> Float[Array, "2 y x"]:
    """Of both slopes, from that of the normal's angle, alike along and across."""
    steep = 1.0 + jnp.sum(slopes**2, axis=0)
    return doubt[None] * jnp.sqrt(steep[None] * (1.0 + slopes**2))


def unlike_training(task: Task) -> tuple[str, ...]:
    """What about these images the network was not trained for, in sentences, each with the measure that says so."""
    said = []
    level = task.measurement.level
    count = level.shape[0]
    if not FEWEST_SEGMENTS <= count <= MOST_SEGMENTS:
        said.append(f"the detector has {count} segments; {_TRAINED} {FEWEST_SEGMENTS} to {MOST_SEGMENTS}: {_COMPARE}.")
    ratio = float(jnp.min(jnp.mean(level, axis=(1, 2)) / task.measurement.std))
    if ratio < LEAST_RATIO:
        said.append(
            f"signal over noise is {ratio:.2g} in the noisiest segment; {_TRAINED} {LEAST_RATIO:g} and more: average "
            f"frames, or {_COMPARE}."
        )
    low, high = jnp.rad2deg(rims_rad(task.table)).tolist()
    if low < LOWEST_DEG or high > HIGHEST_DEG:
        said.append(
            f"the detector reaches from {low:.3g} to {high:.3g} deg off the axis; {_TRAINED} {LOWEST_DEG:g} to "
            f"{HIGHEST_DEG:g}: {_COMPARE}."
        )
    return tuple(said)
