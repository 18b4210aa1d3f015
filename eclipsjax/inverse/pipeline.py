"""Images in, heights in nanometres out: the one call that a user needs, and the methods that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eclipsjax._types import InputError, Map, as_real, shown
from eclipsjax.imaging.bsesm import wide_field_mm
from eclipsjax.imaging.camera import Camera
from eclipsjax.imaging.facets import Facets
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.inverse.adapted import Adapted
from eclipsjax.inverse.closed_loop import ClosedLoop
from eclipsjax.inverse.height_std import height_std
from eclipsjax.inverse.integrators.poisson import Poisson
from eclipsjax.inverse.measurement import Measurement, measure
from eclipsjax.inverse.method import Method, Progress, Task
from eclipsjax.inverse.photometric import Slopes
from eclipsjax.inverse.reconstruction import Found, Outcome, Reconstruction
from eclipsjax.inverse.refine import Refined
from eclipsjax.inverse.swapped import check_swapped
from eclipsjax.specimen.emission import EmissionLaw
from eclipsjax.specimen.surface import check_pixel_size

# Share of clipped pixels, and chi-square per degree of freedom, beyond which a person is told.
_MUCH_CUT, _UNEXPLAINED = 0.05, 2.0


class Photometric(Method):
    """Closed form pixel by pixel, then integration: a second for a million pixels, right where nothing is hidden.

    - `integrator`: as `method` of `integrate`, least squares (`Poisson()`) unless given.
    - `rounds` (static): Gauss-Newton rounds for laws other than the cosine law; 3 for those unless given.

    Gradient: none through `reconstruct`; `photometric_slopes` and `integrate` are differentiable.
    """

    integrator: Any = eqx.field(default_factory=Poisson)
    rounds: int | None = eqx.field(static=True, default=None)

    def found(self, task: Task, report: Callable[[Progress], None] | None = None) -> Found:
        """In one go: nothing to report."""
        slopes = task.closed_form(self.rounds)
        return _closed_form(task.height_of(slopes, self.integrator), slopes, task.pixel_size_nm, self.integrator)


def reconstruct(
    images: Any,
    pixel_size_nm: Any,
    scope: Microscope,
    method: Method | None = None,
    camera: Camera | None = None,
    emission: EmissionLaw | None = None,
    grey_range: tuple[float | None, float | None] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Reconstruction:
    """Heights in nanometres from the images of a segmented detector, with normals and standard deviations.

    **Arguments:**

    - `images`: `(segment, y, x)`, or one image per segment, in the order of the microscope's segments and as stored:
      counts_per_signal * gain * (brightness * signal - pedestal) and noise.
    - `pixel_size_nm`: scalar, nm.
    - `scope`: the microscope; its gains and pedestals are undone. Turn it by the scan's rotation first
      (`scope.turned(deg)`).
    - `method`: `Refined()`, through the exact simulator (unless given); `Supervised()`, a trained network in one pass;
      `ClosedLoop()`, the network taught by these images first; or `Photometric()`, in closed form.
    - `camera`: what is known of the recording (see `measure`): grey levels, noise, the bits at whose ends images were
      cut off, blur. Noise is estimated from the images where it does not say.
    - `emission`: the angular law, `Lambertian()` unless given.
    - `grey_range`: lowest and highest grey level, where images were cut off, if the camera's `bits` do not say.
    - `report`: called after every step of the refinement with a `Progress`.

    Returns a `Reconstruction`. An image wider than 10 um sees the detector change across it; that is followed.
    Gradient: none.
    """
    method = Refined() if method is None else method
    if not isinstance(method, Method):
        raise InputError(f"method is {shown(method)}: give Refined(), Supervised() or Photometric(), an object.")
    task = _task(images, pixel_size_nm, scope, camera, emission, grey_range)
    found = method.found(task, report)
    return Reconstruction(
        **{**vars(found), "warnings": _warnings(task.measurement, scope, found)},
        scope=scope if found.calibration is None else found.calibration.scope,
        pixel_size_nm=task.pixel_size_nm,
        noise=task.measurement.std,
        method=method,
    )


def adapted(
    images: Any,
    pixel_size_nm: Any,
    scope: Microscope,
    method: Method | None = None,
    camera: Camera | None = None,
    emission: EmissionLaw | None = None,
    grey_range: tuple[float | None, float | None] | None = None,
    report: Callable[[Progress], None] | None = None,
    skipped: Callable[[int, InputError], None] | None = None,
) -> Adapted:
    """What the loop learns from these images, as a method of `reconstruct` that takes one pass for each further frame.

    Arguments as of `reconstruct`, but for these:

    - `images`: `(segment, y, x)`, or several sets of them, `(frame, segment, y, x)` or a list: all are learned from,
      in turns.
    - `method`: a `ClosedLoop()`, whose `then` is left aside.
    - `skipped`: called with the number, from 0, and the error of a set that is no measurement; the others go on.
      Unless given, such a set ends it with an `InputError` that names it.

    Images of any size will do later, of the same microscope and the same kind of specimen. Gradient: none.
    """
    method = ClosedLoop() if method is None else method
    if not isinstance(method, ClosedLoop):
        raise InputError(f"method is {shown(method)}: give ClosedLoop(), an object.")
    rest = pixel_size_nm, scope, camera, emission, grey_range
    several = np.ndim(images[0]) == 3 if isinstance(images, list | tuple) and images else np.ndim(images) == 4
    if not several:
        return method.adapted([_task(images, *rest)], report)[1]
    tasks = list(_each_named(images, lambda one: _task(one, *rest), skipped))
    if not tasks:
        raise InputError("none of the sets of images is a measurement: there is nothing to learn from.")
    return method.adapted(tasks, report)[1]


def _task(images: Any, pixel_size_nm: Any, scope: Any, camera: Any, emission: Any, grey_range: Any) -> Task:
    """What was measured, with all that is known of it; `InputError` for images that cannot be read as a measurement."""
    pixel = as_real(pixel_size_nm, "pixel_size_nm")
    check_pixel_size(pixel)
    measurement = measure(images, scope, camera, grey_range)
    pixel = pixel.astype(measurement.level.dtype)
    field_mm = wide_field_mm(measurement.level.shape[1:], pixel)
    table = acceptance(scope, field_mm=field_mm)
    check_swapped(measurement, table, emission, pixel)
    blur = None if camera is None else camera.blur
    return Task(measurement, table, scope, emission, blur, pixel, field_mm)


def reconstruct_frames(
    frames: Iterable[Any],
    pixel_size_nm: Any,
    scope: Microscope,
    *choices: Any,
    skipped: Callable[[int, InputError], None] | None = None,
    **named: Any,
) -> Iterator[Reconstruction]:
    """`reconstruct` of one frame after the other, as they come: thousands take the memory of one.

    - `frames`: `(segment, y, x)` images each, of one size: what the first compiles serves all.
    - `choices`, `named`: as `reconstruct` takes them after the microscope.
    - `skipped`: called with the number and the error of a frame that is no measurement; the others go on. Unless
      given, such a frame ends it.

    An `InputError` names the frame, counted from 0. Gradient: none; `vmap` goes over `photometric_slopes`.
    """
    yield from _each_named(frames, lambda images: reconstruct(images, pixel_size_nm, scope, *choices, **named), skipped)


def _each_named(
    frames: Iterable[Any], call: Callable[[Any], Any], skipped: Callable[[int, InputError], None] | None
) -> Iterator[Any]:
    """`call` of one frame after the other; an error names its frame, and goes to `skipped` if that is given."""
    for number, images in enumerate(frames):
        try:
            yield call(images)
        except InputError as error:
            named = InputError(f"frame {number}: {error}")
            if skipped is None:
                raise named from error
            skipped(number, named)


def _closed_form(height: Map, slopes: Slopes, pixel: Array, integrator: Any) -> Found:
    variance = jnp.moveaxis(jnp.diagonal(slopes.covariance, axis1=-2, axis2=-1), -1, 0)
    slope_std = jnp.sqrt(jnp.mean(jnp.median(variance, axis=(1, 2))))
    freedom = max(len(slopes.residual) - 3, 1)
    return Found(
        height_nm=height,
        height_std_nm=height_std(integrator, height.shape, slope_std, pixel, slopes.slope_x, slopes.slope_y),
        normals=Facets.isolated(slopes.slope_x, slopes.slope_y).normals(),
        slope_std=jnp.sqrt(variance),
        residual=slopes.residual,
        occluded=jnp.zeros(height.shape, bool),
        brightness=slopes.brightness,
        chi_square=jnp.mean(slopes.chi_square) / freedom,
        history=jnp.zeros((0, 2), height.dtype),
        calibration=None,
        outcome=Outcome.CLOSED_FORM,
        warnings=(),
    )


def _warnings(measurement: Measurement, scope: Microscope, found: Found) -> tuple[str, ...]:
    """What a person should know before believing the heights, in sentences."""
    said = [] if found.outcome.as_hoped else [found.outcome.value]
    said += found.warnings
    cut = jnp.mean((measurement.below | measurement.above).astype(measurement.level.dtype), axis=(1, 2))
    for name, share in zip(scope.detector.segments.names, cut.tolist(), strict=True):
        if share > _MUCH_CUT:
            said.append(
                f"{share:.0%} of the pixels of segment {name} were cut off by the grey range: they only bound heights."
            )
    chi_square = float(found.chi_square)
    if chi_square > _UNEXPLAINED:
        said.append(
            f"the images differ from what the model says by {chi_square**0.5:.2g} times their noise: microscope, "
            "emission or yield are not as described, and heights are off by more than their standard deviations."
        )
    return tuple(said)
