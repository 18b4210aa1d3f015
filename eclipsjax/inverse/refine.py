"""Heights through the exact simulator: the relief is moved until its simulated images are the measured ones.

Starts from the closed form. Each step is one sparse solve in the local quadratic model (see `metric`), with the memory
of limited-memory BFGS for what that model leaves out: shadows that move with the relief.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax._types import InputError, Map, Scalar, as_real, concrete, whole_number
from eclipsjax.imaging.blur import FWHM_PER_SIGMA
from eclipsjax.inverse.calibration import calibrated
from eclipsjax.inverse.descent import Point, descend
from eclipsjax.inverse.integrators.links import laplacian_of_modes
from eclipsjax.inverse.lean import check_level, level_information
from eclipsjax.inverse.linear_acceptance import acceptance_near
from eclipsjax.inverse.method import Method, Progress, Task
from eclipsjax.inverse.metric import Metric, metric_at, metric_solve, posterior_std
from eclipsjax.inverse.misfit import (
    Problem,
    Unknowns,
    expected_value_and_gradient,
    tile_information,
    tile_residual,
    tile_value_and_gradient,
)
from eclipsjax.inverse.photometric import Slopes, flat_response
from eclipsjax.inverse.reconstruction import OCCLUDED, Found, Outcome
from eclipsjax.inverse.smoothness import EdgePreserving, stiffness_of_modes
from eclipsjax.inverse.tiles import Tiles
from eclipsjax.inverse.uncertain import Instrument
from eclipsjax.specimen.horizon import HardHorizon
from eclipsjax.specimen.surface import Surface

# How far to look for what hides the detector: the first of these that the relief cannot pass.
_RADII = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# Relief that is still to come when the radius is chosen, as a share of what is there.
_GROWTH = 1.5
# Noise of a level over the level below which the renderer's own bins would show, and directions around a pixel.
_QUIET, _FEW, _MANY = 0.006, 32, 64
# Steps are small that bring, or promise, less than this for each height: chance makes half a unit of every one.
_ENOUGH = 2e-4
# Where no direction leads down, what promises less than so many small steps is taken for the bottom.
_NEARLY = 30
# Descents with residuals limited: another one follows where a number moved by more than this share of what it is known
# within, as the acceptance is linear in the numbers about where a descent began.
_RENEWALS, _MOVED = 3, 0.3
_MOST_PIXELS = 1024 * 1024


class Refined(Method):
    """Maximum of the posterior over heights, through the exact simulator: occlusion, blur and clipping included.

    - `iterations` (static): most steps. `azimuths` (static): as in `render`; 32, or 64 where the noise is so low that
      it would show, unless given.
    - `smoothness`: what is expected of the relief; its weight follows from the noise.
    - `spread`: relative standard deviation of the brightness (yield) from pixel to pixel: 0 uniform, inf nothing known;
      estimated from the images unless given.
    - `outlier`: residual, in standard deviations of a pixel's levels, beyond which it pulls no harder.
    - `uncertain`: numbers of the microscope that are solved along, dotted name -> standard deviation in the number's
      unit, as `{"detector.segments.pedestal": 0.01}` (static).
    - `level_deg`: how level the specimen is known to lie, standard deviation of the field's mean slope in degrees (inf:
      not known). It counts only where numbers are `uncertain`: images alone tell a lean from unequal gains poorly.
    - `draws` (static): samples behind the standard deviations; 0 leaves them NaN.

    Gradient: none (a search).
    """

    smoothness: EdgePreserving = eqx.field(default_factory=EdgePreserving)
    spread: Scalar | None = eqx.field(converter=lambda v: None if v is None else as_real(v, "spread"), default=None)
    outlier: Scalar = eqx.field(converter=as_real, default=6.0)
    level_deg: Scalar = eqx.field(converter=as_real, default=4.0)
    iterations: int = eqx.field(static=True, default=80)
    azimuths: int | None = eqx.field(static=True, default=None)
    draws: int = eqx.field(static=True, default=24)
    uncertain: tuple[tuple[str, float], ...] = eqx.field(
        static=True, converter=lambda v: tuple(dict(v).items()), default=()
    )

    def __check_init__(self):
        whole_number("iterations", self.iterations, 1)
        whole_number("draws", self.draws, 0)
        spread = None if self.spread is None else concrete(self.spread)
        if spread is not None and not spread >= 0:
            raise InputError(f"spread is {spread}: give a relative standard deviation of 0 or more (inf: not known).")
        outlier = concrete(self.outlier)
        if outlier is not None and not outlier > 0:
            raise InputError(f"outlier is {outlier}: give a positive number of standard deviations (inf: none).")
        check_level(self.level_deg)

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """From the heights of the closed form on.

        KeyboardInterrupt ends the search, not the program: the best heights so far come back, with standard deviations.
        """
        slopes = task.closed_form()
        return _Search(task, slopes, self, report).run(task.height_of(slopes))

    def found_from(self, height_nm: Map, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """From these heights on; else as `found`."""
        return _Search(task, task.closed_form(), self, report).run(height_nm)


class _Search:
    """The descent with what it needs at every step: the problem, its tiles, the clock."""

    def __init__(self, task: Task, slopes: Slopes, method: Refined, report: Callable[[Progress], None] | None):
        self.method, self.report, self.began = method, report, time.monotonic()
        measurement = task.measurement
        level = measurement.level
        dtype = level.dtype
        brightness = jnp.median(slopes.brightness)
        instrument = Instrument.of(task.scope, dict(method.uncertain), task.field_mm, task.emission)
        quiet = float(jnp.min(measurement.noise.additive_std) / jnp.mean(level)) < _QUIET
        azimuths = (_MANY if quiet else _FEW) if method.azimuths is None else method.azimuths
        flat = flat_response(instrument.nominal, instrument.model.emission)[:, 0, 0, 0].astype(dtype)
        self.problem = Problem(
            measurement=measurement,
            pixel_size_nm=task.pixel_size_nm.astype(dtype),
            instrument=instrument,
            acceptance=instrument.nominal,
            horizon=HardHorizon(radius_px=1),
            blur=task.blur,
            spread=(task.spread_of(slopes.brightness) if method.spread is None else method.spread).astype(dtype),
            outlier=jnp.asarray(jnp.inf, dtype),
            smoothness=method.smoothness,
            precision=measurement.noise.precision((brightness * flat)[:, None, None])[0, 0],
            level_information=jnp.asarray(level_information(method.level_deg) if method.uncertain else 0.0, dtype),
            azimuths=azimuths,
            window=level.shape[1:],
        )
        self.start_overall = jnp.zeros(1 + len(instrument.names), dtype).at[0].set(jnp.log(brightness))
        self.steepest = math.tan(min(float(_widest(instrument.nominal)), math.radians(89.0)))
        self.history: list[tuple[float, float]] = []
        self.tiles: Tiles | None = None
        self.measured, self.pixels = int(jnp.sum(measurement.measured)), level[0].size

    def run(self, start_nm: Map) -> Found:
        self.best = Point(Unknowns(start_nm, self.start_overall), math.inf, math.inf, None)
        try:
            outcome = self._descend(math.inf)
            for _ in range(_RENEWALS):
                if outcome is not Outcome.CONVERGED:
                    break
                before = self.best.unknowns.overall
                outcome = self._descend(float(self.method.outlier))
                if not bool(jnp.any(jnp.abs(self.best.unknowns.overall - before)[1:] > _MOVED)):
                    break
        except KeyboardInterrupt:
            if self.best.gradient is None:
                raise
            outcome = Outcome.INTERRUPTED
        try:
            return self._found(outcome, self.method.draws)
        except KeyboardInterrupt:
            # Standard deviations are what takes time here: heights without them are better than nothing.
            return self._found(Outcome.INTERRUPTED, draws=0)

    def _descend(self, outlier: float) -> Outcome:
        """Down with the acceptance and the search radius of where it begins."""
        self.problem = dataclasses.replace(self.problem, outlier=jnp.asarray(outlier, self.start_overall.dtype))
        self._look_far_enough(self.best.unknowns.height_nm)
        self._renew_acceptance()
        enough, before, small = _ENOUGH * self.pixels, self.best.value, 0
        for point in descend(self._evaluate, self._metric, self.best.unknowns):
            self.best = point
            self._tell(point)
            if abs(before - point.value) < enough and point.steps == 0:
                # An earlier descent ended here, and what has been renewed since changes nothing.
                return Outcome.CONVERGED
            small = small + 1 if min(point.decrease, point.promised) < enough else 0
            if small == 2:
                return Outcome.CONVERGED
            if len(self.history) > self.method.iterations:
                return Outcome.OUT_OF_STEPS
        return Outcome.CONVERGED if self.best.promised < _NEARLY * enough else Outcome.STALLED

    def _renew_acceptance(self) -> None:
        numbers = self.best.unknowns.overall[1:]
        near = acceptance_near(self.problem.instrument, numbers, self.problem.azimuths)
        self.problem = dataclasses.replace(self.problem, acceptance=near)

    def _tell(self, point: Point) -> None:
        chi_square = point.chi_square / max(self.measured - self.pixels, 1)
        self.history.append((point.value, chi_square))
        if self.report is not None:
            self.report(Progress(len(self.history) - 1, chi_square, time.monotonic() - self.began))

    def _look_far_enough(self, height_nm: Map) -> None:
        """Radius and tiles for the relief as it is: farther away nothing can reach into the detector's view."""
        reach = _GROWTH * float(jnp.ptp(height_nm) / self.problem.pixel_size_nm) * self.steepest
        shape = height_nm.shape
        reach = min(reach, max(shape) - 1)
        radius = next((r for r in _RADII if r >= reach), _RADII[-1])
        if self.tiles is None or radius != self.problem.horizon.radius_px:
            self.tiles = Tiles.of(shape, radius + 2 + math.ceil(self._blur_px()), _MOST_PIXELS)
            horizon = HardHorizon(radius_px=radius)
            self.problem = dataclasses.replace(self.problem, horizon=horizon, window=self.tiles.window)

    def _blur_px(self) -> float:
        if self.problem.blur is None:
            return 0.0
        probe = float(self.problem.instrument.scope.beam.probe_fwhm_nm) / FWHM_PER_SIGMA
        sigma = math.hypot(probe, float(self.problem.blur.interaction_sigma_nm))
        return 4.0 * sigma / float(self.problem.pixel_size_nm)

    def _evaluate(self, unknowns: Unknowns) -> tuple[float, float, Unknowns]:
        expected, bend = expected_value_and_gradient(unknowns, self.problem)
        misfit, chi_square, slope = self._over_tiles(tile_value_and_gradient, unknowns)
        value = float(expected) + float(misfit)
        return value if math.isfinite(value) else math.inf, float(chi_square), jax.tree.map(jnp.add, bend, slope)

    def _metric(self, unknowns: Unknowns) -> Callable[[Unknowns], Unknowns]:
        metric = self._metric_at(unknowns)
        return lambda gradient: metric_solve(metric, gradient)

    def _metric_at(self, unknowns: Unknowns) -> Metric:
        return metric_at(unknowns, self.problem, self._over_tiles(tile_information, unknowns))

    def _over_tiles(self, work: Callable[[Unknowns, Problem, Any], Any], unknowns: Unknowns) -> Any:
        """The sum of what `work` makes of every tile."""
        parts = (work(unknowns, self.problem, tile) for tile in self.tiles.tiles)
        return functools.reduce(lambda total, part: jax.tree.map(jnp.add, total, part), parts)

    def _found(self, outcome: Outcome, draws: int) -> Found:
        self._renew_acceptance()
        unknowns, problem = self.best.unknowns, self.problem
        residual, share, hidden = self._over_tiles(tile_residual, unknowns)
        metric = self._metric_at(unknowns)
        nan = jnp.full(unknowns.height_nm.shape, jnp.nan, unknowns.height_nm.dtype)
        std = posterior_std(metric, jax.random.key(0), draws) if draws else (nan, jnp.stack([nan, nan]))
        chi_square = self.best.chi_square / max(self._freedom(metric), 1.0)
        calibration = None
        if problem.instrument.names:
            shifts, covariance = unknowns.overall[1:], metric.credible[1:, 1:]
            calibration = calibrated(problem.instrument, shifts, covariance, jnp.asarray(chi_square))
        return Found(
            height_nm=unknowns.height_nm - jnp.mean(unknowns.height_nm),
            normals=Surface(unknowns.height_nm, problem.pixel_size_nm).normals(),
            height_std_nm=std[0],
            slope_std=std[1],
            residual=residual / problem.measurement.std[:, None, None],
            occluded=jnp.max(hidden, axis=0) > OCCLUDED,
            brightness=jnp.exp(unknowns.overall[0]) * (1.0 + share),
            chi_square=jnp.asarray(chi_square, residual.dtype),
            calibration=calibration,
            history=jnp.asarray(np.asarray(self.history), residual.dtype),
            outcome=outcome,
            warnings=(),
        )

    def _freedom(self, metric: Metric) -> float:
        """Levels less heights, as far as these are free of what is expected of them.

        A pixel's own brightness takes nothing: what is expected of it is among the squares.
        """
        told = jnp.mean(metric.slopes[0, 0] + metric.slopes[1, 1])
        laplacian = laplacian_of_modes(metric.modes.shape, metric.modes.dtype)
        of_slopes, of_bends = 0.5 * told * laplacian, stiffness_of_modes(metric.stiffness, metric.modes.shape)
        free = float(jnp.mean(of_slopes / jnp.where(of_slopes > 0, of_slopes + of_bends, 1.0)))
        return self.measured - self.pixels * free


def _widest(table: Any) -> Scalar:
    """Largest polar angle at which any segment is seen."""
    seen = (table.share > 0)[..., None]
    return jnp.max(jnp.where(seen, table.theta, 0.0))
