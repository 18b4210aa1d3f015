"""Simulate a surface and write all about it: signals, images, pictures, page."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eclipsjax import __version__
from eclipsjax.cli._running import Stages
from eclipsjax.imaging.blur import GaussianBlur
from eclipsjax.imaging.bsesm import NARROW_UM, flat_signal, render, wide_field_mm
from eclipsjax.imaging.camera import Camera, GaussianShot, Recorded, SignalToNoise, exposure, record_with_clipping
from eclipsjax.instrument.acceptance import AcceptanceTable, acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.io.tiff import resolution
from eclipsjax.specimen.surface import Surface

STAGES = ["acceptance", "render", "record", "pictures"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user chose: directions and radius of the search for occluders, noise and its seed, grey depth, blur."""

    azimuths: int = 64
    radius_px: int = 128
    noise: bool = True
    seed: int = 0
    bits: int | None = 16
    interaction_sigma_nm: float = 0.0

    @property
    def unit(self) -> str:
        """What the stored images hold."""
        return "grey level" if self.bits else "gain * (signal - pedestal)"


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A surface, the instrument, and what came out."""

    surface: Surface
    scope: Microscope
    settings: Settings
    table: AcceptanceTable
    signal: jax.Array
    recorded: Recorded
    counts_per_signal: float


def run_simulation(surface: Surface, scope: Microscope, settings: Settings, stages: Stages) -> Simulation:
    """Acceptance, signals, images. Says on stderr what it decided."""
    field_mm = wide_field_mm(surface.height_nm.shape, surface.pixel_size_nm)
    if field_mm is not None:
        size, unit = (1.0, "mm") if max(field_mm) >= 1.0 else (1e3, "um")
        stages.note(
            f"the image spans {size * field_mm[0]:.3g} x {size * field_mm[1]:.3g} {unit}, more than {NARROW_UM:g} um: "
            "following how the view of the detector changes across it."
        )
    if scope.is_biased:
        stages.note("an electrode is biased: solving for the field and flying electrons through it.")
    table = stages.run("acceptance", acceptance, scope, field_mm=field_mm)
    signal = stages.run("render", render, surface, table, azimuths=settings.azimuths, radius_px=settings.radius_px)
    recorded, counts = stages.run("record", _record, signal, surface.pixel_size_nm, scope, settings)
    low, high = np.asarray(recorded.clipped_low), np.asarray(recorded.clipped_high)
    for k, name in enumerate(table.names):
        if low[k] + high[k] > 0:
            stages.note(f"segment {name}: {low[k]:.2%} of the pixels clipped to black, {high[k]:.2%} to white.")
    return Simulation(surface, scope, settings, table, signal, recorded, counts)


def _record(
    signal: jax.Array, pixel_size_nm: jax.Array, scope: Microscope, settings: Settings
) -> tuple[Recorded, float]:
    counts = float(exposure(signal, scope, bits=settings.bits)) if settings.bits else 1.0
    noise = {"shot": GaussianShot(0.3), "additive": SignalToNoise(12.0, 0.065)} if settings.noise else {}
    blur = GaussianBlur(settings.interaction_sigma_nm) if settings.interaction_sigma_nm > 0 else None
    camera = Camera(counts, blur=blur, bits=settings.bits, **noise)
    key = jax.random.key(settings.seed) if settings.noise else None
    return record_with_clipping(signal, scope, key, camera, pixel_size_nm), counts


def write_data(result: Simulation, folder: Path) -> None:
    """`signal.npz` and one TIFF per segment."""
    from eclipsjax.report.figures import segment_azimuths_deg

    pixel, names = float(result.surface.pixel_size_nm), result.table.names
    azimuths = segment_azimuths_deg(result.scope.detector.segments)
    np.savez_compressed(
        folder / "signal.npz",
        signal=np.asarray(result.signal, np.float32),
        signal_unit=np.array("fraction of the emitted electrons, (segment, y, x)"),
        segment_names=np.array(names),
        segment_azimuth_deg=azimuths,
        pixel_size_nm=pixel,
        pixel_size_unit=np.array("nm per pixel"),
        azimuths=result.settings.azimuths,
        radius_px=result.settings.radius_px,
    )
    write_images(result, folder)


def write_images(result: Simulation, folder: Path) -> None:
    """One TIFF per segment."""
    from eclipsjax.report.figures import segment_azimuths_deg

    pixel, names = float(result.surface.pixel_size_nm), result.table.names
    azimuths = segment_azimuths_deg(result.scope.detector.segments)
    for k, file in enumerate(image_files(names)):
        notes = {
            "eclipsjax": "image 1",
            "segment": names[k],
            "azimuth_deg": float(azimuths[k]),
            "pixel_size_nm": pixel,
            "values": result.settings.unit,
            "counts_per_signal": result.counts_per_signal,
            "seed": result.settings.seed if result.settings.noise else None,
        }
        _write_tiff(folder / file, np.asarray(result.recorded.images[k]), result.settings.bits, pixel, notes)


def image_files(names: tuple[str, ...]) -> list[str]:
    """A file name per segment, safe on every system and never the same twice."""
    return [
        f"segment_{k + 1}_{re.sub(r'[^A-Za-z0-9-]+', '-', name).strip('-')}".rstrip("_") + ".tif"
        for k, name in enumerate(names)
    ]


def file_names(names: tuple[str, ...]) -> list[str]:
    """All files that `write_data` and `write_page` write."""
    return [*image_files(names), "signal.npz", "overview.png", "index.html"]


def _write_tiff(file: Path, image: np.ndarray, bits: int | None, pixel_nm: float, notes: dict[str, Any]) -> None:
    import tifffile

    dtype = {8: np.uint8, 16: np.uint16, None: np.float32}[bits]
    tifffile.imwrite(
        file,
        image.astype(dtype),
        photometric="minisblack",
        description=json.dumps(notes),
        software=f"eclipsjax {__version__}",
        metadata=None,
        **resolution(pixel_nm),
    )


def write_page(result: Simulation, folder: Path, title: str, lead: str, extra_files: list[tuple[str, str]]) -> None:
    """`overview.png` and `index.html`."""
    from eclipsjax.report import drawings, figures, page

    surface, segments = result.surface, result.scope.detector.segments
    pixel, names, unit = float(surface.pixel_size_nm), result.table.names, result.settings.unit
    azimuth = figures.steepest_azimuth_deg(surface)
    images = np.asarray(result.recorded.images)
    sheet = figures.overview_figure(surface, np.asarray(result.signal), images, segments, unit, azimuth)
    (folder / "overview.png").write_bytes(figures.to_png(sheet, compact=True))

    def picture(figure: Any, caption: str) -> page.Picture:
        return page.Picture(figures.to_png(figure), caption)

    sections = [
        page.Section("The surface", [picture(figures.height_figure(surface, azimuth), _HEIGHT)]),
        page.Section(
            "What the segments see",
            [picture(figures.segments_figure(images, pixel, segments), _images_caption(result))],
        ),
        page.Section(
            "Profile",
            [picture(figures.profile_figure(surface, np.asarray(result.signal), names, azimuth), _PROFILE)],
        ),
        page.Section(
            "Stored values",
            [picture(figures.histogram_figure(images, names, unit), _HISTOGRAM), _statistics(result)],
        ),
        page.Section(
            "The instrument",
            [
                picture(drawings.detector_figure(result.scope), DETECTOR_CAPTION),
                picture(drawings.sky_figure(result.table, 100 * np.asarray(flat_signal(result.table))), SKY_CAPTION),
                *page.instrument_tables(result.scope),
            ],
        ),
        page.Section("The simulation", [_settings_table(result), "Files in this folder:", _files(names, extra_files)]),
    ]
    footer = f"Made by eclipsjax {__version__}. Single scattering; no charging, no channelling, no interreflection."
    (folder / "index.html").write_text(page.page(title, lead, sections, footer), encoding="utf-8")


_HEIGHT = "Heights above the lowest point. The arrow is the line of the profile below, along the steepest direction."
_PROFILE = (
    "Above: height along the arrow. Below: the fraction of the electrons emitted at each point that each segment "
    "collects, before blur and noise. Facets that face a segment are bright in it."
)
_HISTOGRAM = "Distribution of the stored values. The spread holds both the relief and the noise."
DETECTOR_CAPTION = (
    "The plate in the image's orientation: azimuths run counter-clockwise as in the image. Someone who looks up "
    "at the plate from the specimen sees this drawing mirrored."
)
SKY_CAPTION = (
    "The sky above the centre of the image: polar angle of emission from the optical axis (centre) to grazing (rim), "
    "azimuth around. Percentages: share of the electrons from a flat specimen that each segment collects."
)


def _images_caption(result: Simulation) -> str:
    grey = f"{result.settings.bits}-bit grey levels" if result.settings.bits else "floating-point values"
    noise = (
        "amplifier noise at a signal-to-noise ratio of 12 and counting noise for the dose below"
        if result.settings.noise
        else "no noise"
    )
    return (
        f"Images of all segments in one common grey range ({grey}, {noise}). The icon shows the segment on the "
        "detector, as the image is oriented."
    )


def _statistics(result: Simulation) -> Any:
    from eclipsjax.report.page import Table

    signal, images = np.asarray(result.signal, float), np.asarray(result.recorded.images, float)
    low, high = np.asarray(result.recorded.clipped_low), np.asarray(result.recorded.clipped_high)
    head = (
        "segment",
        "mean signal (%)",
        "lowest",
        "highest",
        f"mean ({result.settings.unit})",
        "std",
        "clipped low, high",
    )
    rows = [
        (
            name,
            *(f"{100 * v:.3f}" for v in (signal[k].mean(), signal[k].min(), signal[k].max())),
            f"{images[k].mean():.5g}",
            f"{images[k].std():.4g}",
            f"{low[k]:.2%}, {high[k]:.2%}",
        )
        for k, name in enumerate(result.table.names)
    ]
    return Table(head, rows, tuple(range(1, len(head))))


def _settings_table(result: Simulation) -> Any:
    from eclipsjax.report.page import Table

    chosen, (rows, columns) = result.settings, result.surface.height_nm.shape
    slope_x, slope_y = result.surface.slopes()
    tilt = np.degrees(np.arctan(np.hypot(np.asarray(slope_x), np.asarray(slope_y))))
    beam, sigma = result.scope.beam, chosen.interaction_sigma_nm
    blur = "none"
    if sigma > 0:
        blur = f"interaction volume of {sigma:g} nm standard deviation, probe of {float(beam.probe_fwhm_nm):g} nm"
    return Table(
        ("setting", "value"),
        [
            ("image", f"{columns} x {rows} pixels of {float(result.surface.pixel_size_nm):.6g} nm"),
            ("relief, lowest to highest", f"{float(jnp.ptp(result.surface.height_nm)):.5g} nm"),
            ("local tilt, median and steepest", f"{np.median(tilt):.2f} deg, {tilt.max():.2f} deg"),
            ("emission", "Lambertian (cosine law), yield 1"),
            ("directions around each pixel", str(chosen.azimuths)),
            ("relief searched for occluders within", f"{chosen.radius_px} pixels"),
            ("detector's view follows the pixel", "yes" if result.table.follows_beam else "no (small field of view)"),
            ("dose", f"{float(beam.current_na * beam.dwell_us) * 6241.509:.4g} primary electrons per pixel"),
            ("blur", blur),
            ("noise", f"seed {chosen.seed}" if chosen.noise else "none"),
            (
                "grey levels per unit of gain * signal",
                f"{result.counts_per_signal:.5g}" if chosen.bits else "not rounded",
            ),
        ],
    )


def _files(names: tuple[str, ...], extra: list[tuple[str, str]]) -> Any:
    from eclipsjax.report.page import Table

    rows = [("signal.npz", "signal, fraction of the emitted electrons, (segment, y, x), float32, before noise")]
    rows += [
        (file, f"image of segment {name}, pixel size in its tags")
        for file, name in zip(image_files(names), names, strict=True)
    ]
    return Table(
        ("file", "what"), [*rows, *extra, ("overview.png", "height, images, profile and histogram on one sheet")]
    )
