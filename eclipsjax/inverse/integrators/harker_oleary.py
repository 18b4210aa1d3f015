"""Harker and O'Leary's global least squares with three-point derivatives (2008, 2015)."""

from __future__ import annotations

from functools import lru_cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eclipsjax._cosine import inverse_or_zero
from eclipsjax._types import Map


class HarkerOLeary(eqx.Module):
    """Height whose three-point derivatives fit the slopes best, in least squares.

    Central differences inside, one-sided ones at the border: a Sylvester equation, solved in the eigenvectors of the
    two derivative operators. Second order; reads every other pixel, so it follows noise of the shortest wavelengths.
    Gradient: exact (linear).
    """

    def height_px(self, slope_x: Map, slope_y: Map, weights: None, mask: None) -> Map:
        """Height in pixels, up to a constant."""
        rows, columns = slope_x.shape
        (derive_y, square_y, modes_y), (derive_x, square_x, modes_x) = (
            tuple(jnp.asarray(a, slope_x.dtype) for a in _operator(n)) for n in (rows, columns)
        )
        right = slope_x @ derive_x + derive_y.T @ slope_y
        inverse = inverse_or_zero(square_y[:, None] + square_x[None, :])
        return modes_y @ (inverse * (modes_y.T @ right @ modes_x)) @ modes_x.T


@lru_cache(maxsize=8)
def _operator(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The derivative matrix D of `count` pixels, and the eigenvalues (0 where D sees nothing) and vectors of D' D."""
    derive = np.zeros((count, count))
    if count > 1:
        inner = np.arange(1, count - 1)
        derive[inner, inner + 1], derive[inner, inner - 1] = 0.5, -0.5
        ends = np.array([-1.5, 2.0, -0.5]) if count > 2 else np.array([-1.0, 1.0])
        derive[0, : ends.size], derive[-1, -ends.size :] = ends, -ends[::-1]
    square, modes = np.linalg.eigh(derive.T @ derive)
    return derive, np.where(square > 1e-12, square, 0.0), modes
