"""The peer: what a ray caster needs for the same image. Embree tells for each ray whether the relief is in its way.

Run as a script it casts the rays of a block of rows and prints its time; one process per core, since the binding holds
Python's lock.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

DIRECTIONS = 217


def toward_ring(
    inner_mm: float, outer_mm: float, distance_mm: float, count: int = DIRECTIONS
) -> tuple[np.ndarray, float]:
    """`count` directions (x right, y down, z up) on a spiral, even over the ring's solid angle; their share."""
    top, low = (distance_mm / np.hypot(distance_mm, r) for r in (inner_mm, outer_mm))
    z = low + (top - low) * (np.arange(count) + 0.5) / count
    phi = np.pi * (1 + 5**0.5) * np.arange(count)
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(phi), -flat * np.sin(phi), z], axis=-1), 2 * np.pi * (top - low) / count


class Caster:
    """A height map in pixels as two triangles a cell."""

    def __init__(self, height: np.ndarray):
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        rows, columns = height.shape
        self.height = height
        y, x = np.mgrid[:rows, :columns]
        self.vertices = np.stack([x, y, height], axis=-1).astype(np.float32)
        first = (y[:-1, :-1] * columns + x[:-1, :-1]).ravel()
        right, below = first + 1, first + columns
        faces = np.concatenate([np.stack([first, right, below], 1), np.stack([right, below + 1, below], 1)])
        self.scene = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self.scene, self.vertices.reshape(-1, 3), faces.astype(np.int32))
        down, across = np.gradient(height)
        self.normals = (
            np.stack([-across, -down, np.ones_like(height)], -1) / np.sqrt(1 + across**2 + down**2)[..., None]
        )

    def signals(
        self, pixels: np.ndarray, ring=(1.0, 5.0, 6.0), segments: int = 4, count: int = DIRECTIONS
    ) -> np.ndarray:
        """Signals (pixel, segment) of the given [(row, column)], Lambertian, first segment centred on +x."""
        directions, solid_angle = toward_ring(*ring, count)
        start = self.vertices[pixels[:, 0], pixels[:, 1]] + np.float32([0, 0, 1e-3])
        normals = self.normals[pixels[:, 0], pixels[:, 1]]
        turn = np.degrees(np.arctan2(-directions[:, 1], directions[:, 0]))
        sector = np.floor(turn / (360 / segments) + 0.5).astype(int) % segments
        out = np.zeros((len(pixels), segments))
        for d, s in zip(directions, sector, strict=True):
            along = np.ascontiguousarray(np.broadcast_to(d.astype(np.float32), start.shape))
            free = self.scene.run(start, along, query="OCCLUDED") == -1
            out[:, s] += np.where(free, np.maximum(normals @ d, 0), 0) * (solid_angle / np.pi)
        return out


def main() -> None:
    """Cast the rays of some rows of a stored map; print how long it took and for how many pixels."""
    parser = argparse.ArgumentParser()
    parser.add_argument("height")
    parser.add_argument("first_row", type=int)
    parser.add_argument("rows", type=int)
    asked = parser.parse_args()
    height = np.load(asked.height)
    caster = Caster(height)
    rows = np.arange(asked.first_row, asked.first_row + asked.rows)
    pixels = np.stack(np.meshgrid(rows, np.arange(height.shape[1]), indexing="ij"), -1).reshape(-1, 2)
    caster.signals(pixels[:16])
    started = time.perf_counter()
    caster.signals(pixels)
    print(json.dumps({"seconds": time.perf_counter() - started, "pixels": len(pixels)}))


if __name__ == "__main__":
    main()
