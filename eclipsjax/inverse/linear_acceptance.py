"""The acceptance near some numbers of the instrument: exact there, linear around.

Cutting rims into bands costs far more to differentiate than to do, and depends on no height: a descent over heights
and numbers takes it in first order, about numbers that its caller renews.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
from jaxtyping import Array, Float

from eclipsjax.imaging.visible import body_bands
from eclipsjax.instrument.acceptance import AcceptanceTable
from eclipsjax.instrument.bands import Bands
from eclipsjax.inverse.uncertain import Instrument


class CutTable(AcceptanceTable):
    """A table whose bands are cut already, for one number of azimuths.

    Gradient: that of `cut`.
    """

    cut: Bands

    def bands(self, azimuths: int = 64, body_bands: int = 1) -> Bands:
        """As cut. Gradient: exact."""
        if self.cut.theta.shape[1] != azimuths:
            raise ValueError(f"cut for {self.cut.theta.shape[1]} azimuths, not {azimuths}")
        return self.cut


class LinearAcceptance(eqx.Module):
    """Bands about `numbers` (in standard deviations) of an instrument.

    - `table`: there. `cut`: its bands; `slope`: their derivatives, every leaf with a last axis for the number.

    Gradient: exact.
    """

    numbers: Float[Array, "number"]
    table: AcceptanceTable
    cut: Bands
    slope: Bands

    def at(self, numbers: Float[Array, "number"]) -> CutTable:
        """The table for other numbers. Gradient: exact."""
        off = (numbers - self.numbers).astype(self.cut.theta.dtype)
        cut = jax.tree.map(lambda leaf, slope: leaf + slope @ off, self.cut, self.slope)
        known = {field.name: getattr(self.table, field.name) for field in dataclasses.fields(self.table)}
        return CutTable(**known, cut=cut)


def acceptance_near(
    instrument: Instrument, numbers: Float[Array, "number"], azimuths: int
) -> AcceptanceTable | LinearAcceptance:
    """The acceptance of `instrument` around `numbers`: as it is where no geometry is among them.

    Gradient: none in `numbers`.
    """
    return _linearised(instrument, numbers, azimuths) if instrument.geometry_moves else instrument.nominal


@eqx.filter_jit
def _linearised(instrument: Instrument, numbers: Float[Array, "number"], azimuths: int) -> LinearAcceptance:
    count = body_bands(instrument.model.emission)

    def cut(numbers):
        return instrument.table(instrument.shifted(numbers)).bands(azimuths, count)

    table = instrument.table(instrument.shifted(numbers))
    return LinearAcceptance(numbers, table, table.bands(azimuths, count), jax.jacfwd(cut)(numbers))
