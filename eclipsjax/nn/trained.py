"""What every trained network is to its user: parameters, the shape of the network, a card, one file of all three."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from eclipsjax._types import InputError

_WEIGHTS = Path(__file__).resolve().parent / "weights"


class Trained(eqx.Module):
    """Parameters with their card. A kind of network says `kind` and `name` (of its file) and its config's class."""

    parameters: Any
    config: Any = eqx.field(static=True)
    card: str = eqx.field(static=True)

    kind: ClassVar[str]
    name: ClassVar[str]

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path | str) -> Any:
        """Weights that `eclipsjax train` wrote."""
        from eclipsjax.nn.checkpoint import load_weights

        numbers, arrays, card = load_weights(Path(path), cls.kind)
        try:
            config = cls.config_class().from_json(numbers)
        except (TypeError, AttributeError, InputError) as error:
            raise InputError(
                f"{path} has weights of another network ({str(error).rstrip('.')}): train it again."
            ) from None
        if config.parameter_shapes() != jax.tree.map(jnp.shape, arrays):
            raise InputError(f"{path} has weights of other shapes than its network: get or train it again.")
        return cls.of(jax.tree.map(jnp.asarray, arrays), config, card)

    @classmethod
    def of(cls, parameters: Any, config: Any, card: dict) -> Any:
        """From trained parameters."""
        return cls(parameters, config, json.dumps(card, indent=1))

    def save(self, path: Path | str, force: bool = False) -> None:
        """Write the weights with their card. An existing file is replaced only with `force`."""
        from eclipsjax.nn.checkpoint import save_weights

        save_weights(Path(path), self.kind, self.config.as_json(), self.parameters, json.loads(self.card), force)

    @classmethod
    def shipped(cls) -> Any:
        """The weights that come with the package; `card` says how they were made and what they reached."""
        return _shipped(cls)


@cache
def _shipped(cls: type) -> Any:
    return cls.load(_WEIGHTS / f"{cls.name}.npz")
