"""Where the model ends: segments that see nothing, images wider than the hole, the hardest soft horizon."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eclipsjax._types import InputError
from eclipsjax.imaging.bsesm import render
from eclipsjax.instrument.acceptance import acceptance
from eclipsjax.instrument.microscope import Microscope
from eclipsjax.instrument.spectrum import Spectrum
from eclipsjax.specimen.horizon import HardHorizon, SmoothHorizon, sky_view
from eclipsjax.specimen.surface import Surface


def with_thresholds(scope, threshold_kev):
    return eqx.tree_at(lambda s: s.detector.segments.threshold_kev, scope, threshold_kev)


def test_blind_segments_are_dark_and_the_others_as_before():
    """One segment, one whole ring, and (traced, where nobody can object) all: 0, not NaN, and derivatives of 0."""
    flat = Surface(np.zeros((3, 3)), 10.0)
    radii = {"inner_radius_mm": jnp.array([1.0, 3.0, 1.0, 3.0]), "outer_radius_mm": jnp.array([3.0, 5.0, 3.0, 5.0])}
    segments = dataclasses.replace(Microscope.annular().detector.segments, **radii, rings=(0, 1, 0, 1))
    rings = eqx.tree_at(
        lambda s: s.detector,
        Microscope.annular(),
        dataclasses.replace(Microscope.annular().detector, segments=segments),
    )
    seeing = render(flat, acceptance(rings), radius_px=2)
    for blind in ([0, 0, 0, 1], [0, 1, 0, 1]):
        found = render(flat, acceptance(with_thresholds(rings, 11.0 * jnp.array(blind, float))), radius_px=2)
        expected = np.where(np.array(blind)[:, None, None], 0.0, seeing)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-15)

    @jax.jit
    def total(threshold_kev):
        return jnp.sum(render(flat, acceptance(with_thresholds(rings, threshold_kev)), radius_px=2))

    assert float(total(jnp.full(4, 11.0))) == 0.0
    np.testing.assert_array_equal(jax.grad(total)(jnp.full(4, 11.0)), np.zeros(4))


def test_a_spectrum_all_below_the_threshold_is_refused():
    """The highest of five energies is 0.955 of the beam's: 9.6 keV blinds it, though not the elastic electrons."""
    scope = with_thresholds(Microscope.annular(), jnp.full(4, 9.6))
    acceptance(scope)
    with pytest.raises(InputError, match=r"arrives above segments.threshold_kev .*every segment is blind"):
        acceptance(scope, spectrum=Spectrum.backscattered())


def test_a_wide_image_wants_a_table_with_its_field():
    """At 50 um one position for all costs 0.6 %, and says so; at 10 um it is silent, as is the right table."""
    wide, narrow = Surface(np.zeros((4, 50)), 1000.0), Surface(np.zeros((4, 50)), 200.0)
    with pytest.warns(UserWarning, match=r"spans 0.05 x 0.004 mm, .* acceptance\(scope, field_mm=...\)"):
        found = render(wide, acceptance(Microscope.annular()), radius_px=2)
    followed = np.array(render(wide, acceptance(Microscope.annular(), field_mm=(0.05, 0.004)), radius_px=2))
    assert 0.004 < np.abs(found / followed - 1).max() < 0.008
    render(narrow, acceptance(Microscope.annular()), radius_px=2)


def test_the_beam_must_pass_the_hole_all_over_the_field():
    acceptance(Microscope.annular(), field_mm=(1.5, 1.2))
    with pytest.raises(InputError, match=r"field_mm is 12.8 x 9.6, so the image's corners lie 8 mm from the detector"):
        acceptance(Microscope.annular(), field_mm=(12.8, 9.6))
    with pytest.raises(InputError, match=r"corners lie 1.1 mm"):
        acceptance(Microscope.annular(position_x_mm=0.88), field_mm=(0.44, 1e-3))


@pytest.mark.float32
def test_the_smallest_softness_is_the_hard_horizon():
    height = 3.0 * np.random.default_rng(1).standard_normal((32, 32))
    surface = Surface(jnp.asarray(height, jnp.float32), jnp.float32(1.0))
    hard, soft = HardHorizon(16), SmoothHorizon(16, softness=jnp.float32(1e-6))
    np.testing.assert_allclose(sky_view(surface, 16, soft), sky_view(surface, 16, hard), atol=2e-5)
    slope = jax.grad(lambda h: jnp.sum(sky_view(Surface(h, surface.pixel_size_nm), 16, soft)))(surface.height_nm)
    assert bool(jnp.isfinite(slope).all())
