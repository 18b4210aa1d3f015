"""Pretraining of the normal network: normals of random reliefs from their images, over many microscopes.

A lesson follows from its seed, so a training is the same again and goes on after a kill as if nothing had happened.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from eclipsjax.inverse.brought_back import slopes_of_px, slopes_of_relief
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.unhidden import evidence_of
from eclipsjax.learn.descent import Pace, check_batch, learnt, optimiser_of, start_of
from eclipsjax.learn.image_lessons import ImageLesson, image_lessons
from eclipsjax.learn.measured_pairs import MeasuredPairs
from eclipsjax.learn.relief_scenes import TAUGHT, reliefs
from eclipsjax.learn.scores import rms, square_angle, without_plane
from eclipsjax.learn.training import last_losses, train
from eclipsjax.nn.evidence import Evidence, slopes_along
from eclipsjax.nn.normal_network import NormalConfig, answer
from eclipsjax.nn.vft import VisionFieldTransformer

TERMS = ("loss", "angle", "height", "doubt")
# Of every this many lessons one is of measured pairs, where there are any.
_MEASURED_EVERY = 4
# Numbers of segments that are taught; 5, 7 and 8 are kept for tests.
SEGMENTS = (4, 3, 6)
_HEIGHT_WEIGHT, _DOUBT_WEIGHT = 0.5, 0.05
# Errors below which less is gained: radians (.1 deg), and pixels of height.
_FINE, _FINE_PX = 2e-3, 2e-2
# Squared errors, in units of the doubt's square, beyond which they are outliers.
_FAR = 50.0


@dataclass(frozen=True)
class Recipe(Pace):
    """How the normal network is trained, by `batch` images of `size` pixels a step."""

    size: int = 96
    batch: int = 4
    seed: int = 0


PRESETS = {
    "tiny": Recipe(steps=20, size=32, batch=2, warm=5),
    "cpu": Recipe(steps=4000),
    "gpu": Recipe(steps=12000, size=192, batch=32, warm=200, averaging=0.998),
}


class NormalLesson(eqx.Module):
    """What physics makes of the images, and the true slopes `(2, y, x)`."""

    evidence: Evidence
    slopes: Float[Array, "2 y x"]


def pretrain(
    folder: Path,
    config: NormalConfig,
    recipe: Recipe | None = None,
    pairs: MeasuredPairs | None = None,
    every: int = 100,
    report: Callable[[int, dict], None] | None = None,
    stop_after: int | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Any:
    """The averaged parameters after `recipe.steps` steps; goes on from where an earlier call in `folder` stopped.

    `pairs`: measured images and heights that are taught along.
    `every`, `report`, `stop_after` and `after_step` are those of `train`.
    """
    recipe = recipe or Recipe()
    check_batch(recipe.batch)
    optimiser, terms = optimiser_of(recipe), _losses_of(config)
    parameters = jax.jit(config.initial_parameters)(jax.random.key(recipe.seed))

    def take_step(state, step):
        return learnt(optimiser, recipe.averaging, terms, state, lesson_of(recipe, 2 * step + 1, pairs=pairs))

    described = {"recipe": asdict(recipe), "config": config.as_json(), "pairs": pairs.named if pairs else "none"}
    rest = report, stop_after, after_step
    state = start_of(optimiser, parameters)
    return train(folder, described, TERMS, state, take_step, recipe.steps, every, *rest)["averaged"]


def lesson_of(recipe: Recipe, seed: int, family: str | None = None, pairs: MeasuredPairs | None = None) -> NormalLesson:
    """The batch that follows from a seed: odd ones are taught, even ones are kept for the card's figures."""
    key = jax.random.fold_in(jax.random.key(recipe.seed + 1), seed)
    if pairs is not None and seed // 2 % _MEASURED_EVERY == 0:
        shown = pairs.lessons(recipe.size, recipe.batch, key)
    else:
        drawn = TAUGHT[int(jax.random.randint(key, (), 0, len(TAUGHT)))]
        heights = reliefs(family or drawn, recipe.size, recipe.batch, key)
        shown = image_lessons(heights, jax.random.fold_in(key, 1), SEGMENTS[seed // 2 % len(SEGMENTS)])
    return _as_physics_sees(VisionFieldTransformer.shipped(), shown)


@jax.jit
def _as_physics_sees(simulator: VisionFieldTransformer, batch: Any) -> NormalLesson:
    def of_one(shown: ImageLesson) -> NormalLesson:
        evidence = evidence_of(shown.measurement, shown.table, simulator)
        return NormalLesson(evidence, jnp.stack([shown.slope_x, shown.slope_y]))

    return jax.vmap(of_one)(batch)


@cache
def _losses_of(config: NormalConfig) -> Callable[[Any, NormalLesson], Array]:
    """The same object for the same network, so that no second training is compiled anew."""
    return partial(losses, config)


def losses(config: NormalConfig, parameters: Any, lesson: NormalLesson) -> Float[Array, "term"]:
    """The loss and its terms, as `TERMS` names them.

    Angles and heights: rms errors of the relief that comes out in the end, over those of the closed form's, both by
    least squares. The doubt is scored by the likelihood of the angle, with the answer held fixed.
    """
    found = answer(config, parameters, lesson.evidence)
    slopes = slopes_of_relief(found.slopes, lesson.evidence)
    start = _closed_form(lesson.evidence)
    off = square_angle(slopes, lesson.slopes)
    angle = _ratio(jnp.mean(off), jnp.mean(square_angle(start, lesson.slopes)), _FINE)
    height = _ratio(*(_height_error(s - lesson.slopes) ** 2 for s in (slopes, start)), _FINE_PX)
    held = jax.lax.stop_gradient(off)
    # Of a normal deviate in two directions; errors far beyond the doubt pull no harder than in proportion.
    square = held / found.doubt**2
    doubt = jnp.mean(0.5 * _FAR * jnp.log1p(square / _FAR) + 2.0 * jnp.log(found.doubt))
    return jnp.stack([angle + _HEIGHT_WEIGHT * height + _DOUBT_WEIGHT * doubt, angle, height, doubt])


def _closed_form(evidence: Evidence) -> Float[Array, "2 y x"]:
    """Slopes of the closed form's heights by least squares."""
    return slopes_of_px(Poisson().height_px(*slopes_along(evidence.closed_form), None, None))


def _ratio(square: Array, of_start: Array, fine: float) -> Array:
    return jnp.sqrt((square + fine**2) / (of_start + fine**2))


def _height_error(slope_errors: Float[Array, "2 y x"]) -> Array:
    """Of heights by least squares, which are linear in the slopes."""
    return rms(without_plane(Poisson().height_px(*slope_errors, None, None)))


def figures(recipe: Recipe, config: NormalConfig, parameters: Any, batches: int = 6) -> dict[str, dict[str, float]]:
    """Of every family that is taught: rms errors of normals (deg) and of heights (px), the network's and closed form's,
    on lessons that were not taught."""
    found = {}
    for family in TAUGHT:
        parts = [_errors(config, parameters, lesson_of(recipe, 2 * k, family)) for k in range(batches)]
        errors = jnp.sqrt(jnp.mean(jnp.stack(parts) ** 2, axis=0)).tolist()
        names = "normals deg", "heights px", "closed form normals deg", "closed form heights px"
        found[family] = {name: round(error, 3) for name, error in zip(names, errors, strict=True)}
    return found


@partial(jax.jit, static_argnums=0)
def _errors(config: NormalConfig, parameters: Any, lesson: NormalLesson) -> Float[Array, "4"]:
    def errors(evidence, true):
        found = slopes_of_relief(answer(config, parameters, evidence).slopes, evidence)
        slopes = found, _closed_form(evidence)
        return jnp.stack([e for s in slopes for e in (_angle_deg(s, true), _height_error(s - true))])

    return jnp.sqrt(jnp.mean(jax.vmap(errors)(lesson.evidence, lesson.slopes) ** 2, axis=0))


def _angle_deg(slopes: Float[Array, "2 y x"], true: Float[Array, "2 y x"]) -> Array:
    return jnp.rad2deg(jnp.sqrt(jnp.mean(square_angle(slopes, true))))


def card(
    recipe: Recipe, preset: str, config: NormalConfig, parameters: Any, folder: Path, version: str, pairs: int = 0
) -> dict:
    """What a user of the weights should know: data, recipe, figures, versions, the command that makes them."""
    return {
        "what": "segment images to normals and how far off they may be; see eclipsjax.NormalNet",
        "data": f"random reliefs ({', '.join(TAUGHT)}), made taller, turned upside down, tilted and roughened, as "
        f"recorded by random microscopes of {', '.join(map(str, sorted(SEGMENTS)))} segments, half of which are a "
        "little otherwise than they are said to be; rendered by the exact simulator"
        f"{f'; {pairs} measured pairs' if pairs else ''}",
        "recipe": asdict(recipe),
        "last_losses": last_losses(folder),
        "errors": figures(recipe, config, parameters),
        "machine": f"{jax.default_backend()}, {jax.device_count()} devices, {platform.machine()}",
        "versions": {"eclipsjax": version, "jax": jax.__version__, "optax": optax.__version__},
        "command": f"eclipsjax train normals -o normals --preset {preset} --steps {recipe.steps} --seed {recipe.seed}"
        f"{' --pairs FOLDER' if pairs else ''}",
    }
