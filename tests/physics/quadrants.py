"""Known answers for quadrants (or any equal sectors) on R1, R2, D = 1, 5, 6 mm, shared by the tests of sensitivity.

A plane leaning by t toward phi_n sends segment k (half span beta, centre phi_k) the fraction
F_k = (beta S cos t + 2 sin(beta) J sin t cos(phi_k - phi_n)) / pi, with S and J the integrals of 2 sin cos and of sin^2
over the polar angles; in slopes F_k = n_z (beta S - 2 sin(beta) J slope . u_k) / pi.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eclipsjax.instrument.microscope import Microscope

BASE = Microscope.annular()
THETA1, THETA2 = np.arctan(1 / 6), np.arctan(5 / 6)


def polar_integrals(distance=6.0, inner=1.0, outer=5.0):
    """(S, J, K): the integrals of 2 sin cos, sin^2 and sin^2 cos^2 over the detector's polar angles."""
    a, b = np.arctan(inner / distance), np.arctan(outer / distance)
    s = np.sin(b) ** 2 - np.sin(a) ** 2
    j = (b - a) / 2 - (np.sin(2 * b) - np.sin(2 * a)) / 4
    k = (b - a) / 8 - (np.sin(4 * b) - np.sin(4 * a)) / 32
    return s, j, k


def closed_form(slope_x, slope_y, segments=4, start_deg=None, distance=6.0):
    """`(segment, ...)` Lambertian signals of open facets, in array axes (y down)."""
    s, j, _ = polar_integrals(distance)
    beta = np.pi / segments
    first = -180 / segments if start_deg is None else start_deg
    centres = np.radians(first + (np.arange(segments) + 0.5) * 360 / segments)
    slope_x, slope_y = np.asarray(slope_x), np.asarray(slope_y)
    shape = (-1,) + (1,) * slope_x.ndim
    along_x, along_y = np.cos(centres).reshape(shape), -np.sin(centres).reshape(shape)
    leaning = slope_x * along_x + slope_y * along_y
    return (beta * s - 2 * np.sin(beta) * j * leaning) / (np.pi * np.sqrt(1 + slope_x**2 + slope_y**2))


def with_numbers(scope, **numbers):
    """The scope with `part__field=value` replaced (for segments, one value or one each)."""
    for name, value in numbers.items():

        def leaf(record, name=name):
            for step in name.split("__"):
                record = getattr(record, step)
            return record

        scope = eqx.tree_at(leaf, scope, jnp.broadcast_to(jnp.asarray(value, float), leaf(scope).shape))
    return scope
