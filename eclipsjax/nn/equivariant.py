"""Convolutions that turn and flip with their input: kernels tied over the eight symmetries of the square (D4).

Hidden channels come in eights: one field, as seen in each of the eight orientations (Cohen and Welling 2016). A kernel
is learned for one orientation and turned into the others, so a network rotates exactly, learns from every image as
from eight, and has an eighth of the parameters.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

ORIENTATIONS = 8


def act_on_image(element: int, array: Array, axes: tuple[int, int] = (0, 1)) -> Array:
    """The image flipped left to right (elements 4 to 7), then turned by element mod 4 quarter turns."""
    flipped = jnp.flip(array, axes[1]) if element >= 4 else array
    return jnp.rot90(flipped, element % 4, axes)


def act_on_vector(element: int) -> np.ndarray:
    """2 x 2 matrix that takes (x, y) components of a slope along with `act_on_image`."""
    turn, flip = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.diag([-1.0, 1.0])
    return np.linalg.matrix_power(turn, element % 4) @ (flip if element >= 4 else np.eye(2))


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """`quotient[h, g]` = h^-1 g, and the matrices of all elements."""
    matrices = np.stack([act_on_vector(e) for e in range(ORIENTATIONS)])
    quotient = np.zeros((ORIENTATIONS, ORIENTATIONS), int)
    for h in range(ORIENTATIONS):
        for g in range(ORIENTATIONS):
            product = matrices[h].T @ matrices[g]
            quotient[h, g] = next(e for e in range(ORIENTATIONS) if np.allclose(matrices[e], product))
    return quotient, matrices


_QUOTIENT, _MATRICES = _tables()


def _turned(kernel: Array) -> Array:
    """All orientations of a kernel `(y, x, ...)`, first axis the orientation."""
    return jnp.stack([act_on_image(e, kernel) for e in range(ORIENTATIONS)])


def _between_fields(kernel: Float[Array, "y x u i o"]) -> Float[Array, "y x i8 o8"]:
    """Kernel from eights to eights: orientation h of the output sees orientation g of the input by h^-1 g."""
    size, _, _, inside, outside = kernel.shape
    turned = _turned(kernel)
    full = jnp.stack([turned[h][:, :, _QUOTIENT[h]] for h in range(ORIENTATIONS)], axis=-1)
    return jnp.einsum("yxgioh->yxigoh", full).reshape(size, size, 8 * inside, 8 * outside)


class Lift(nnx.Module):
    """From scalar and vector maps to fields, by a convolution: `size` odd with stride 1, even with stride 2."""

    def __init__(self, scalars: int, vectors: int, fields: int, size: int, stride: int, *, rngs: nnx.Rngs):
        scale = (size * size * (scalars + 2 * vectors)) ** -0.5
        draw = lambda *shape: nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))  # noqa: E731
        self.scalar = draw(size, size, scalars, fields)
        self.vector = draw(size, size, 2, vectors, fields)
        self.bias = nnx.Param(jnp.zeros(fields, jnp.float32))
        self.stride = stride

    def __call__(self, scalars: Float[Array, "b y x s"], vectors: Float[Array, "b y x v 2"]) -> Array:
        size, _, count, fields = self.scalar[...].shape
        from_scalars = jnp.einsum("hyxso->yxsoh", _turned(self.scalar[...]))
        matrices = jnp.asarray(_MATRICES, vectors.dtype)
        from_vectors = jnp.einsum("hab,hyxbvo->yxvaoh", matrices, _turned(self.vector[...]))
        kernel = jnp.concatenate(
            [from_scalars.reshape(size, size, count, -1), from_vectors.reshape(size, size, -1, 8 * fields)], axis=2
        )
        inputs = jnp.concatenate([scalars, vectors.reshape(*vectors.shape[:3], -1)], axis=-1)
        pad = (size - self.stride) // 2
        return _convolve(inputs, kernel, self.stride, pad) + _eightfold(self.bias[...])


class Between(nnx.Module):
    """From fields to fields: `size` odd with stride 1, even with stride 2; `up` doubles the resolution instead."""

    def __init__(self, inside: int, outside: int, size: int = 3, stride: int = 1, up: bool = False, *, rngs: nnx.Rngs):
        scale = (size * size * 8 * inside / (4 if up else 1)) ** -0.5
        self.kernel = nnx.Param(scale * jax.random.normal(rngs.params(), (size, size, 8, inside, outside), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outside, jnp.float32))
        self.stride, self.up = stride, up

    def __call__(self, fields: Float[Array, "b y x f"]) -> Array:
        kernel = _between_fields(self.kernel[...])
        if self.up:
            out = _enlarged(fields, kernel)
        else:
            out = _convolve(fields, kernel, self.stride, (kernel.shape[0] - self.stride) // 2)
        return out + _eightfold(self.bias[...])


class Lower(nnx.Module):
    """From fields to scalar and vector maps of twice the resolution, by a transposed convolution of size 4."""

    def __init__(self, fields: int, scalars: int, vectors: int, *, rngs: nnx.Rngs):
        scale = 0.1 * (4 * 8 * fields) ** -0.5
        self.scalar = nnx.Param(scale * jax.random.normal(rngs.params(), (4, 4, fields, scalars), jnp.float32))
        self.vector = nnx.Param(scale * jax.random.normal(rngs.params(), (4, 4, 2, fields, vectors), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(scalars, jnp.float32))

    def __call__(self, fields: Float[Array, "b y x f"]) -> tuple[Array, Array]:
        scalars = self.bias[...].shape[0]
        to_scalars = jnp.einsum("gyxfs->yxfgs", _turned(self.scalar[...]))
        matrices = jnp.asarray(_MATRICES, fields.dtype)
        to_vectors = jnp.einsum("gab,gyxbfv->yxfgva", matrices, _turned(self.vector[...]))
        kernel = jnp.concatenate(
            [to_scalars.reshape(4, 4, fields.shape[-1], -1), to_vectors.reshape(4, 4, fields.shape[-1], -1)], axis=-1
        )
        out = _enlarged(fields, kernel)
        vectors = out[..., scalars:]
        return out[..., :scalars] + self.bias[...][None, None, None, :], vectors.reshape(*vectors.shape[:3], -1, 2)


class Norm(nnx.Module):
    """Every pixel's channels divided by their root mean square, times a scale per field: local, so any size works."""

    def __init__(self, fields: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(fields, jnp.float32))

    def __call__(self, fields: Float[Array, "b y x f"]) -> Array:
        mean = jnp.mean(fields**2, axis=-1, keepdims=True)
        return fields * lax.rsqrt(mean + 1e-6) * _eightfold(self.scale[...])


def _convolve(inputs: Array, kernel: Array, stride: int, pad: int) -> Array:
    return lax.conv_general_dilated(
        inputs, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _enlarged(fields: Float[Array, "b y x f"], kernel: Float[Array, "k k f o"]) -> Float[Array, "b 2*y 2*x o"]:
    """The transposed convolution of stride 2 with an even kernel, as one of stride 1 for each of the four pixels that
    come out of one: XLA's own goes slowly on a CPU."""
    of_pixel = [[_part(kernel, row, column) for column in (0, 1)] for row in (0, 1)]
    together = jnp.stack([part for pair in of_pixel for part in pair], axis=-2)
    size, outside = together.shape[0], kernel.shape[-1]
    out = _convolve(fields, together.reshape(size, size, kernel.shape[2], -1), 1, size // 2)
    batch, rows, columns, _ = out.shape
    out = jnp.moveaxis(out.reshape(batch, rows, columns, 2, 2, outside), 3, 2)
    return out.reshape(batch, 2 * rows, 2 * columns, outside)


def _part(kernel: Array, row: int, column: int) -> Array:
    """What of the transposed kernel leads to the pixels of this row and column of every block."""
    if kernel.shape[0] == 2:
        return kernel[1 - row : 2 - row, 1 - column : 2 - column]
    taps = kernel[row::2, column::2]
    return jnp.pad(taps, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))


def _eightfold(values: Float[Array, "f"]) -> Array:
    """One number per field for all of its orientations, ready to be added to `(b, y, x, channel)`."""
    return jnp.repeat(values, ORIENTATIONS)[None, None, None, :]
