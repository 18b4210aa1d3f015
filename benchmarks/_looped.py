"""What learns from images, and where it is asked: a microscope that is as its owner believes, and one that is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
from _scenes import Condition, Recording, Specimen, nominal_scope, real, recorded

import eclipsjax as ej

ONE_PASS, LOOP, BOTH = "Supervised", "ClosedLoop", "ClosedLoop, then Refined"
# From the `Refined()` to go on with, where it does.
LEARNED: dict[str, Callable[[ej.Refined], Any]] = {
    ONE_PASS: lambda refined: ej.Supervised(),
    LOOP: lambda refined: ej.ClosedLoop(),
    BOTH: lambda refined: ej.ClosedLoop(then=refined),
}
INSIDE, OUTSIDE = "as believed", "gains 8 %, 15 % farther"
_GAINS_OFF, _FARTHER = (1.08, 0.93, 0.94, 1.05), 1.15


def seen_from(specimen: Specimen, condition: Condition, name: str, draw: int, state: str) -> Recording:
    """The images of a specimen from the microscope that is believed in, or from the other one."""
    return recorded(specimen, condition, name, draw, _other(condition) if state == OUTSIDE else None)


def _other(condition: Condition) -> ej.Microscope:
    scope = nominal_scope(condition.segments)
    where = lambda s: (s.detector.segments.gain, s.detector.distance_mm)  # noqa: E731
    return eqx.tree_at(where, scope, (real(_GAINS_OFF), scope.detector.distance_mm * _FARTHER))
