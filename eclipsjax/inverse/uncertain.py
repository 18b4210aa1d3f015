"""A microscope some of whose numbers are only known within a standard deviation, and may shift to explain images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, PerSegment, SignalStack, shown
from eclipsjax.imaging.sensitivity import numbers_moved, resolve_numbers
from eclipsjax.instrument.acceptance import AcceptanceTable, NoField, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.spectrum import Spectrum

# Numbers of the record that shape the image without touching which directions reach which segment.
_OF_THE_AMPLIFIER = ("detector.segments.gain", "detector.segments.pedestal", "beam.probe_fwhm_nm")


class Instrument(eqx.Module):
    """A microscope, its acceptance, and the numbers that may shift.

    - `scope`: with its nominal numbers. `nominal`: their acceptance table.
    - `std`: `(number,)` standard deviation of each of `names` (static, full dotted names), in the number's unit.
    - `spectrum`: of the emitted electrons.

    Gradient: exact.
    """

    scope: Microscope
    nominal: AcceptanceTable
    std: Float[Array, "number"]
    spectrum: Spectrum
    names: tuple[str, ...] = eqx.field(static=True)
    is_wide: bool = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        scope: Microscope,
        uncertain: Mapping[str, float],
        field_mm: Any = None,
        spectrum: Spectrum | None = None,
    ) -> Instrument:
        """The instrument with `uncertain` numbers: dotted name (all entries of an array) -> standard deviation."""
        spectrum = Spectrum.elastic() if spectrum is None else spectrum
        names, std = [], []
        for name, deviation in uncertain.items():
            if not (np.ndim(deviation) == 0 and np.isfinite(deviation) and deviation > 0):
                raise InputError(f"uncertain['{name}'] is {shown(deviation)}: give a positive standard deviation.")
            for full in resolve_numbers((name,), scope):
                names.append(full)
                std.append(float(deviation))
        geometric = [name for name in names if not name.startswith(_OF_THE_AMPLIFIER)]
        if geometric and scope.is_biased:
            raise InputError(
                f"uncertain holds '{geometric[0]}' but an electrode is biased: with a field only gain and pedestal can "
                "be solved along with the heights."
            )
        table = acceptance(scope, field_mm=field_mm, spectrum=spectrum)
        dtype = scope.detector.distance_mm.dtype
        return cls(scope, table, jnp.asarray(np.array(std), dtype), spectrum, tuple(names), field_mm is not None)

    @property
    def geometry_moves(self) -> bool:
        """Whether the acceptance depends on the numbers."""
        return any(not name.startswith(_OF_THE_AMPLIFIER) for name in self.names)

    def shifted(self, numbers: Float[Array, "number"]) -> Microscope:
        """The microscope whose uncertain numbers lie `numbers` standard deviations off. Gradient: exact."""
        if not self.names:
            return self.scope
        return numbers_moved(self.scope, self.names, numbers.astype(self.std.dtype) * self.std)

    def table(self, microscope: Microscope) -> AcceptanceTable:
        """Its acceptance; the nominal one where no geometry moves. Gradient: exact."""
        if not self.geometry_moves:
            return self.nominal
        field_mm = self.nominal.field_mm if self.is_wide else None
        return acceptance(microscope, field_mm=field_mm, spectrum=self.spectrum, field=NoField())

    def relative_gain(self, microscope: Microscope) -> PerSegment:
        """Gain over the nominal one. Gradient: exact."""
        return microscope.detector.segments.gain / self.scope.detector.segments.gain

    def as_if_nominal(self, level: SignalStack, microscope: Microscope) -> SignalStack:
        """Levels that the nominal gain and pedestal would make of what `microscope` records. Gradient: exact."""
        pedestal, nominal = microscope.detector.segments.pedestal, self.scope.detector.segments.pedestal
        gain, pedestal, nominal = (
            v.astype(level.dtype)[:, None, None] for v in (self.relative_gain(microscope), pedestal, nominal)
        )
        return gain * (level - pedestal) + nominal
