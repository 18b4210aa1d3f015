"""Screw dislocations whose step is not in the slopes: found by walking around them, taken out, put back with a cut.

Around such a core the slopes climb by a step's height and never come down; no height map has these slopes. Least
squares spreads the missing step over the whole image. Here a helicoid takes it up, cut along the shortest way from
the core to the border: beside the cut heights are right, and where the real step runs nothing in the slopes tells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.integrators.closed_walls import Mended
from eclipsjax.inverse.integrators.links import box_sums, loop_sums
from eclipsjax.inverse.integrators.outlying import ONE, typical

# At most this many in an image; half the side of the square walked around a core, pixels, and of a second, wider one.
_MOST, _NEAR, _FAR = 4, 6, 12
# A step counts if it is higher than this many standard deviations of a walk's noise, and if of the walks around its
# core this share climbs alike, within this relative difference.
_CERTAIN, _AGREE, _ALIKE = 6.0, 0.9, 0.3


class Helicoids(NamedTuple):
    """All dislocations of a map together.

    - `slope_x`, `slope_y`: `(y, x)`, dimensionless. - `height_px`: `(y, x)`, pixels, jumping by the rise across cuts.
    - `undetermined`: `(y, x)` true at the cores and beside the cuts: there the slopes do not say how heights hang
      together.
    """

    slope_x: Map
    slope_y: Map
    height_px: Map
    undetermined: Bool[Array, "y x"]


class Dislocations(eqx.Module):
    """Cores found, `_MOST` places of which those with `rise_px` 0 are empty.

    - `row`, `column`: `(core,)` of the core, pixels, pixel centres at whole numbers.
    - `rise_px`: `(core,)` how far a walk around climbs (from x to y), pixels.
    """

    row: Float[Array, "core"]
    column: Float[Array, "core"]
    rise_px: Float[Array, "core"]

    def helicoids(self, shape: tuple[int, int]) -> Helicoids:
        """Their slopes, heights and marks on a map of `shape`, without the work where there is no core.

        Gradient: exact off the cuts.
        """

        def wound():
            y, x, rise = self._around(shape)
            out_y, out_x = self._way_out(shape)
            square = x**2 + y**2
            turn = rise / (2 * jnp.pi * jnp.maximum(square, 0.5))
            along, across = x * out_x + y * out_y, y * out_x - x * out_y
            # The angle from the direction opposite to the cut: it jumps at the cut alone.
            height = rise / (2 * jnp.pi) * jnp.arctan2(-across, -along)
            near = (square <= _NEAR**2) | ((along >= 0) & (jnp.abs(across) <= 1.5))
            marked = jnp.any(near & (rise != 0), axis=0)
            return Helicoids(*(jnp.sum(m, axis=0) for m in (-turn * y, turn * x, height)), marked)

        flat = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(wound))
        return lax.cond(jnp.any(self.rise_px != 0), wound, lambda: flat)

    def _around(self, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
        """Rows and columns from every core, `(core, y, x)`, and the rises, ready to be multiplied."""
        dtype = self.rise_px.dtype
        rows, columns = (jnp.arange(n, dtype=dtype) for n in shape)
        y = rows[None, :, None] - self.row[:, None, None]
        x = columns[None, None, :] - self.column[:, None, None]
        return y, x, self.rise_px[:, None, None]

    def _way_out(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Unit vectors `(y, x)` from the cores to the nearest border, `(core, 1, 1)`."""
        ways = jnp.stack([self.row, shape[0] - 1 - self.row, self.column, shape[1] - 1 - self.column])
        nearest = jnp.argmin(ways, axis=0)
        directions = jnp.asarray([[-1, 0], [1, 0], [0, -1], [0, 1]], self.row.dtype)[nearest]
        return directions[:, :1, None], directions[:, 1:, None]


class Dislocated(eqx.Module):
    """`method` on what is left of the slopes without screw dislocations, whose helicoids are added again.

    Only dislocations whose step no slope shows are taken out: around a core with a visible step loops close. Heights
    jump along a cut from each core to the border, which is marked as undetermined.

    - `method`: any other; weights and masks are not taken.

    Gradient: that of the method, the dislocations held fixed.
    """

    method: Any

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        return self.height_and_undetermined(slope_x, slope_y)[0]

    def height_and_undetermined(self, slope_x: Map, slope_y: Map) -> tuple[Map, Bool[Array, "y x"]]:
        """Height in pixels, and true at the cores and beside the cuts."""
        theirs = hidden_dislocations(Mended.of(slope_x, slope_y)).helicoids(slope_x.shape)
        rest = self.method.height_px(slope_x - theirs.slope_x, slope_y - theirs.slope_y, None, None)
        return rest + theirs.height_px, theirs.undetermined


def hidden_dislocations(mended: Mended) -> Dislocations:
    """Where walks around do not close, by the same height whichever way they take. Gradient: none."""
    slope_x, slope_y, noise = lax.stop_gradient((mended.slope_x, mended.slope_y, mended.noise))
    nothing = jnp.zeros(_MOST, slope_x.dtype)
    if min(slope_x.shape) <= 2 * _FAR + 1:
        return Dislocations(nothing, nothing, nothing)
    sums = loop_sums(slope_x, slope_y)
    near, far = box_sums(sums, _NEAR), box_sums(sums, _FAR)
    # A walk of side s passes 4 s links, each the mean of two noisy slopes; neighbouring links share one.
    doubt = jnp.maximum(noise * (8 * _NEAR) ** 0.5, typical(jnp.abs(near)) / ONE)
    inner = jnp.zeros(sums.shape, bool).at[_FAR:-_FAR, _FAR:-_FAR].set(True)
    left = jnp.where((jnp.abs(near) > _CERTAIN * doubt) & inner, jnp.abs(near), 0.0)
    cores = []
    for _ in range(_MOST):
        core, left = _strongest(far, left)
        cores.append(core)
    return Dislocations(*(jnp.stack(numbers) for numbers in zip(*cores, strict=True)))


def _strongest(far: Map, left: Map) -> tuple[tuple[Scalar, Scalar, Scalar], Map]:
    """Row, column and rise of the core with the largest step among those `left`, and `left` without its surroundings.

    All walks that go around one core climb alike. Where they do not, no core is what keeps them from closing.
    """
    shape, dtype = far.shape, far.dtype
    rows, columns = jnp.arange(shape[0], dtype=dtype)[:, None], jnp.arange(shape[1], dtype=dtype)[None, :]

    def within(row, column, reach):
        return (jnp.abs(rows - row) <= reach) & (jnp.abs(columns - column) <= reach)

    index = jnp.argmax(left)
    top = within((index // shape[1]).astype(dtype), (index % shape[1]).astype(dtype), 2 * _NEAR)
    weight = jnp.where(top & (left > 0.5 * jnp.max(left)), left, 0.0)
    total = jnp.maximum(jnp.sum(weight), 1e-20)
    row, column = jnp.sum(weight * rows) / total, jnp.sum(weight * columns) / total
    around = within(row, column, _FAR - 4.0).astype(dtype)
    rise = jnp.sum(around * far) / jnp.maximum(jnp.sum(around), 1.0)
    agree = jnp.sum(around * (jnp.abs(far - rise) < _ALIKE * jnp.abs(rise)).astype(dtype)) / jnp.maximum(
        jnp.sum(around), 1.0
    )
    found = (jnp.max(left) > 0) & (agree > _AGREE)
    gone = within(row, column, 2.0 * _FAR)
    return (row, column, jnp.where(found, rise, 0.0)), jnp.where(gone, 0.0, left)
