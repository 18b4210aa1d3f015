"""Pictures: scale bars of the right length, azimuths on the right side, flights on their parabola, escaped pages."""

import dataclasses
import io
import math

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.legend import Legend
from matplotlib.patches import Polygon, Wedge
from matplotlib.text import Annotation

from eclipsjax import Microscope, Surface, acceptance, emission_direction
from eclipsjax.imaging.bsesm import flat_signal
from eclipsjax.instrument.field import UniformField
from eclipsjax.instrument.plane import tilted_axes
from eclipsjax.instrument.trajectories import LANDED, RETURNED
from eclipsjax.report import drawings, figures, labels, maps, side_view
from eclipsjax.report.page import Picture, Section, Table, instrument_tables, page


def plane(azimuth_deg, tilt_deg=10.0, shape=(21, 31), pixel=4.0):
    """Heights fall along the azimuth (counter-clockwise as seen, so its y component runs up the rows)."""
    y, x = np.mgrid[: shape[0], : shape[1]] * pixel
    angle = math.radians(azimuth_deg)
    return Surface(-math.tan(math.radians(tilt_deg)) * (x * math.cos(angle) - y * math.sin(angle)), pixel)


@pytest.mark.parametrize("width", [3.0, 47.0, 512.0, 1999.0, 3840.0, 2.6e4, 1e6])
def test_scale_bar_is_round_and_fits(width):
    bar = maps.scale_bar_nm(width)
    mantissa = bar / 10 ** math.floor(math.log10(bar) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-9
    assert 0.12 * width <= bar <= 0.3 * width * (1 + 1e-9)


def test_lengths_have_their_unit():
    texts = [labels.length_text(v) for v in (0.5, 500.0, 1000.0, 2500.0, 1.5e6)]
    assert texts == ["0.5 nm", "500 nm", "1 µm", "2.5 µm", "1.5 mm"]


def test_scale_bar_is_drawn_to_scale():
    figure = figures.new_figure(4.0, 4.0)
    axes = figure.add_subplot()
    figures.draw_map(axes, np.zeros((50, 100)), 8.0, cmap="gray")
    (bar,) = axes.lines
    (label,) = [text for text in axes.texts if isinstance(text, Annotation)]
    assert np.ptp(bar.get_xdata()) == 200.0 and label.get_text() == "200 nm"
    corners = axes.transData.transform([(0.0, 0.0), (800.0, 400.0)])
    assert corners[0, 1] > corners[1, 1] and corners[0, 0] < corners[1, 0]  # row 0 on top, column 0 on the left
    assert axes.images[0].get_extent() == [0, 800, 400, 0]


@pytest.mark.parametrize("azimuth", [0.0, 25.0, 89.0, -60.0])
def test_profile_runs_along_the_steepest_direction(azimuth):
    surface = plane(azimuth)
    assert figures.steepest_azimuth_deg(surface) == pytest.approx(azimuth, abs=1e-6)
    column, row, distance = maps.profile_line(surface.height_nm.shape, azimuth)
    height = figures.sample_map(surface.height_nm, column, row)
    falls = -math.tan(math.radians(10.0)) * 4.0 * distance
    assert height - height[0] == pytest.approx(falls, abs=1e-9)
    assert column.min() >= 0 and column.max() <= 30 and row.min() >= 0 and row.max() <= 20
    touches = [column[0] - 0, column[0] - 30, row[0] - 0, row[0] - 20]
    assert min(map(abs, touches)) < 1e-9 and distance[0] == 0


def test_sample_map_is_bilinear():
    y, x = np.mgrid[:5, :7]
    column, row = np.array([0.25, 3.5, 6.0]), np.array([1.75, 0.0, 4.0])
    values = figures.sample_map(2 * x - 3 * y + 0.5 * x * y, column, row)
    assert values == pytest.approx(2 * column - 3 * row + 0.5 * column * row)
    assert figures.sample_map(np.array([[7.0]]), np.zeros(1), np.zeros(1)) == 7.0


def test_icon_marks_the_segment_that_made_the_image():
    segments = Microscope.annular().detector.segments
    figure = figures.segments_figure(np.random.default_rng(0).random((4, 12, 18)), 5.0, segments)
    assert [axes.get_title() for axes in figure.axes] == [
        f"segment {n}, azimuth {a}°" for n, a in zip("ABCD", (0, 90, 180, 270), strict=True)
    ]
    for k, axes in enumerate(figure.axes):
        (icon,) = axes.child_axes
        (lit,) = [p for p in icon.patches if isinstance(p, Wedge) and p.get_facecolor()[3] > 0]
        assert 0.5 * (lit.theta1 + lit.theta2) == 90 * k
        assert icon.get_ylim()[1] > icon.get_ylim()[0]  # counter-clockwise is up from the right


def test_azimuths_wrap_into_one_turn():
    segments = Microscope.annular(segments=3, start_deg=210.0).detector.segments
    assert figures.segment_azimuths_deg(segments) == pytest.approx([270.0, 30.0, 150.0])


def seen_from_centre(axes, patches):
    """Azimuth at which each patch appears on the paper."""
    centre = axes.transData.transform((0.0, 0.0))
    middles = [np.mean(axes.transData.transform(p.get_xy()), axis=0) - centre for p in patches]
    return [math.degrees(math.atan2(y, x)) % 360 for x, y in middles]


def test_detector_is_drawn_in_the_images_orientation():
    scope = Microscope.annular(segments=4, start_deg=-15.0, gap_mm=0.3)
    figure = drawings.detector_figure(scope)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    patches = [p for p in axes.patches if isinstance(p, Polygon)]
    assert seen_from_centre(axes, patches) == pytest.approx([30, 120, 210, 300], abs=1.0)
    radii = np.hypot(*patches[0].get_xy().T)
    assert radii.max() == pytest.approx(5.0, rel=1e-4) and radii.min() == pytest.approx(1.0, rel=1e-2)


def test_sky_shows_polar_angles_and_collected_shares():
    table = acceptance(Microscope.annular(segments=4, start_deg=-15.0, distance_mm=6.0))
    share = np.asarray(flat_signal(table))
    assert share == pytest.approx(0.25 * (25 / 61 - 1 / 37), rel=1e-6)
    figure = drawings.sky_figure(table, 100 * share)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_theta_direction() == 1 and axes.get_theta_offset() == 0 and axes.get_ylim() == (0, 90)
    rim = axes.lines[0].get_ydata()
    assert rim.max() == pytest.approx(math.degrees(math.atan(5 / 6))) and rim.min() == pytest.approx(
        math.degrees(math.atan(1 / 6))
    )
    assert figure.legends[0].get_texts()[0].get_text() == "A: 9.57 %" and axes.get_axisbelow() is True


def test_straight_flights_end_on_the_tilted_plate():
    scope = Microscope.annular(distance_mm=6.0)
    theta = np.radians([10.0, 40.0, 89.0])
    directions = emission_direction(jnp.asarray(theta), jnp.zeros(3))
    paths, status = drawings.flight_paths(scope, None, directions, points=5)
    assert (status == LANDED).all() and paths.shape == (3, 5, 3)
    assert paths[:, -1, 0] == pytest.approx(6.0 * np.tan(theta)) and paths[:, -1, 2] == pytest.approx(6.0)
    assert np.diff(paths[..., 2], axis=1) == pytest.approx(1.5)


def test_flights_in_a_uniform_field_follow_the_parabola():
    # 40 V over 6 mm against 100 eV: z = x cot(theta) - u x^2 / (4 D sin^2(theta)), returning where cos^2(theta) < u.
    scope = Microscope.annular(distance_mm=6.0, energy_kev=0.1)
    theta = np.radians([20.0, 45.0, 60.0, 70.0])
    directions = emission_direction(jnp.asarray(theta), jnp.full(4, np.pi))
    paths, status = drawings.flight_paths(scope, UniformField(-40.0 / 6.0), directions)
    assert status.tolist() == [LANDED, LANDED, RETURNED, RETURNED]
    for angle, path in zip(theta, paths, strict=True):
        x, z = -path[:, 0], path[:, 2]
        assert np.isfinite(path).all() and path[:, 1] == pytest.approx(0, abs=1e-9)
        assert z == pytest.approx(x / math.tan(angle) - 0.4 * x**2 / (24 * math.sin(angle) ** 2), abs=3e-3)
        assert np.diff(x) == pytest.approx(np.diff(x).mean(), rel=1e-4)
    assert paths[:, -1, 2] == pytest.approx([6.0, 6.0, 0.0, 0.0], abs=1e-6)


def test_side_view_draws_electrodes_field_and_electrons():
    scope = Microscope.annular(specimen_bias_v=-600.0)
    figure = drawings.side_figure(scope, UniformField(100.0), theta_deg=(20.0, 60.0))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"equipotentials", "field lines", "electrons on a segment", "electrons past the segments", "beam"} == set(
        labels
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"A", "C", "20°", "60°", "pole piece", "specimen"} <= set(texts) and "B" not in texts
    plain = [text.get_text() for text in drawings.side_figure(Microscope.annular()).legends[0].get_texts()]
    assert set(plain) == {"electrons on a segment", "electrons past the segments", "beam"}


@pytest.mark.parametrize(
    "unit, images", [("grey level", np.full((3, 8, 9), 7.0)), ("signal", np.arange(216.0).reshape(3, 8, 9))]
)
def test_sheet_is_a_picture_even_of_flat_images(unit, images):
    segments = Microscope.annular(segments=3).detector.segments
    surface = plane(0.0, shape=(8, 9))
    sheet = figures.overview_figure(surface, np.full((3, 8, 9), 0.1), images, segments, unit, 0.0)
    pixels = imread(io.BytesIO(figures.to_png(sheet)))
    assert pixels.shape[:2] == (1104, 1440) and 0.1 < pixels[..., :3].mean() < 0.99


@pytest.mark.parametrize("count", [1, 6, 12, 64])
@pytest.mark.parametrize("shape", [(8, 12), (1, 32)])
def test_sheet_keeps_its_writing_apart(count, shape):
    """Titles do not overlap and stay on the sheet; the legend lies outside the curves."""
    segments = Microscope.annular(segments=count).detector.segments
    values = np.random.default_rng(0).random((count, *shape))
    sheet = figures.overview_figure(plane(0.0, shape=shape), values, values, segments, "signal", 0.0)
    sheet.canvas.draw()
    titles = [axes.title.get_window_extent() for axes in sheet.axes if axes.get_title() and axes.images][1:]
    assert len(titles) == count
    assert all(box.x0 >= 0 and box.x1 <= sheet.bbox.x1 and box.y1 <= sheet.bbox.y1 for box in titles)
    assert not any(a.overlaps(b) for k, a in enumerate(titles) for b in titles[:k])
    legends = [child for part in sheet.findobj(Legend) for child in [part] if part.axes is None]
    plots = [axes for axes in sheet.axes if axes.get_xlabel() == "distance along the line (nm)"]
    assert len(legends) == 1 and not legends[0].get_window_extent().overlaps(plots[0].get_window_extent())


def test_every_segment_of_many_is_told_apart():
    lines = [tuple(labels.segment_line(k).items()) for k in range(64)]
    assert len(set(lines)) == 64 and len({labels.segment_colour(k) for k in range(16)}) == 16


def test_names_are_drawn_as_they_are_or_by_number():
    names = ("$x_$", "_low", "左上", "\ud800", "", "a\nb", "B", "a very long name, part 1", "a very long name, part 2")
    shown = labels.shown_names(names)
    assert shown == [r"\$x_\$", "\u200a_low", "#3", "#4", "#5", "#6", "B", "a very … part 1", "a very … part 2"] or (
        [len(name) for name in shown[-2:]] == [14, 14] and shown[-2] != shown[-1]
    )
    assert labels.shown_names(("the same long name", "the same long name")) == ["#1", "#2"]
    segments = dataclasses.replace(Microscope.annular(3).detector.segments, names=names[:3])
    values = np.random.default_rng(0).random((3, 8, 9))
    sheet = figures.profile_figure(plane(0.0, shape=(8, 9)), values, segments.names, 0.0)
    assert [text.get_text() for text in sheet.legends[0].get_texts()] == shown[:3]
    figures.to_png(sheet)


def test_rounding_is_not_blown_up():
    signal = 0.0911 * (1 + 1e-7 * np.random.default_rng(0).random((4, 8, 9)))
    names = Microscope.annular().detector.segments.names
    _, lower = figures.profile_figure(plane(0.0, shape=(8, 9)), signal, names, 0.0).axes
    low, high = lower.get_ylim()
    assert high - low > 0.01 * 9.11 and lower.yaxis.get_major_formatter().get_useOffset() is False
    low, high = maps.grey_limits(signal)
    assert high - low > 0.01 * 0.0911
    (axes,) = figures.histogram_figure(signal, names, "signal").axes
    assert np.diff(axes.get_xlim()) > 0.01 * 0.0911 and axes.get_axisbelow() is True


def test_strips_have_their_scale_bar_below():
    figure = figures.new_figure(4.0, 2.0)
    axes = figure.add_subplot()
    figures.draw_map(axes, np.zeros((1, 64)), 5.0, cmap="gray")
    axes.set_title("title")
    figure.canvas.draw()
    (label,) = [text for text in axes.texts if isinstance(text, Annotation)]
    below = axes.get_window_extent().y0
    assert label.get_window_extent().y1 < below and axes.lines[0].get_window_extent().y1 <= below
    assert axes.get_ylim() == (5.0, 0.0)


@pytest.mark.parametrize(
    "tilt_x, tilt_y, azimuth", [(0, 0, 0), (50, 0, 90), (-50, 0, 90), (0, 20, 0), (20, -30, 36.05)]
)
def test_section_runs_along_the_steepest_tilt(tilt_x, tilt_y, azimuth):
    scope = Microscope.annular(distance_mm=9.0, working_distance_mm=16.0)
    plate = dataclasses.replace(scope.detector, tilt_x_deg=tilt_x, tilt_y_deg=tilt_y)
    scope = dataclasses.replace(scope, detector=plate)
    assert side_view.section_azimuth_deg(scope) == pytest.approx(azimuth, abs=0.01)
    parts = [ends for k, ends in side_view.plate_in_section(scope, float(azimuth)) if k >= 0]
    assert len(parts) == 2
    normal = tilted_axes(jnp.radians(0.0) + tilt_x, jnp.radians(0.0) + tilt_y)[2]
    steepest = math.degrees(math.acos(float(normal[2])))
    for ends in parts:
        across, up = ends[1] - ends[0]
        assert math.hypot(across, up) == pytest.approx(4.0, abs=5e-3)  # the ring's width, in its own plane
        assert abs(math.degrees(math.atan(up / across))) == pytest.approx(steepest, abs=0.02)
    figure = side_view.side_figure(scope)
    assert figure.axes[0].get_xlabel().startswith("x, to the right" if azimuth == 0 else "toward azimuth")


def test_places_on_the_plate_belong_to_their_segment():
    segments = Microscope.annular(gap_mm=0.4).detector.segments
    places = np.array(
        [[3.0, 0.0], [0.0, -3.0], [-3.0, 0.0], [0.0, 3.0], [0.5, 0.0], [6.0, 0.0], [2.0, -2.1], [2.0, -2.4]]
    )
    assert side_view.segment_at(segments, places).tolist() == [0, 1, 2, 3, -1, -1, -1, 1]


def test_page_escapes_what_it_is_told():
    parts = ["a < b & c", Table(("k", "v"), [("<i>", "1")], (1,)), Picture(b"\x89PNG", 'say "cheese" <now>')]
    text = page("T<script>", "lead", [Section("S", parts)], "foot")
    assert "<script" not in text and "<i>" not in text and "<now>" not in text
    assert "a &lt; b &amp; c" in text and 'src="data:image/png;base64,iVBORw=="' in text and 'class="number">1<' in text


def test_instrument_tables_hold_the_numbers():
    scope = Microscope.annular(segments=3, energy_kev=7.5, specimen_bias_v=-20.0, gap_mm=0.25)
    numbers, segments = instrument_tables(scope)
    rows = {row[0]: row[1:] for row in numbers.rows}
    assert rows["landing energy"] == ("7.5", "keV") and rows["specimen bias"] == ("-20", "V")
    assert segments.rows[1][:4] == ("B", "1 to 5", "60 to 180", "0.25")
