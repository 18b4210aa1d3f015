"""The valid solid angle: which emission directions land on which segment when nothing is in the way.

Without a field electrons fly straight and the rim of a segment is seen where it is. With one, each point of the rim is
aimed at through the field. Either way the result is the rim's image on the sky above the specimen, once for every
energy and every beam position: the table that the renderer reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eclipsjax._types import InputError, Number, Scalar, as_real, concrete, shown
from eclipsjax.instrument.bands import Bands, cut_bands
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.outline import segment_outlines
from eclipsjax.instrument.spectrum import Spectrum


class NoField(eqx.Module):
    """Electrons fly straight, whatever the electrodes' potentials: for tracing with grounded electrodes.

    Gradient: none in the potentials.
    """


class AcceptanceTable(eqx.Module):
    """Rims of all segments on the sky, seen from one or nine beam positions.

    - `theta`, `phi`: `(position, energy, segment, vertex)` polar angle and azimuth (counter-clockwise in the image),
      rad.
    - `share`: `(position, energy, segment)` weight of each energy in the segment's current, summing to 1; to less where
      a retarding field turns some energies back, to 0 for a blind segment.
    - `field_mm`: `(2,)` width and height of the field of view that the positions span, mm; the positions are its centre
      alone or a 3 x 3 grid (rows from the top, columns from the left).
    - `distance_mm`: from the specimen to the detector, which no relief may reach.
    - `centre_mm`: `(2,)` where the centre of what is rendered lies in that field of view, mm to the right and down.

    Gradient: exact in every number.
    """

    theta: Float[Array, "position energy segment vertex"]
    phi: Float[Array, "position energy segment vertex"]
    share: Float[Array, "position energy segment"]
    field_mm: Float[Array, "2"]
    distance_mm: Scalar
    centre_mm: Float[Array, "2"]
    rings: tuple[int, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    @property
    def follows_beam(self) -> bool:
        """Whether the table resolves how the view of the detector changes across the image."""
        return self.theta.shape[0] > 1

    def of_part(self, centre_mm: Float[Array, "2"]) -> AcceptanceTable:
        """The table for a part of the image whose centre lies `centre_mm` right of and below the image's own.

        Gradient: exact.
        """
        return dataclasses.replace(self, centre_mm=centre_mm.astype(self.centre_mm.dtype))

    def bands(self, azimuths: int = 64, body_bands: int = 1) -> Bands:
        """Cut into `azimuths` bins and polar bands; every leaf leads with the beam positions. Gradient: exact."""
        return jax.vmap(lambda t, p, s: cut_bands(t, p, s, self.rings, azimuths, body_bands))(
            self.theta, self.phi, self.share
        )


def acceptance(
    scope: Microscope,
    field_mm: Sequence[Number] | Array | np.ndarray | Number | None = None,
    spectrum: Spectrum | None = None,
    field: Any = None,
) -> AcceptanceTable:
    """Valid solid angle of every segment of `scope`, once per instrument.

    **Arguments:**

    - `scope`: the microscope.
    - `field_mm`: width and height (or one number for both) of the images' field of view, mm. A pixel off the optical
      axis sees the detector from another place, which turns a flat specimen into a dome; given a field, the table
      holds nine beam positions and `render` interpolates. Needed above some 10 um, where the effect passes 0.1 deg of
      slope. The beam must clear the detector's hole at the field's corners too.
    - `spectrum`: energies of the emitted electrons; all elastic by default.
    - `field`: the electrostatic field as `solve_field(scope)` returns it; solved here when an electrode is biased and
      none is given. Where all is grounded electrons fly straight and no field is solved. While the potentials are
      traced nobody can know, and the field is solved; `NoField()` says that all is grounded. Likewise a traced geometry
      is taken as axisymmetric: for a tilted stage or unequal segment biases pass
      `solve_field(scope, Cartesian())`.

    Returns an `AcceptanceTable`. Gradient: exact in every number of `scope` and `spectrum` (gain and pedestal have
    none: they belong to `record`).
    """
    if not isinstance(scope, Microscope):
        raise InputError(f"scope is {shown(scope)}: give a Microscope.")
    spectrum = Spectrum.elastic() if spectrum is None else spectrum
    if not isinstance(spectrum, Spectrum):
        raise InputError(f"spectrum is {shown(spectrum)}: give a Spectrum, such as Spectrum.backscattered().")
    size = _field_size(field_mm, scope.detector.distance_mm.dtype)
    if field_mm is not None:
        _check_hole(scope, size)
    if field is None:
        field = _field_of(scope)
    elif isinstance(field, type) or not (isinstance(field, NoField) or hasattr(field, "sample")):
        raise InputError(f"field is {shown(field)}: give what solve_field(scope) returns, or NoField().")
    table = _acceptance(scope, spectrum, field, size, field_mm is not None)
    _check_seeing(scope, table)
    return table


@partial(jax.jit, static_argnames="is_wide")
def _acceptance(scope, spectrum, field, field_mm, is_wide) -> AcceptanceTable:
    dtype = scope.detector.distance_mm.dtype
    unit = np.array([-0.5, 0.0, 0.5]) if is_wide else np.zeros(1)
    grid = np.stack([np.tile(unit, len(unit)), np.repeat(unit, len(unit))], axis=-1)
    centre = jnp.stack([scope.beam.position_x_mm, scope.beam.position_y_mm])
    positions = centre[None, :] + jnp.asarray(grid, dtype=dtype) * field_mm[None, :]
    outlines = segment_outlines(scope.detector)
    spectrum = jax.tree.map(lambda leaf: leaf.astype(dtype), spectrum)
    energies = scope.beam.energy_kev * spectrum.fraction

    def seen_from(position, energy):
        if isinstance(field, NoField):
            return _straight(position, outlines)
        from eclipsjax.instrument.aim import aim

        directions, _ = aim(scope, field, position, energy, outlines.reshape(-1, 3))
        return _angles(directions.reshape(outlines.shape))

    theta, phi = jax.vmap(jax.vmap(seen_from, (None, 0)), (0, None))(positions, energies)
    segments = scope.detector.segments
    gained_kev = 1e-3 * (segments.bias_v - scope.column.specimen_bias_v)
    share = jax.vmap(spectrum.diode_share, (None, 0, 0), 1)(scope.beam.energy_kev, gained_kev, segments.threshold_kev)
    share = jnp.broadcast_to(share, (len(grid), *share.shape))
    return AcceptanceTable(
        theta=theta,
        phi=phi,
        share=share,
        field_mm=field_mm,
        distance_mm=scope.detector.distance_mm,
        centre_mm=jnp.zeros_like(field_mm),
        rings=segments.rings,
        names=segments.names,
    )


def _field_of(scope: Microscope) -> Any:
    if not scope.is_biased:
        return NoField()
    from eclipsjax.instrument.electrostatics import solve_field

    return solve_field(scope)


def _straight(position_mm, outlines) -> tuple[Array, Array]:
    """Polar angle and azimuth of the outlines' points from the specimen point at `position_mm` (x, y)."""
    origin = jnp.concatenate([position_mm, jnp.zeros_like(position_mm[:1])])
    return _angles(outlines - origin[None, None, :])


def _angles(direction) -> tuple[Array, Array]:
    """Polar angle and azimuth (counter-clockwise as seen in the image) of directions in image axes with z up."""
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    return jnp.arctan2(jnp.sqrt(x * x + y * y), z), jnp.arctan2(-y, x)


def _field_size(field_mm, dtype) -> Float[Array, "2"]:
    if field_mm is None:
        return jnp.zeros(2, dtype)
    sides = as_real(field_mm, "field_mm") if isinstance(field_mm, (list, np.ndarray)) else field_mm
    if isinstance(sides, tuple):
        sides = jnp.stack([as_real(side, "field_mm").astype(dtype) for side in sides])
    sides = as_real(sides, "field_mm").astype(dtype)
    if sides.shape not in ((), (2,)):
        raise InputError(f"field_mm has shape {sides.shape}: give the width and height of the image, or one for both.")
    size = jnp.broadcast_to(sides, (2,))
    value = concrete(size)
    if value is not None and not (np.isfinite(value).all() and (value > 0).all()):
        raise InputError(f"field_mm is {field_mm}: give the width and height of the image in millimetres.")
    return size


def _check_hole(scope: Microscope, field_mm) -> None:
    """The beam must pass the detector's hole wherever in the image it stands."""
    plate, beam = scope.detector, scope.beam
    leaves = (plate.offset_x_mm, plate.offset_y_mm, beam.position_x_mm, beam.position_y_mm)
    hole, field, *numbers = (concrete(v) for v in (plate.segments.inner_radius_mm, field_mm, *leaves))
    if hole is None or field is None or any(n is None for n in numbers):
        return
    off_x, off_y, x, y = (float(n) for n in numbers)
    corner = float(np.hypot(abs(x - off_x) + 0.5 * field[0], abs(y - off_y) + 0.5 * field[1]))
    if not corner < hole.min():
        raise InputError(
            f"field_mm is {field[0]:g} x {field[1]:g}, so the image's corners lie {corner:.3g} mm from the detector's "
            f"centre, but its hole has a radius of {hole.min():g} mm and the beam would hit the detector: simulate a "
            "smaller field (or check the pixel size, in nanometres)."
        )


def _check_seeing(scope: Microscope, table: AcceptanceTable) -> None:
    share = concrete(table.share)
    if share is not None and not share.any():
        raise InputError(
            f"no energy of the spectrum arrives above segments.threshold_kev ({scope.detector.segments.names[0]}: "
            f"{scope.detector.segments.threshold_kev[0]:g} keV), so every segment is blind: lower the threshold or the "
            "retarding bias, or raise beam.energy_kev."
        )
