"""The exposed angle: how far down each pixel can look before the relief around it gets in the way.

Along one azimuth the relief hides everything below the largest mean slope (z(r) - z(0)) / r met on the way out, or
below the pixel's own tangent plane. One number per pixel and azimuth therefore says it all: the cotangent of the polar
angle of the horizon. Rays are sampled where they cross the rows or columns of their major axis (two taps a step), with
steps that grow with distance. Beyond the border of the map nothing is known and nothing hides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eclipsjax._polar import polar_primitives
from eclipsjax._types import InputError, Map, Scalar, concrete, image_direction, real_named, shown, whole_number
from eclipsjax.specimen.ray_maximum import KEPT, largest_mean_slope, smooth_mean_slope
from eclipsjax.specimen.ray_peaks import MOST_OCTAVES, NEAR, PeakSteps, largest_peak_slope
from eclipsjax.specimen.ray_steps import RaySteps
from eclipsjax.specimen.surface import Surface

# Below this softness float32 no longer tells the samples of a ray apart.
_LEAST_SOFTNESS = 1e-6
_FEWEST_AZIMUTHS = 4


def _radius(value: Any) -> int:
    """A Python integer, which is what a static field must be for programs to be found again."""
    return whole_number("radius_px", value, 1)


def _growth(value: Any) -> float:
    try:
        growth = float(value)
    except (TypeError, ValueError):
        raise InputError(f"growth is {shown(value)}: give a number of 1 or more.") from None
    if not 1 <= growth < np.inf:
        raise InputError(f"growth is {growth}: steps cannot shrink with distance; give 1 or more.")
    return growth


class HardHorizon(eqx.Module):
    """The true horizon: the largest mean slope along the ray.

    - `radius_px`: how far to look, pixels along the ray's major axis (static).
    - `growth`: each step is at least this many times as far out as the one before (static; 1, the default, misses
      nothing; 1.1 is three times as fast, good to 0.1 % of the signal on rough surfaces, and looks over tall walls: up
      to 5 % too much sky on the floor of a deep trench).

    Gradient: exact almost everywhere (that of the one sample which makes the horizon).
    """

    radius_px: int = eqx.field(static=True, converter=_radius, default=128)
    growth: float = eqx.field(static=True, converter=_growth, default=1.0)

    def rays(self, azimuths: int, dtype) -> RaySteps:
        """What `cot_horizon` needs to know of every azimuth, stacked. Gradient: none."""
        return RaySteps.along(azimuth_centres(azimuths), self.radius_px, self.growth, dtype)

    def cot_horizon(self, height_px: Map, slope_along: Map, steps: RaySteps) -> Map:
        """Cotangent of the horizon's polar angle along one azimuth, `(y, x)`; heights in pixels. Gradient: exact."""
        return largest_mean_slope(height_px, slope_along, steps)


class SmoothHorizon(eqx.Module):
    """A horizon without kinks: softness * log sum exp(mean slope / softness) over the ray's samples and the tangent.

    - `radius_px`, `growth`: as for `HardHorizon` (static).
    - `softness`: in units of slope; the horizon turns into the hard one as it goes to 0; at least
      1e-6.

    Gradient: exact for this function, which itself is biased against the true horizon: its cotangent is too large by
    between 0 and softness * log(1 + number of steps) (about 5 softness for the default radius), so images come out
    slightly too dark. Every sample near the maximum shares in the gradient. First derivatives only: asking for second
    ones is an error.
    """

    radius_px: int = eqx.field(static=True, converter=_radius, default=128)
    growth: float = eqx.field(static=True, converter=_growth, default=1.0)
    softness: Scalar = eqx.field(converter=real_named("softness"), default=0.02)

    def __check_init__(self):
        softness = concrete(self.softness)
        if softness is not None and not (softness.ndim == 0 and _LEAST_SOFTNESS <= softness < np.inf):
            raise InputError(
                f"softness is {softness}: give one number of at least {_LEAST_SOFTNESS:g}, in units of slope, or take "
                "HardHorizon, which is its limit."
            )

    def rays(self, azimuths: int, dtype) -> RaySteps:
        """What `cot_horizon` needs to know of every azimuth, stacked. Gradient: none."""
        return RaySteps.along(azimuth_centres(azimuths), self.radius_px, self.growth, dtype)

    def cot_horizon(self, height_px: Map, slope_along: Map, steps: RaySteps) -> Map:
        """Softened cotangent of the horizon's polar angle along one azimuth, `(y, x)`; heights in pixels.

        Gradient: exact, first derivatives only.
        """
        return smooth_mean_slope(height_px, slope_along, self.softness.astype(height_px.dtype), steps)


class NoRelief(eqx.Module):
    """Nothing hides but the pixel's own tangent plane: what closed-form photometric stereo assumes. Gradient: exact."""

    def rays(self, azimuths: int, dtype) -> None:
        """Nothing is looked at along the rays. Gradient: none."""

    def cot_horizon(self, height_px: Map, slope_along: Map, ray: None) -> Map:
        """Cotangent of the tangent plane's polar angle along one azimuth, `(y, x)`. Gradient: exact."""
        return slope_along


def _octaves(value: Any) -> int:
    octaves = whole_number("octaves", value, 0)
    if octaves > MOST_OCTAVES:
        raise InputError(f"octaves is {octaves}: give at most {MOST_OCTAVES}, or take HardHorizon.")
    return octaves


class PeakHorizon(eqx.Module):
    """The horizon from few places on each ray: every pixel line up to 8 px, then the peaks of two stretches an octave.

    - `octaves`: how often the distance of 8 px is doubled; 3, the default, looks 64 px far (static).
    - `gain`: the slope at which a stretch's highest place is told: that place is taken which stands highest over a line
      that rises by `gain` a pixel.

    A stretch's peak is looked up, not searched for: peaks of stretches twice as long are made of two shorter ones for
    all pixels at once. With 14 places a ray instead of 64 walls are not looked over, as they are with growing steps.
    Gradient: exact in heights, almost everywhere; none in `gain`.
    """

    octaves: int = eqx.field(static=True, converter=_octaves, default=3)
    gain: Scalar = eqx.field(converter=real_named("gain"), default=0.5)

    @property
    def radius_px(self) -> int:
        """How far the horizon looks, pixels along the ray's major axis."""
        return NEAR * 2**self.octaves

    @property
    def places(self) -> int:
        """Places on a ray that are looked at."""
        return NEAR + 2 * self.octaves

    def rays(self, azimuths: int, dtype) -> PeakSteps:
        """What `cot_horizon` needs to know of every azimuth, stacked. Gradient: none."""
        return PeakSteps.along(azimuth_centres(azimuths), self.octaves, dtype)

    def cot_horizon(self, height_px: Map, slope_along: Map, steps: PeakSteps) -> Map:
        """Cotangent of the horizon's polar angle along one azimuth, `(y, x)`; heights in pixels. Gradient: exact."""
        return largest_peak_slope(height_px, slope_along, self.gain.astype(height_px.dtype), steps)


class GivenHorizon(eqx.Module):
    """Horizons that are known from elsewhere: `cot`, `(azimuth, y, x)`, cotangents of their polar angles.

    A pixel's own tangent plane still hides what lies below it. Gradient: exact.
    """

    cot: Float[Array, "azimuth y x"]

    def rays(self, azimuths: int, dtype) -> Float[Array, "azimuth y x"]:
        """The horizons, one an azimuth. Gradient: exact."""
        if azimuths != self.cot.shape[0]:
            raise InputError(
                f"horizon is given for {self.cot.shape[0]} azimuths but azimuths is {azimuths}: give the same number."
            )
        return self.cot.astype(dtype)

    def cot_horizon(self, height_px: Map, slope_along: Map, cot: Map) -> Map:
        """The larger of what is given and the tangent plane's, along one azimuth, `(y, x)`. Gradient: exact."""
        return jnp.maximum(cot, slope_along)


Horizon = HardHorizon | SmoothHorizon | NoRelief | PeakHorizon | GivenHorizon


def check_choices(surface: Any, azimuths: Any, horizon: Any) -> int:
    """`azimuths` as a Python integer, if these are a surface, enough directions and a horizon; else `InputError`."""
    if not isinstance(surface, Surface):
        raise InputError(f"surface is {shown(surface)}: give a Surface(height_nm, pixel_size_nm).")
    if isinstance(horizon, type) or not hasattr(horizon, "cot_horizon"):
        raise InputError(
            f"horizon is {shown(horizon)}: give HardHorizon(), SmoothHorizon(), PeakHorizon() or NoRelief()."
        )
    if isinstance(azimuths, int) and azimuths < _FEWEST_AZIMUTHS:
        azimuth_centres(azimuths)
    return whole_number("azimuths", azimuths, _FEWEST_AZIMUTHS)


def azimuth_centres(azimuths: int) -> np.ndarray:
    """Centres of `azimuths` equal azimuth bins, radians, the first bin starting at 0."""
    if azimuths < _FEWEST_AZIMUTHS:
        raise InputError(
            f"azimuths is {azimuths}: give at least {_FEWEST_AZIMUTHS} directions around a pixel (64 is the default)."
        )
    return (np.arange(azimuths) + 0.5) * (2 * np.pi / azimuths)


def fold_azimuths(
    surface: Surface,
    azimuths: int,
    method: Horizon,
    contribution: Callable[[Map, Map, Any], Any],
    per_azimuth: Any,
) -> Any:
    """Sum `contribution(cot_horizon, slope_along, per_azimuth[k])` over all azimuths k.

    One compiled body serves every azimuth. Nothing but the running sum is kept; reverse mode also keeps the horizons (a
    map an azimuth: 256 MB for 1024 x 1024 pixels, 64 azimuths and float32) and works the rest out again.
    """
    of_one, rays = _rays(surface, azimuths, method)
    keep = jax.checkpoint_policies.save_only_these_names(KEPT)
    summand = jax.checkpoint(lambda ray, extra: contribution(*of_one(ray), extra), policy=keep)
    shapes = jax.eval_shape(summand, *jax.tree.map(lambda leaf: leaf[0], (rays, per_azimuth)))
    start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def body(total, xs):
        return jax.tree.map(jnp.add, total, summand(*xs)), None

    return lax.scan(body, start, (rays, per_azimuth))[0]


def _rays(surface: Surface, azimuths: int, method: Horizon) -> tuple[Callable, Any]:
    """A function from one ray to (cot_horizon, slope_along), and the rays of all azimuths stacked."""
    slope_x, slope_y = surface.slopes()
    height_px = surface.height_nm / surface.pixel_size_nm
    dtype = height_px.dtype
    centres = azimuth_centres(azimuths)
    along = tuple(c.astype(dtype) for c in image_direction(jnp.asarray(centres)))

    def of_one(ray):
        of_method, (along_x, along_y) = ray
        slope_along = slope_x * along_x + slope_y * along_y
        # The barrier keeps XLA from working the horizon out anew for everything that uses it.
        return lax.optimization_barrier(method.cot_horizon(height_px, slope_along, of_method)), slope_along

    return of_one, (method.rays(azimuths, dtype), along)


def horizon(surface: Surface, azimuths: int = 64, method: Horizon = HardHorizon()) -> Float[Array, "azimuth y x"]:
    """Horizon of every pixel: cotangent of its polar angle for `azimuths` directions.

    Element k looks along azimuth (k + 1/2) 360 / azimuths deg (counter-clockwise as seen in the image). A direction of
    polar angle theta (from the optical axis) is exposed where cot(theta) > horizon; 0 is a free view down to the
    horizontal, positive values are walls, negative ones slopes that fall away.
    Gradient: that of the method (`HardHorizon` exact, `SmoothHorizon` exact but of a biased function).
    """
    return _horizon(surface, check_choices(surface, azimuths, method), method)


@partial(jax.jit, static_argnames="azimuths")
def _horizon(surface, azimuths, method):
    of_one, rays = _rays(surface, azimuths, method)
    return lax.map(jax.checkpoint(lambda ray: of_one(ray)[0]), rays)


def sky_view(surface: Surface, azimuths: int = 64, method: Horizon = HardHorizon()) -> Map:
    """Share of a Lambertian emitter's electrons that leave the relief, per pixel: `(y, x)`, 1 in the open.

    (1/pi) times the integral of cos(emission angle) over all exposed directions, in closed form in the polar angle
    (physics of radiative view factors). Gradient: that of the method.
    """
    return _sky_view(surface, check_choices(surface, azimuths, method), method)


@partial(jax.jit, static_argnames="azimuths")
def _sky_view(surface, azimuths, method):
    slope_x, slope_y = surface.slopes()
    normal_z = 1.0 / jnp.sqrt(1.0 + slope_x**2 + slope_y**2)

    def visible(cot_horizon, slope_along, _):
        b, a = polar_primitives(cot_horizon)
        return b - slope_along * a

    total = fold_azimuths(surface, azimuths, method, visible, None)
    return (2.0 / azimuths) * normal_z * total
