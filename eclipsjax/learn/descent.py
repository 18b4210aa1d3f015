"""One step of learning on any number of devices: Muon for kernels, AdamW for the rest, averaged parameters beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from eclipsjax._types import InputError


@dataclass(frozen=True)
class Pace:
    """How a training goes down: in so many `steps`, kernels by Muon or, like all the rest, by AdamW, each at its rate,
    which rises over `warm` steps; parameters are averaged over about 1 / (1 - `averaging`) steps."""

    steps: int = 2000
    muon: bool = True
    muon_rate: float = 2e-2
    adam_rate: float = 3e-3
    warm: int = 50
    averaging: float = 0.99


def optimiser_of(recipe: Pace) -> optax.GradientTransformation:
    """Muon at its rate for kernels, AdamW at its own for all the rest, or AdamW alone; both rise and fall."""
    warm = min(recipe.warm, recipe.steps // 2)
    slow, quick = (
        optax.warmup_cosine_decay_schedule(0.0, rate, warm, recipe.steps)
        for rate in (recipe.adam_rate, recipe.muon_rate)
    )
    adam = optax.adamw(slow, b2=0.99, weight_decay=1e-4)
    if not recipe.muon:
        return optax.chain(optax.clip_by_global_norm(1.0), adam)

    def kernels(parameters):
        """Everything that ends in output channels is a matrix to Muon; numbers and vectors are left to Adam."""
        from optax.contrib import MuonDimensionNumbers

        return jax.tree.map(
            lambda p: MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1) if p.ndim > 1 else None, parameters
        )

    muon = optax.contrib.muon(quick, adam_learning_rate=slow, muon_weight_dimension_numbers=kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), muon)


def start_of(optimiser: optax.GradientTransformation, parameters: Any) -> dict:
    """The state before the first step, where later ones lie: else the second would be compiled anew."""
    state = {"parameters": parameters, "averaged": parameters, "optimiser": optimiser.init(parameters)}
    return jax.device_put(state, NamedSharding(_devices(), PartitionSpec()))


def _devices() -> Mesh:
    return Mesh(np.array(jax.devices()), ("device",))


def check_batch(batch: int) -> None:
    """Raise `InputError` for a batch that the devices cannot share."""
    devices = jax.device_count()
    if batch % devices:
        raise InputError(f"batch is {batch} but there are {devices} devices: give a multiple of {devices}.")


@partial(jax.jit, static_argnums=(0, 1, 2))
def learnt(
    optimiser: optax.GradientTransformation,
    averaging: float,
    losses: Callable[[Any, Any], Array],
    state: dict,
    lessons: Any,
) -> tuple[dict, Array]:
    """The state after a step down the first of `losses(parameters, lesson)`, and their means over the lessons.

    `lessons` have a leading axis, of which each device takes its share.
    """

    def mean_loss(parameters, part):
        terms = jnp.mean(jax.vmap(partial(losses, parameters))(part), axis=0)
        return terms[0], terms

    def slope_of_part(parameters, part):
        (_, terms), slope = jax.value_and_grad(mean_loss, has_aux=True)(parameters, part)
        return jax.tree.map(lambda leaf: jax.lax.pmean(leaf, "device"), (terms, slope))

    whole, parts = PartitionSpec(), PartitionSpec("device")
    # The physics starts its sums from constants, which the check would want to be told of in every loop.
    shared = jax.shard_map(slope_of_part, mesh=_devices(), in_specs=(whole, parts), out_specs=whole, check_vma=False)
    terms, slope = shared(state["parameters"], lessons)
    updates, memory = optimiser.update(slope, state["optimiser"], state["parameters"])
    parameters = optax.apply_updates(state["parameters"], updates)
    averaged = optax.incremental_update(parameters, state["averaged"], 1.0 - averaging)
    return {"parameters": parameters, "averaged": averaged, "optimiser": memory}, terms
