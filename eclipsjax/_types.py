"""The shape vocabulary, and the one sign that ties azimuths to arrays.

Arrays are `[y, x]` as the image is seen: x along columns, y down the rows, z up to the detector. Azimuths are
counter-clockwise from +x as seen in the image. Lengths in the chamber are millimetres, on the specimen nanometres.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Number = float | int | np.number | Array
Scalar = Float[Array, ""]
PerSegment = Float[Array, "segment"]
Map = Float[Array, "y x"]
NormalMap = Float[Array, "y x 3"]
SignalStack = Float[Array, "segment y x"]


class InputError(ValueError):
    """A user's mistake, told in one sentence: which field, which value, what to do."""


def as_real(value: Any, name: str = "a value") -> Array:
    """A floating-point array; Python and NumPy numbers get JAX's default precision, JAX arrays keep their own.

    Raises `InputError`, which calls the value `name`, for what is not real numbers: text, complex or masked arrays.
    """
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
        # With an explicit dtype the type is never weak, so a changed number does not trace anew.
        return jnp.asarray(value, dtype=value.dtype)
    _refuse_unreal(value, name)
    try:
        return jnp.asarray(value, dtype=jnp.result_type(float))
    except jax.errors.JAXTypeError:
        raise
    except (TypeError, ValueError):
        raise InputError(f"{name} is {shown(value)}: give a number or an array of numbers.") from None


def real_named(name: str) -> Callable[[Any], Array]:
    """`as_real` that calls the value `name`: a converter for a record's field."""
    return lambda value: as_real(value, name)


def _refuse_unreal(value: Any, name: str) -> None:
    """What NumPy and JAX would convert in silence, losing a mask, an imaginary part or a meaning."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InputError(
            f"{name} has {int(np.ma.count_masked(value))} masked values, and a mask would be lost: fill them first "
            "(value.filled(...)) or crop the array."
        )
    if isinstance(value, str | bytes):
        raise InputError(f"{name} is {shown(value)}: give a number, not text.")
    dtype = getattr(value, "dtype", None)
    if dtype is None or jnp.issubdtype(dtype, np.object_):
        return
    if jnp.issubdtype(dtype, np.complexfloating):
        raise InputError(f"{name} is complex ({dtype}): give its real part or its modulus.")
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        raise InputError(f"{name} holds {dtype}, not numbers: give a number or an array of numbers.")


def whole_number(name: str, value: Any, least: int) -> int:
    """`value` as a Python integer, of any integer type; `InputError` unless it is one of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} is {shown(value)}: give a whole number of at least {least}.")
    return number


def shown(value: Any) -> str:
    """`value` for an error message, on one line and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def at_pixels(wrong: np.ndarray) -> str:
    """How many pixels of a map are `wrong`, and where the first one lies, for an error message."""
    row, column = np.argwhere(wrong)[0]
    return f"at {wrong.sum()} pixels, first at row {row}, column {column}"


def concrete(value: Any) -> np.ndarray | None:
    """The numbers behind `value`, or None while JAX is tracing (then nothing can be checked)."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def image_direction(azimuth: Any) -> tuple[Array, Array]:
    """Components along the array axes (x, y) of an azimuth in radians: (cos, -sin), because rows run down."""
    return jnp.cos(azimuth), -jnp.sin(azimuth)
