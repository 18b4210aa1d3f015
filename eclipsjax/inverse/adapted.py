"""What a closed loop has learned, for all further images of the same microscope: one pass each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, Scalar, SignalStack
from eclipsjax.inverse.brought_back import slopes_of_relief
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.method import Method, Progress, Task
from eclipsjax.inverse.photometric import check_directions, flat_response
from eclipsjax.inverse.reconstruction import Found
from eclipsjax.inverse.supervised import found_by_network, unlike_training
from eclipsjax.inverse.unhidden import Fit, believed_by, evidence_with, unseen_by
from eclipsjax.nn.evidence import Answer, Evidence, unit_normals
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.nn.place import Place
from eclipsjax.nn.unet import NormalNet

# Rounds of looking for what is hidden, in the beginning and from what is known already.
LOOKS, MORE_LOOKS = 4, 2


class LevelPixel(eqx.Module):
    """Signals of a level pixel, `(segment,)`, and their relative change with its slopes, `(segment, 2)`."""

    signal: PerSegment
    lean: Float[Array, "segment 2"]

    @classmethod
    def of(cls, task: Task) -> LevelPixel:
        """Averaged over the field. Gradient: exact in the table."""
        shape = task.measurement.level.shape[1:]
        flat = jnp.mean(flat_response(task.table, task.law, shape, task.pixel_size_nm), axis=(2, 3))
        flat = flat.astype(task.measurement.level.dtype)
        return cls(flat[:, 0], flat[:, 1:] / flat[:, :1])

    def factors(self, config: Any, missed: Any, seen: Seen, place: Place | None = None) -> tuple[SignalStack, Scalar]:
        """What the microscope's signal is over the simulator's, `(segment, y, x)`, and how unlikely that is.
        Gradient: exact."""
        from eclipsjax.nn.finetune import factors

        return factors(config, missed, *seen, self.signal, self.lean, place)


class Seen(NamedTuple):
    """A surface as the simulator sees it: unit normals `(3, y, x)` along (dz/dx, dz/dy, 1), and its signal."""

    normals: Float[Array, "3 y x"]
    signal: SignalStack

    @classmethod
    def level(cls, task: Task, flat: LevelPixel) -> Seen:
        """Of level ground."""
        shape = task.measurement.level.shape
        normals = jnp.zeros((3, *shape[1:]), flat.signal.dtype).at[2].set(1.0)
        return cls(normals, jnp.broadcast_to(flat.signal[:, None, None], shape))


def fit_of(measurement: Measurement, task: Task) -> Fit:
    """Of these levels in place of the task's own. Gradient: exact in levels and table."""
    return Fit.of(measurement, task.table, task.emission, task.pixel_size_nm)


def seen_by(network: NormalNet, evidence: Evidence, simulator: FromNormals, task: Task) -> Seen:
    """The surface that the network believes. Gradient: exact in the network and the evidence."""
    slopes = slopes_of_relief(network(evidence).slopes, evidence)
    believed = believed_by(simulator, slopes, task.table, task.emission, task.pixel_size_nm)
    return Seen(unit_normals(slopes), believed.signal)


@jax.jit
def without(factor: SignalStack, measurement: Measurement) -> Measurement:
    """The levels that the physics alone would have made, if it is off by this factor. Gradient: exact."""
    return dataclasses.replace(measurement, level=measurement.level / factor)


class Adapted(Method):
    """One pass of a network that a closed loop has taught, with what the physics misses taken out of the images.

    - `network`, `simulator`, `integrator`: as in `Supervised`. `doubter`: the network before it was taught, which still
      says how far off normals may be: the loop teaches nothing of that.
    - `missed`, `missed_config` (static): what the physics misses, see `eclipsjax.nn.finetune`.

    For images of the microscope and the kind of specimen that it was adapted to: see `adapted`. Gradient: none.
    """

    network: NormalNet
    doubter: NormalNet
    simulator: FromNormals
    missed: Any
    missed_config: Any = eqx.field(static=True)
    integrator: Any = eqx.field(default_factory=Poisson)

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """In one go: nothing to report."""
        return self.found_from(task, *self.corrected(task))

    def found_from(self, task: Task, corrected: Task, evidence: Evidence) -> Found:
        """From what `corrected` gives of the task on."""
        answer = Answer(self.network(evidence).slopes, self.doubter(evidence).doubt)
        found = found_by_network(corrected, self.simulator, evidence, answer, self.integrator)
        return dataclasses.replace(found, warnings=unlike_training(task))

    def corrected(self, task: Task) -> tuple[Task, Evidence]:
        """The task with what the physics misses taken out of its levels, and what physics then makes of them.

        Factors need the surface, which needs the factors: first those of level ground, then those of what came out.
        """
        count = task.measurement.level.shape[0]
        if count != self.missed_config.segments:
            raise InputError(
                f"there are {count} segments, but this was adapted to images of {self.missed_config.segments}: adapt "
                "it to these."
            )
        check_directions(task.table, task.law)
        flat = LevelPixel.of(task)
        seen, unseen, measurement = Seen.level(task, flat), None, task.measurement
        for looks in (LOOKS, MORE_LOOKS):
            factor, _ = flat.factors(self.missed_config, self.missed, seen)
            corrected = without(factor, measurement)
            fit = fit_of(corrected, task)
            unseen = unseen_by(fit, self.simulator, looks, unseen)
            evidence = evidence_with(unseen, fit)
            seen = seen_by(self.network, evidence, self.simulator, task)
        return dataclasses.replace(task, measurement=corrected), evidence
