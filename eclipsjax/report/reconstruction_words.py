"""A reconstruction in sentences: how it ended, what chi-square says, how many pixels are hidden."""

from __future__ import annotations

import math

import numpy as np

from eclipsjax.inverse.reconstruction import Outcome, Reconstruction
from eclipsjax.report.labels import length_text

# Chi-square per degree of freedom between these is what noise alone brings.
_AS_EXPECTED = (0.7, 1.3)
_POOR = 3.0
_FAR = 5.0


def lead(result: Reconstruction) -> str:
    """One line: pixels, pixel size, field, method, how it ended."""
    rows, columns = result.height_nm.shape
    pixel = float(result.pixel_size_nm)
    size = f"{length_text(columns * pixel)} x {length_text(rows * pixel)}"
    method = type(result.method).__name__
    return f"{columns} x {rows} pixels of {pixel:.4g} nm, a field of {size}. Method: {method}. {result.sentence}"


def is_determined(result: Reconstruction) -> bool:
    """Whether the images hold more numbers than the method fits: only then chi-square can say anything."""
    return len(result.noise) > 3 or result.outcome is not Outcome.CLOSED_FORM


def chi_square_words(result: Reconstruction) -> tuple[str, bool]:
    """What chi-square means for this reconstruction, and whether it is a reason to doubt the heights."""
    value = float(result.chi_square)
    if not is_determined(result):
        text = (
            "Chi-square says nothing here: three images are always explained by a brightness and two slopes per pixel."
        )
        return text, False
    if not math.isfinite(value):
        return "Chi-square is not known: whether the model explains the images was not judged.", True
    said = f"Chi-square per degree of freedom is {value:.3g}: "
    if value < _AS_EXPECTED[0]:
        return said + (
            f"the residuals are {math.sqrt(value):.2g} times what the noise lets expect. The noise is probably smaller "
            "than assumed, and the standard deviations below are then too large."
        ), False
    if value <= _AS_EXPECTED[1]:
        return said + "the model explains the images down to their noise.", False
    size = f"the residuals are {math.sqrt(value):.2g} times the noise. "
    if value <= _POOR:
        return said + size + (
            "The model explains most of the images; where the residual maps below show structure, the heights have "
            "errors that their standard deviation does not cover."
        ), True
    return said + size + (
        "The model does not explain the images: heights may be wrong by far more than their standard deviation. "
        "Look at the residual maps, the noise, the gains and pedestals, and the order of the segments."
    ), True


def relief_words(result: Reconstruction) -> str:
    """Relief, standard deviation and hidden pixels in one paragraph."""
    height, std = np.asarray(result.height_nm, float), np.asarray(result.height_std_nm, float)
    known = np.isfinite(std)
    said = f"The relief spans {np.ptp(height):.4g} nm from the lowest to the highest pixel. "
    said += (
        f"The standard deviation of a height about the map's mean is {np.median(std[known]):.3g} nm (median). "
        if known.any()
        else "Standard deviations of the heights were not computed. "
    )
    if result.outcome is Outcome.CLOSED_FORM:
        return said + "Closed form: what the relief hides from the detector was not looked for."
    return (
        said
        + f"From {100 * result.occluded_share:.1f} % of the pixels the relief hides 2 % or more of a segment's signal."
    )


def residual_words(result: Reconstruction) -> str:
    """How many residuals lie far out, in comparison with the normal curve."""
    if not is_determined(result):
        return "Three images leave nothing over: brightness and two slopes per pixel explain them, right or wrong."
    residual = np.abs(np.asarray(result.residual, float))
    far = float(np.mean(residual > _FAR))
    said = f"{100 * far:.2f} % of the levels lie beyond {_FAR:g} standard deviations (0.00006 % would by noise alone). "
    return said + (
        "Without structure, white noise all over: the model says what the images say. Edges or shadows that show here "
        "are what it does not explain. Counting noise makes bright pixels wider than the normal curve."
    )
