"""The physics-informed integrator: trained weights as a method of `integrate`, refined on one image if asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from eclipsjax._types import Map, as_real, whole_number
from eclipsjax.inverse.belief import Belief, Clues, believe, physical_losses
from eclipsjax.inverse.integrate import check_slopes
from eclipsjax.inverse.integrators.closed_walls import Mended
from eclipsjax.inverse.integrators.dislocations import hidden_dislocations
from eclipsjax.inverse.trust import network_share
from eclipsjax.nn.trained import Trained

# Of the robust fit that the network starts from: training's last four of twelve change heights by less than 1 %.
_ROUNDS = 8
# Logit of what is known.
_SURE = 20.0


class DepthNet(Trained):
    """A U-Net cleans the slopes, least squares makes heights of them: `DepthNet.shipped()` or `DepthNet.load(path)`.

    - `parameters`: of the network, nested dictionaries of arrays; `config`: its shape (static).
    - `card`: how it was trained and what it reached, JSON text (static).

    Works at any size; turns and flips with its input. Slopes of an angular noise up to about 12 deg; beyond what it was
    trained on (see the card) it is a guess. Gradient: exact almost everywhere, in slopes and parameters.
    """

    kind: ClassVar[str] = "depth network"
    name: ClassVar[str] = "depth"

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        from eclipsjax.nn.depth import DepthConfig

        return DepthConfig

    def believe(self, slope_x: Map, slope_y: Map) -> Belief:
        """Slopes, height (px) and the masks' logits, all `(y, x)`, in the network's float32.

        Screw dislocations whose step no slope shows are taken out before and put back after, as `Dislocated` does. The
        height follows the network as far as noise and relief make it better than the robust height: `network_share`.
        """
        return _believe(self.config, self.parameters, *(s.astype(jnp.float32) for s in (slope_x, slope_y)))

    def height_px(self, slope_x: Map, slope_y: Map, weights: None = None, mask: None = None) -> Map:
        """Height in pixels, up to a constant."""
        return self.height_and_undetermined(slope_x, slope_y)[0]

    def height_and_undetermined(self, slope_x: Map, slope_y: Map) -> tuple[Map, Bool[Array, "y x"]]:
        """Height in pixels, and true where the slopes do not say how heights hang together."""
        belief = self.believe(slope_x, slope_y)
        return belief.height_px.astype(slope_x.dtype), belief.undetermined > 0

    def refined(
        self,
        slope_x: Any,
        slope_y: Any,
        steps: int = 40,
        learning_rate: float = 3e-4,
        report: Callable[[int, float], None] | None = None,
    ) -> DepthNet:
        """The network after `steps` of Adam on this image's own slopes: the physical terms alone, no truth.

        `slope_x`, `slope_y`: `(y, x)`, dimensionless, whole maps (no mask).
        `report(step, loss)` is called after every step. The result is for images like this one.
        """
        slopes = as_real(slope_x, "slope_x"), as_real(slope_y, "slope_y")
        check_slopes(*slopes, jnp.ones(()), None, None)
        steps = whole_number("steps", steps, 0)
        clues = _clues(*(s.astype(jnp.float32) for s in slopes))
        optimiser = _adam(learning_rate)
        parameters, memory = self.parameters, optimiser.init(self.parameters)
        for step in range(1, steps + 1):
            parameters, memory, loss = _refine(self.config, optimiser, parameters, memory, clues)
            if report is not None:
                report(step, float(loss))
        return DepthNet(parameters, self.config, self.card)


@partial(jax.jit, static_argnums=0)
def _believe(config, parameters, slope_x: Map, slope_y: Map) -> Belief:
    mended = Mended.of(slope_x, slope_y)
    theirs = hidden_dislocations(mended).helicoids(slope_x.shape)
    turning = jnp.stack([theirs.slope_x, theirs.slope_y], axis=-1)
    given = jnp.stack([slope_x, slope_y], axis=-1) - turning
    clues = Clues.of_mended(given, mended.less(theirs.slope_x, theirs.slope_y), _ROUNDS)
    belief = believe(config, parameters, clues)
    share = network_share(clues)
    height = share * belief.height_px + (1.0 - share) * clues.height_px + theirs.height_px
    marked = jnp.where(theirs.undetermined, _SURE, belief.undetermined)
    return Belief(belief.slopes + turning, height, belief.edge, marked)


@cache
def _adam(learning_rate: float) -> Any:
    """The same object for the same rate, so that no second refinement is compiled anew."""
    import optax

    return optax.adam(learning_rate)


@jax.jit
def _clues(slope_x: Map, slope_y: Map) -> Clues:
    return Clues.of(slope_x, slope_y)


@partial(jax.jit, static_argnums=(0, 1))
def _refine(config, optimiser, parameters, memory, clues: Clues):
    import optax

    def loss(parameters):
        curl, normals, border = physical_losses(believe(config, parameters, clues), clues)
        return curl + normals + 0.1 * border

    value, slope = jax.value_and_grad(loss)(parameters)
    updates, memory = optimiser.update(slope, memory, parameters)
    return optax.apply_updates(parameters, updates), memory, value
