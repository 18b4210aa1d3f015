"""Distillation: a simulator that starts from normals learns from the exact one, which starts from heights.

A lesson is a random relief, a random detector, what the exact simulator makes of them, and the relief's normals with
noise. It follows from one seed, so that a training is the same again, goes on after a kill as if nothing had happened,
and hard lessons are kept as seeds. One program runs on any number of devices: each takes its share of every lesson.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from eclipsjax._types import Map, SignalStack
from eclipsjax.imaging.bsesm import render
from eclipsjax.instrument.acceptance import AcceptanceTable, NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.learn.descent import Pace, check_batch, learnt, optimiser_of, start_of
from eclipsjax.learn.hard_examples import HardExamples
from eclipsjax.learn.relief_scenes import TAUGHT, crops, reliefs
from eclipsjax.learn.slope_errors import SlopeErrors, estimated_slopes
from eclipsjax.learn.training import last_losses, train
from eclipsjax.specimen.horizon import HardHorizon, horizon
from eclipsjax.specimen.surface import Surface

TERMS = ("loss", "signal", "horizon")
_HORIZON_WEIGHT = 0.1
# Directions of the exact simulator, and how far it looks, pixels.
_AZIMUTHS, _RADIUS_PX = 64, 64
# Of every this many lessons one is of measured maps, where there are any.
_MEASURED_EVERY = 4


@dataclass(frozen=True)
class Recipe(Pace):
    """How a simulator is distilled. `size` pixels and `batch` reliefs a step; normals carry up to `noise_deg`, a share
    `exact` of them none; every `hard_every`th step (0: none) repeats one of the `hard_slots` hardest lessons."""

    size: int = 96
    batch: int = 4
    noise_deg: float = 6.0
    exact: float = 0.2
    hard_every: int = 4
    hard_slots: int = 32
    seed: int = 0


PRESETS = {
    "tiny": Recipe(steps=20, size=32, batch=2, warm=5),
    "cpu": Recipe(),
    "gpu": Recipe(steps=8000, size=192, batch=32, warm=200, averaging=0.998),
}


class Lesson(eqx.Module):
    """Slopes as given, `(y, x)`, the detector, and what the exact simulator makes of the true relief: signals
    `(segment, y, x)` and, for the pupil's azimuths, cosines of its horizons."""

    slope_x: Map
    slope_y: Map
    table: AcceptanceTable
    signal: SignalStack
    cos_horizon: Float[Array, "azimuth y x"]


class Pupil(NamedTuple):
    """Who learns: `answer(parameters, lesson)` gives signals, and cosines of horizons at `azimuths`."""

    name: str
    what: str
    config: Any
    answer: Callable[[Any, Any, Lesson], tuple[Array, Array]]
    azimuths: int
    noise: bool


def distil(
    folder: Path,
    pupil: Pupil,
    recipe: Recipe | None = None,
    maps: Sequence[np.ndarray] = (),
    every: int = 100,
    report: Callable[[int, dict], None] | None = None,
    stop_after: int | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Any:
    """The averaged parameters of `pupil` after `recipe.steps` steps.

    `maps`: measured heights, in pixels, that are taught along. Goes on from where an earlier call in `folder` stopped;
    `every`, `report`, `stop_after` and `after_step` are those of `train`.
    """
    recipe = recipe or Recipe()
    check_batch(recipe.batch)
    optimiser, terms_of = optimiser_of(recipe), _losses_of(pupil)
    parameters = jax.jit(pupil.config.initial_parameters)(jax.random.key(recipe.seed))
    state = {**start_of(optimiser, parameters), "hard": HardExamples.none(recipe.hard_slots)._asdict()}

    def take_step(state, step):
        hard = HardExamples(**state["hard"])
        seed = hard.seed_of(step, 2 * step + 1, recipe.hard_every)
        lesson = lesson_of(pupil, recipe, seed, maps)
        further, terms = learnt(optimiser, recipe.averaging, terms_of, state, lesson)
        hard = hard.met(jnp.uint32(seed), terms[0])
        return {**further, "hard": hard._asdict()}, terms

    described = {"pupil": pupil.name, "recipe": asdict(recipe), "config": pupil.config.as_json(), "maps": _named(maps)}
    rest = report, stop_after, after_step
    return train(folder, described, TERMS, state, take_step, recipe.steps, every, *rest)["averaged"]


def _named(maps: Sequence[np.ndarray]) -> str:
    """How many measured maps and which, in a few letters, for a training's recipe."""
    digest = hashlib.sha256()
    for heights in maps:
        digest.update(f"{heights.shape}".encode() + np.ascontiguousarray(heights, np.float64).tobytes())
    return f"{len(maps)}, {digest.hexdigest()[:12]}" if len(maps) else "none"


def lesson_of(pupil: Pupil, recipe: Recipe, seed: int, maps: Sequence[np.ndarray] = ()) -> Lesson:
    """The batch that follows from a seed: odd ones are taught, even ones are kept for the card's figures."""
    key = jax.random.fold_in(jax.random.key(recipe.seed + 1), seed)
    if len(maps) and seed // 2 % _MEASURED_EVERY == 0:
        height = crops(maps, recipe.size, recipe.batch, key)
    else:
        family = TAUGHT[int(jax.random.randint(key, (), 0, len(TAUGHT)))]
        height = reliefs(family, recipe.size, recipe.batch, key)
    noise = (recipe.noise_deg, recipe.exact) if pupil.noise else (0.0, 1.0)
    return _taught(height, jax.random.fold_in(key, 1), pupil.azimuths, noise)


@partial(jax.jit, static_argnames=("azimuths", "noise"))
def _taught(heights: Array, key: Array, azimuths: int, noise: tuple[float, float]) -> Lesson:
    return jax.vmap(partial(_lesson, azimuths=azimuths, noise=noise))(heights, jax.random.split(key, heights.shape[0]))


def _lesson(height: Map, key: Array, azimuths: int, noise: tuple[float, float]) -> Lesson:
    k = jax.random.split(key, 4)
    surface = Surface(height, jnp.ones((), height.dtype))
    table = acceptance(_detector(k[0]), field=NoField())
    look = HardHorizon(radius_px=_RADIUS_PX)
    signal = render(surface, table, azimuths=_AZIMUTHS, horizon=look)
    cot = horizon(surface, azimuths, look)
    deg = jnp.where(jax.random.uniform(k[1]) < noise[1], 0.0, noise[0] * jax.random.uniform(k[2]))
    slope_x, slope_y = surface.slopes()
    noisy = estimated_slopes(slope_x, slope_y, SlopeErrors(deg), k[3])
    given = [jnp.where(deg > 0, b, a) for a, b in zip((slope_x, slope_y), noisy, strict=True)]
    return Lesson(*given, table, signal, cosine(cot))


def _detector(key: Array) -> Microscope:
    """Four segments at a random distance, turned, between random radii: 4 to 62 degrees off the axis."""
    k = jax.random.split(key, 4)
    distance, inner, outer, turned = (jax.random.uniform(each) for each in k)
    distance_mm = 4.0 + 5.0 * distance
    inner_mm = distance_mm * jnp.tan(jnp.deg2rad(4.0 + 16.0 * inner))
    outer_mm = distance_mm * jnp.tan(jnp.deg2rad(32.0 + 30.0 * outer))
    return Microscope.annular(
        4, inner_radius_mm=inner_mm, outer_radius_mm=outer_mm, distance_mm=distance_mm, start_deg=90.0 * turned
    )


def cosine(cot: Array) -> Array:
    """Cosine of the horizon's polar angle, which is what a horizon costs a signal."""
    return cot / jnp.sqrt(1.0 + cot**2)


@cache
def _losses_of(pupil: Pupil) -> Callable[[Any, Lesson], Array]:
    """The same object for the same pupil, so that no second training is compiled anew."""
    return partial(losses, pupil)


def losses(pupil: Pupil, parameters: Any, lesson: Lesson) -> Float[Array, "term"]:
    """The loss and its terms, as `TERMS` names them: rms of the signals over their mean, rms of the cosines."""
    signal, cos_horizon = pupil.answer(pupil.config, parameters, lesson)
    mean = jnp.mean(lesson.signal)
    off = jnp.sqrt(jnp.mean((signal - lesson.signal) ** 2) + 1e-12) / mean
    # Below the horizontal nothing is collected: how far below is no matter.
    up, true_up = (jnp.maximum(c, 0.0) for c in (cos_horizon, lesson.cos_horizon))
    cosines = jnp.sqrt(jnp.mean((up - true_up) ** 2) + 1e-12)
    return jnp.stack([off + _HORIZON_WEIGHT * cosines, off, cosines])


def figures(pupil: Pupil, recipe: Recipe, parameters: Any, batches: int = 16) -> dict[str, float]:
    """Mean rms errors of the signals, per cent of their mean, on lessons that were not taught: of exact normals and,
    where the pupil learns to clean them, of normals with 3 deg of noise."""
    found = {}
    for label, deg in (("exact normals", 0.0), ("3 deg of noise", 3.0))[: 2 if pupil.noise else 1]:
        # Uniform up to twice the angle: its mean.
        asked = replace(recipe, noise_deg=2 * deg, exact=1.0 if deg == 0 else 0.0)
        errors = [_errors(pupil, parameters, lesson_of(pupil, asked, 2 * k)) for k in range(batches)]
        found[label] = round(100 * float(jnp.mean(jnp.stack(errors))), 3)
    return found


@partial(jax.jit, static_argnums=0)
def _errors(pupil, parameters, lesson):
    return jnp.mean(jax.vmap(partial(losses, pupil, parameters))(lesson)[:, TERMS.index("signal")])


def card(pupil: Pupil, recipe: Recipe, preset: str, parameters: Any, folder: Path, version: str, maps: int) -> dict:
    """What a user of the weights should know: data, recipe, figures, versions, the command that makes them."""
    return {
        "what": pupil.what,
        "data": f"random reliefs ({', '.join(TAUGHT)}), made taller, turned upside down, tilted and roughened, "
        f"{f'and {maps} measured maps, ' if maps else ''}random four-segment detectors; teacher: the exact simulator, "
        f"{_AZIMUTHS} azimuths",
        "recipe": asdict(recipe),
        "last_losses": last_losses(folder),
        "signal_error_percent": figures(pupil, recipe, parameters),
        "machine": f"{jax.default_backend()}, {jax.device_count()} devices, {platform.machine()}",
        "versions": {"eclipsjax": version, "jax": jax.__version__, "optax": optax.__version__},
        "command": f"eclipsjax train {pupil.name} -o {pupil.name} --preset {preset} --steps {recipe.steps} "
        f"--seed {recipe.seed}{' --heights FOLDER' if maps else ''}",
    }
