"""What every family of synthetic surfaces shares: a surface with its truth, the pixel grid, the checks."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from eclipsjax._types import InputError, Map, Scalar, as_real, concrete, image_direction, shown
from eclipsjax.specimen.surface import Surface

Shape = tuple[int, int]


class Truth(eqx.Module):
    """What is known in closed form about a synthetic surface.

    - `slope_x`, `slope_y`: `(y, x)` analytic dz/dx and dz/dy (y down) of the piece that each pixel centre
      lies on.
    - `edge`: `(y, x)` true where a neighbouring pixel lies on another piece, so that finite differences mix
      the two.
    - `facet`: `(y, x)` which piece a pixel lies on, an index into `facet_names` and `facet_deg`.
    - `facet_deg`: `(facet,)` inclination of each piece from the horizontal, deg; of a curved piece the
      steepest.
    - `step_height_nm`: `(step,)` the heights (depths) that the family is built from, nm.
    - `step`: `(y, x)` which of these heights a pixel belongs to (particle, island, nearest bunch), -1 where
      none.
    - `facet_names`: what the pieces are, static.

    Gradient: exact in the slopes, `facet_deg` and `step_height_nm`; zero through the masks.
    """

    slope_x: Map
    slope_y: Map
    edge: Bool[Array, "y x"]
    facet: Int[Array, "y x"]
    facet_deg: Float[Array, " facet"]
    step_height_nm: Float[Array, " step"]
    step: Int[Array, "y x"]
    facet_names: tuple[str, ...] = eqx.field(static=True)


class Scene(eqx.Module):
    """A synthetic surface and the truth about it. Gradient: exact in both."""

    surface: Surface
    truth: Truth


class Relief(eqx.Module):
    """What a family's formula returns; `assemble` makes a `Scene` of it.

    `piece` numbers the smooth pieces (each facet its own number) and `crease` adds pixels that numbers would
    miss: from both come the edges. `step` is by default 0 off the first facet, -1 on it.
    """

    height: Array
    slope_x: Array
    slope_y: Array
    facet: Array
    piece: Array
    facet_deg: list
    step_height: Array
    names: tuple[str, ...] = eqx.field(static=True)
    step: Array | None = None
    crease: Array | None = None


def assemble(family: Callable, shape: Shape, pixel_size_nm: Any, choices: tuple = (), /, **numbers: Any) -> Scene:
    """Evaluate `family(shape, pixel, *choices, **numbers) -> Relief` in one compiled call, in the dtype of
    the pixel size.

    `shape` and `choices` are static; `numbers` may be traced. Random keys pass through unchanged.
    """
    shape = image_shape(shape)
    pixel = positive("pixel_size_nm", pixel_size_nm)
    cast = {k: v if _is_key(v) else as_real(v).astype(pixel.dtype) for k, v in numbers.items()}
    relief = _evaluate(family, shape, choices, pixel, cast)
    truth = Truth(
        slope_x=relief.slope_x,
        slope_y=relief.slope_y,
        edge=_edges(relief.piece) if relief.crease is None else _edges(relief.piece) | relief.crease,
        facet=relief.facet,
        facet_deg=jnp.stack(relief.facet_deg),
        step_height_nm=relief.step_height,
        step=relief.step,
        facet_names=relief.names,
    )
    return Scene(Surface(relief.height, pixel), truth)


def image_shape(shape: Any) -> Shape:
    """`shape` as (rows, columns), of any integer type; `InputError` unless it is two positive whole numbers."""
    try:
        counts = tuple(operator.index(n) for n in shape)
    except TypeError:
        counts = ()
    if len(counts) != 2 or min(counts) < 1:
        raise InputError(f"shape is {shown(shape)}: give (rows, columns), two positive whole numbers.")
    return counts


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _evaluate(family, shape, choices, pixel, numbers):
    relief = family(shape, pixel, *choices, **numbers)
    maps = [jnp.broadcast_to(m, shape) for m in (relief.height, relief.slope_x, relief.slope_y)]
    labels = [jnp.broadcast_to(m, shape).astype(jnp.int32) for m in (relief.facet, relief.piece)]
    angles = [jnp.asarray(a, pixel.dtype) for a in relief.facet_deg]
    step = jnp.where(labels[0] > 0, 0, -1) if relief.step is None else relief.step
    heights = jnp.atleast_1d(relief.step_height)
    return Relief(*maps, *labels, angles, heights, relief.names, step.astype(jnp.int32), relief.crease)


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


@jax.jit
def _edges(piece: Array) -> Array:
    """True where one of the eight neighbours has another number."""
    rows, columns = piece.shape
    around = jnp.pad(piece, 1, mode="edge")
    shifted = [around[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return functools.reduce(jnp.logical_or, [s != piece for s in shifted])


def add(base: Scene, texture: Scene) -> Scene:
    """`base` with the heights of `texture` on top, e.g. `add(step_bunch(), rough(rms_height_nm=0.5))`.

    Heights and slopes add exactly and edges unite; facets, steps and their numbers stay those of the base, as
    the planes that the texture decorates. Both need the same shape and pixel size. Gradient: exact.
    """
    one, two = base.surface, texture.surface
    if one.height_nm.shape != two.height_nm.shape:
        raise InputError(
            f"the scenes have shapes {one.height_nm.shape} and {two.height_nm.shape}: give both one shape."
        )
    pixels = concrete(one.pixel_size_nm), concrete(two.pixel_size_nm)
    if all(p is not None for p in pixels) and not np.allclose(*pixels, rtol=1e-5):
        raise InputError(f"the scenes have pixels of {pixels[0]:g} and {pixels[1]:g} nm: give both one pixel size.")
    slopes = base.truth.slope_x + texture.truth.slope_x, base.truth.slope_y + texture.truth.slope_y
    changed = (*slopes, base.truth.edge | texture.truth.edge)
    truth = eqx.tree_at(lambda t: (t.slope_x, t.slope_y, t.edge), base.truth, changed)
    return Scene(Surface(one.height_nm + two.height_nm, one.pixel_size_nm), truth)


def grid(shape: Shape, pixel: Scalar) -> tuple[Array, Array]:
    """Pixel centres (x right, y down), nm from the image centre: maps of the full shape."""
    rows, columns = shape
    x = (jnp.arange(columns, dtype=pixel.dtype) - 0.5 * (columns - 1)) * pixel
    y = (jnp.arange(rows, dtype=pixel.dtype) - 0.5 * (rows - 1)) * pixel
    return jnp.broadcast_to(x[None, :], shape), jnp.broadcast_to(y[:, None], shape)


def along(x: Array, y: Array, azimuth_deg: Array) -> tuple[Array, Array, Array]:
    """`(u, ux, uy)`: the coordinate along an azimuth (counter-clockwise as seen) and its derivatives."""
    ux, uy = image_direction(jnp.deg2rad(azimuth_deg))
    return x * ux + y * uy, ux, uy


def random_key(key: Any) -> Array:
    """The caller's key, or the fixed default."""
    return jax.random.key(0) if key is None else key


def best_candidates(key: Array, count: int, shape: Shape, candidates: int = 12) -> tuple[Array, Array]:
    """`count` points that keep their distance, in units of the image's sides, each in [-1/2, 1/2].

    Each is the one of `candidates` random points that lies farthest from those before it (Mitchell 1991).
    """
    scale = jnp.asarray([shape[1] / max(shape), shape[0] / max(shape)])[None]
    proposals = jax.random.uniform(key, (count, candidates, 2), scale.dtype, -0.5, 0.5)

    def place(i, points):
        offsets = (proposals[i][:, None] - points[None]) * scale[None]
        distance = jnp.where(jnp.arange(count)[None] < i, jnp.sum(offsets**2, axis=-1), jnp.inf)
        return points.at[i].set(proposals[i][jnp.argmax(jnp.min(distance, axis=1))])

    points = jax.lax.fori_loop(0, count, place, jnp.zeros((count, 2), scale.dtype))
    return points[:, 0], points[:, 1]


def finite(name: str, value: Any) -> Array:
    """`value` as an array; `InputError` unless it is one finite number."""
    return _checked(name, value, np.isfinite, "a finite number")


def positive(name: str, value: Any) -> Array:
    """`value` as an array; `InputError` unless it is one positive number."""
    return _checked(name, value, lambda v: np.isfinite(v) and v > 0, "a positive number")


def not_negative(name: str, value: Any) -> Array:
    """`value` as an array; `InputError` unless it is one number of at least 0."""
    return _checked(name, value, lambda v: np.isfinite(v) and v >= 0, "a number of at least 0")


def acute(name: str, value: Any) -> Array:
    """`value` as an array; `InputError` unless it is an angle between 0 and 90 degrees, both excluded."""
    return _checked(name, value, lambda v: 0 < v < 90, "an angle above 0 and below 90 degrees")


def within(name: str, value: Any, low: float, high: float) -> Array:
    """`value` as an array; `InputError` unless low <= value <= high."""
    return _checked(name, value, lambda v: low <= v <= high, f"a number from {low:g} to {high:g}")


def _checked(name: str, value: Any, accept: Callable, wanted: str) -> Array:
    array = as_real(value, name)
    number = concrete(array)
    if number is not None and not (number.ndim == 0 and accept(number)):
        raise InputError(f"{name} is {number}: give {wanted}.")
    return array


def at_most(name: str, value: Any, limit: Any, why: str) -> None:
    """`InputError` where `value` exceeds `limit` (both known)."""
    number, most = concrete(value), concrete(limit)
    if number is not None and most is not None and number > most * (1 + 1e-6):
        raise InputError(f"{name} is {number:g}, above {most:g}: {why}.")


def extent_nm(shape: Shape, pixel_size_nm: Any, azimuth_deg: Any = 0.0) -> Any:
    """How far the image reaches along an azimuth, nm (None while tracing)."""
    shape = image_shape(shape)
    pixel, azimuth = concrete(pixel_size_nm), concrete(azimuth_deg)
    if pixel is None or azimuth is None:
        return None
    angle = math.radians(float(azimuth))
    return float(pixel) * (shape[1] * abs(math.cos(angle)) + shape[0] * abs(math.sin(angle)))
