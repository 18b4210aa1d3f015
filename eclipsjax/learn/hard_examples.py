"""Online hard examples: keys of the lessons with the largest losses, which are taught again."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32


class HardExamples(NamedTuple):
    """The hardest lessons met so far: seeds from which they are drawn again, and their losses, both `(slot,)`."""

    seeds: UInt32[Array, "slot"]
    losses: Float[Array, "slot"]

    @classmethod
    def none(cls, slots: int) -> HardExamples:
        """Nothing met yet."""
        return cls(jnp.zeros(slots, jnp.uint32), jnp.full(slots, -1.0, jnp.float32))

    def seed_of(self, step: int, fresh: int, every: int) -> int:
        """The seed of a step's lesson: the fresh one, or at every `every`th step (0: never) a hard one, in turn."""
        if not every or step % every:
            return fresh
        known = [int(seed) for seed, loss in zip(self.seeds.tolist(), self.losses.tolist(), strict=True) if loss >= 0]
        return known[(step // every) % len(known)] if known else fresh

    @jax.jit
    def met(self, seed: UInt32[Array, ""], loss: Array) -> HardExamples:
        """After a lesson: a known one gets its new loss, another takes the place of the easiest if it is harder."""
        same = (self.seeds == seed) & (self.losses >= 0)
        at = jnp.where(jnp.any(same), jnp.argmax(same), jnp.argmin(self.losses))
        is_in = jnp.any(same) | (loss > self.losses[at])
        return HardExamples(
            self.seeds.at[at].set(jnp.where(is_in, seed, self.seeds[at])),
            self.losses.at[at].set(jnp.where(is_in, loss.astype(jnp.float32), self.losses[at])),
        )
