"""How level a specimen is known to lie: images alone tell a lean of the whole field from unequal gains poorly."""

from __future__ import annotations

import math
from typing import Any

from eclipsjax._types import InputError, concrete
from eclipsjax.inverse.misfit import DISCOUNT


def check_level(level_deg: Any) -> None:
    """Raise `InputError` unless `level_deg` is an angle, or inf where nothing is known (skipped while tracing)."""
    level = concrete(level_deg)
    if level is not None and not (0 < level < 90 or level == math.inf):
        raise InputError(f"level_deg is {level}: give degrees between 0 and 90 (inf: not known).")


def level_information(level_deg: Any) -> float:
    """Of the mean slope along either axis; as little an independent witness as any number's (see `misfit`)."""
    level = float(level_deg)
    return DISCOUNT / math.tan(math.radians(level)) ** 2 if level < 90 else 0.0
