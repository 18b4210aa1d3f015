"""The U-Net that makes normals of segment images, with how far off they may be: weights, card, one call."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax

from eclipsjax.nn.evidence import Answer, Evidence
from eclipsjax.nn.trained import Trained

# What lessons are drawn from: numbers of segments, and the ratio of signal to noise.
FEWEST_SEGMENTS, MOST_SEGMENTS, LEAST_RATIO = 3, 8, 7.0


class NormalNet(Trained):
    """Normals from what physics makes of segment images: `NormalNet.shipped()` or `NormalNet.load(path)`.

    - `parameters`: of the network, nested dictionaries of arrays; `config`: its shape (static).
    - `card`: how it was trained and what it reached, JSON text (static).

    Takes any number of segments in any order, and any size; turns and flips with its input. Gradient: exact almost
    everywhere, of first order, in evidence and parameters.
    """

    kind: ClassVar[str] = "normal network"
    name: ClassVar[str] = "normals"

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        from eclipsjax.nn.normal_network import NormalConfig

        return NormalConfig

    def __call__(self, evidence: Evidence) -> Answer:
        """Slopes `(2, y, x)` and the standard deviation `(y, x)` of the normal's angle along either direction, rad."""
        return _answer(self.config, self.parameters, evidence)


@partial(jax.jit, static_argnums=0)
def _answer(config, parameters, evidence: Evidence) -> Answer:
    from eclipsjax.nn.normal_network import answer

    return answer(config, parameters, evidence)
