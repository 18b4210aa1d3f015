"""Where a ray samples the map: crossings of the grid, close together near the pixel and farther apart away from it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Steps unrolled into one compiled loop over the map. With more, XLA breaks the loop apart or stops vectorising it
# (measured on a CPU: 16 at a time make an image up to 3 times slower, 128 more than 20 times).
GROUP = 4

# Pixels along the major axis up to which rays are also sampled where they cross the minor axis: without, the top edge
# of a wall seen slantwise is missed (a trench 60 wide and 90 deep, in pixels: 1.2 % too much sky; with 16 px still 0.7
# %).
_NEAR_PX = 32


class RaySteps(eqx.Module):
    """Where a ray samples the map: two neighbouring pixels a step, and how to weigh them. Offsets are (row, column)."""

    near: Int[Array, "*azimuth step 2"]
    far: Int[Array, "*azimuth step 2"]
    here: Int[Array, "*azimuth step 2"]
    far_weight: Float[Array, "*azimuth step"]
    inverse_length: Float[Array, "*azimuth step"]
    reach: int = eqx.field(static=True)

    @classmethod
    def along(cls, azimuths_rad: np.ndarray, radius_px: int, growth: float, dtype) -> RaySteps:
        """Steps of rays along `azimuths_rad` (radians, counter-clockwise as seen in the image), one row per azimuth.

        Rays are sampled where they cross the grid lines of their major axis, and near the pixel those of the minor axis
        too: between two of these crossings a bilinear surface has no peak to miss.
        """
        major, minor = _major_and_minor(azimuths_rad)
        length = step_distances(radius_px, growth) / major
        near_px = min(radius_px, _NEAR_PX)
        lines = np.arange(1, int(near_px * np.max(minor / major)) + 1)
        across = lines / np.maximum(minor, 1e-9)
        # Every azimuth needs as many steps: those that cross fewer lines repeat their first step. A maximum does not
        # mind; in the smoothed sum a repeated step counts twice, within the bias that is stated there.
        across = np.where(across * major <= near_px, across, length[:, :1])
        length = np.sort(np.concatenate([across, length], axis=1), axis=1)
        # A last group that is not full costs more than the steps that fill it.
        length = np.concatenate([length, np.repeat(length[:, -1:], -length.shape[1] % GROUP, axis=1)], axis=1)
        return cls.at(azimuths_rad, length, radius_px + 1, dtype)

    @classmethod
    def on_lines(cls, azimuths_rad: np.ndarray, lines: np.ndarray, dtype) -> RaySteps:
        """Steps where rays cross the given grid lines of their major axis, counted from the pixel."""
        length = lines[None, :] / _major_and_minor(azimuths_rad)[0]
        return cls.at(azimuths_rad, length, int(lines.max()) + 1, dtype)

    @classmethod
    def at(cls, azimuths_rad: np.ndarray, length: np.ndarray, reach: int, dtype) -> RaySteps:
        """Steps `length` pixels away, `(azimuth, step)`, on grid lines; no offset is larger than `reach`."""
        along = np.stack([-np.sin(azimuths_rad), np.cos(azimuths_rad)], axis=-1)
        point = along[:, None, :] * length[..., None]
        near = np.floor(point + 1e-9)
        fraction = np.clip(point - near, 0.0, 1.0)
        far = near + np.eye(2)[np.argmax(fraction, axis=-1)]
        return cls(
            near=jnp.asarray(near, dtype=jnp.int32),
            far=jnp.asarray(far, dtype=jnp.int32),
            here=jnp.zeros(near.shape, dtype=jnp.int32),
            far_weight=jnp.asarray(fraction.max(-1), dtype=dtype),
            inverse_length=jnp.asarray(1.0 / length, dtype=dtype),
            reach=reach,
        )

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.far_weight.shape[-1]


def _major_and_minor(azimuths_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a ray of length 1 comes along its major and its minor axis, `(azimuth, 1)` each."""
    along = np.abs(np.stack([np.sin(azimuths_rad), np.cos(azimuths_rad)], axis=-1))
    return along.max(-1, keepdims=True), along.min(-1, keepdims=True)


def step_distances(radius_px: int, growth: float) -> np.ndarray:
    """Distances in whole pixels along the major axis: every pixel at first, then growing, ending at `radius_px`."""
    distances, r = [], 1.0
    while r < radius_px:
        distances.append(round(r))
        r = max(distances[-1] + 1.0, distances[-1] * growth)
    distances += [radius_px] if radius_px > 0 else []
    return np.array(distances, dtype=np.float64)
