"""Training of the depth network on random lessons: resumes from its folder, logs every loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from eclipsjax.inverse.belief import Clues, believe, physical_losses
from eclipsjax.learn.depth_scenes import FAMILIES, Lesson, lessons
from eclipsjax.learn.scores import rms, without_plane
from eclipsjax.learn.training import last_losses, train
from eclipsjax.nn.depth import DepthConfig

TERMS = ("loss", "height", "slope", "edge", "undetermined", "curl", "normals", "border")


@dataclass(frozen=True)
class Recipe:
    """How the network is trained. `size` pixels and `batch` lessons a step; the last `large_share` of the steps take a
    quarter of the batch at twice the size. Learning rate up over `warm` steps (half of all at most), then down a cosine
    to nothing."""

    steps: int = 12000
    size: int = 128
    batch: int = 4
    large_share: float = 0.3
    learning_rate: float = 1e-3
    warm: int = 300
    averaging: float = 0.998
    seed: int = 0


def train_depth(
    folder: Path,
    recipe: Recipe | None = None,
    config: DepthConfig | None = None,
    every: int = 200,
    report: Callable[[int, dict], None] | None = None,
    stop_after: int | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Any:
    """The averaged parameters after `recipe.steps` steps.

    Goes on from where an earlier call in `folder` stopped; `every`, `report`, `stop_after` and `after_step` are those
    of `train`.
    """
    recipe, config = recipe or Recipe(), config or DepthConfig()
    warm = min(recipe.warm, recipe.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, recipe.learning_rate, warm, recipe.steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=1e-4))
    parameters = jax.jit(config.initial_parameters)(jax.random.key(recipe.seed))
    state = {"parameters": parameters, "averaged": parameters, "optimiser": optimiser.init(parameters)}
    names = list(FAMILIES)

    def take_step(state, step):
        key = jax.random.fold_in(jax.random.key(recipe.seed + 1), step)
        large = step > (1 - recipe.large_share) * recipe.steps
        size, batch = (2 * recipe.size, max(recipe.batch // 4, 1)) if large else (recipe.size, recipe.batch)
        return _step(optimiser, config, recipe.averaging, state, _mixed(names, size, batch, key))

    described = {"recipe": asdict(recipe), "config": config.as_json()}
    rest = report, stop_after, after_step
    return train(folder, described, TERMS, state, take_step, recipe.steps, every, *rest)["averaged"]


def _mixed(names: list[str], size: int, batch: int, key: Array) -> Lesson:
    """A batch from two families drawn at random; a batch of one from one."""
    drawn = jax.random.randint(key, (min(batch, 2),), 0, len(names)).tolist()
    counts = [batch // len(drawn)] * len(drawn)
    parts = [
        lessons(names[k], size, count, jax.random.fold_in(key, j))
        for j, (k, count) in enumerate(zip(drawn, counts, strict=True))
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _step(optimiser, config, averaging, state, lesson):
    def mean_loss(parameters):
        terms = _all_losses(config, parameters, lesson)
        return jnp.mean(terms[:, 0]), jnp.mean(terms, axis=0)

    (_, terms), slope = jax.value_and_grad(mean_loss, has_aux=True)(state["parameters"])
    updates, memory = optimiser.update(slope, state["optimiser"], state["parameters"])
    parameters = optax.apply_updates(state["parameters"], updates)
    averaged = optax.incremental_update(parameters, state["averaged"], 1.0 - averaging)
    return {"parameters": parameters, "averaged": averaged, "optimiser": memory}, terms


def lesson_losses(config: DepthConfig, parameters: Any, lesson: Lesson) -> Array:
    """The loss and its terms, as `TERMS` names them.

    Heights and slopes are scored by their rms error (a plane removed from the heights) relative to that of the robust
    height, from which the network starts: below 1 is better than classical.
    """
    clues = Clues.of(lesson.slope_x, lesson.slope_y)
    belief = believe(config, parameters, clues)
    determined = ~jnp.any(lesson.undetermined)
    span = jnp.max(lesson.height_px) - jnp.min(lesson.height_px)
    start = rms(without_plane(clues.height_px - lesson.height_px)) + 2e-4 * span
    ratio = rms(without_plane(belief.height_px - lesson.height_px)) / start
    # Where the robust height is nearly exact ratios are huge: there only their logarithm counts.
    softened = jnp.where(ratio > 1.0, 1.0 + jnp.log(jnp.maximum(ratio, 1.0)), ratio)
    height = jnp.where(determined, softened, 1.0)
    truth = jnp.stack([lesson.true_x, lesson.true_y], axis=-1)
    slope = rms(belief.slopes - truth) / (rms(clues.smooth - truth) + 0.1 * clues.noise)
    edge = jnp.mean(optax.sigmoid_binary_cross_entropy(belief.edge, lesson.edge.astype(jnp.float32)))
    lost = jnp.mean(optax.sigmoid_binary_cross_entropy(belief.undetermined, lesson.undetermined.astype(jnp.float32)))
    physical = jnp.stack(physical_losses(belief, clues))
    total = height + 0.3 * slope + 0.2 * edge + 0.2 * lost + 0.02 * jnp.sum(jnp.log1p(physical))
    return jnp.concatenate([jnp.stack([total, height, slope, edge, lost]), physical])


def figures(recipe: Recipe, config: DepthConfig, parameters: Any, batches: int = 8) -> dict[str, float]:
    """Of every family the mean ratio of height errors, the network's over the robust method's, on lessons that it was
    not trained on. As in the loss, ratios above 1 count by 1 + their logarithm."""
    found = {}
    for name in FAMILIES:
        ratios = []
        for k in range(batches):
            # Training keys are of `seed + 1`.
            lesson = lessons(name, recipe.size, recipe.batch, jax.random.fold_in(jax.random.key(recipe.seed + 2), k))
            ratios.append(_all_losses(config, parameters, lesson)[:, TERMS.index("height")])
        found[name] = round(float(jnp.mean(jnp.concatenate(ratios))), 3)
    return found


@partial(jax.jit, static_argnums=0)
def _all_losses(config, parameters, lesson):
    return jax.vmap(partial(lesson_losses, config, parameters))(lesson)


def card(recipe: Recipe, config: DepthConfig, parameters: Any, folder: Path, version: str) -> dict:
    """What a user of the weights should know: data, recipe, figures, versions, the command that makes them."""
    return {
        "what": "slopes to better slopes, for heights by least squares; see eclipsjax.DepthNet",
        "data": f"random synthetic surfaces ({', '.join(FAMILIES)}) with white and correlated angular noise, smooth "
        "bias and outliers, drawn anew every step",
        "recipe": asdict(recipe),
        "last_losses": last_losses(folder),
        "height_error_over_robust": figures(recipe, config, parameters),
        "versions": {"eclipsjax": version, "jax": jax.__version__, "optax": optax.__version__},
        "command": f"eclipsjax train depth -o depth --steps {recipe.steps} --seed {recipe.seed}",
    }
