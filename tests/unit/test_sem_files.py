"""Images as each maker's microscope writes them, built byte by byte; every trap has its own file.

Except for the Thermo Fisher / FEI images in ../shared/data/bse, no maker's own file is here: the layouts are those
that the sources listed in formats.md describe.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from eclipsjax._types import InputError
from eclipsjax.cli import main
from eclipsjax.io.sem import read_segments, read_sem
from eclipsjax.io.vendors.units import KINDS, in_unit, measured

BSE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bse"
GREY = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 250 + 7

FEI = """[User]
Date=04/17/2023
Time=04:47:49 PM
[Beam]
HV=7000
ScanRotation={rotation}
Beam=EBeam
Scan=EScan
[EBeam]
WD=0.005
BeamCurrent=5.2e-10
StageX={x}
StageY=0.001
[Scan]
Dwelltime=2e-05
PixelWidth={width}
PixelHeight={height}
[Stage]
StageT=0.017453292519943295
WorkingDistance=0.0049
[Image]
ResolutionX=60
ResolutionY=30
[Detectors]
Number=1
Name=ABS
Mode={mode}
[ABS]
Contrast=75.25
Brightness=94.5
Setting={mode}
[PrivateFei]
DatabarHeight={bar}
"""
ZEISS = (
    "0\r\n1\r\n1024\r\n1.5e-08\r\nAP_WD\r\nWD = 4.9 mm\r\nAP_ACTUALKV\r\nEHT = 5.00 kV\r\nAP_IPROBE\r\nI Probe = 100 pA"
    "\r\nAP_PIXEL_SIZE\r\nPixel Size = 24.65 nm\r\n{size}AP_SCANROTATION\r\nScan Rotation = 350.0 °\r\nDP_SCAN_ROT\r\n"
    "Scan Rot = {rot}\r\nDP_DETECTOR_CHANNEL\r\nSignal A = AsB\r\nAP_CONTRAST\r\nContrast = 32.5 %\r\nAP_BRIGHTNESS\r\n"
    "Brightness = 50.0 %\r\nAP_STAGE_AT_T\r\nStage at T = 2.0 °\r\nAP_STAGE_AT_X\r\nStage at X = 60.5 mm\r\n"
    "AP_STAGE_AT_Y\r\nStage at Y = 5500 µm\r\nDP_DWELL_TIME\r\nDwell Time = 100 ns\r\n"
    "AP_DATE\r\nDate :25 Nov 2020\r\nAP_TIME\r\nTime :11:29:02\r\n{more}"
)
TESCAN = """AccFrames=1
Date=2024-05-06
Time=10:11:12
ImageStripSize={strip}
PixelSizeX={size}
PixelSizeY={size}
{more}
[SEM]
Detector0=BSE
Detector0Gain=43.2
Detector0Offset=71.5
DwellTime=1e-06
EmissionCurrent=0.000154
HV=20000.0
PredictedBeamCurrent=3e-10
ScanRotation=-90
SpecimenCurrent=-1e-11
StageTilt=1.5
StageX=0.001
StageY=0.002
WD=0.00912
"""
JEOL = """$CM_FORMAT JEOL/EO
$CM_FULL_SIZE 60 30
$CM_ACCEL_VOLT 15.0
$CM_SIGNAL BEC
$CM_DATE 2021/03/04
$CM_STAGE_POS 2.044 0.704 10.2 11.0 3.5 0
$$SM_MICRON_BAR {bar}
$$SM_MICRON_MARKER {marker}
$$SM_WD 10.1
$$SM_SCAN_ROTATION 10.00
"""
HITACHI = (
    "[SemImageFile]\r\nInstructName=SU8000\r\nSignalName=BSE\r\nDate=2020/01/02\r\nTime=03:04:05\r\n"
    "DataSize=60x30\r\nPixelSize={size}\r\nAcceleratingVoltage=5000 Volt\r\nWorkingDistance=8000 um\r\n"
    "EmissionCurrent=10000 nA\r\nStagePositionX=25000000\r\nStagePositionY=12000000\r\n"
)


def fei(width=1e-8, height=1e-8, rotation=0.0, mode="A", bar=10, x=0.001):
    return FEI.format(width=width, height=height, rotation=rotation, mode=mode, bar=bar, x=x)


def zeiss(size="AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 12.33 nm\r\n", rot="On", more=""):
    return ZEISS.format(size=size, rot=rot, more=more).encode("cp1252")


def tiff(path, image, code=None, tag=None, **more):
    """A TIFF with one maker's tag."""
    tag = tag.encode() if isinstance(tag, str) else tag
    extra = [(code, "s", 0, tag, True)] if code else []
    tifffile.imwrite(path, image, photometric="minisblack", extratags=extra, metadata=None, **more)
    return path


@pytest.fixture
def fei_set(tmp_path):
    """Three files of one scan, with their data bars."""
    return [tiff(tmp_path / f"scan7_detector{m}.tif", GREY + k, 34682, fei(mode=m)) for k, m in enumerate("ABC")]


# ---------------------------------------------------------------- makers


@pytest.mark.parametrize("code", [34680, 34682])
def test_fei(tmp_path, caplog, code):
    path = tiff(tmp_path / "a.tif", GREY, code, fei(rotation=0.5235987755982988))
    with caplog.at_level(logging.INFO, "eclipsjax.io"):
        found = read_sem(path)
    record = found.record
    np.testing.assert_array_equal(found.image, GREY[:30])
    assert "data bar of 10 rows below row 30" in caplog.text
    assert (record.vendor, record.shape, record.dtype, record.databar_rows) == (
        "Thermo Fisher / FEI",
        (30, 60),
        "uint8",
        10,
    )
    numbers = (record.pixel_size_nm, record.pixel_size_y_nm, record.energy_kev, record.working_distance_mm)
    np.testing.assert_allclose(numbers, (10, 10, 7, 4.9))
    np.testing.assert_allclose((record.current_na, record.dwell_us, record.stage_tilt_deg), (0.52, 20, 1))
    np.testing.assert_allclose((record.scan_rotation_deg, record.contrast, record.brightness), (30, 75.25, 94.5))
    assert (record.detector, record.segment, record.recorded) == ("ABS", "A", "04/17/2023 04:47:49 PM")
    np.testing.assert_allclose(record.stage_mm, (1, 1))
    assert record.raw["Detectors"]["Mode"] == "A"
    assert (found.lowest, found.highest, found.step) == (0, 255, 1)


def test_fei_without_scan_section_has_no_pixel_size(tmp_path):
    """A navigation camera's picture (HyperSpy issue 2941)."""
    found = read_sem(tiff(tmp_path / "nav.tif", GREY, 34682, "[User]\nDate=1\n[System]\nType=SEM\n"))
    assert found.record.pixel_size_nm is None and found.record.databar_rows == 0 and found.image.shape == (40, 60)


def test_fei_data_bar_that_disagrees_is_refused_and_one_already_gone_is_not(tmp_path):
    with pytest.raises(InputError, match="has 10 rows below the 30 of the image, but its notes give the data bar 12"):
        read_sem(tiff(tmp_path / "a.tif", GREY, 34682, fei(bar=12)))
    assert read_sem(tiff(tmp_path / "b.tif", GREY[:30], 34682, fei())).record.databar_rows == 0
    with pytest.raises(InputError, match="58 x 40 pixels but its notes describe 60 x 30 pixels: it was cropped"):
        read_sem(tiff(tmp_path / "c.tif", GREY[:, :58], 34682, fei()))
    with pytest.raises(InputError, match="60 x 20 pixels but its notes"):
        read_sem(tiff(tmp_path / "d.tif", GREY[:20], 34682, fei()))


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "-1e-8", "0", "off", "", "1" * 400])
def test_pixel_size_that_is_no_size_is_none(tmp_path, text):
    assert read_sem(tiff(tmp_path / "a.tif", GREY, 34682, fei(width=text))).record.pixel_size_nm is None


@pytest.mark.parametrize(
    "text, size",
    [("12.33 nm", 12.33), ("12330 pm", 12.33), ("0.01233 µm", 12.33), ("1.233e-05 mm", 12.33), ("12,33 nm", 12.33)],
)
def test_zeiss_pixel_size_in_any_unit_and_never_the_monitors(tmp_path, text, size):
    tag = zeiss(f"AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = {text}\r\n")
    record = read_sem(tiff(tmp_path / "a.tif", GREY, 34118, tag)).record
    np.testing.assert_allclose((record.pixel_size_nm, record.pixel_size_y_nm), size)


def test_zeiss(tmp_path):
    record = read_sem(tiff(tmp_path / "a.tif", GREY, 34118, zeiss())).record
    assert record.vendor == "Zeiss" and record.databar_rows == 0 and record.segment is None
    numbers = (record.energy_kev, record.working_distance_mm, record.current_na, record.dwell_us)
    np.testing.assert_allclose(numbers, (5, 4.9, 0.1, 0.1))
    np.testing.assert_allclose((record.scan_rotation_deg, record.stage_tilt_deg), (350, 2))
    np.testing.assert_allclose((record.contrast, record.brightness), (32.5, 50))
    np.testing.assert_allclose(record.stage_mm, (60.5, 5.5))
    assert record.detector == "AsB" and record.recorded == "25 Nov 2020 11:29:02"


def test_zeiss_older_files_units_switched_off_rotation_and_quadrant(tmp_path):
    old = read_sem(tiff(tmp_path / "a.tif", GREY, 34118, zeiss(size="", rot="Off"))).record
    np.testing.assert_allclose(old.pixel_size_nm, 15)
    assert old.scan_rotation_deg == 0
    with pytest.raises(InputError, match=r"ap_image_pixel_size is '12.33 furlong', and that is no unit of length"):
        read_sem(tiff(tmp_path / "b.tif", GREY, 34118, zeiss("AP_IMAGE_PIXEL_SIZE\r\nPixel = 12.33 furlong\r\n")))
    on = "".join(f"DP_4QBSD_Q{k}\r\nQ{k} = {'On' if k == 3 else 'Off'}\r\n" for k in range(1, 5))
    assert read_sem(tiff(tmp_path / "c.tif", GREY, 34118, zeiss(more=on))).record.segment == "Q3"


def test_zeiss_pages_share_the_first_pages_numbers_but_not_its_detector(tmp_path):
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as file:
        for k in range(4):
            extra = [(34118, "s", 0, zeiss(), True)] if k == 0 else []
            file.write(GREY + k, photometric="minisblack", extratags=extra, metadata=None)
    with pytest.raises(InputError, match=r"holds 4 images \(0: AsB, 1: unnamed, .*: give page = 0 to 3"):
        read_sem(path)
    last = read_sem(path, page=3)
    np.testing.assert_array_equal(last.image, GREY + 3)
    assert last.record.pixel_size_nm == 12.33 and last.record.detector is None and last.record.contrast is None
    with pytest.raises(InputError, match="has no page 4: it holds 4"):
        read_sem(path, page=4)
    found = read_segments(path)
    assert found.images.shape == (4, 40, 60) and found.images.dtype == np.float32 and found.names == tuple("1234")
    assert found.pixel_size_nm == 12.33 and found.scan_rotation_deg == 350


@pytest.mark.parametrize("where", ["tag", "tag with a binary head", "a.hdr", "a-tif.hdr", "a-tif.HDR"])
def test_tescan(tmp_path, where):
    head, bar = ("\x03\x00\x01" if "binary" in where else "[MAIN]\n" if "hdr" in where.lower() else ""), 6
    text = (head + TESCAN.format(strip=bar, size=2.5e-8, more="")).encode("latin-1")
    path = tmp_path / "a.tif"
    if where.startswith("tag"):
        tifffile.imwrite(path, DEEP, extratags=[(50431, "B", len(text), text, True)], metadata=None)
    else:
        tiff(path, DEEP)
        (tmp_path / where).write_bytes(text)
    found = read_sem(path)
    record = found.record
    np.testing.assert_array_equal(found.image, DEEP[:34])
    assert (record.vendor, record.databar_rows, record.detector) == ("TESCAN", 6, "BSE")
    numbers = (record.pixel_size_nm, record.energy_kev, record.working_distance_mm, record.dwell_us)
    np.testing.assert_allclose(numbers, (25, 20, 9.12, 1))
    # What the specimen absorbs and what leaves the gun are not the beam's current.
    np.testing.assert_allclose((record.current_na, record.scan_rotation_deg, record.stage_tilt_deg), (0.3, 270, 1.5))
    np.testing.assert_allclose((record.contrast, record.brightness, *(record.stage_mm or ())), (43.2, 71.5, 1, 2))
    assert record.recorded == "2024-05-06 10:11:12"


def test_tescan_views_side_by_side_and_a_strip_larger_than_the_image_are_refused(tmp_path):
    text = TESCAN.format(strip=0, size=2.5e-8, more="ViewFieldsCountX=2\nViewFieldsCountY=2")
    with pytest.raises(InputError, match="holds 2 x 2 detectors' views side by side"):
        read_sem(tiff(tmp_path / "a.tif", DEEP, 50431, text))
    with pytest.raises(InputError, match="has 40 rows but its notes give the data bar 40"):
        read_sem(tiff(tmp_path / "b.tif", DEEP, 50431, TESCAN.format(strip=40, size=2.5e-8, more="")))


@pytest.mark.parametrize(
    "ending, marker, bar, size",
    [("tif", "1um", 50, 20), ("bmp", "100nm", 5, 20), ("png", "0.5 µm", 25, 20), ("tif", "0.1mm", 200, 500)],
)
def test_jeol(tmp_path, ending, marker, bar, size):
    path = tmp_path / f"b.{ending}"
    tiff(path, GREY) if ending == "tif" else Image.fromarray(GREY).save(path)
    (tmp_path / "b.txt").write_text(JEOL.format(marker=marker, bar=bar), encoding="latin-1")
    found = read_sem(path)
    np.testing.assert_array_equal(found.image, GREY[:30])
    record = found.record
    assert (record.vendor, record.detector, record.databar_rows) == ("JEOL", "BEC", 10)
    numbers = (record.pixel_size_nm, record.energy_kev, record.working_distance_mm, record.scan_rotation_deg)
    np.testing.assert_allclose(numbers, (size, 15, 10.1, 10))
    np.testing.assert_allclose((record.stage_tilt_deg, *(record.stage_mm or ())), (3.5, 2.044, 0.704, 10.2))


def test_jeol_field_of_view_refines_the_rounded_bar_only_where_both_agree(tmp_path):
    path = tiff(tmp_path / "b.tif", GREY)
    for field_um, size in (("1.21 0.605", 1210 / 60), ("2.4 1.2", 20.0)):
        text = JEOL.format(marker="1um", bar=50) + f"$CM_FIELD_OF_VIEW {field_um}\n"
        (tmp_path / "b.txt").write_text(text)
        np.testing.assert_allclose(read_sem(path).record.pixel_size_nm, size)
    for bad, words in (("0", "MICRON_BAR is 0 pixels"), ("nan", None)):
        (tmp_path / "b.txt").write_text(JEOL.format(marker="1um", bar=bad))
        if words is None:
            assert read_sem(path).record.pixel_size_nm is None
            continue
        with pytest.raises(InputError, match=words):
            read_sem(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_hitachi(tmp_path, encoding):
    path = tiff(tmp_path / "h.tif", GREY)
    (tmp_path / "h.txt").write_bytes(HITACHI.format(size="24.8").encode(encoding))
    record = read_sem(path).record
    assert (record.vendor, record.shape, record.detector) == ("Hitachi", (30, 60), "BSE")
    np.testing.assert_allclose((record.pixel_size_nm, record.energy_kev, record.working_distance_mm), (24.8, 5, 8))
    np.testing.assert_allclose(record.stage_mm, (25, 12))
    assert record.current_na is None and record.recorded == "2020/01/02 03:04:05"


def test_side_cars_of_two_makers_and_of_another_maker_than_the_tags(tmp_path):
    path = tiff(tmp_path / "a.tif", GREY)
    (tmp_path / "a.txt").write_text(JEOL.format(marker="1um", bar=50))
    (tmp_path / "a.hdr").write_text("[MAIN]\n" + TESCAN.format(strip=0, size=1e-8, more=""))
    with pytest.raises(InputError, match=r"side-cars of several makers, a.txt \(JEOL\) and a.hdr \(TESCAN\)"):
        read_sem(path)
    (tmp_path / "a.txt").write_text(JEOL.format(marker="1um", bar=50) + HITACHI.format(size="1"))
    with pytest.raises(InputError, match="holds the words of JEOL and of Hitachi"):
        read_sem(path)
    (tmp_path / "a.txt").write_text("a shopping list\n1 2 3\n")
    assert read_sem(path).record.vendor == "TESCAN"
    tiff(path, GREY, 34118, zeiss())
    with pytest.raises(InputError, match=r"holds the tags of Zeiss, but a.hdr beside it is of TESCAN"):
        read_sem(path)


def test_tags_of_two_makers_in_one_file(tmp_path):
    extra = [(34118, "s", 0, zeiss(), True), (34682, "s", 0, fei(), True)]
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=extra, metadata=None)
    with pytest.raises(InputError, match="holds the tags of Thermo Fisher / FEI and Zeiss"):
        read_sem(tmp_path / "a.tif")


# ---------------------------------------------------------------- files without a maker


def test_own_tiffs_and_signals(tmp_path):
    for k, name in enumerate("XYZ"):
        notes = {"eclipsjax": "image 1", "segment": name, "pixel_size_nm": 12.5, "azimuth_deg": 90.0 * k}
        tiff(tmp_path / f"segment_{k}.tif", GREY, description=json.dumps(notes), resolution=(1, 1))
    found = read_segments([tmp_path / f"segment_{k}.tif" for k in range(3)])
    assert found.names == ("X", "Y", "Z") and found.pixel_size_nm == 12.5
    assert {r.vendor for r in found.records} == {"eclipsjax"} and found.records[2].raw["azimuth_deg"] == 180
    signal = np.random.default_rng(1).random((3, 8, 9)).astype(np.float32)
    unit = np.array("fraction")
    np.savez_compressed(
        tmp_path / "signal.npz", signal=signal, segment_names=[*"PQR"], pixel_size_nm=4.0, signal_unit=unit
    )
    found = read_segments(tmp_path / "signal.npz")
    np.testing.assert_array_equal(found.images, signal)
    assert (found.names, found.pixel_size_nm, found.lowest, found.highest, found.step) == (
        ("P", "Q", "R"),
        4.0,
        None,
        None,
        0,
    )
    tiff(tmp_path / "height.tif", signal[0], description=json.dumps({"eclipsjax": "height 1", "pixel_size_nm": 1}))
    with pytest.raises(InputError, match="is a height map that eclipsjax wrote"):
        read_sem(tmp_path / "height.tif")


def test_arrays(tmp_path):
    stack = np.stack([DEEP, DEEP + 1, DEEP + 2, DEEP + 3])
    np.save(tmp_path / "a.npy", np.asfortranarray(stack))
    found = read_segments(tmp_path / "a.npy", pixel_size_nm=3.0, names=["n", "e", "s", "w"])
    np.testing.assert_array_equal(found.images, stack)
    assert found.names == ("n", "e", "s", "w") and found.step == 1 and found.highest == 65535
    np.save(tmp_path / "big.npy", stack.astype(">u2"))
    np.testing.assert_array_equal(read_sem(tmp_path / "big.npy", page=1).image, DEEP + 1)
    np.savez(tmp_path / "a.npz", image=DEEP, pixel_size_nm=7.0)
    assert read_sem(tmp_path / "a.npz").record.pixel_size_nm == 7
    np.savez(tmp_path / "b.npz", picture=DEEP)
    with pytest.raises(InputError, match="has no array images, only picture"):
        read_sem(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", stack[None])
    with pytest.raises(InputError, match=r"holds an array of shape \(1, 4, 40, 60\)"):
        read_segments(tmp_path / "c.npy", 1.0)


def test_imagej_stacks_are_segments_with_their_labels_and_unit(tmp_path):
    stack = np.stack([GREY, GREY + 1, GREY + 2])
    tifffile.imwrite(
        tmp_path / "s.tif", stack, imagej=True, resolution=(50, 50), metadata={"unit": "um", "Labels": ["N", "S", "E"]}
    )
    found = read_segments(tmp_path / "s.tif")
    np.testing.assert_allclose(found.pixel_size_nm, 20)
    assert found.names == ("N", "S", "E")
    np.testing.assert_array_equal(found.images, stack)


def test_thumbnails_are_passed_over(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY, photometric="minisblack", metadata=None)
        file.write(GREY[::4, ::4], photometric="minisblack", metadata=None, subfiletype=1)
    assert read_sem(tmp_path / "a.tif").image.shape == (40, 60)


def test_grey_palettes_are_grey_and_coloured_ones_are_not(tmp_path):
    grey = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="palette", colormap=grey, metadata=None)
    np.testing.assert_array_equal(read_sem(tmp_path / "a.tif").image, GREY)
    grey[0, GREY[3, 3]] ^= 0x8000
    tifffile.imwrite(tmp_path / "b.tif", GREY, photometric="palette", colormap=grey, metadata=None)
    with pytest.raises(InputError, match="is in colour: convert it to grey"):
        read_sem(tmp_path / "b.tif")


@pytest.mark.parametrize("values, highest, step", [(GREY.astype(np.uint16) * 256, 65280, 256), (DEEP, 65535, 1)])
def test_step_between_grey_levels(tmp_path, values, highest, step):
    """Eight bits stored as sixteen clip at 65280."""
    found = read_sem(tiff(tmp_path / "a.tif", values))
    assert (found.lowest, found.highest, found.step) == (0, highest, step)


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), 3000), np.eye(4) * 3000])
def test_few_grey_levels_say_nothing_about_the_step(tmp_path, values):
    found = read_sem(tiff(tmp_path / "a.tif", values.astype(np.uint16)))
    assert (found.highest, found.step) == (65535, 1)


@pytest.mark.parametrize("values", [GREY, DEEP])
def test_png_and_jpeg(tmp_path, caplog, values):
    Image.fromarray(values).save(tmp_path / "a.png")
    found = read_sem(tmp_path / "a.png")
    np.testing.assert_array_equal(found.image, values)
    assert found.image.dtype == values.dtype and found.record.pixel_size_nm is None
    if values is GREY:
        Image.fromarray(values).save(tmp_path / "a.jpg")
        assert read_sem(tmp_path / "a.jpg").image.shape == (40, 60) and "is a JPEG" in caplog.text


# ---------------------------------------------------------------- sets


def test_a_set(fei_set):
    found = read_segments(fei_set)
    np.testing.assert_array_equal(found.images, np.stack([GREY, GREY + 1, GREY + 2])[:, :30])
    assert (found.names, found.lowest, found.highest, found.step) == (("A", "B", "C"), 0, 255, 1)
    np.testing.assert_allclose((found.pixel_size_nm, found.scan_rotation_deg), (10, 0))
    assert read_segments(fei_set[::-1], names=["c", "b", "a"]).names == ("c", "b", "a")
    assert read_segments(fei_set, pixel_size_nm=10.005).pixel_size_nm == found.pixel_size_nm


@pytest.mark.parametrize(
    "stems, names",
    [
        (["P33_detectorA", "P33_detectorB", "P33_detectorC"], ("A", "B", "C")),
        (["x_left_2", "x_lower_2", "x_upper_2"], ("left", "lower", "upper")),
        (["im 10", "im 11", "im 12"], ("10", "11", "12")),
        (["a", "a1", "a2"], ("a", "a1", "a2")),
    ],
)
def test_names_from_file_names(tmp_path, stems, names):
    paths = [tiff(tmp_path / f"{stem}.tif", GREY) for stem in stems]
    assert read_segments(paths, pixel_size_nm=1.0).names == names


def changed(fei_set, **what):
    tiff(fei_set[1], what.pop("image", GREY), 34682, fei(mode="B") if not what else fei(**{"mode": "B", **what}))
    return fei_set


@pytest.mark.parametrize(
    "what, sentence",
    [
        ({"image": DEEP}, r"detectorB.tif has values of type uint16, but .*detectorA.tif has uint8"),
        ({"width": 1.1e-8, "height": 1.1e-8}, "a pixel size in nm of 11, but .* has 10: give images of one scan"),
        ({"rotation": 0.5235987755982988}, "a scan rotation in degrees of 30, but .* has 0"),
        ({"x": 0.0011}, "a stage position in mm of 1.1 and 1, but .* has 1 and 1"),
        ({"mode": "A"}, "detectorB.tif says that it is segment A, as .*detectorA.tif does"),
    ],
)
def test_images_that_are_not_of_one_scan(fei_set, what, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read_segments(changed(fei_set, **what))
    assert "\n" not in str(caught.value)


def test_rotations_a_full_turn_apart_are_equal(fei_set):
    assert len(read_segments(changed(fei_set, rotation=2 * np.pi)).names) == 3


def rgb(path):
    tifffile.imwrite(path, np.stack([GREY] * 3, axis=-1), photometric="rgb", metadata=None)


def nan(path):
    tifffile.imwrite(path, np.where(GREY > 254, np.nan, 1.0).astype(np.float32), metadata=None)


SINGLE = [
    ("a.tif", rgb, r"is in colour: convert it to grey \(in ImageJ"),
    ("a.png", lambda p: Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(p), "is in colour: convert"),
    ("a.tif", nan, r"not finite at \d+ pixels, first at row"),
    ("a.tif", lambda p: tifffile.imwrite(p, GREY, photometric="miniswhite"), "white as its lowest value: invert it"),
    ("a.tif", lambda p: tifffile.imwrite(p, GREY.astype(np.int32)), "holds values of type int32: save grey levels"),
    ("a.tif", lambda p: p.write_bytes(b""), "is empty"),
    ("a.tif", lambda p: p.write_bytes(b"GIF89a" * 20), "cannot be read as TIFF"),
    ("a.tif", lambda p: (tiff(p, GREY), p.write_bytes(p.read_bytes()[:-300])), "is cut short"),
    ("a.png", lambda p: p.write_bytes(b"II*\0" * 20), "cannot be read as PNG"),
    ("a.gif", lambda p: p.write_bytes(b"GIF89a" * 20), r"is of an unknown kind \(.gif\): images are read from .tif"),
    ("a", lambda p: p.write_bytes(b"1"), r"unknown kind \(no ending\)"),
    ("a.npy", lambda p: np.save(p, np.array([[1, None]]), allow_pickle=True), "holds Python objects"),
    ("a.npy", lambda p: np.save(p, GREY > 4), "holds values of type bool"),
    ("a.npy", lambda p: np.save(p, np.zeros((0, 4))), r"shape \(0, 4\)"),
    ("a.tif", lambda p: p.mkdir(), "is not a file"),
]


@pytest.mark.parametrize("name, make, sentence", SINGLE)
def test_files_that_are_no_image(tmp_path, name, make, sentence):
    make(tmp_path / name)
    for read in (read_sem, lambda p: read_segments([p, p.with_name("b.tif"), p.with_name("c.tif")])):
        with pytest.raises(InputError, match=sentence) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_sets_that_are_none(tmp_path, fei_set):
    a, b, c = fei_set
    for paths, sentence in (
        ([], "no file is given"),
        ([a, b], "2 files are given, and heights need at least 3"),
        (a, r"holds 1 image, and heights need at least 3 segments"),
        ([a, b, str(a)], "is given twice"),
        ([a, b, tmp_path / "none.tif"], "is not a file"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_segments(paths)
    with pytest.raises(InputError, match=r"names are .* for 3 images"):
        read_segments(fei_set, names=["1", "1", "2"])
    with pytest.raises(InputError, match="says its pixels measure 10 nm but pixel_size_nm = 12 was given"):
        read_segments(fei_set, pixel_size_nm=12.0)
    tiff(c, GREY[:, :50])
    with pytest.raises(InputError, match=r"has pixels \(rows, columns\) \(40, 50\), but .* has \(30, 60\)"):
        read_segments(fei_set)
    np.save(tmp_path / "s.npy", np.stack([GREY] * 3))
    with pytest.raises(InputError, match=r"holds 3 images .*: give one such file alone"):
        read_segments([a, b, tmp_path / "s.npy"])
    np.save(tmp_path / "huge.npy", np.full((3, 4, 4), 1e300))
    with pytest.raises(InputError, match="beyond single precision"):
        read_segments(tmp_path / "huge.npy", 1.0)


def test_a_missing_pixel_size_lists_what_the_file_holds(tmp_path, fei_set):
    nav = [tiff(tmp_path / f"n{k}.tif", GREY, 34682, f"[Image]\nMagCanvas=1\n[S]\nMode={k}\n") for k in range(3)]
    with pytest.raises(InputError, match=r"does not say how large a pixel is \(it holds \[Image\] MagCanvas, \[S\]"):
        read_segments(nav)
    assert read_segments(nav, pixel_size_nm=5.0).pixel_size_nm == 5
    bare = tiff(tmp_path / "bare.tif", GREY[:30])
    with pytest.raises(InputError, match=r"bare.tif does not say how large a pixel is, though .* says 10 nm"):
        read_segments([*fei_set[:2], bare])
    assert read_segments([*fei_set[:2], bare], pixel_size_nm=10.0).pixel_size_nm == pytest.approx(10)
    tiff(fei_set[0], GREY, 34682, fei(height=1.1e-8))
    with pytest.raises(InputError, match="has pixels of 10 x 11 nm: only square ones"):
        read_segments([fei_set[0], *(tiff(tmp_path / f"{k}.tif", GREY[:30]) for k in "uv")], pixel_size_nm=10.0)


# ---------------------------------------------------------------- units, command line, real files


def test_units_agree_with_each_other_and_with_si():
    for value, unit, target, expected in (
        (1.0, "m", "nm", 1e9),
        (12330.0, "pm", "nm", 12.33),
        (2.0, "µm", "nm", 2e3),
        (2.0, "μm", "mm", 2e-3),
        (5000.0, "Volt", "kV", 5.0),
        (100.0, "pA", "nA", 0.1),
        (1e-10, "A", "nA", 0.1),
        (2e-6, "s", "us", 2.0),
        (np.pi, "rad", "deg", 180.0),
        (30.0, "°", "deg", 30.0),
    ):
        assert in_unit(value, unit, target) == pytest.approx(expected, rel=1e-12)
    for kind in KINDS:
        assert all(factor > 0 for factor in kind.values())
    assert in_unit(1.0, "kV", "nm") is None and measured("3 parsec", "nm") is None
    assert measured("100nm", "nm") == 100 and measured("1,5 µm", "nm") == 1500 and measured("7", "kV", "V") == 0.007


def test_info_prints_every_file_and_goes_on_after_a_bad_one(tmp_path, capsys, fei_set):
    before = sorted(tmp_path.iterdir())
    assert main(["info", str(fei_set[0])]) == 0
    shown = capsys.readouterr().out
    for words in (
        "10 rows, cut off",
        "10 nm (field of view 0.6 x 0.3 um)",
        "7 keV",
        "segment",
        "0 to 255 in steps of 1",
    ):
        assert words in shown
    assert main(["info", str(fei_set[0]), str(tmp_path / "none.tif"), str(fei_set[2])]) == 2
    shown = capsys.readouterr()
    assert "none.tif is not a file" in shown.err and shown.err.count("\n") == 1
    assert str(fei_set[2]) in shown.out and sorted(tmp_path.iterdir()) == before
    np.save(tmp_path / "s.npy", np.zeros((2, 3, 4)))
    assert main(["info", str(tmp_path / "s.npy")]) == 0
    shown = capsys.readouterr().out
    assert "page 1" in shown and "not in the file" in shown and "clipped" not in shown
    assert main(["info"]) == 2


@pytest.mark.skipif(not BSE.is_dir(), reason="the real BSE images (../shared/data/bse) are not here")
@pytest.mark.parametrize(
    "folder, pixel, dwell, rotation", [("surface_1", 325.521, 45, 0.0), ("surface_2", 65.1042, 20, 30.0)]
)
def test_real_images(folder, pixel, dwell, rotation):
    """As documented beside the data; 16 bits that are used in full."""
    found = read_segments(sorted((BSE / folder).glob("*.tif")))
    assert found.images.shape == (3, 1024, 1536) and found.names == ("A", "B", "C")
    np.testing.assert_allclose(found.pixel_size_nm, pixel, rtol=1e-9)
    np.testing.assert_allclose(found.scan_rotation_deg, rotation, atol=1e-4)
    assert (found.lowest, found.highest, found.step) == (0, 65535, 1)
    for record in found.records:
        assert record.databar_rows == 79 and record.detector == "ABS" and record.energy_kev == 7
        np.testing.assert_allclose((record.dwell_us, record.current_na), (dwell, 0.5248))
        np.testing.assert_allclose(record.working_distance_mm, 5.0, atol=0.01)
    assert len({record.contrast for record in found.records}) == 3
