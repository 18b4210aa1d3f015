"""A microscope some of whose numbers are only known within a standard deviation, and may shift to explain images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, SignalStack, shown
from eclipsjax.imaging.sensitivity import instrument_numbers, numbers_moved, read_number, resolve_numbers, stem
from eclipsjax.instrument.acceptance import AcceptanceTable, NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.specimen.emission import EmissionLaw, law_of

GAIN, PEDESTAL = "detector.segments.gain", "detector.segments.pedestal"
# What shapes the image without touching which directions reach which segment.
_NOT_GEOMETRY = (GAIN, PEDESTAL, "beam.probe_fwhm_nm", "emission.")
# One number that moves two of the record's.
AZIMUTH = "detector.segments.azimuth_deg"
_BOTH_RIMS = ("detector.segments.start_deg", "detector.segments.stop_deg")


class Model(eqx.Module):
    """What makes signals of slopes: the microscope and the angular law of emission."""

    scope: Microscope
    emission: EmissionLaw


class Instrument(eqx.Module):
    """A microscope and an emission law, their acceptance, and the numbers that may shift.

    Numbers go by the dotted names of `instrument_numbers(scope)`; besides, `detector.segments.azimuth_deg[k]` turns a
    whole segment (both its rims), and `emission.strength` and its like belong to the law. A bare array's name stands
    for all its entries.

    - `model`: with nominal numbers. `nominal`: their acceptance table.
    - `std`: `(number,)` standard deviation of each of `names` (static, in full), in the number's unit.

    Gradient: exact.
    """

    model: Model
    nominal: AcceptanceTable
    std: Float[Array, "number"]
    names: tuple[str, ...] = eqx.field(static=True)
    is_wide: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        scope: Microscope,
        uncertain: Mapping[str, float],
        field_mm: Any = None,
        emission: EmissionLaw | None = None,
    ) -> Instrument:
        """The instrument with `uncertain` numbers: name -> standard deviation."""
        model = Model(scope, law_of(emission))
        std: dict[str, float] = {}
        for name, deviation in uncertain.items():
            if not (np.ndim(deviation) == 0 and np.isfinite(deviation) and deviation > 0):
                raise InputError(f"uncertain['{name}'] is {shown(deviation)}: give a positive standard deviation.")
            std.update(dict.fromkeys(_full_names(name, model), float(deviation)))
        geometric = [name for name in std if not name.startswith(_NOT_GEOMETRY)]
        if geometric and scope.is_biased:
            raise InputError(
                f"uncertain holds '{geometric[0]}' but an electrode is biased: with a field only gain, pedestal and "
                "emission can be solved along with the heights."
            )
        table = acceptance(scope, field_mm=field_mm)
        deviations = jnp.asarray(np.array(list(std.values())), scope.detector.distance_mm.dtype)
        return cls(model, table, deviations, tuple(std), field_mm is not None)

    @property
    def scope(self) -> Microscope:
        """The nominal microscope."""
        return self.model.scope

    @property
    def geometry_moves(self) -> bool:
        """Whether the acceptance depends on the numbers."""
        return any(not name.startswith(_NOT_GEOMETRY) for name in self.names)

    def shifted(self, numbers: Float[Array, "number"]) -> Model:
        """The model whose uncertain numbers lie `numbers` standard deviations off. Gradient: exact."""
        shifts = numbers.astype(self.std.dtype) * self.std
        moved = [(leaf, k) for k, name in enumerate(self.names) for leaf in _leaves(name)]
        if not moved:
            return self.model
        places = jnp.asarray(np.array([k for _, k in moved]))
        return numbers_moved(self.model, tuple(leaf for leaf, _ in moved), shifts[places])

    def table(self, model: Model) -> AcceptanceTable:
        """Its acceptance; the nominal one where no geometry moves. Gradient: exact."""
        if not self.geometry_moves:
            return self.nominal
        field_mm = self.nominal.field_mm if self.is_wide else None
        return acceptance(model.scope, field_mm=field_mm, field=NoField())

    def relative_gain(self, model: Model) -> PerSegment:
        """Gain over the nominal one. Gradient: exact."""
        return model.scope.detector.segments.gain / self.scope.detector.segments.gain

    def as_if_nominal(self, level: SignalStack, model: Model) -> SignalStack:
        """Levels that the nominal gain and pedestal would make of what `model` records. Gradient: exact."""
        pedestal, nominal = model.scope.detector.segments.pedestal, self.scope.detector.segments.pedestal
        gain, pedestal, nominal = (
            v.astype(level.dtype)[:, None, None] for v in (self.relative_gain(model), pedestal, nominal)
        )
        return gain * (level - pedestal) + nominal

    def value(self, name: str) -> float:
        """The nominal value of one of `names`, in its unit."""
        return float(np.mean([read_number(self.model, leaf) for leaf in _leaves(name)]))


def _full_names(name: str, model: Model) -> tuple[str, ...]:
    """`name` as full names; a microscope's own numbers are given without their `scope.`"""
    if stem(name) == AZIMUTH:
        starts = resolve_numbers((name.replace(AZIMUTH, _BOTH_RIMS[0]),), model.scope, "uncertain")
        return tuple(start.replace(_BOTH_RIMS[0], AZIMUTH) for start in starts)
    if name.startswith("emission."):
        known = [full for full in instrument_numbers(model) if full.startswith("emission.")]
        if name not in known:
            raise InputError(
                f"uncertain holds '{name}', but the emission law has {' and '.join(known) or 'no number'}: give a law "
                "such as ForwardLobe(0.1) as emission."
            )
        return (name,)
    return resolve_numbers((name,), model.scope, "uncertain")


def _leaves(name: str) -> tuple[str, ...]:
    """The numbers of `Model` that a name moves."""
    if name.startswith("emission."):
        return (name,)
    if name.startswith(AZIMUTH):
        return tuple("scope." + name.replace(AZIMUTH, rim) for rim in _BOTH_RIMS)
    return ("scope." + name,)
