"""The two simulators that are distilled: what they answer to a lesson."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from eclipsjax.imaging.bsesm import render
from eclipsjax.imaging.facets import Facets
from eclipsjax.learn.distil import Lesson, Pupil, cosine
from eclipsjax.nn import dsm_network, vision_field_network
from eclipsjax.nn.dsm import rims_rad
from eclipsjax.nn.vft import facets_and_peaks
from eclipsjax.specimen.horizon import GivenHorizon, horizon

# Directions in which the Vision Field Transformer's horizons are compared with the teacher's.
_COMPARED = 8


def vft_pupil(config: vision_field_network.VisionFieldConfig | None = None) -> Pupil:
    """The Vision Field Transformer, from normals with noise."""
    return Pupil(
        "vft",
        "normals to signals of any segmented detector; see eclipsjax.VisionFieldTransformer",
        config or vision_field_network.VisionFieldConfig(),
        _vft_answer,
        _COMPARED,
        noise=True,
    )


def dsm_pupil(config: dsm_network.SimulatorConfig | None = None) -> Pupil:
    """The deep simulator, from exact normals."""
    return Pupil(
        "dsm",
        "exact normals to signals, quicker and coarser; see eclipsjax.DeepSimulator",
        config or dsm_network.SimulatorConfig(),
        _dsm_answer,
        dsm_network.AZIMUTHS,
        noise=False,
    )


PUPILS = {"vft": vft_pupil, "dsm": dsm_pupil}


def _vft_answer(config: Any, parameters: Any, lesson: Lesson) -> tuple[Array, Array]:
    pixel = jnp.ones((), lesson.slope_x.dtype)
    facets, peaks = facets_and_peaks(config, parameters, lesson.slope_x, lesson.slope_y, pixel)
    signal = render(facets, lesson.table, azimuths=config.azimuths, horizon=peaks)
    return signal, cosine(horizon(facets, _COMPARED, peaks))


def _dsm_answer(config: Any, parameters: Any, lesson: Lesson) -> tuple[Array, Array]:
    cot = dsm_network.exposed(config, parameters, lesson.slope_x, lesson.slope_y, rims_rad(lesson.table))
    facets, given = Facets.isolated(lesson.slope_x, lesson.slope_y), GivenHorizon(cot)
    return render(facets, lesson.table, cot.shape[0], horizon=given), cosine(horizon(facets, cot.shape[0], given))
