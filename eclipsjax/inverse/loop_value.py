"""What the self-supervised loop goes down: how badly the images are told from noisier ones of the same scene.

So that a network does not learn their noise, images are taken apart into two noisier sets whose noise is independent
(recorrupted-to-recorrupted, Pang and others 2021): y + a z goes in, y - z / a must come out, z drawn as the noise is.
What tells the second best is then what tells the images without their noise best. Between the network's normals and
the simulator stand heights: normals that belong to no surface explain nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._types import PerSegment, Scalar, SignalStack
from eclipsjax.inverse.adapted import LevelPixel, Seen, fit_of, seen_by, without
from eclipsjax.inverse.explained import left_by
from eclipsjax.inverse.measurement import Measurement
from eclipsjax.inverse.method import Task
from eclipsjax.inverse.misfit import DISCOUNT, held_back
from eclipsjax.inverse.tiles import centre_mm
from eclipsjax.inverse.unhidden import Unseen, evidence_with
from eclipsjax.nn.evidence import Answer, Evidence, slopes_along
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.nn.place import Place
from eclipsjax.nn.unet import NormalNet

# a: how much more noise goes in, over the noise there is; 1 / a of it has what must come out.
_APART = 0.5
_FARTHER = 1.0 + 1.0 / _APART**2
# Residuals, in standard deviations, beyond which a level pulls no harder.
_OUTLIER = 6.0
# Share of what it says is hidden by which a simulator may be off.
_OF_HIDDEN = 0.1
# Pixels along the border of a part of the image that do not count: what hides them may lie outside.
_MARGIN = 16


class Learnt(NamedTuple):
    """What the loop moves: parameters of the network and of what the physics misses."""

    network: Any
    missed: Any


class Known(eqx.Module):
    """What the whole loop holds fixed of one set of images: the task, its level pixel, the typical brightness, the
    yield's spread, how level the specimen is, and which share of all that is unlikely falls to these images."""

    task: Task
    simulator: FromNormals
    flat: LevelPixel
    brightness: Scalar
    spread: Scalar
    level_information: Scalar
    share: Scalar
    network_config: Any = eqx.field(static=True)
    missed_config: Any = eqx.field(static=True)

    def factors(self, learnt: Learnt, given: Given) -> tuple[SignalStack, Scalar]:
        """Those of `LevelPixel`, of the part that is given. Gradient: exact."""
        return self.flat.factors(self.missed_config, learnt.missed, given.seen, given.place)

    def task_of(self, place: Place) -> Task:
        """The task with what the detector accepts as seen from a part of the image. Gradient: exact."""
        if place.is_all:
            return self.task
        start, pixel = jnp.stack([place.top, place.left]).astype(self.spread.dtype), self.task.pixel_size_nm
        table = self.task.table.of_part(centre_mm(start, place.shape, place.whole, pixel))
        return dataclasses.replace(self.task, table=table)


class Given(eqx.Module):
    """What a round holds fixed: two sets of noisier levels, what is hidden, the surface as it was last seen, what each
    level weighs, and of which part of the image.

    `beyond`: by how much the whole surface's mean slopes exceed this part's, `(2,)`.
    """

    entered: Measurement
    asked: Measurement
    unseen: Unseen
    seen: Seen
    weight: SignalStack
    place: Place
    beyond: Float[Array, "2"]

    def part(self, place: Place) -> Given:
        """Of a part of the image. Gradient: exact."""
        maps = self.entered, self.asked, self.unseen, self.seen, self.weight
        slopes = slopes_along(self.seen.normals)
        beyond = jnp.mean(slopes, axis=(1, 2)) - jnp.mean(place.of(slopes), axis=(1, 2))
        return Given(*place.of(maps), place, beyond)


class Judged(NamedTuple):
    """Value, mean square of what the images' noise leaves (1 if nothing else), and the surface that came out."""

    value: Scalar
    chi_square: Scalar
    seen: Seen


@jax.jit
def apart(measurement: Measurement, key: Array) -> tuple[Measurement, Measurement]:
    """Two noisier measurements whose noise is independent; levels that were cut off stay. Gradient: none."""
    m = measurement
    own, common = jax.random.split(key)
    std = m.std[:, None, None]
    share = m.noise.common.astype(m.level.dtype)
    counted = jnp.maximum(m.level, 0.0) / m.noise.electrons.astype(m.level.dtype)
    drawn = jnp.sqrt((1.0 - share) * std**2 + counted) * jax.random.normal(own, m.level.shape, m.level.dtype)
    drawn += jnp.sqrt(share) * std * jax.random.normal(common, (1, *m.level.shape[1:]), m.level.dtype)
    drawn = jnp.where(m.measured, drawn, 0.0)
    more = math.sqrt(1.0 + _APART**2)
    noisier = dataclasses.replace(
        m.noise, additive_std=more * m.noise.additive_std, electrons=m.noise.electrons / more**2
    )
    entered = dataclasses.replace(m, level=m.level + _APART * drawn, noise=noisier)
    return entered, dataclasses.replace(m, level=m.level - drawn / _APART)


@jax.jit
def weight_of(answer: Answer, evidence: Evidence, flat: LevelPixel, brightness: Scalar, std: PerSegment) -> SignalStack:
    """What a level weighs, at most 1: less where the model may be off by more than the noise, `(segment, y, x)`.

    By as much as the network doubts its normals, and by a share of what the simulator says is hidden. Else what the
    network smooths and the simulator rounds would be taken for the microscope's. Gradient: none.
    """
    leaning = jnp.sqrt(jnp.sum(flat.lean**2, axis=1))[:, None, None]
    off = (leaning * answer.doubt[None]) ** 2 + (_OF_HIDDEN * evidence.hidden) ** 2
    of_level = (brightness * flat.signal / std)[:, None, None]
    return jax.lax.stop_gradient(1.0 / (1.0 + of_level**2 * off))


def corrected(learnt: Learnt, given: Given, known: Known) -> Measurement:
    """What entered, as the physics alone would have made it. Gradient: exact."""
    return without(known.factors(learnt, given)[0], given.entered)


def judged(learnt: Learnt, given: Given, known: Known) -> Judged:
    """Half the sum of squared residuals, outliers held, with what is expected of the rest. Gradient: exact in what is
    learnt."""
    task = known.task_of(given.place)
    factor, unlikely = known.factors(learnt, given)
    evidence = evidence_with(given.unseen, fit_of(without(factor, given.entered), task))
    seen = seen_by(NormalNet(learnt.network, known.network_config, ""), evidence, known.simulator, task)
    value, chi_square = _value(factor, unlikely, seen, given, known)
    return Judged(value, chi_square, jax.lax.stop_gradient(seen))


@jax.jit
def _value(factor: SignalStack, unlikely: Scalar, seen: Seen, given: Given, known: Known) -> tuple[Scalar, Scalar]:
    task = known.task
    left, _ = left_by(task.blurred(factor * seen.signal), given.asked, known.spread)
    square = (left / task.measurement.std[:, None, None]) ** 2 / _FARTHER
    robust = held_back(square, _OUTLIER)
    weight = _within(given.weight, given.place)
    counted = math.prod(given.place.whole) / math.prod(_within(seen.signal, given.place).shape[1:])
    lean = jnp.mean(slopes_along(seen.normals), axis=(1, 2)) + given.beyond
    value = 0.5 * _FARTHER * counted * jnp.sum(weight * _within(robust, given.place))
    value += DISCOUNT * known.share * unlikely + 0.5 * known.level_information * jnp.sum(lean**2)
    # Each pixel's own brightness takes one of its levels.
    free = 1.0 - jnp.where(known.spread > 0, 1.0 / weight.shape[0], 0.0)
    mean = jnp.sum(weight * _within(square, given.place)) / jnp.sum(weight)
    chi_square = 1.0 + _FARTHER * (mean / free - 1.0)
    return value, chi_square


def _within(maps: SignalStack, place: Place) -> SignalStack:
    """Without the border, where this is but a part of the image."""
    return maps if place.is_all else maps[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]


@jax.jit
def step(
    learnt: Learnt, memory: Any, rates: Learnt, slower: Scalar, given: Given, known: Known
) -> tuple[Learnt, Any, Scalar]:
    """One step of Adam down the value per pixel of the whole image, each parameter at its own rate (0 to stay), all of
    them `slower` by a factor. Gradient: none."""
    pixels = math.prod(given.place.whole)
    value, slope = jax.value_and_grad(lambda p: judged(p, given, known).value / pixels)(learnt)
    downhill, memory = adam().update(slope, memory)

    def moved(parameter: Array, rate: Array, way: Array) -> Array:
        return parameter - slower.astype(parameter.dtype) * rate * way

    return jax.tree.map(moved, learnt, rates, downhill), memory, value


def adam() -> Any:
    """Directions of about unit size; `adam().init(learnt)` is the memory."""
    import optax

    return optax.scale_by_adam()
