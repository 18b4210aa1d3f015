"""What a network's shape says: how to build it, and its parameters as nested dictionaries of arrays."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array

from eclipsjax._types import InputError, shown


@dataclass(frozen=True)
class NetworkConfig:
    """The shape of a network: whole numbers and tuples of them, as its file holds them, all of them with defaults.

    Numbers of `octaves` may be 0, others are at least 1.
    """

    def __post_init__(self):
        for field in fields(self):
            value, least = getattr(self, field.name), int(field.name != "octaves")
            numbers = value if isinstance(field.default, tuple) else (value,)
            if not (isinstance(numbers, tuple) and numbers and all(type(n) is int and n >= least for n in numbers)):
                several = "several numbers" if isinstance(field.default, tuple) else "one number"
                raise InputError(f"{field.name} is {shown(value)}: give {several}, whole and at least {least}.")

    def as_json(self) -> dict:
        """The numbers as JSON holds them."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, numbers: dict) -> Any:
        """The inverse of `as_json`."""
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in numbers.items()})

    def network(self, rngs: nnx.Rngs) -> Any:
        """A network of this shape."""
        raise NotImplementedError

    def initial_parameters(self, key: Array) -> Any:
        """Fresh parameters: a nested dictionary of arrays."""
        return nnx.to_pure_dict(nnx.state(self.network(nnx.Rngs(params=key)), nnx.Param))

    def parameter_shapes(self) -> Any:
        """The shapes of `initial_parameters`, without computing them."""
        shapes = jax.eval_shape(lambda: self.initial_parameters(jax.random.key(0)))
        return jax.tree.map(lambda leaf: leaf.shape, shapes)

    def filled(self, parameters: Any, dtype: Any = None) -> Any:
        """The network with these parameters, in another precision if asked for."""
        if dtype is not None:
            parameters = jax.tree.map(lambda leaf: leaf.astype(dtype), parameters)
        graph, state = nnx.split(nnx.eval_shape(lambda: self.network(nnx.Rngs(params=jax.random.key(0)))))
        nnx.replace_by_pure_dict(state, parameters)
        return nnx.merge(graph, state)
