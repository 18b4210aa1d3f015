"""The page by which a person judges a reconstruction: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eclipsjax._types import InputError
from eclipsjax.inverse.reconstruction import Outcome, Reconstruction
from eclipsjax.metrology.compare import height_error
from eclipsjax.metrology.roughness import roughness
from eclipsjax.report import (
    embedded,
    reconstruction_figures as pictures,
    reconstruction_tables as tables,
    reconstruction_words as words,
)
from eclipsjax.report.canvas import small_png, to_png
from eclipsjax.report.figures import height_figure, segments_figure, steepest_azimuth_deg
from eclipsjax.report.page import Markup, Part, Picture, Section, escaped, instrument_tables, page, part_html
from eclipsjax.report.profile_tool import default_line, profile_tool
from eclipsjax.report.relief3d import relief_view
from eclipsjax.specimen.surface import Surface


def reconstruction_page(
    result: Reconstruction,
    images: Any,
    title: str,
    *,
    files: Sequence[Mapping[str, Any]] = (),
    truth_nm: Any = None,
    notes: Sequence[str | Picture] = (),
) -> str:
    """HTML of the whole page: verdict, images, residuals, maps, a relief to turn, profiles, numbers, settings.

    **Arguments:**

    - `result`: what `reconstruct` returned. `images`: `(segment, y, x)` or one per segment, as given to it.
    - `title`: the page's heading. Text, as are `files` and `notes`: it is escaped.
    - `files`: one mapping per file read: `name`, `segment`, `bytes`, `sha256`, `pixel_size_nm`, any may be missing.
    - `truth_nm`: `(y, x)`, nm, known heights to compare with (a synthetic specimen's, or an AFM's on the same pixels).
    - `notes`: sentences or pictures that follow the verdict.

    Maps of more than 1024 pixels on a side are carried as block means for the profile tool; the page says so.
    """
    images, truth = _checked(result, images, truth_nm)
    surface = Surface(result.height_nm, result.pixel_size_nm)
    azimuth = steepest_azimuth_deg(surface)
    shaded = _shaded(surface)
    sections = [
        Section("In short", [*_verdict(result), *notes]),
        _inputs(result, images),
        _maps(result, surface, azimuth, shaded),
        *_interactive(result, images, truth, azimuth, shaded),
        *([] if truth is None else [_against_truth(result, truth)]),
        _roughness(result),
        _instrument(result),
        _provenance(result, files),
    ]
    footer = "Made by eclipsjax. Heights are relative: their mean is arbitrary. Everything is inside this one file."
    return page(title, words.lead(result), sections, footer, embedded.asset("reconstruction.css"), embedded.scripts())


def _checked(result: Reconstruction, images: Any, truth_nm: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and truth as arrays, or `InputError` where they do not fit the result."""
    shape = result.residual.shape
    images = np.stack([np.asarray(image, float) for image in images])
    if images.shape != shape:
        raise InputError(f"images have shape {images.shape}, the reconstruction {shape}: give those it was made from.")
    if truth_nm is None:
        return images, None
    truth = np.asarray(truth_nm, float)
    if truth.shape != shape[1:] or not np.isfinite(truth).all():
        raise InputError(
            f"truth_nm has shape {truth.shape}: give finite heights, nm, for the result's {shape[1:]} pixels."
        )
    return images, truth


def _picture(figure: Any, caption: str) -> Picture:
    return Picture(small_png(figure), caption)


def _side_by_side(*figures: Picture) -> Markup:
    return Markup(f'<div class="pair">{"".join(part_html(figure) for figure in figures)}</div>')


def _verdict(result: Reconstruction) -> list[Part]:
    said, doubtful = words.chi_square_words(result)
    ended_well = result.outcome in (Outcome.CONVERGED, Outcome.CLOSED_FORM)
    boxes = [*([] if ended_well else [result.sentence]), *([said] if doubtful else []), *result.warnings]
    parts: list[Part] = [_box("warning", text) for text in boxes]
    if not doubtful:
        parts.append(_box("good", said) if words.is_determined(result) else said)
    return [*parts, words.relief_words(result)]


def _box(kind: str, text: str) -> Markup:
    return Markup(f'<div class="{kind}"><p>{escaped(text)}</p></div>')


def _inputs(result: Reconstruction, images: np.ndarray) -> Section:
    pixel, segments = float(result.pixel_size_nm), result.scope.detector.segments
    parts: list[Part] = [
        _picture(
            segments_figure(images, pixel, segments),
            "The images as given, in one common grey range. The icon shows the segment on the detector, as the image "
            "is oriented.",
        ),
        _picture(
            pictures.residual_figure(result.residual, pixel, segments),
            "Residuals: measured less explained, in units of each segment's noise. Red: brighter than the model says, "
            f"blue: darker; full colour at {pictures.RESIDUAL_LIMIT:g} standard deviations. "
            + words.residual_words(result),
        ),
        _picture(
            pictures.residual_histogram_figure(result.residual, segments.names),
            "Residuals of all pixels against the normal curve. Logarithmic, so that rare large ones show.",
        ),
    ]
    return Section("Images, and what the model leaves unexplained", parts)


def _maps(result: Reconstruction, surface: Surface, azimuth: float, shaded: Picture) -> Section:
    pixel = float(result.pixel_size_nm)
    shown = [
        _picture(
            height_figure(surface, azimuth),
            "Heights above the lowest point. Arrow: the steepest direction, along which the profile starts.",
        ),
        # In full colour here and below: 256 colours show as steps in the wheel and in the bar.
        Picture(
            to_png(pictures.normals_figure(result.normals, pixel)),
            "Where the surface faces. Hue: the azimuth downhill, counter-clockwise as seen (0° to the right, 90° up). "
            "The stronger the colour, the steeper; white is level.",
        ),
        shaded,
    ]
    std = np.asarray(result.height_std_nm, float)
    if np.isfinite(std).any():
        figure = pictures.map_figure(std, pixel, "Standard deviation of the height", "standard deviation (nm)",
                                     cmap="cividis")  # fmt: skip
        shown.append(
            Picture(
                to_png(figure),
                "Standard deviation of a height about the map's mean, nm: noise of the images, through the model. "
                "What the model gets wrong is not in it.",
            )
        )
    if result.outcome is not Outcome.CLOSED_FORM:
        shown.append(
            _picture(
                pictures.shaded_figure(surface, _shading_factor(surface), result.occluded),
                f"Vermilion: pixels from which the relief hides 2 % or more of some segment's signal "
                f"({100 * result.occluded_share:.1f} % of all).",
            )
        )
    return Section("Maps", [_side_by_side(*shown)])


def _shaded(surface: Surface) -> Picture:
    factor = _shading_factor(surface)
    exaggerated = "" if factor == 1 else f", heights exaggerated {factor:g} times so that low relief shows"
    caption = f"Shaded relief of the heights alone, lit from the upper left at 45° elevation{exaggerated}."
    return _picture(pictures.shaded_figure(surface, factor), caption)


def _shading_factor(surface: Surface) -> float:
    """1, 2, 5, 10, ...: what brings the root mean square slope to at most a half."""
    slopes = np.stack([np.asarray(s, float) for s in surface.slopes()])
    size = float(np.sqrt(np.sum(np.mean(slopes**2, axis=(1, 2)))))
    if not 0 < size < 0.25:
        return 1.0
    power = 10.0 ** np.floor(np.log10(0.5 / size))
    return float(min(max(m * power for m in (1, 2, 5) if m * power * size <= 0.5), 1e6))


def _interactive(
    result: Reconstruction, images: np.ndarray, truth: np.ndarray | None, azimuth: float, shaded: Picture
) -> list[Section]:
    """The relief that one can turn, and the profile tool, which share the maps that the page carries."""
    height, std, pixel = (
        np.asarray(result.height_nm, float),
        np.asarray(result.height_std_nm, float),
        float(result.pixel_size_nm),
    )
    maps = embedded.relief_maps(height, std, images.mean(axis=0), pixel, truth)
    # Higher than that, islands look like needles.
    factor = min(pictures.exaggeration(height, pixel), 2.0 * _shading_factor(Surface(result.height_nm, pixel)))
    line = default_line(height.shape, azimuth, maps["block"])
    data = Markup(embedded.json_element("eclipsjax-maps", {**maps, "exaggeration": factor, "line": line}))
    static = _picture(
        pictures.profile_with_band(height, std, pixel, azimuth, truth),
        "Heights along the steepest direction through the middle (the arrow in the height map); band: one standard "
        "deviation to either side.",
    )
    relief = relief_view(factor, _decimation(maps["block"] * maps["view_block"], height, "The view"), shaded)
    band = "Blue: heights above the lowest point of the map. " + (
        "Band: one standard deviation to either side. "
        if maps["std_nm"] is not None
        else "No standard deviations were computed, so there is no band. "
    )
    true_line = "" if truth is None else "Orange, dashed: the truth, moved to the same mean. "
    tool = profile_tool(
        band + true_line + "Values between pixels are bilinear. " + _decimation(maps["block"], height, "The tool"),
        static,
    )
    return [Section("Relief in three dimensions", [data, relief]), Section("Profiles", [tool])]


def _decimation(block: int, height: np.ndarray, what: str) -> str:
    """How far the heights shown are from every pixel of the result."""
    rows, columns = height.shape
    if block == 1:
        return f"{what} holds every pixel ({columns} x {rows})."
    left_out = columns % block, rows % block
    rest = f", without the last {left_out[0]} columns and {left_out[1]} rows" if any(left_out) else ""
    shown = f"{columns // block} x {rows // block}"
    return f"{what} holds means of {block} x {block} pixels ({shown} of {columns} x {rows}{rest}); the maps above, all."


def _against_truth(result: Reconstruction, truth: np.ndarray) -> Section:
    error = height_error(result.height_nm, truth.astype(result.height_nm.dtype))
    picture = _picture(
        pictures.truth_figure(truth, result.height_nm, float(result.pixel_size_nm)),
        "Truth and result in one colour scale, and their difference; all with their mean taken off.",
    )
    about = (
        "Errors against the truth. A constant is never in the images, and a tilt hardly, so the line of the plane is "
        "the one to compare methods by."
    )
    return Section("Against the truth", [picture, about, tables.error_table(error)])


def _roughness(result: Reconstruction) -> Section:
    about = (
        "Areal parameters of ISO 25178-2 over the whole map, a least-squares plane removed, no filter (neither S nor "
        "L): all wavelengths from two pixels to the field count, and so does the noise of the heights. Slopes for Sdq "
        "and Sdr are differences of neighbouring pixels at the four corners of each cell of 2 x 2."
    )
    found = roughness(result.height_nm, result.pixel_size_nm)
    return Section("Roughness", [about, tables.roughness_table(found)])


def _instrument(result: Reconstruction) -> Section:
    parts: list[Part] = ["The microscope as the reconstruction left it.", *instrument_tables(result.scope)]
    if result.solved:
        parts += ["Numbers solved along with the heights:", tables.solved_table(result)]
        parts += [] if result.calibration is None else result.calibration.sentences()
    else:
        parts.append("No number of the instrument was solved along: all are as given.")
    return Section("The instrument", parts)


def _provenance(result: Reconstruction, files: Sequence[Mapping[str, Any]]) -> Section:
    parts: list[Part] = [tables.settings_table(result)]
    if len(result.history) > 0:
        parts.append(
            _picture(
                pictures.convergence_figure(result.history),
                "Mean squared residual per measured level after each step; dashed: noise alone. (Chi-square per degree "
                "of freedom, above, divides by fewer: what was fitted is taken off.)",
            )
        )
    if files:
        parts += ["Files read:", tables.file_table(files)]
    return Section("How it was made", [*parts, tables.versions_table()])
