"""Derivative maps: how any output answers to any single number of the instrument.

Numbers go by dotted names, `"detector.distance_mm"` or `"detector.segments.gain[2]"`. Only the numbers asked for are
traced, so a grounded microscope stays known to be grounded and no field is solved for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, SequenceKey
from jaxtyping import Array

from eclipsjax._types import InputError


class Forward(eqx.Module):
    """Forward mode: one pass per number. For maps.

    - `chunk`: numbers worked on at once (static); memory grows with it.

    Gradient: what it computes is one, as exact as the function's own.
    """

    chunk: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        _check_chunk(self.chunk)

    def jacobian(self, f: Callable[[Array], Array], at: Array) -> Array:
        """d f / d at, `(number, *output)`. Gradient: as exact as that of `f`."""
        return _in_chunks(lambda tangent: jax.jvp(f, (at,), (tangent,))[1], at.size, at.dtype, self.chunk)


class Reverse(eqx.Module):
    """Reverse mode: one pass per element of the output, whatever the number of numbers. For losses and small outputs.

    - `chunk`: elements of the output worked on at once (static); memory grows with it.

    Gradient: what it computes is one, as exact as the function's own.
    """

    chunk: int = eqx.field(static=True, default=8)

    def __check_init__(self):
        _check_chunk(self.chunk)

    def jacobian(self, f: Callable[[Array], Array], at: Array) -> Array:
        """d f / d at, `(number, *output)`. Gradient: as exact as that of `f`."""
        output, pull = jax.vjp(f, at)
        rows = _in_chunks(lambda one: pull(one.reshape(output.shape))[0], output.size, output.dtype, self.chunk)
        return rows.T.reshape(at.shape + output.shape)


def _check_chunk(chunk: int) -> None:
    if chunk < 1:
        raise InputError(f"chunk is {chunk}: work on at least one derivative at once.")


def _in_chunks(derivative: Callable[[Array], Array], count: int, dtype: Any, chunk: int) -> Array:
    """`derivative` of each of `count` unit vectors, stacked.

    A plain loop over equal chunks, not a compiled one: what is compiled inside `derivative` is then found again at
    the next call.
    """
    chunk = min(chunk, count)
    batched = jax.vmap(derivative)
    parts = [batched(jnp.asarray(np.eye(chunk, count, first), dtype)) for first in range(0, count, chunk)]
    return jnp.concatenate(parts, axis=0)[:count]


def instrument_numbers(scope: Any) -> tuple[str, ...]:
    """Dotted names of all numbers in a record (`Microscope` or any other), in order.

    A scalar is `"detector.distance_mm"`, an entry of an array `"detector.segments.gain[2]"`.
    Gradient: none (names).
    """
    return tuple(_index(scope))


def derivative_maps(
    f: Callable[[Any], Array],
    scope: Any,
    numbers: str | Iterable[str],
    mode: Forward | Reverse | None = None,
) -> dict[str, Array]:
    """d f(scope) / d number, for each of `numbers`.

    **Arguments:**

    - `f`: any differentiable function of the record that returns one array, such as
      `lambda scope: render(surface, acceptance(scope))`.
    - `scope`: the record that holds the numbers: a `Microscope`, or any other record, such as an emission law.
    - `numbers`: names from `instrument_numbers(scope)`. The bare name of an array stands for all its entries.
    - `mode`: `Forward(chunk=8)` unless given, or `Reverse(chunk=8)`, which pays when f has fewer elements than there
      are numbers. Both give the same derivatives.

    Returns a dict from each number's full name to an array of f's shape, in f's unit over the number's unit
    (per mm, per deg, ...). Gradient: as exact as that of `f`.
    """
    chosen = resolve_numbers((numbers,) if isinstance(numbers, str) else tuple(numbers), scope)
    index, leaves = _index(scope), jax.tree.leaves(scope)
    dtype = jnp.result_type(*(leaves[index[name][0]] for name in chosen))

    def moved(shifts: Array) -> Array:
        return f(numbers_moved(scope, chosen, shifts))

    jacobian = (Forward() if mode is None else mode).jacobian(moved, jnp.zeros(len(chosen), dtype))
    return {name: jacobian[k] for k, name in enumerate(chosen)}


def numbers_moved(record: Any, names: tuple[str, ...], shifts: Array) -> Any:
    """The record with each number of `names` (full dotted names) moved by its entry of `shifts`. Gradient: exact."""
    index = _index(record)
    leaves, treedef = jax.tree.flatten(record)
    for name, shift in zip(names, shifts, strict=True):
        leaf, entry = index[name]
        leaves[leaf] = leaves[leaf].at[entry].add(shift.astype(leaves[leaf].dtype))
    return jax.tree.unflatten(treedef, leaves)


def _index(record: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Each number's name -> (which leaf of the record, which entry of that leaf)."""
    index = {}
    for k, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(record)[0]):
        if not (isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)):
            continue
        name = "".join(_step(key) for key in path).lstrip(".")
        for entry in np.ndindex(leaf.shape):
            index[name + (f"[{','.join(map(str, entry))}]" if entry else "")] = (k, entry)
    return index


def _step(key: Any) -> str:
    match key:
        case GetAttrKey(name=name):
            return f".{name}"
        case DictKey(key=name):
            return f".{name}"
        case SequenceKey(idx=i) | FlattenedIndexKey(key=i):
            return f"[{i}]"
    return str(key)


def read_number(record: Any, name: str) -> float:
    """The value of the number with the full dotted name `name`."""
    leaf, entry = _index(record)[name]
    return float(np.asarray(jax.tree.leaves(record)[leaf])[entry])


def resolve_numbers(names: tuple[str, ...], record: Any, argument: str = "numbers") -> tuple[str, ...]:
    """Full names for `names`, the bare name of an array standing for all its entries; `InputError` if unknown.

    `argument`: what the message calls `names`.
    """
    if not names:
        raise InputError(f"{argument} is empty: name at least one, such as 'detector.distance_mm'.")
    index = _index(record)
    chosen: dict[str, None] = {}
    for name in names:
        entries = [full for full in index if full == name or full.startswith(f"{name}[")]
        if not entries:
            raise InputError(f"{argument} holds '{name}', which the record does not have: {_nearest(name, index)}")
        chosen.update(dict.fromkeys(entries))
    return tuple(chosen)


def stem(name: str) -> str:
    """A number's name without its place in an array."""
    return name.split("[")[0]


def _nearest(name: str, index: dict) -> str:
    asked, bare = stem(name), dict.fromkeys(stem(full) for full in index)
    same_field = [b for b in bare if b.split(".")[-1] == asked.split(".")[-1]]
    near = same_field or difflib.get_close_matches(asked, bare, n=3, cutoff=0.4)
    if asked in bare:
        near = [full for full in index if full.startswith(asked)]
    return f"did you mean {' or '.join(near[:8])}?" if near else f"it has {', '.join(bare)}."
