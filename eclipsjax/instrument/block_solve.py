"""Direct solution of symmetric positive definite block-tridiagonal systems whose coupling blocks are diagonal.

In matrix products only: small LAPACK factorisations inside a scan fight over threads with whatever else runs (measured
on two busy cores: 0.25 to 5.6 s instead of 0.07 s for 160 blocks of 128), and no pivoting is needed.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

PIVOTS = 8


def factorise(
    diagonal: Float[Array, "row n"], across: Float[Array, "row n-1"], down: Float[Array, "row-1 n"]
) -> Float[Array, "row n n"]:
    """Inverses of the Schur complements of block elimination, first row to last.

    Row k's block has `diagonal[k]` on its diagonal and `-across[k]` beside it; `-diag(down[k])` couples rows k, k + 1.
    """
    count = diagonal.shape[1]

    def step(previous, row):
        centre, beside, coupling = row
        block = jnp.diag(centre) - jnp.diag(beside, 1) - jnp.diag(beside, -1)
        inverse = positive_inverse(block - coupling[:, None] * previous * coupling[None, :])
        return inverse, inverse

    coupling = jnp.concatenate([jnp.zeros_like(diagonal[:1]), down])
    return lax.scan(step, jnp.zeros((count, count), diagonal.dtype), (diagonal, across, coupling))[1]


def substitute(
    inverses: Float[Array, "row n n"], down: Float[Array, "row-1 n"], source: Float[Array, "row n"]
) -> Float[Array, "row n"]:
    """The solution for one right-hand side, given what `factorise` returned."""
    none = jnp.zeros_like(source[:1])

    def eliminate(carry, row):
        rhs, coupling, inverse = row
        rhs = rhs + coupling * carry
        return inverse @ rhs, rhs

    def restore(behind, row):
        rhs, coupling, inverse = row
        x = inverse @ (rhs + coupling * behind)
        return x, x

    _, rhs = lax.scan(eliminate, none[0], (source, jnp.concatenate([none, down]), inverses))
    return lax.scan(restore, none[0], (rhs, jnp.concatenate([down, none]), inverses), reverse=True)[1]


def positive_inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Inverse of a symmetric positive definite matrix by Gauss-Jordan elimination, eight pivots at a time."""
    count = matrix.shape[0]
    padding = -count % PIVOTS
    work = jnp.pad(matrix, (0, padding)) + jnp.diag(
        jnp.pad(jnp.zeros_like(matrix[0]), (0, padding), constant_values=1.0)
    )
    size = count + padding

    def eliminate(k, work):
        at = PIVOTS * k
        rows = lax.dynamic_slice(work, (at, 0), (PIVOTS, size))
        columns = lax.dynamic_slice(work, (0, at), (size, PIVOTS))
        inverse = _pivot_inverse(lax.dynamic_slice(work, (at, at), (PIVOTS, PIVOTS)))
        scaled = inverse @ rows
        work = work - columns @ scaled
        work = lax.dynamic_update_slice(work, scaled, (at, 0))
        work = lax.dynamic_update_slice(work, -columns @ inverse, (0, at))
        return lax.dynamic_update_slice(work, inverse, (at, at))

    return lax.fori_loop(0, size // PIVOTS, eliminate, work)[:count, :count]


def _pivot_inverse(block: Array) -> Array:
    for k in range(PIVOTS):
        scale = 1.0 / block[k, k]
        row, column = block[k] * scale, block[:, k]
        block = block - column[:, None] * row[None, :]
        block = block.at[k].set(row).at[:, k].set(-column * scale).at[k, k].set(scale)
    return block
