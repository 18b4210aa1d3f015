"""The deep simulator: images straight from normals, quicker and coarser than the Vision Field Transformer."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Map, concrete
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.nn.from_normals import FromNormals
from eclipsjax.specimen.horizon import GivenHorizon

# Polar angles between which detectors lay in training, degrees.
LOWEST_DEG, HIGHEST_DEG = 4.0, 62.0


class DeepSimulator(FromNormals):
    """Signals from normals: `dsm(normals, table)`, with `DeepSimulator.shipped()` or `.load(path)`.

    - `parameters`: of the network, nested dictionaries of arrays; `config`: its shape (static).
    - `card`: how it was trained and what it reached, JSON text (static).

    Horizons come from a coarse look along 16 directions at half the size and a small convolutional network that is
    told the instrument's rims, signals from the exact integral over them. For exact normals: noise is not cleaned.
    Detectors of which a part lies nearer than 4 deg to the axis or farther than 62 deg are refused. Works at any size;
    beyond the border nothing hides. Turns and flips with its input. Gradient: exact almost everywhere, in normals,
    table, law and parameters.
    """

    kind: ClassVar[str] = "deep simulator"
    name: ClassVar[str] = "dsm"

    @staticmethod
    def config_class() -> type:
        """The class of `config`."""
        from eclipsjax.nn.dsm_network import SimulatorConfig

        return SimulatorConfig

    def seen(
        self, slope_x: Map, slope_y: Map, pixel_nm: Any, table: AcceptanceTable
    ) -> tuple[Facets, GivenHorizon, int]:
        """The facets as they are given, their horizons, and how many azimuths; refuses a table out of range."""
        check_range(table)
        cot = _exposed(self.config, self.parameters, slope_x, slope_y, rims_rad(table))
        flat = jnp.zeros_like(slope_x)
        return Facets(flat, pixel_nm, slope_x, slope_y), GivenHorizon(cot), cot.shape[0]


def rims_rad(table: AcceptanceTable) -> Float[Array, "2"]:
    """Polar angles of the innermost and the outermost point of any segment, radians. Gradient: exact."""
    return jnp.stack([jnp.min(table.theta), jnp.max(table.theta)])


def check_range(table: AcceptanceTable) -> None:
    """Raise `InputError` for a detector unlike those of the training (skipped while tracing)."""
    theta = concrete(table.theta)
    if theta is None:
        return
    low, high = np.rad2deg(theta.min()), np.rad2deg(theta.max())
    if low < LOWEST_DEG or high > HIGHEST_DEG:
        raise InputError(
            f"table has a detector from {low:.3g} to {high:.3g} deg off the axis, but the deep simulator was trained "
            f"between {LOWEST_DEG:g} and {HIGHEST_DEG:g} deg: use the Vision Field Transformer or render, which take "
            "any."
        )


@partial(jax.jit, static_argnums=0)
def _exposed(config, parameters, slope_x: Map, slope_y: Map, rims: Array) -> Array:
    from eclipsjax.nn.dsm_network import exposed

    return exposed(config, parameters, slope_x, slope_y, rims)
