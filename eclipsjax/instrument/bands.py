"""The valid solid angle cut into azimuth bins and polar bands: what the renderer multiplies with the exposed angle.

A segment's rim, seen from the specimen, is a closed curve in (theta, phi). For any f with antiderivative F in theta,
the integral of f over the enclosed directions is the contour integral of F(theta(phi)) d phi (Green's theorem), so
bins and bands cost one clip each and every number of the instrument has a smooth derivative.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eclipsjax._polar import polar_primitives_of_angle
from eclipsjax._types import image_direction
from eclipsjax.instrument.outline import arc_of_edge

# Two-point Gauss rule on [0, 1]: chords are short, so this is exact to well below 1e-6.
_GAUSS = (0.21132486540518713, 0.78867513459481287)
# Least half-width of the polar band that a rim is given, radians: keeps the bands from collapsing to nothing.
_RIM = 2e-4
# An edge that turns by less than this, or than rounding, runs straight outward: radians.
_RADIAL = 1e-9


class Bands(eqx.Module):
    """For each azimuth bin: polar knots, and per segment and band the azimuth it covers.

    - `theta`: `(azimuth, band + 1)` knots of the bands, radians, rising; nothing lies outside.
    - `measure`: `(azimuth, segment, band)` azimuth that the segment covers in the band, radians.
    - `measure_x`, `measure_y`: the same with each direction weighted by its array-axis component along x and y.

    Within a band the covered azimuth is taken as constant; integrals over whole bands are exact, and bands are narrow
    where rims lie.
    """

    theta: Float[Array, "*azimuth knot"]
    measure: Float[Array, "*azimuth segment band"]
    measure_x: Float[Array, "*azimuth segment band"]
    measure_y: Float[Array, "*azimuth segment band"]

    def astype(self, dtype) -> Bands:
        """The same bands in another precision."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype), self)


def cut_bands(
    theta: Float[Array, "energy segment vertex"],
    phi: Float[Array, "energy segment vertex"],
    share: Float[Array, "energy segment"],
    rings: tuple[int, ...],
    azimuths: int,
    body_bands: int,
) -> Bands:
    """Bands of segments whose rims are the closed curves `(theta, phi)` (radians, phi counter-clockwise in the image).

    `share` weighs the energies; `rings[segment]` says which segments share their radii (static); between the rims of a
    ring lie `body_bands` bands (static).

    Gradient: exact almost everywhere. The knots move with the rims; a vertex that moves on its own past a knot has a
    kink there (one-sided derivatives differ by about 1e-4), as one band takes over from the next.
    """
    chords = _Chords.within(theta, phi, azimuths)
    knots = _knots(chords, share, rings, body_bands)
    return jax.vmap(lambda k, c: _measure(k, c, share))(knots, chords)


class _Chords(eqx.Module):
    """The parts of all rims inside each azimuth bin: angles at two Gauss points, and the azimuth they span (signed)."""

    theta: Float[Array, "*azimuth energy segment edge 2"]
    phi: Float[Array, "*azimuth energy segment edge 2"]
    span: Float[Array, "*azimuth energy segment edge"]

    @classmethod
    def within(cls, theta, phi, azimuths) -> _Chords:
        width = 2.0 * jnp.pi / azimuths
        edges = jnp.arange(azimuths, dtype=theta.dtype) * width
        # Neighbouring bins share the edge between them, and chords their vertices, to the last bit, and a vertex that
        # lies on an edge up to rounding (quadrants' do) counts half on either side: so each enters the derivative once.
        from_edge = _wrap(phi[None] - edges[:, None, None, None])
        on_edge = jnp.abs(from_edge) < 32 * jnp.finfo(theta.dtype).eps
        past = jnp.where(on_edge, 0.5 * from_edge, jax.nn.relu(from_edge))
        inside = past - jnp.roll(past, -1, axis=0)
        near = jnp.abs(from_edge[..., :-1] - 0.5 * width) < 0.5 * jnp.pi
        span = jnp.where(near, inside[..., 1:] - inside[..., :-1], 0.0)
        skipped = inside[..., :-1] - from_edge[..., :-1]
        gauss = jnp.asarray(_GAUSS, dtype=theta.dtype)[None, None, None, None, :]
        at = skipped[..., None] + span[..., None] * gauss
        turn, rise = (_wrap(phi[..., 1:] - phi[..., :-1])[None, ..., None], jnp.diff(theta)[None, ..., None])
        radial = jnp.abs(turn) < max(_RADIAL, 64 * float(jnp.finfo(theta.dtype).eps))
        along = jnp.where((span == 0.0)[..., None], 0.0, rise / jnp.where(radial, 1.0, turn) * at)
        # A radial side spans no azimuth but its derivative does: as it turns, all of its length sweeps.
        along = jnp.where(radial, rise * gauss, along)
        return cls(theta[None, ..., :-1, None] + along, phi[None, ..., :-1, None] + at, span)


def _knots(chords: _Chords, share, rings, body_bands) -> Float[Array, "azimuth knot"]:
    """Polar knots of every bin: a narrow band about each rim, `body_bands` between them, 0 and pi / 2 around all."""
    weight = jnp.abs(chords.span) * share[None, :, :, None]
    theta = jnp.mean(chords.theta, axis=-1)
    arc = arc_of_edge()
    knots = [jnp.zeros_like(theta[:, 0, 0, 0])]
    for ring in sorted(set(rings)):
        member = jnp.asarray([float(r == ring) for r in rings], dtype=weight.dtype)
        of_ring = weight * member[None, None, :, None]
        below, inner_end = _rim_band(theta, of_ring * jnp.asarray(arc == -1, weight.dtype)[None, None, None, :])
        outer_start, above = _rim_band(theta, of_ring * jnp.asarray(arc == 1, weight.dtype)[None, None, None, :])
        body = [inner_end + (outer_start - inner_end) * (j / body_bands) for j in range(1, body_bands)]
        knots += [below, inner_end, *body, outer_start, above]
    knots.append(jnp.full_like(knots[0], jnp.pi / 2))
    return jnp.sort(jnp.clip(jnp.stack(knots, axis=-1), 0.0, jnp.pi / 2), axis=-1)


def _rim_band(theta, weight) -> tuple[Array, Array]:
    """Polar band that holds a rim in every bin: its mean angle plus or minus sqrt(3) standard deviations.

    That is the exact extent of a rim that crosses the bin on a slant. Bins without a rim take the mean of all.
    """
    total = jnp.sum(weight, axis=(1, 2, 3))
    present = total > 1e-9
    total = jnp.where(present, total, 1.0)
    # A ring of blind segments has no weight at all: any place will do for its bands, which stay empty.
    whole = jnp.sum(weight)
    everywhere = jnp.sum(weight * theta) / jnp.where(whole > 0, whole, 1.0)
    mean = jnp.where(present, jnp.sum(weight * theta, axis=(1, 2, 3)) / total, everywhere)
    spread = jnp.sum(weight * (theta - mean[:, None, None, None]) ** 2, axis=(1, 2, 3)) / total
    half = jnp.sqrt(3.0 * spread + _RIM**2)
    return mean - half, mean + half


def _measure(theta_knots, chords: _Chords, share) -> Bands:
    """Azimuth covered in each band of one bin, by the contour integral."""
    b_knots, a_knots = polar_primitives_of_angle(theta_knots)
    b, a = polar_primitives_of_angle(chords.theta)
    weight = jnp.broadcast_to(0.5 * chords.span[..., None] * share[:, :, None, None], b.shape)
    along_x, along_y = image_direction(chords.phi)

    def enclosed(primitive, knots, weight):
        low, high = knots[None, None, None, None, :-1], knots[None, None, None, None, 1:]
        inside = jnp.clip(primitive[..., None], low, high) - low
        total = jnp.sum(weight[..., None] * inside, axis=(0, 2, 3))
        # What little lies beyond the outermost knots joins the bands next to them, so that nothing is lost.
        total = jnp.concatenate([total[:, :1] + total[:, 1:2], total[:, 2:-2], total[:, -2:-1] + total[:, -1:]], axis=1)
        height = knots[2:-1] - knots[1:-2]
        thin = height < 1e-12
        return jnp.where(thin[None, :], 0.0, total / jnp.where(thin, 1.0, height)[None, :])

    return Bands(
        theta_knots[1:-1],
        enclosed(b, b_knots, weight),
        enclosed(a, a_knots, weight * along_x),
        enclosed(a, a_knots, weight * along_y),
    )


def _wrap(angle: Array) -> Array:
    """`angle` shifted by whole turns into [-pi, pi)."""
    return angle - 2.0 * jnp.pi * jnp.floor(angle / (2.0 * jnp.pi) + 0.5)
