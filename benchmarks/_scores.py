"""One cell: every method on one specimen under one condition, and how far each is from the truth."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _formula import through_formula
from _looped import LEARNED
from _peers import frankot_chellappa, photometric, scaled_to_truth, sem2surface_way
from _scenes import SCENES, Condition, Recording, Specimen, fitted, recorded, uncertain

import eclipsjax as ej

SEED = 1
CLOSED, SINGULAR, REFINED = "closed form + Poisson", "singular vectors", "Refined"
PEERS = ("closed form + Frankot", CLOSED, SINGULAR, "formula", "formula, masked")
METHODS = (*PEERS, REFINED, *LEARNED)
# What each score is, in the order of the full tables.
FIGURES = {
    "plane": "height %",
    "parabola": "parabola off %",
    "told": "told %",
    "raw": "raw %",
    "clear": "not hidden %",
    "hidden": "hidden %",
    "normals": "normals deg",
    "steps": "steps %",
    "facets": "facets deg",
    "seconds": "s",
}


def _refining(recording: Recording, condition: Condition) -> ej.Refined:
    """Told what is not known of the microscope; without draws, which serve standard deviations only."""
    return ej.Refined(draws=0, uncertain={} if condition.is_known else uncertain(recording.scope))


def _found_by(method: Any, recording: Recording) -> ej.Reconstruction:
    """From what a method may see."""
    return ej.reconstruct(recording.images, recording.pixel_nm, recording.scope, method, recording.camera)


def cell(
    name: str, condition: Condition, pixels: int, draw: int = SEED, methods: tuple[str, ...] = METHODS
) -> dict[str, Any] | None:
    """Scores of the methods under one draw of noise and microscope, ready for JSON; None where there is no specimen."""
    specimen = SCENES[name]((pixels, pixels), SEED)
    if specimen is None:
        return None
    recording = recorded(specimen, condition, name, draw)
    remarks: dict[str, Any] = {}

    def refine() -> np.ndarray:
        found = _found_by(_refining(recording, condition), recording)
        remarks.update(outcome=found.outcome.name, steps=len(found.history) - 1, chi_square=float(found.chi_square))
        return np.asarray(found.height_nm, np.float64)

    calls: dict[str, Callable[[], np.ndarray]] = {
        PEERS[0]: lambda: frankot_chellappa(recording),
        CLOSED: lambda: photometric(recording),
        SINGULAR: lambda: scaled_to_truth(sem2surface_way(recording.images), specimen.height_nm),
        PEERS[3]: lambda: through_formula(recording, masks=0),
        PEERS[4]: lambda: through_formula(recording),
        REFINED: refine,
        **{name: partial(_height, of(_refining(recording, condition)), recording) for name, of in LEARNED.items()},
    }
    scores = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for method in methods:
            height, seconds = _timed(calls[method])
            scores[method] = {**scores_of(height, specimen, recording.hidden), "seconds": seconds}
    remarks["warnings"] = sorted({str(w.message) for w in caught})
    asked = {"scene": name, "condition": condition.label, "pixels": pixels, "draw": draw}
    return {**asked, "hidden_share": float(recording.hidden.mean()), "scores": scores, "refined": remarks}


def _height(method: Any, recording: Recording) -> np.ndarray:
    return np.asarray(_found_by(method, recording).height_nm, np.float64)


def _timed(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the seconds of a call that compiles nothing: of a second one where the first compiled."""
    compiled: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile") or "cache_retrieval" in event:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        started = time.perf_counter()
        height = call()
        seconds = time.perf_counter() - started
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    if sum(compiled) > 0.02 * seconds:
        started = time.perf_counter()
        height = call()
        seconds = time.perf_counter() - started
    return height, seconds


def scores_of(height: np.ndarray, specimen: Specimen, hidden: np.ndarray) -> dict[str, float]:
    """Rms height errors in % of the truth's peak to valley, and what the truth of the scene allows to ask."""
    truth, span = specimen.height_nm, np.ptp(specimen.height_nm)
    error = height - truth
    off_plane = error - fitted(error, 3)

    def percent(values: np.ndarray) -> float:
        return float(100 * np.sqrt(np.mean(values**2)) / span) if values.size else math.nan

    normals = ej.Surface(height, specimen.pixel_nm).normals(), ej.Surface(truth, specimen.pixel_nm).normals()
    scores = {
        "plane": percent(off_plane),
        "parabola": percent(error - fitted(error, 6)),
        "told": percent(scaled_to_truth(height - fitted(height, 6), truth) - truth),
        "raw": percent(error - error.mean()),
        "clear": percent(off_plane[~hidden]),
        "hidden": percent(off_plane[hidden]),
        "normals": float(ej.angular_error(*normals).mean_deg),
    }
    if specimen.scene is not None:
        scores["steps"] = float(ej.step_error(height, specimen.scene).rms_percent)
        # Level facets are in the truth as well: the root mean square over all of them, by their area.
        facets = ej.facet_error(height, specimen.scene)
        square, area = np.asarray(facets.rms_deg, float) ** 2, np.asarray(facets.pixels, float)
        seen = np.isfinite(square) & (area > 0)
        scores["facets"] = math.sqrt(np.average(square[seen], weights=area[seen])) if seen.any() else math.nan
    return scores


def bound_row(name: str, condition: Condition, seeds: range, pixels: int = 48) -> dict[str, Any] | None:
    """Rms over a crop of the Cramer-Rao bound of heights, and of what two methods are off by, in nm, mean removed."""
    specimen = SCENES[name]((pixels, pixels), SEED)
    if specimen is None:
        return None
    found: dict[str, list[float]] = {CLOSED: [], REFINED: []}
    recording = None
    for seed in seeds:
        recording = recorded(specimen, condition, name, 100 + seed)
        heights = photometric(recording), _height(_refining(recording, condition), recording)
        for errors, height in zip(found.values(), heights, strict=True):
            error = height - specimen.height_nm
            errors.append(float(np.mean((error - error.mean()) ** 2)))
    rms = {method: math.sqrt(np.mean(squares)) for method, squares in found.items()}
    return {"scene": name, "hidden_share": float(recording.hidden.mean()), "bound": _bound(specimen, recording), **rms}


def _bound(specimen: Specimen, recording: Recording) -> float:
    """Rms over the map, nm, brightness known; in double precision, which the matrix wants."""
    with jax.enable_x64(True):
        records = ej.acceptance(recording.scope), recording.scope, recording.camera
        table, scope, camera = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), records)
        surface = ej.Surface(jnp.asarray(specimen.height_nm), jnp.asarray(specimen.pixel_nm))
        noise = ej.LevelNoise.of(camera, scope, ej.render(surface, table))
        bound = ej.height_bound(surface, table, noise, known_yield=True)
        return float(np.sqrt(np.mean(np.asarray(bound) ** 2)))
