"""Other people's ways from images to heights, written anew from what they published: closed form with Frankot and
Chellappa's integration, and that of sem2surface (singular vectors of the images).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from _scenes import Recording, acceptance, fitted, real

import eclipsjax as ej

_ANGLES, _SMOOTH_PX = 360, 2.0


def closed_form_slopes(recording: Recording) -> tuple[ej.Measurement, ej.Slopes]:
    """Levels, and the slopes that explain each pixel alone."""
    measurement = ej.measure(recording.images, recording.scope, recording.camera)
    flat = ej.Surface(jnp.zeros(recording.images.shape[1:]), recording.pixel_nm)
    table = acceptance(recording.scope, flat)
    return measurement, ej.photometric_slopes(measurement, table, pixel_size_nm=recording.pixel_nm)


def frankot_chellappa(recording: Recording) -> np.ndarray:
    """Heights, nm: closed form, then Fourier modes."""
    _, slopes = closed_form_slopes(recording)
    height = ej.integrate(slopes.slope_x, slopes.slope_y, recording.pixel_nm, ej.FrankotChellappa())
    return np.asarray(height, np.float64)


def photometric(recording: Recording) -> np.ndarray:
    """Heights, nm, of `Photometric()`: closed form, then least squares in cosine modes (Poisson)."""
    images, pixel_nm, scope, camera, _ = recording
    return np.asarray(ej.reconstruct(images, pixel_nm, scope, ej.Photometric(), camera).height_nm, np.float64)


def sem2surface_way(images: Any) -> np.ndarray:
    """Heights in arbitrary units from images alone: neither scale nor sign is known, no tilt and no parabola survive.

    The singular vectors of the images' correlations give their common part and two differences; over the common part
    these are two perpendicular slopes along unknown axes. Frankot-Chellappa makes heights. The original finds the axes
    where the Radon transform of one difference is least, which is off by 10 deg and more on images of 100 pixels; here
    they are those along which both differences together are most nearly a gradient, which is right on small ones too.
    """
    images = np.asarray(images, np.float64)
    vectors, _, _ = np.linalg.svd(np.einsum("iyx,jyx->ij", images, images))
    common, *leaning = np.einsum("ik,iyx->kyx", vectors[:, :3], images)
    slopes = slopes_along_axes(*(d / common - np.mean(d / common) for d in leaning))
    height = np.asarray(ej.integrate(*map(real, slopes), 1.0, ej.FrankotChellappa()), np.float64)
    return height - fitted(height, 6)


def slopes_along_axes(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes along x and y from those along two perpendicular axes, up to their common sign: of least curl."""
    (one_y, one_x), (other_y, other_x) = (_smooth_derivatives(slope) for slope in (one, other))

    def curl(angle: float, side: float) -> float:
        turned = np.cos(angle) * (one_y - side * other_x) - np.sin(angle) * (one_x + side * other_y)
        return float(np.mean(turned**2))

    angles = np.pi * np.arange(_ANGLES) / _ANGLES
    angle, side = min(((a, s) for a in angles for s in (1.0, -1.0)), key=lambda pair: curl(*pair))
    cosine, sine = np.cos(angle), np.sin(angle)
    return cosine * one - side * sine * other, sine * one + side * cosine * other


def _smooth_derivatives(values: np.ndarray) -> list[np.ndarray]:
    """Derivatives down and across, after a Gaussian of some pixels so that noise matters less; borders left out."""
    f2 = sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in values.shape), indexing="ij"))
    smooth = np.fft.ifft2(np.fft.fft2(values) * np.exp(-2.0 * (np.pi * _SMOOTH_PX) ** 2 * f2)).real
    inner = slice(int(3 * _SMOOTH_PX), -int(3 * _SMOOTH_PX))
    return [part[inner, inner] for part in np.gradient(smooth)]


def scaled_to_truth(height: np.ndarray, truth_nm: np.ndarray) -> np.ndarray:
    """What `sem2surface_way` cannot know, told: the best factor, and the truth's own parabola."""
    parabola = fitted(truth_nm, 6)
    return height * np.sum(height * (truth_nm - parabola)) / np.sum(height**2) + parabola
