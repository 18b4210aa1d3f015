"""Equal steps for diffrax, without the check of `dt0` at run time that its own `ConstantStepSize` entails.

That check calls back to the host, and JAX never keeps programs with host callbacks in its compilation cache: every
process would compile every flight anew.
"""

from __future__ import annotations

from typing import Any

import diffrax

from eclipsjax._types import Scalar


class SteadySteps(diffrax.AbstractStepSizeController[None, None]):
    """Steps of one length (in the integrator's variable), for solves with `dt0=None`. Gradient: exact."""

    length: Scalar

    def wrap(self, direction: Any) -> SteadySteps:
        """The same steps, whichever way the solve runs."""
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order) -> tuple[Any, None]:
        """The end of the first step."""
        return t0 + self.length, None

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        """Every step is accepted; the next one is as long."""
        return True, t1, t1 + self.length, False, controller_state, diffrax.RESULTS.successful
