"""The networks that come with the package, by their short names."""

from __future__ import annotations

from typing import Any

from eclipsjax._types import InputError, shown
from eclipsjax.inverse.pinn import DepthNet
from eclipsjax.nn.dsm import DeepSimulator
from eclipsjax.nn.unet import NormalNet
from eclipsjax.nn.vft import VisionFieldTransformer

_KINDS = {kind.name: kind for kind in (VisionFieldTransformer, DeepSimulator, DepthNet, NormalNet)}


def load_pretrained(name: Any) -> Any:
    """The network that comes with the package: "vft" (`VisionFieldTransformer`), "dsm" (`DeepSimulator`), "depth"
    (`DepthNet`), "normals" (`NormalNet`); its `card` says how it was trained and what it reached.
    """
    if not isinstance(name, str) or name not in _KINDS:
        raise InputError(f"name is {shown(name)}: give one of {', '.join(_KINDS)}.")
    return _KINDS[name].shipped()
