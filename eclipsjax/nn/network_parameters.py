"""A network's parameters as nested dictionaries of arrays: drawn, described, and put back into the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network: whole numbers and tuples of them, as its file holds them."""

    def as_json(self) -> dict:
        """The numbers as JSON holds them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, numbers: dict) -> Any:
        """The inverse of `as_json`."""
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in numbers.items()})


def fresh_parameters(build: Callable[[nnx.Rngs], nnx.Module], key: Array) -> Any:
    """Parameters as `build` draws them."""
    return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(params=key)), nnx.Param))


def shapes_of_parameters(build: Callable[[nnx.Rngs], nnx.Module]) -> Any:
    """The shapes of `fresh_parameters`, without computing them."""
    shapes = jax.eval_shape(lambda: fresh_parameters(build, jax.random.key(0)))
    return jax.tree.map(lambda leaf: leaf.shape, shapes)


def filled(build: Callable[[nnx.Rngs], nnx.Module], parameters: Any, dtype: Any = None) -> Any:
    """The network with these parameters, in another precision if asked for."""
    if dtype is not None:
        parameters = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters)
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(params=jax.random.key(0)))))
    nnx.replace_by_pure_dict(state, parameters)
    return nnx.merge(graph, state)
