"""An image in equal windows that overlap, so that sums over it need no more memory than one window does."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Pair = tuple[int, int]


def centre_mm(start: Any, window: Pair, shape: Pair, pixel_size_nm: Any) -> Array:
    """How far right of and below the centre of an image of `shape` that of a window lies, as `of_part` of an acceptance
    table takes it. `start`: its first row and column. Gradient: exact."""
    off = [start[k] + 0.5 * (window[k] - shape[k]) for k in (1, 0)]
    return jnp.stack(off) * pixel_size_nm * 1e-6


class Tile(NamedTuple):
    """One window: where it starts, and which of its rows and columns are its own (`first` up to, without, `last`)."""

    start: np.ndarray
    first: np.ndarray
    last: np.ndarray


class Tiles(NamedTuple):
    """Windows of `window` (rows, columns) that lie within the image; every pixel is one tile's own.

    A tile's own pixels lie at least the halo away from the window's border, but for the image's own border.
    """

    window: Pair
    tiles: tuple[Tile, ...]

    @classmethod
    def of(cls, shape: Pair, halo: int, most_pixels: int) -> Tiles:
        """Windows of at most about `most_pixels`; the whole image where that is allowed."""
        fits = shape[0] * shape[1] <= most_pixels
        side = max(shape) if fits else max(int(most_pixels**0.5), 4 * halo)
        axes = [_cut(count, min(side, count), halo) for count in shape]
        pairs = itertools.product(*axes)
        tiles = tuple(Tile(*(np.array([row[k], column[k]], np.int32) for k in range(3))) for row, column in pairs)
        return cls((min(side, shape[0]), min(side, shape[1])), tiles)


def _cut(count: int, side: int, halo: int) -> list[tuple[int, int, int]]:
    """(start, first own, last own) of the windows along one axis, `first` and `last` counted from the start."""
    if side >= count:
        return [(0, 0, count)]
    own, pieces, done = side - 2 * halo, [], 0
    while done < count:
        start = min(max(done - halo, 0), count - side)
        end = count if start == count - side else start + halo + own
        pieces.append((start, done - start, end - start))
        done = end
    return pieces
