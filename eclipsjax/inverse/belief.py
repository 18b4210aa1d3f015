"""What the depth network is shown of the slopes, what its answer means, and what physics says about that answer.

The network never draws heights. It sees the slopes, what `Wiener` makes of them and how noisy they are, and says how
to change them; the least-squares height of that change is added, Neumann border and zero curl included. What is left
to learn is what least squares cannot know: which deviations are noise, which outliers, which an edge.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.facets import summits
from eclipsjax.inverse.integrators.links import divergence, poisson, trapezoid
from eclipsjax.inverse.integrators.wiener import Wiener
from eclipsjax.specimen.surface import Surface

# Offered to every pixel: the Wiener height's slope; the given one; that without spikes; its mean normal over a small
# and over a wider neighbourhood; the summits among the image's slopes that the unsmoothed and the widely smoothed one
# climb to; and level ground.
OFFERS = ("wiener", "given", "despiked", "near", "wide", "summit", "wide summit", "level")
# Logits to start from: mostly the Wiener height.
_FIRST_BELIEF = (2.0, -2.0, 0.0, 0.0, -1.0, -2.0, -2.0, -2.0)
# Standard deviations of the two neighbourhoods, pixels; and of the summits' kernel, in those of the noise.
_REACHES = (1.0, 3.0)
_SUMMIT_WIDTH = 0.25


class Clues(eqx.Module):
    """What the network is shown, and what its answer is made of.

    - `slopes`: `(y, x, 2)` as given, dimensionless.
    - `offers`: `(offer, y, x, 2)` estimates of the slopes, among which each pixel's belief is shared: see `OFFERS`.
    - `popularity`: `(y, x)` share of the image's slopes that lie near the pixel's summit.
    - `height_px`: `(y, x)` the Wiener height of the despiked slopes, pixels.
    - `noise`: standard deviation of the slopes' noise, from their curl.
    """

    slopes: Float[Array, "y x 2"]
    offers: Float[Array, "offer y x 2"]
    popularity: Map
    height_px: Map
    noise: Scalar

    @classmethod
    def of(cls, slope_x: Map, slope_y: Map) -> Clues:
        """Clues from slopes alone. Gradient: exact almost everywhere, with spikes and summits held fixed."""
        given = jnp.stack([slope_x, slope_y], axis=-1)
        size = jnp.sqrt(jnp.mean(given**2))
        noise = 1.4826 * jnp.median(jnp.abs(loop_sums(slope_x, slope_y))) / 2**0.5 + 1e-3 * size + 1e-6
        despiked = jnp.stack([_despike(s, 4.0 * noise) for s in (slope_x, slope_y)], axis=-1)
        height = Wiener().height_px(despiked[..., 0], despiked[..., 1], None, None)
        wiener = jnp.stack(Surface(height, jnp.ones((), height.dtype)).slopes(), axis=-1)
        near, wide = (mean_slopes(despiked, reach) for reach in _REACHES)
        (summit, wide_summit), (popularity, _) = summits(near, (despiked, wide), _SUMMIT_WIDTH * noise)
        offers = (wiener, given, despiked, near, wide, summit, wide_summit, jnp.zeros_like(given))
        return cls(given, jnp.stack(offers), popularity, height, noise)

    @property
    def smooth(self) -> Float[Array, "y x 2"]:
        """Slopes of the Wiener height."""
        return self.offers[0]

    def maps(self) -> tuple[Float[Array, "y x s"], Float[Array, "y x v 2"]]:
        """Scalar and vector maps for the network, all of order one."""
        wiener, given, despiked, near, wide, summit, wide_summit, _ = self.offers
        pairs = ((given, despiked), (despiked, near), (near, wide), (wide, wiener), (summit, near), (wide_summit, wide))
        vectors = [jnp.arcsinh((one - other) / self.noise) for one, other in pairs]
        vectors += [jnp.arcsinh(wide / self.noise), jnp.arcsinh(wide)]
        curl = jnp.abs(loop_sums(self.slopes[..., 0], self.slopes[..., 1]))
        around = jnp.pad(curl, ((1, 1), (1, 1)), mode="edge")
        curl = 0.25 * (around[1:, 1:] + around[:-1, 1:] + around[1:, :-1] + around[:-1, :-1])
        level = jnp.full_like(curl, 0.3 * jnp.log(self.noise) + 1.0)
        steep = 0.5 * jnp.log1p(jnp.linalg.norm(near, axis=-1) / self.noise)
        popular = 0.3 * jnp.log(self.popularity + 1e-4) + 1.0
        return jnp.stack([jnp.arcsinh(curl / self.noise), level, steep, popular], axis=-1), jnp.stack(vectors, axis=-2)


class Belief(eqx.Module):
    """The network's answer.

    - `slopes`: `(y, x, 2)`, dimensionless; `height_px`: `(y, x)` the Wiener height plus the least-squares height of
      what the network changed about its slopes, pixels.
    - `edge`, `undetermined`: `(y, x)` logits: a step or a crease runs through the pixel; the slopes do not say how high
      it is.
    """

    slopes: Float[Array, "y x 2"]
    height_px: Map
    edge: Map
    undetermined: Map

    @classmethod
    def of(cls, clues: Clues, scalars: Float[Array, "y x s"], vectors: Float[Array, "y x 1 2"]) -> Belief:
        """Slopes shared among the offers as the network says, and a remainder of its own."""
        shares = jax.nn.softmax(
            scalars[..., : len(OFFERS)] + jnp.asarray(_FIRST_BELIEF, scalars.dtype)[None, None], axis=-1
        )
        slopes = jnp.einsum("yxo,oyxv->yxv", shares, clues.offers) + clues.noise * vectors[..., 0, :]
        change = slopes - clues.smooth
        height = clues.height_px + poisson(divergence(trapezoid(change[..., 0], change[..., 1])))
        return cls(slopes, height, scalars[..., -2] - 2.0, scalars[..., -1] - 4.0)


def believe(config: Any, parameters: Any, slope_x: Map, slope_y: Map) -> Belief:
    """The network's belief about slopes of any shape. Turns and flips with them. Gradient: exact almost everywhere."""
    from eclipsjax.nn.depth import apply_depth

    clues = Clues.of(slope_x, slope_y)
    scalars, vectors = clues.maps()
    answers = [
        tuple(_crop(m, slope_x.shape, before) for m in apply_depth(config, parameters, *padded))
        for padded, before in _paddings(scalars[None], vectors[None], config.multiple)
    ]
    scalars, vectors = (sum(maps) / len(answers) for maps in zip(*answers, strict=True))
    return Belief.of(clues, scalars[0], vectors[0])


def physical_losses(belief: Belief, clues: Clues) -> tuple[Scalar, Scalar, Scalar]:
    """What must hold without knowing the truth, each of order one where it does.

    - curl: mean square of the believed slopes' sums around four pixels, over that of the slopes as given.
    - normals: mean angle between the height's normals and the given ones over the noise, large angles counting by
      their size only (Charbonnier), so that outliers may disagree.
    - border: the same for the outermost rows and columns, where Neumann's condition ties the height to the slopes.

    Gradient: exact.
    """

    def loops(slopes):
        return jnp.mean(loop_sums(slopes[..., 0], slopes[..., 1]) ** 2)

    curl = loops(belief.slopes) / (loops(clues.slopes) + clues.noise**2)
    height = Surface(belief.height_px, jnp.ones((), belief.height_px.dtype)).slopes()
    given = clues.slopes
    # Slopes compared as angles: a difference in slope counts by the cosine squared.
    lean = 1.0 / (1.0 + jnp.sum(given**2, axis=-1))
    off = jnp.sum((jnp.stack(height, axis=-1) - given) ** 2, axis=-1) * lean**2 / clues.noise**2
    miss = jnp.sqrt(1.0 + off) - 1.0
    border = jnp.concatenate([miss[0], miss[-1], miss[:, 0], miss[:, -1]])
    return curl, jnp.mean(miss), jnp.mean(border)


def loop_sums(slope_x: Map, slope_y: Map) -> Float[Array, "y-1 x-1"]:
    """Sum of the links' differences around every square of four pixels: 0 for a surface, noise (of twice the slopes'
    variance) otherwise. Gradient: exact."""
    links = trapezoid(slope_x, slope_y)
    return links.x[:-1] + links.y[:, 1:] - links.x[1:] - links.y[:, :-1]


def _paddings(scalars: Array, vectors: Array, multiple: int):
    """Edge-padded to multiples, the same on both sides; where that cannot be, once with more on either side."""

    def ways(size):
        missing = -size % multiple
        return [missing // 2] if missing % 2 == 0 else [missing // 2, missing // 2 + 1]

    rows, columns = scalars.shape[1:3]
    for top in ways(rows):
        for left in ways(columns):
            pads = ((0, 0), (top, -rows % multiple - top), (left, -columns % multiple - left), (0, 0))
            padded = jnp.pad(scalars, pads, mode="edge"), jnp.pad(vectors, (*pads, (0, 0)), mode="edge")
            yield padded, (top, left)


def _crop(maps: Array, shape: tuple[int, int], before: tuple[int, int]) -> Array:
    return maps[:, before[0] : before[0] + shape[0], before[1] : before[1] + shape[1]]


def mean_slopes(slopes: Float[Array, "y x 2"], reach: float) -> Float[Array, "y x 2"]:
    """Slopes of the mean normal in a Gaussian neighbourhood of standard deviation `reach` pixels.

    Normals, unlike slopes, keep their mean under noise, however steep they are. Gradient: exact.
    """
    upright = 1.0 / jnp.sqrt(1.0 + jnp.sum(slopes**2, axis=-1))
    mean = [_blur(values, reach) for values in (slopes[..., 0] * upright, slopes[..., 1] * upright, upright)]
    return jnp.stack([mean[0] / mean[2], mean[1] / mean[2]], axis=-1)


def _blur(values: Map, reach: float) -> Map:
    taps = np.arange(-int(3 * reach), int(3 * reach) + 1)
    weights = np.exp(-0.5 * (taps / reach) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pads = tuple((taps[-1], taps[-1]) if k == axis else (0, 0) for k in (0, 1))
        around, size = jnp.pad(values, pads, mode="edge"), values.shape[axis]
        parts = (float(w) * lax.slice_in_dim(around, k, k + size, axis=axis) for k, w in enumerate(weights))
        values = sum(parts, start=jnp.zeros_like(values))
    return values


def _despike(values: Map, limit: Scalar) -> Map:
    """Pixels farther than `limit` beyond all that their neighbours span replaced by the neighbours' median."""
    around = jnp.pad(values, 1, mode="edge")
    rows, columns = values.shape
    neighbours = jnp.stack(
        [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    )
    ordered = jnp.sort(neighbours, axis=0)
    median = 0.5 * (ordered[3] + ordered[4])
    # A facet two pixels wide leaves each of its pixels at least two such neighbours: not a spike. Where neighbours
    # differ much among each other a pixel may differ more.
    limit = limit + 0.5 * (ordered[6] - ordered[1])
    spike = (values > ordered[6] + limit) | (values < ordered[1] - limit)
    return jnp.where(lax.stop_gradient(spike), median, values)
