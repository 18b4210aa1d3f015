"""What the networks that replace the exact simulator are measured on, what they are measured against, and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _scenes import SCENES, acceptance, real
from forward import rough_map
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import eclipsjax as ej
from eclipsjax.learn.relief_scenes import TAUGHT, reliefs
from eclipsjax.learn.slope_errors import SlopeErrors, estimated_slopes
from eclipsjax.specimen.from_slopes import cot_horizon_of_sums

AZIMUTHS, RADIUS_PX, PLAIN_PX = 64, 128, 64
# Real maps hide next to nothing: how many times as tall they are made so that they do.
STEEPER = {"AFM grains": 4, "AFM islands": 4, "AFM steps": 32}
# Families that no network was taught.
HELD_OUT = tuple(family for family in ("particles", "square spiral") if family not in TAUGHT)
_DRAWN = 2
# Of the default detector's segments; and how long the line of a picture is.
_SIDES, _ACROSS_PX = ("right", "top", "left", "bottom"), 80
HIDES = 0.05
PLAIN, NONE = "ray formula", "no occlusion"

Method = Callable[[Any, Any, Any], Any]


def scenes(size: int, seed: int = 0) -> dict[str, ej.Surface]:
    """Every specimen of `_scenes` that is there, real maps also made steeper, held-out families and rough maps."""
    specimens = {name: draw((size, size), seed) for name, draw in SCENES.items()}
    found = {name: specimen.surface for name, specimen in specimens.items() if specimen is not None} | steeper(
        size, seed
    )
    for family in HELD_OUT:
        for number in range(_DRAWN):
            height = reliefs(family, size, 1, jax.random.key(900 + _DRAWN * seed + number))[0]
            found[f"held out: {family} {number + 1}"] = ej.Surface(2.0 * (height - height.mean()), 2.0)
    turned = np.rot90(rough_map(size, 70.0), seed)
    return found | {"rough, 70 deg": ej.Surface(real(10.0 * turned), 10.0)}


def steeper(size: int, seed: int = 0) -> dict[str, ej.Surface]:
    """The real maps that are there and large enough, made steeper."""
    specimens = {f"{name} x{times}": (SCENES[name]((size, size), seed), times) for name, times in STEEPER.items()}
    return {name: taller(specimen.surface, times) for name, (specimen, times) in specimens.items() if specimen}


def taller(surface: ej.Surface, times: float) -> ej.Surface:
    """The surface with its heights multiplied."""
    return ej.Surface(times * surface.height_nm, surface.pixel_size_nm)


def instruments() -> dict[str, ej.Microscope]:
    """The default detector, and three that no training saw."""
    inner, outer = (
        ej.Microscope.annular(n, inner_radius_mm=a, outer_radius_mm=b, start_deg=s)
        for n, a, b, s in ((3, 1.0, 2.5, 5.0), (3, 2.7, 5.0, -30.0))
    )
    pair = inner.detector.segments, outer.detector.segments
    numbers = {
        field.name: jnp.concatenate([getattr(segments, field.name) for segments in pair])
        for field in dataclasses.fields(pair[0])
        if field.name not in ("names", "rings")
    }
    both = dataclasses.replace(pair[0], names=tuple("ABCDEF"), rings=(0, 0, 0, 1, 1, 1), **numbers)
    return {
        "four segments, 1 to 5 mm at 6 mm": ej.Microscope.annular(),
        "three segments, 1.5 to 6 mm at 8 mm, turned": ej.Microscope.annular(3, 1.5, 6.0, 8.0, start_deg=20.0),
        "six segments, 0.8 to 4 mm at 4 mm": ej.Microscope.annular(6, 0.8, 4.0, 4.0),
        "two rings of three, 1 to 2.5 and 2.7 to 5 mm at 6 mm": dataclasses.replace(
            inner, detector=dataclasses.replace(inner.detector, segments=both)
        ),
    }


class Look(NamedTuple):
    """A surface as one instrument sees it: its table, the exact signals, their mean, and which pixels lose or gain
    more than 5 % in a segment by occlusion."""

    surface: ej.Surface
    table: Any
    exact: np.ndarray
    mean: float
    hidden: np.ndarray

    @property
    def pixel_nm(self) -> Any:
        """Pixel size, nm."""
        return self.surface.pixel_size_nm

    def image(self, method: Method, normals: Any) -> np.ndarray:
        """What a method makes of normals."""
        return np.asarray(method(normals, self.table, self.pixel_nm), np.float64)


def looked(surface: ej.Surface, scope: ej.Microscope) -> Look:
    """The exact image, and what occlusion did to it."""
    table = acceptance(scope, surface)
    exact = np.asarray(ej.render(surface, table, AZIMUTHS, RADIUS_PX), np.float64)
    alone = np.asarray(ej.render(surface, table, AZIMUTHS, horizon=ej.NoRelief()), np.float64)
    return Look(surface, table, exact, exact.mean(), (np.abs(exact - alone) > HIDES * exact).any(axis=0))


def noisy_normals(surface: ej.Surface, noise_deg: float, seed: int) -> Any:
    """Normals with white noise as an estimate has it: none steeper than 87 deg. Those of the surface for 0 deg."""
    if noise_deg == 0:
        return surface.normals()
    slopes = estimated_slopes(*surface.slopes(), SlopeErrors(white_deg=noise_deg), jax.random.key(seed))
    return ej.Facets(surface.height_nm, surface.pixel_size_nm, *slopes).normals()


def network(net: Any) -> Method:
    """A network as a method."""
    return lambda normals, table, pixel_nm: net(normals, table, pixel_size_nm=pixel_nm)


def plain_formula(radius_px: int) -> Method:
    """The ray formula, every pixel line of every ray."""

    def image(normals, table, pixel_nm):
        slopes = ej.slopes_of_normals(normals)
        cot = _cot_of_sums(*slopes, AZIMUTHS, radius_px)
        return ej.render(_facets(slopes, pixel_nm), table, AZIMUTHS, horizon=ej.GivenHorizon(cot))

    return image


_cot_of_sums = jax.jit(cot_horizon_of_sums, static_argnums=(2, 3))


def no_occlusion(normals: Any, table: Any, pixel_nm: Any) -> Any:
    """What closed-form photometric stereo assumes."""
    return ej.render(_facets(ej.slopes_of_normals(normals), pixel_nm), table, AZIMUTHS, horizon=ej.NoRelief())


def _facets(slopes, pixel_nm) -> ej.Facets:
    return ej.Facets(jnp.zeros_like(slopes[0]), pixel_nm, *slopes)


def methods(nets: dict[str, Any]) -> dict[str, Method]:
    """Every way from normals to an image, by its column's name."""
    columns = {"VFT": network(nets["VFT"]), PLAIN: plain_formula(PLAIN_PX)}
    if "DSM" in nets:
        columns["DSM"] = network(nets["DSM"])
    return columns | {NONE: no_occlusion}


class Errors(NamedTuple):
    """Squared errors in (% of the scene's mean signal)^2, summed over pixels, mean over segments; and how many."""

    total: float = 0.0
    pixels: int = 0
    hidden_total: float = 0.0
    hidden_pixels: int = 0

    @classmethod
    def of(cls, look: Look, image: np.ndarray) -> Errors:
        """Of one image."""
        squares = np.mean((100 * (image - look.exact) / look.mean) ** 2, axis=0)
        return cls(squares.sum(), squares.size, squares[look.hidden].sum(), int(look.hidden.sum()))

    @classmethod
    def pooled(cls, parts: list[Errors]) -> Errors:
        """Of several images together."""
        return cls(*(sum(column) for column in zip(*parts, strict=True)))

    @property
    def rms(self) -> float:
        """Over all pixels, %."""
        return float(np.sqrt(self.total / max(self.pixels, 1)))

    @property
    def hidden_rms(self) -> float:
        """Over hidden pixels, %; not a number where there is none."""
        return float(np.sqrt(self.hidden_total / self.hidden_pixels)) if self.hidden_pixels else float("nan")


def draw_pictures(folder: Path, nets: dict[str, Any], size: int) -> list[str]:
    """A picture of every real map made steeper; a sentence each on what was done."""
    folder.mkdir(parents=True, exist_ok=True)
    found, told, columns = steeper(size), [], methods(nets)
    for name, times in STEEPER.items():
        label = f"{name} x{times}"
        if label not in found:
            told.append(f"{name}: no picture, the map is not among the shared data or is smaller than {size} pixels.")
            continue
        look = looked(found[label], ej.Microscope.annular())
        normals = look.surface.normals()
        images = {column: look.image(method, normals) for column, method in columns.items() if column != PLAIN}
        file = folder / f"{name.replace(' ', '_').lower()}_x{times}.png"
        _picture(f"{name}, heights x {times}, exact normals", look, images).savefig(file, dpi=130)
        told.append(f"{label}: {file}")
    return told


def _picture(title: str, look: Look, images: dict[str, np.ndarray]) -> Figure:
    """Exact, VFT and their difference in the segment in which most is hidden, and a line across where it is."""
    figure = Figure(figsize=(13.0, 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    lost = np.abs(look.exact - images[NONE])
    segment = int(np.argmax(lost.sum(axis=(1, 2))))
    figure.suptitle(f"{title}: signal of the segment on the {_SIDES[segment]}")
    rows = figure.add_gridspec(2, 1, height_ratios=(1.45, 1.0))
    maps = rows[0].subgridspec(1, 3)
    exact, vft = look.exact[segment], images["VFT"][segment]
    across = min(_ACROSS_PX, exact.shape[1])
    sums = np.lib.stride_tricks.sliding_window_view(lost[segment], across, axis=1).sum(axis=-1)
    row, start = (int(k) for k in np.unravel_index(np.argmax(sums), sums.shape))
    unit, scale = ("µm", 1e-3) if float(look.pixel_nm) * exact.shape[1] > 3000 else ("nm", 1.0)
    pixel = scale * float(look.pixel_nm)
    line = pixel * np.array([start, start + across]), pixel * np.full(2, row + 0.5)
    shown = partial(_panel, extent=(0, pixel * exact.shape[1], pixel * exact.shape[0], 0), line=line)
    panels = [figure.add_subplot(maps[0, k], xlabel=f"x, {unit}") for k in range(3)]
    panels[0].set_ylabel(f"y, {unit}")
    limits = tuple(100 * np.quantile(exact, (0.002, 0.998)))
    shown(panels[0], 100 * exact, "gray", limits, "exact")
    grey = shown(panels[1], 100 * vft, "gray", limits, "VFT")
    below = {"orientation": "horizontal", "shrink": 0.85, "aspect": 30}
    figure.colorbar(grey, ax=panels[:2], **below | {"aspect": 60}).set_label("signal, % of emitted electrons")
    off = 100 * (vft - exact) / look.mean
    limit = max(float(np.quantile(np.abs(off), 0.999)), 1e-3)
    difference = f"VFT less exact, rms {np.sqrt(np.mean(off**2)):.2g} %"
    colours = shown(panels[2], off, "RdBu_r", (-limit, limit), difference)
    figure.colorbar(colours, ax=panels[2], extend="both", **below).set_label("difference, % of the mean signal")
    profiles = {name: image[segment, row] for name, image in images.items()} | {"exact": exact[row]}
    _profile(figure.add_subplot(rows[1]), pixel, unit, slice(start, start + across), profiles)
    return figure


def _panel(axes, values, colours, limits, title, *, extent, line):
    axes.set_title(title)
    shown = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent, interpolation="nearest")
    axes.plot(*line, color="tab:orange", linewidth=1.6)
    return shown


def _profile(axes, pixel: float, unit: str, part: slice, profiles: dict[str, np.ndarray]) -> None:
    """Signals along the line that the maps show."""
    x = pixel * (np.arange(part.start, part.stop) + 0.5)
    styles = {
        NONE: {"color": "tab:gray", "linewidth": 1.2, "linestyle": ":"},
        "exact": {"color": "black", "linewidth": 3.2},
        "DSM": {"color": "tab:cyan", "linewidth": 1.4},
        "VFT": {"color": "tab:orange", "linewidth": 1.4, "linestyle": "--"},
    }
    for name, style in styles.items():
        if name in profiles:
            axes.plot(x, 100 * profiles[name][part], label=name, **style)
    axes.set_xlim(x[0], x[-1])
    axes.set_xlabel(f"x along the orange line, {unit}")
    axes.set_ylabel("signal, % of emitted electrons")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(profiles), frameon=False)
