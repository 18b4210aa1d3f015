"""Linear maps whose transpose is told, not derived, as derivative rules use them; and derivatives that end there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

from eclipsjax._types import InputError


def with_transpose(push: Callable[[Array], Array], pull: Callable[[Array], Array], values: Array) -> Array:
    """`push(values)`, linear and of the shape of `values`, with `pull` as its transpose, in a form that also batches.

    JAX has no public way to say this, but the "solve" of a trivial linear system is one. Several inputs belong into one
    array: custom_linear_solve fails where JAX knows one of two tangents to be zero, as in second derivatives. (A
    barrier around the two hides that only up to JAX 0.10.) What `push` and `pull` depend on besides is not
    differentiated: see `first_order_only`.
    """
    return lax.custom_linear_solve(lambda x: x, values, lambda _, x: push(x), transpose_solve=lambda _, x: pull(x))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def first_order_only(values: Any, told: str) -> Any:
    """The same values, for what a linear map depends on: who differentiates them is told so."""
    return values


@first_order_only.defjvp
def _first_order_only_jvp(told, primals, tangents):
    raise InputError(told)
