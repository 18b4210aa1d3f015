"""Which of a network's parameters the closed loop may move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MovedParts:
    """A choice of parameters, all unless a kind says otherwise."""

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter of this path, outermost name first, is moved."""
        return True


class AllParts(MovedParts):
    """All parameters."""


class Decoder(MovedParts):
    """What comes after the coarsest level of the U-Net."""

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter of this path, outermost name first, is moved."""
        return path[0] in ("grow", "up", "norm", "head")


class Normalisation(MovedParts):
    """Only the scales of the fields."""

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter of this path, outermost name first, is moved."""
        return "norm" in path


class InputFeatures(MovedParts):
    """What the network makes of its clues before the U-Net, and what it takes for noise."""

    def takes(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter of this path, outermost name first, is moved."""
        return path[0] in ("stem", "segment", "joined", "alike")
