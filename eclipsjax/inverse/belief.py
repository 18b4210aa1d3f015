"""What the depth network is shown of the slopes, what its answer means, and what physics says about that answer.

The network never draws heights. It sees the slopes, what `Robust` makes of them and how noisy they are, and says how
to change them; the least-squares height of that change is added, Neumann border and zero curl included. It then sees
the spectra of both heights and says, ring by ring of wavelengths, how much of either to take. What is left to learn is
what least squares cannot know: which deviations are noise, which outliers, which an edge.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._cosine import cosine_modes_2d, from_cosine_modes_2d
from eclipsjax._types import Map, Scalar
from eclipsjax.inverse.facets import summits
from eclipsjax.inverse.integrators.closed_walls import Mended
from eclipsjax.inverse.integrators.links import (
    divergence,
    laplacian_of_modes,
    loop_sums,
    mean_of_loops,
    poisson,
    trapezoid,
)
from eclipsjax.inverse.integrators.mixed_pixels import unmixed
from eclipsjax.inverse.integrators.robust import robust_modes
from eclipsjax.inverse.integrators.wiener import (
    Rings,
    believed_share,
    ring_counts,
    ring_mean,
    rings_of,
)
from eclipsjax.specimen.surface import Surface

# Offered to every pixel: the robust height's slope; the given one; that without spikes and with walls closed (mended);
# that with edges' pixels unmixed; its mean normal over a small and over a wider neighbourhood; the summits among the
# image's slopes that the unsmoothed and the widely smoothed one climb to; and level ground.
OFFERS = ("robust", "given", "mended", "unmixed", "near", "wide", "summit", "wide summit", "level")
# Logits to start from: mostly the robust height.
_FIRST_BELIEF = (2.0, -2.0, 0.0, -1.0, 0.0, -1.0, -2.0, -2.0, -2.0)
# Standard deviations of the two neighbourhoods, pixels; and of the summits' kernel, in those of the noise.
_REACHES = (1.0, 3.0)
_SUMMIT_WIDTH = 0.25
# Offers that smooth over lie at most this many standard deviations of the noise from the robust slope: where there is
# no noise there is nothing to smooth, and no share of theirs can do harm.
_FARTHEST = 8.0
# As `Robust` has them, with fewer rounds: what is left after these the network may do.
_CUTOFF, _ROUNDS, _RINGS = 2.5, 12, 48


class Clues(eqx.Module):
    """What the network is shown, and what its answer is made of.

    - `slopes`: `(y, x, 2)` as given, dimensionless.
    - `offers`: `(offer, y, x, 2)` estimates of the slopes, among which each pixel's belief is shared: see `OFFERS`.
    - `popularity`: `(y, x)` share of the image's slopes that lie near the pixel's summit.
    - `modes`: `(y, x)` cosine modes of the robust height of the mended slopes, pixels.
    - `whole`, `ring_noise`: `(ring,)` mean squares of the mended slopes' modes, of all and of the noise in it.
    - `noise`: standard deviation of the slopes' noise, from their curl.
    """

    slopes: Float[Array, "y x 2"]
    offers: Float[Array, "offer y x 2"]
    popularity: Map
    modes: Map
    whole: Rings
    ring_noise: Rings
    noise: Scalar

    @classmethod
    def of(cls, slope_x: Map, slope_y: Map) -> Clues:
        """Clues from slopes alone. Gradient: exact almost everywhere, with spikes and summits held fixed."""
        return cls.of_mended(jnp.stack([slope_x, slope_y], axis=-1), Mended.of(slope_x, slope_y))

    @classmethod
    def of_mended(cls, given: Float[Array, "y x 2"], healed: Mended, rounds: int = _ROUNDS) -> Clues:
        """Clues from slopes as given and as mended, with so many rounds of the robust fit. Gradient: as `of`."""
        noise = healed.noise
        mended = jnp.stack([healed.slope_x, healed.slope_y], axis=-1)
        modes, whole, ring_noise = robust_modes(mended[..., 0], mended[..., 1], _CUTOFF, rounds, _RINGS)
        modes = modes * believed_share(whole, ring_noise, modes.shape)
        height = from_cosine_modes_2d(modes)
        robust = jnp.stack(Surface(height, jnp.ones((), height.dtype)).slopes(), axis=-1)
        near, wide = (mean_slopes(mended, reach) for reach in _REACHES)
        (summit, wide_summit), (popularity, _) = summits(near, (mended, wide), _SUMMIT_WIDTH * noise)
        edges = jnp.stack(unmixed(mended[..., 0], mended[..., 1], noise), axis=-1)
        calm = (near, wide, summit, wide_summit, jnp.zeros_like(given))
        offers = (robust, given, mended, edges, *(robust + _shortened(c - robust, _FARTHEST * noise) for c in calm))
        return cls(given, jnp.stack(offers), popularity, modes, whole, ring_noise, noise)

    @property
    def smooth(self) -> Float[Array, "y x 2"]:
        """Slopes of the robust height."""
        return self.offers[0]

    @property
    def height_px(self) -> Map:
        """The robust height, pixels."""
        return from_cosine_modes_2d(self.modes)

    def maps(self) -> tuple[Float[Array, "y x s"], Float[Array, "y x v 2"]]:
        """Scalar and vector maps for the network, all of order one."""
        robust, given, mended, edges, near, wide, summit, wide_summit, level = self.offers
        pairs = (
            (given, mended),
            (edges, mended),
            (mended, near),
            (near, wide),
            (wide, robust),
            (summit, near),
            (wide_summit, wide),
        )
        vectors = [jnp.arcsinh((one - other) / self.noise) for one, other in pairs]
        vectors += [(level - robust) / self.noise, jnp.arcsinh(robust)]
        curl = mean_of_loops(jnp.abs(loop_sums(self.slopes[..., 0], self.slopes[..., 1])))
        level = jnp.full_like(curl, 0.3 * jnp.log(self.noise) + 1.0)
        steep = 0.5 * jnp.log1p(jnp.linalg.norm(robust, axis=-1) / self.noise)
        popular = 0.3 * jnp.log(self.popularity + 1e-4) + 1.0
        return jnp.stack([jnp.arcsinh(curl / self.noise), level, steep, popular], axis=-1), jnp.stack(vectors, axis=-2)


class Belief(eqx.Module):
    """The network's answer.

    - `slopes`: `(y, x, 2)`, dimensionless: the offers in the shares that the network gives them, and a remainder of
      its own. - `height_px`: `(y, x)` the robust height plus the least-squares height of what the network changed
      about its slopes, each as far as it is believed, pixels.
    - `edge`, `undetermined`: `(y, x)` logits: a step or a crease runs through the pixel; the slopes do not say how high
      it is.
    """

    slopes: Float[Array, "y x 2"]
    height_px: Map
    edge: Map
    undetermined: Map


def ring_clues(clues: Clues, change: Map) -> Float[Array, "ring 8"]:
    """What the spectra say about the robust height and about the height `change` (both cosine modes), ring by ring.

    All of order one: logarithms of powers over the noise's, how alike the two are, and where in the spectrum this is.
    """
    shape, eigenvalue = change.shape, laplacian_of_modes(change.shape, change.dtype)
    own, other, both = (ring_mean(eigenvalue * m, _RINGS) for m in (clues.modes**2, change**2, clues.modes * change))
    floor = 1e-6 * clues.noise**2 + 1e-12 * jnp.max(clues.whole) + 1e-20
    level = clues.ring_noise + floor
    count = ring_counts(shape, _RINGS).astype(change.dtype)
    numbers = [0.2 * jnp.log((power + floor) / level) for power in (clues.whole, own, other)]
    numbers += [both / jnp.sqrt(own * other + floor**2), 0.2 * jnp.log(level / clues.noise**2)]
    numbers += [0.1 * jnp.log(clues.noise) + 0.3, 0.2 * jnp.log(count + 1.0), jnp.linspace(-1.0, 1.0, _RINGS)]
    return jnp.stack([jnp.broadcast_to(n, (_RINGS,)).astype(change.dtype) for n in numbers], axis=-1)


def believe(config: Any, parameters: Any, clues: Clues) -> Belief:
    """The network's belief about slopes of any shape. Turns and flips with them. Gradient: exact almost everywhere."""
    from eclipsjax.nn.depth import apply_depth, apply_ring_gates

    scalars, vectors = clues.maps()
    answers = [
        tuple(_crop(m, clues.modes.shape, before) for m in apply_depth(config, parameters, *padded))
        for padded, before in _paddings(scalars[None], vectors[None], config.multiple)
    ]
    scalars, vectors = (sum(maps)[0] / len(answers) for maps in zip(*answers, strict=True))
    first = jnp.asarray(_FIRST_BELIEF, scalars.dtype)[None, None]
    shares = jax.nn.softmax(scalars[..., : len(OFFERS)] + first, axis=-1)
    slopes = jnp.einsum("yxo,oyxv->yxv", shares, clues.offers) + clues.noise * vectors[..., 0, :]
    difference = slopes - clues.smooth
    change = cosine_modes_2d(poisson(divergence(trapezoid(difference[..., 0], difference[..., 1]))))
    gates = apply_ring_gates(config, parameters, ring_clues(clues, change))[rings_of(change.shape, _RINGS)]
    height = from_cosine_modes_2d(gates[..., 0] * clues.modes + gates[..., 1] * change)
    return Belief(slopes, height, scalars[..., -2] - 2.0, scalars[..., -1] - 4.0)


def physical_losses(belief: Belief, clues: Clues) -> tuple[Scalar, Scalar, Scalar]:
    """What must hold without knowing the truth, each of order one where it does.

    - curl: mean square of the believed slopes' sums around four pixels, over that of the slopes as given.
    - normals: mean angle between the height's normals and the given ones over the noise, large angles counting by
      their size only (Charbonnier), so that outliers may disagree.
    - border: the same for the outermost rows and columns, where Neumann's condition ties the height to the slopes.

    Gradient: exact.
    """

    def loops(slopes):
        sums = loop_sums(slopes[..., 0], slopes[..., 1])
        return jnp.sum(sums**2) / max(sums.size, 1)

    curl = loops(belief.slopes) / (loops(clues.slopes) + clues.noise**2)
    height = Surface(belief.height_px, jnp.ones((), belief.height_px.dtype)).slopes()
    given = clues.slopes
    # Slopes compared as angles: a difference in slope counts by the cosine squared.
    lean = 1.0 / (1.0 + jnp.sum(given**2, axis=-1))
    off = jnp.sum((jnp.stack(height, axis=-1) - given) ** 2, axis=-1) * lean**2 / clues.noise**2
    miss = jnp.sqrt(1.0 + off) - 1.0
    border = jnp.concatenate([miss[0], miss[-1], miss[:, 0], miss[:, -1]])
    return curl, jnp.mean(miss), jnp.mean(border)


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


def _shortened(vectors: Float[Array, "y x 2"], longest: Scalar) -> Float[Array, "y x 2"]:
    """Vectors no longer than `longest`: the limit that is reached smoothly. Gradient: exact."""
    return vectors / jnp.sqrt(1.0 + jnp.sum(vectors**2, axis=-1, keepdims=True) / longest**2)


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
