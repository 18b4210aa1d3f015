"""The self-supervised loop: images -> normals -> images again, until the network and what the physics misses fit both.

What is learned is learned from the images at hand, without any truth: see `loop_value` for what the loop goes down.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, Map, Scalar, as_real, shown, whole_number
from eclipsjax.inverse.adapted import LOOKS, MORE_LOOKS, Adapted, LevelPixel, Seen, fit_of
from eclipsjax.inverse.integrators.outlying import typical
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.lean import check_level, level_information
from eclipsjax.inverse.loop_value import Given, Known, Learnt, adam, apart, corrected, judged, step, weight_of
from eclipsjax.inverse.method import Method, Progress, Task
from eclipsjax.inverse.moved_parts import AllParts, MovedParts
from eclipsjax.inverse.photometric import Slopes
from eclipsjax.inverse.reconstruction import Found, Outcome
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.supervised import networks
from eclipsjax.inverse.unhidden import evidence_with, unseen_by
from eclipsjax.nn.evidence import unit_normals
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.nn.place import Place
from eclipsjax.nn.unet import NormalNet

# Width of the parts of the image that steps are taken by.
_PART = 160
# Chi-square per degree of freedom up to which the images count as explained.
_EXPLAINED = 1.5
# Rounds of a trial of what the physics misses, and Adam's rate there: numbers are in units of what is expected of them.
_TRIAL, _NUMBERS_RATE = 3, 0.2
# What a trial must explain of what is left beyond noise (of chi-square, no less than this) and of the whole value.
# Measured at S/N 11 to 100, gains by 8 % and the distance by 15 % off or not: between what is missed and what bends.
_ENOUGH, _LEAST_LEFT, _WORTH = 0.12, 0.05, 0.003
# By how much a law may make relief taller or lower. Laws that were there to be found asked for up to .44, one that real
# images bent to, for .9.
_MOST_GROWTH = 0.5


class ClosedLoop(Method):
    """The network of `Supervised`, taught by the images themselves through the simulator, then one pass of it.

    - `network`, `simulator`, `integrator`: as in `Supervised`.
    - `moves` (static): which of the network's parameters: `AllParts()`, `Decoder()`, `Normalisation()`,
      `InputFeatures()`, or None for none. `finetune` (static): whether what the physics misses is learned along.
    - `rounds`, `steps` (static): so many rounds of so many steps, at the `rate` (of the network's parameters), after
      trials of what the physics misses.
    - `level_deg`: how level the specimen is known to lie, as in `Refined`: images alone tell a lean from gains poorly.
    - `then`: `Refined()`, to go on from the loop's heights with what the physics misses taken out; None for the end.
    - `seed` (static): of the noise that is drawn.

    Never worse than its start by its own measure: it keeps the best round. Gradient: none (a search).
    """

    network: NormalNet | None = None
    simulator: FromNormals | None = None
    integrator: Any = eqx.field(default_factory=Poisson)
    then: Refined | None = None
    level_deg: Scalar = eqx.field(converter=as_real, default=4.0)
    moves: Any = eqx.field(static=True, default_factory=AllParts)
    finetune: bool = eqx.field(static=True, default=True)
    rounds: int = eqx.field(static=True, default=4)
    steps: int = eqx.field(static=True, default=5)
    rate: float = eqx.field(static=True, default=2e-3)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        whole_number("rounds", self.rounds, 1)
        whole_number("steps", self.steps, 1)
        if not self.rate > 0:
            raise InputError(f"rate is {self.rate}: give a positive learning rate.")
        check_level(self.level_deg)
        if self.moves is not None and not isinstance(self.moves, MovedParts):
            raise InputError(
                f"moves is {shown(self.moves)}: give AllParts(), Decoder(), Normalisation(), InputFeatures() or None."
            )

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """Heights of the best round. KeyboardInterrupt ends the loop, not the program."""
        loop = _Loop([task], self, report)
        outcome, adapted = loop.run()
        corrected_task, evidence = adapted.corrected(task)
        found = adapted.found_from(task, corrected_task, evidence)
        # Steps grow shorter to the end: what is not explained then is not for this loop to explain.
        if outcome is Outcome.CONVERGED and float(found.chi_square) > _EXPLAINED:
            outcome = Outcome.UNEXPLAINED
        history = jnp.asarray(np.asarray(loop.history).reshape(-1, 2), found.height_nm.dtype)
        found = dataclasses.replace(found, outcome=outcome, history=history)
        if self.then is None or outcome is Outcome.INTERRUPTED:
            return found
        refined = self.then.found_from(found.height_nm, corrected_task, report)
        return dataclasses.replace(refined, warnings=found.warnings)

    def adapted(
        self, tasks: Sequence[Task], report: Callable[[Progress], None] | None = None
    ) -> tuple[Outcome, Adapted]:
        """What the loop learns from one or more sets of images, for further ones, and how it ended."""
        return _Loop(tasks, self, report).run()


class _State(NamedTuple):
    """What is learnt, every set of images with what is known of its surface, and what all that is worth: the sum of
    their values, the mean of their chi-squares."""

    learnt: Learnt
    judges: tuple[Given, ...]
    value: float
    chi_square: float


class _Diverged(Exception):
    """The value is no number any more."""


class _Loop:
    """The rounds, with the best so far."""

    def __init__(self, tasks: Sequence[Task], method: ClosedLoop, report: Callable[[Progress], None] | None):
        from eclipsjax.nn.finetune import FinetuneConfig, starting_parameters

        self.method, self.report, self.began = method, report, time.monotonic()
        self.network, self.simulator = networks(tasks[0].table, method.network, method.simulator)
        slopes = [task.closed_form() for task in tasks]
        spreads = [task.spread_of(_not_of_slope(found)) for task, found in zip(tasks, slopes, strict=True)]
        segments, varies = tasks[0].measurement.level.shape[0], any(float(spread) > 0 for spread in spreads)
        self.missed_config = FinetuneConfig(segments=segments, law_order=2 if varies else 1)
        self.knowns = [self._known(*each, 1.0 / len(tasks)) for each in zip(tasks, slopes, spreads, strict=True)]
        self.best = Learnt(self.network.parameters, starting_parameters(self.missed_config))
        self.best_value = math.inf
        self.random = np.random.default_rng(method.seed)
        self.history: list[tuple[float, float]] = []

    def _known(self, task: Task, slopes: Slopes, spread: Scalar, share: float) -> Known:
        dtype = task.measurement.level.dtype
        return Known(
            task=task,
            simulator=self.simulator,
            flat=LevelPixel.of(task),
            brightness=typical(slopes.brightness).astype(dtype),
            spread=spread.astype(dtype),
            level_information=jnp.asarray(level_information(self.method.level_deg), dtype),
            share=jnp.asarray(share, dtype),
            network_config=self.network.config,
            missed_config=self.missed_config,
        )

    def run(self) -> tuple[Outcome, Adapted]:
        """How it ended, and the best round's."""
        outcome = Outcome.CONVERGED
        try:
            self._rounds()
        except KeyboardInterrupt:
            outcome = Outcome.INTERRUPTED
        except _Diverged:
            outcome = Outcome.DIVERGED
        network = NormalNet(self.best.network, self.network.config, self.network.card)
        rest = self.best.missed, self.missed_config, self.method.integrator
        return outcome, Adapted(network, self.network, self.simulator, *rest)

    def _rounds(self) -> None:
        """What the physics misses is tried first, kind by kind, with the network held: both at once would each learn
        the other's part."""
        from eclipsjax.nn.finetune import law_growth, of_drift, of_gains, of_law

        state = first = self._judged(self.best, tuple(map(self._first_given, range(len(self.knowns)))))
        moved = _moved_by(self.best.network, self.method.moves, self.method.rate)
        held, missed = jax.tree.map(jnp.zeros_like, Learnt(moved, self.best.missed))
        for kind in (of_law, of_gains, of_drift) if self.method.finetune else ():
            tried = jax.tree.map(lambda rate, more: rate + _NUMBERS_RATE * more, missed, kind(missed))
            best = self.best, self.best_value
            trial = self._taught(state, Learnt(held, tried), _TRIAL, below=state.value)
            likely = abs(float(law_growth(self.missed_config, trial.learnt.missed))) < _MOST_GROWTH
            if likely and _explains(trial, state):
                state, missed = trial, tried
            else:
                self.best, self.best_value = best
        if self.method.moves is not None or state is not first:
            self._taught(state, Learnt(moved, missed), self.method.rounds)

    def _taught(self, state: _State, rates: Learnt, rounds: int, below: float = math.inf) -> _State:
        """After so many rounds of steps at these rates, ever slower, or after the first that does not come below. Sets
        of images take turns, and a round is longer by as many as there are."""
        count = len(self.knowns)
        a_round = self.method.steps * count
        memory, total = adam().init(state.learnt), rounds * a_round
        for taken in range(total):
            which = taken % count
            if taken % a_round == 0:
                givens = [self._other_noise(state, k) for k in range(count)]
            known, part = self.knowns[which], _part_of(givens[which], self.random)
            slower = jnp.asarray(0.5 * (1.0 + math.cos(math.pi * taken / total)), known.spread.dtype)
            learnt, memory, value = step(state.learnt, memory, rates, slower, part, known)
            if not math.isfinite(float(value)):
                raise _Diverged
            state = state._replace(learnt=learnt)
            if (taken + 1) % a_round == 0:
                state = self._judged(learnt, tuple(self._looked(learnt, j, k) for k, j in enumerate(state.judges)))
                if state.value >= below:
                    break
        return state

    def _first_given(self, which: int) -> Given:
        """Everything of a set of images for the first time: no factors, nothing known of what is hidden."""
        known = self.knowns[which]
        task, std = known.task, known.task.measurement.std
        entered, asked = apart(task.measurement, self._key(which))
        unseen = unseen_by(fit_of(entered, task), self.simulator, LOOKS)
        evidence = evidence_with(unseen, fit_of(task.measurement, task))
        weight = weight_of(self.network(evidence), evidence, known.flat, known.brightness, std)
        place = Place.all_of(weight.shape[1:])
        return Given(entered, asked, unseen, Seen.level(task, known.flat), weight, place, jnp.zeros(2, weight.dtype))

    def _other_noise(self, state: _State, which: int) -> Given:
        """Other noise, and what is hidden looked for from what is known of it."""
        entered, asked = apart(self.knowns[which].task.measurement, self._key(which))
        judge = dataclasses.replace(state.judges[which], entered=entered, asked=asked)
        return self._looked(state.learnt, judge, which)

    def _key(self, which: int) -> Array:
        """Of a set's noise in this round."""
        return jax.random.fold_in(jax.random.key(self.method.seed + which), len(self.history))

    def _looked(self, learnt: Learnt, given: Given, which: int) -> Given:
        known = self.knowns[which]
        fit = fit_of(corrected(learnt, given, known), known.task)
        return dataclasses.replace(given, unseen=unseen_by(fit, self.simulator, MORE_LOOKS, given.unseen))

    def _judged(self, learnt: Learnt, judges: tuple[Given, ...]) -> _State:
        """On noise that is never learned from; kept if it is the best."""
        found = [judged(learnt, judge, known) for judge, known in zip(judges, self.knowns, strict=True)]
        value = sum(float(one.value) for one in found)
        chi_square = sum(float(one.chi_square) for one in found) / len(found)
        if not math.isfinite(value):
            raise _Diverged
        self.history.append((value, chi_square))
        if value < self.best_value:
            self.best, self.best_value = learnt, value
        if self.report is not None:
            self.report(Progress(len(self.history) - 1, chi_square, time.monotonic() - self.began))
        seen = (dataclasses.replace(judge, seen=one.seen) for judge, one in zip(judges, found, strict=True))
        return _State(learnt, tuple(seen), value, chi_square)


def _explains(tried: _State, before: _State) -> bool:
    """Whether a trial explains a good part of what is left beyond noise: a little of it is what bends to anything."""
    left = max(before.chi_square - 1.0, _LEAST_LEFT)
    explained = (before.chi_square - tried.chi_square) / left
    return explained > _ENOUGH and before.value - tried.value > _WORTH * before.value


@jax.jit
def _not_of_slope(slopes: Slopes) -> Map:
    """Brightness over what it is at such a slope on average: what a microscope that is not as described makes of level
    and leaning pixels is no yield. Gradient: none."""
    along, across, up = unit_normals(jnp.stack([slopes.slope_x, slopes.slope_y]))
    one = jnp.ones_like(up)
    terms = jnp.stack([one, along, across, up, along**2, along * across, across**2]).reshape(7, -1)
    fitted = jnp.linalg.lstsq(terms.T, slopes.brightness.ravel())[0] @ terms
    return slopes.brightness / fitted.reshape(up.shape)


def _part_of(given: Given, random: np.random.Generator) -> Given:
    """A part to step by, anywhere in the image, no larger than needed."""
    whole = given.place.whole
    shape = tuple(min(n, _PART) for n in whole)
    top, left = (random.integers(n - part + 1) for n, part in zip(whole, shape, strict=True))
    return _part(given, Place(jnp.int32(top), jnp.int32(left), shape, whole))


_part = jax.jit(Given.part)


def _moved_by(network: Any, moves: MovedParts | None, rate: float) -> Any:
    """Rates of its parameters, 0 of those that stay."""

    def of(path: Any, parameter: Any) -> Array:
        names = tuple(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
        return jnp.asarray(rate if moves is not None and moves.takes(names) else 0.0, parameter.dtype)

    return jax.tree_util.tree_map_with_path(of, network)
