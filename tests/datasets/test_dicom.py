"""DICOM images: real files that pydicom carries with it, and levels whose grey is known beforehand."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from workflow_scripts.base.errors import UserError
from workflow_scripts.datasets.pictures import dicom, images
from workflow_scripts.datasets.pictures.images import image_size, open_image, write_png


def dataset(levels: np.ndarray, bits: int = 16, **tags: object) -> Dataset:
    """A grey image of `levels` with these tags."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = levels.shape
    made.BitsAllocated = 16
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(levels.dtype.kind == "i")
    made.PixelData = levels.astype(levels.dtype.newbyteorder("<")).tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def grey(path) -> list[int]:
    opened = np.asarray(open_image(path))
    assert (opened[..., 0] == opened[..., 1]).all() and (opened[..., 0] == opened[..., 2]).all()
    return opened[..., 0].ravel().tolist()


@pytest.fixture
def shown(tmp_path):
    """The grey of each level of one row of them, once saved with these tags and opened."""

    def save_and_open(levels, **tags):
        kind = np.int16 if min(levels) < 0 else np.uint16
        path = tmp_path / "scan.dcm"
        dataset(np.array([levels], dtype=kind), **tags).save_as(path, enforce_file_format=True)
        assert image_size(path) == (len(levels), 1)
        return grey(path)

    return save_and_open


# PS3.3 C.11.2.1.2.1: below c - 0.5 - (w - 1) / 2 all is black, above c - 0.5 + (w - 1) / 2 all is white.
def test_a_window_is_applied_to_rescaled_levels_and_is_not_stretched_to_the_image(shown):
    hounsfield = [-200, -160, 40, 139, 240, 1000]
    levels = [value + 1024 for value in hounsfield]
    window = {"WindowCenter": 40, "WindowWidth": 400}
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    by_formula = [round(255 * min(1, max(0, (value - 39.5) / 399 + 0.5))) for value in hounsfield]
    assert shown(levels, **window, **rescale) == by_formula
    assert by_formula[0] == by_formula[1] == 0 and by_formula[-1] == 255
    # The same levels alone, without the bright one, keep their grey.
    assert shown(levels[1:4], **window, **rescale) == by_formula[1:4]


def test_the_first_of_several_windows_counts(shown):
    both = shown([0, 50, 100], WindowCenter=[50.5, 5], WindowWidth=[101, 3])
    assert both == shown([0, 50, 100], WindowCenter=50.5, WindowWidth=101) == [0, 128, 255]


def test_other_window_functions(shown):
    window = {"WindowCenter": 100, "WindowWidth": 100}
    assert shown([50, 100, 150], VOILUTFunction="LINEAR_EXACT", **window) == [0, 128, 255]
    sigmoid = [round(255 / (1 + np.exp(-4 * (level - 100) / 100))) for level in (0, 100, 200)]
    assert shown([0, 100, 200], VOILUTFunction="SIGMOID", **window) == sigmoid


def test_monochrome1_is_inverted(shown):
    window = {"WindowCenter": 50, "WindowWidth": 101}
    upright = shown([0, 20, 100], **window)
    inverted = shown([0, 20, 100], PhotometricInterpretation="MONOCHROME1", **window)
    assert inverted == [255 - level for level in upright]
    assert shown([5, 6, 7], PhotometricInterpretation="MONOCHROME1") == [255, 128, 0]


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (16, 65535)])
def test_a_voi_lut_goes_before_a_window_and_is_scaled_by_its_bits(bits, top, shown):
    """Of 1,000 entries, more than 8 bits can count, half the output range at the last."""
    table = Dataset()
    table.LUTDescriptor = [1000, 100, bits]
    table.add_new("LUTData", "US", [round(top / 2 * entry / 999) for entry in range(1000)])
    greys = shown([0, 100, 600, 1099, 4000], VOILUTSequence=[table], WindowCenter=5, WindowWidth=2)
    assert greys[0] == greys[1] == 0 and greys[3] == greys[4] and greys[3] in (127, 128)
    assert abs(greys[2] - greys[3] * 500 / 999) <= 1


def test_without_a_window_the_range_without_padding_counts(shown):
    assert shown([1000, 3000, 5000]) == [0, 128, 255]
    assert shown([-2000, 1000, 3000, 5000], PixelPaddingValue=-2000) == [0, 0, 128, 255]
    assert shown([-2000, -1999, 1000, 5000], PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990) == [
        0,
        0,
        0,
        255,
    ]
    assert shown([7, 7, 7]) == [0, 0, 0] == shown([7, 7, 7], PixelPaddingValue=7)


@pytest.mark.parametrize(
    ("rule", "greys"), [("first", [0, 128]), ("middle", [128, 255]), ("last", [255, 255])]
)
def test_the_frame_of_the_rule_is_shown_by_its_own_window(rule, greys, tmp_path):
    frames = []
    for center in (50, 0, -200):
        window, frame = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center + 0.5, 101
        frame.FrameVOILUTSequence = [window]
        frames.append(frame)
    made = dataset(np.array([[0, 50]] * 3, dtype=np.uint16))
    made.Rows, made.NumberOfFrames = 1, 3
    made.PerFrameFunctionalGroupsSequence = frames
    made.SharedFunctionalGroupsSequence = []
    # The last window lies below all levels, which are then shown by their own range.
    made.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    shown = np.asarray(open_image(tmp_path / "scan.dcm", rule))[..., 0].ravel().tolist()
    assert shown == ([0, 255] if rule == "last" else greys)


def test_a_blank_first_frame_does_not_stand_for_the_rest(tmp_path):
    made = dataset(np.array([[0, 0], [0, 9]], dtype=np.uint16))
    made.Rows, made.NumberOfFrames = 1, 2
    made.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    assert grey(tmp_path / "scan.dcm") == [0, 255]


HOUNSFIELD = [0, 100]
CT_WINDOW = {"WindowCenter": 50.5, "WindowWidth": 201}


@pytest.mark.parametrize(
    "rescale",
    [
        {"RescaleIntercept": -1024},
        {"RescaleIntercept": -1024, "RescaleSlope": ""},
        {"RescaleIntercept": -1024, "RescaleSlope": 0},
    ],
)
def test_a_missing_slope_is_one(rescale, shown):
    assert shown([value + 1024 for value in HOUNSFIELD], **rescale, **CT_WINDOW) == [64, 191]


@pytest.mark.parametrize("rescale", [{"RescaleSlope": 2}, {"RescaleSlope": 2, "RescaleIntercept": ""}])
def test_a_missing_intercept_is_zero(rescale, shown):
    assert shown([0, 50], **rescale, **CT_WINDOW) == [64, 191]


@pytest.mark.parametrize("name", ["MRImageStorage", "XRayAngiographicImageStorage"])
def test_windows_of_sop_classes_without_a_modality_lut_are_in_stored_levels(name, shown):
    from pydicom import uid

    window = {"WindowCenter": 50.5, "WindowWidth": 101, "RescaleSlope": 3, "RescaleIntercept": 20}
    assert shown([0, 50, 100], SOPClassUID=getattr(uid, name), **window) == [0, 128, 255]
    assert shown([0, 10, 20], SOPClassUID=uid.CTImageStorage, **window) == [51, 128, 204]


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 30000, "WindowWidth": 100},
        {"WindowCenter": -30000, "WindowWidth": 100},
        {"WindowCenter": 0, "WindowWidth": 0},
        {"WindowCenter": 50, "WindowWidth": 0.5},
        {"WindowCenter": 50, "WindowWidth": -10},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 50},
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_range_of_the_levels(window, shown):
    assert shown([1024, 1074, 1124], RescaleSlope=1, RescaleIntercept=-1024, **window) == [0, 128, 255]


def test_a_window_outside_the_values_is_tried_on_the_stored_levels(shown):
    window = {"WindowCenter": 1074.5, "WindowWidth": 201}
    assert shown([1024, 1124], RescaleSlope=1, RescaleIntercept=-1024, **window) == [64, 191]


def test_a_picture_of_one_level_keeps_the_grey_of_its_window(shown):
    assert shown([500, 500], WindowCenter=50, WindowWidth=100) == [255, 255]


def test_padding_is_black_when_the_levels_are_inverted_too(shown):
    padded = {"PixelPaddingValue": 0, "PhotometricInterpretation": "MONOCHROME1"}
    assert shown([0, 1000, 3000], **padded) == [0, 255, 0]
    assert shown([0, 1000, 3000], WindowCenter=2000.5, WindowWidth=4001, **padded) == [0, 191, 64]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2", "monochrome1"])
def test_the_inverse_shape_inverts_once(photometric, shown):
    assert shown([5, 6, 7], PhotometricInterpretation=photometric, PresentationLUTShape="INVERSE") == [
        255,
        128,
        0,
    ]


def test_a_presentation_lut_spans_black_to_white(shown):
    table = Dataset()
    table.LUTDescriptor = [3, 0, 8]
    table.add_new("LUTData", "US", [255, 51, 0])
    window = {"WindowCenter": 50.5, "WindowWidth": 101}
    assert shown([50, 100], PresentationLUTSequence=[table], **window) == [51, 0]


@pytest.mark.parametrize("left_away", ["preamble", "transfer syntax"])
def test_what_old_archives_leave_away_is_found_out(left_away, tmp_path):
    path = tmp_path / "scan.dcm"
    made = dataset(np.array([[0, 9]], dtype=np.uint16))
    if left_away == "preamble":
        del made.file_meta
    else:
        del made.file_meta.TransferSyntaxUID
        made.preamble = bytes(128)
    made.save_as(path, enforce_file_format=False, implicit_vr=left_away == "preamble", little_endian=True)
    if left_away == "preamble":
        assert path.read_bytes()[128:132] != b"DICM"
    assert grey(path) == [0, 255] and image_size(path) == (2, 1)


def test_the_window_of_an_enhanced_file_lies_in_its_frame(tmp_path):
    window, frame = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 50, 101
    frame.FrameVOILUTSequence = [window]
    made = dataset(np.array([[0, 50], [100, 100], [7, 7], [7, 7]], dtype=np.uint16))
    made.Rows, made.NumberOfFrames = 2, 2
    made.PerFrameFunctionalGroupsSequence = [frame, Dataset()]
    made.save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    shown = np.asarray(open_image(tmp_path / "scan.dcm", "first"))[..., 0].ravel().tolist()
    assert shown == [1, 129, 255, 255]


@given(
    levels=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=2, max_size=8),
    slope=st.floats(0.01, 100),
    intercept=st.floats(-5000, 5000),
    center=st.floats(-5000, 5000),
    width=st.floats(1, 9000),
)
@settings(max_examples=60, deadline=None)
def test_any_window_keeps_the_order_of_levels(levels, slope, intercept, center, width, tmp_path_factory):
    tags = {
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
        "WindowCenter": center,
        "WindowWidth": width,
    }
    short = {name: f"{value:.6g}" for name, value in tags.items()}
    path = tmp_path_factory.getbasetemp() / "any.dcm"
    dataset(np.array([sorted(levels)], dtype=np.int16), **short).save_as(path, enforce_file_format=True)
    assert grey(path) == sorted(grey(path))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("CT_small.dcm", (128, 128)),
        ("MR_small_RLE.dcm", (64, 64)),
        ("MR_small_jp2klossless.dcm", (64, 64)),
        ("MR_small_jpeg_ls_lossless.dcm", (64, 64)),
        ("MR_small_bigendian.dcm", (64, 64)),
        ("JPEG2000.dcm", (256, 1024)),
        ("SC_rgb_jpeg_gdcm.dcm", (100, 100)),
        ("SC_rgb_rle_16bit_2frame.dcm", (100, 100)),
        ("examples_palette.dcm", (800, 350)),
        ("examples_ybr_color.dcm", (320, 240)),
    ],
)
def test_real_files_of_many_kinds_open(name, size):
    path = get_testdata_file(name, download=False)
    opened = open_image(path)
    assert (opened.mode, opened.size, image_size(path)) == ("RGB", size, size)
    assert len(np.unique(np.asarray(opened))) > 2


def test_compression_does_not_change_what_is_shown():
    plain, *others = (
        np.asarray(open_image(get_testdata_file(name, download=False)))
        for name in (
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
        )
    )
    assert all((other == plain).all() for other in others)


def test_colours_are_right():
    """pydicom's test picture has bars of pure colours; palette and 16-bit copies show the same."""
    eight = np.asarray(open_image(get_testdata_file("SC_rgb_rle.dcm", download=False)))
    sixteen = np.asarray(open_image(get_testdata_file("SC_rgb_rle_16bit.dcm", download=False)))
    assert (eight == sixteen).all() and eight[5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("image_dfl.dcm", "deflated DICOM"),
        ("rtplan.dcm", "DICOM without an image"),
        ("test-SR.dcm", "without an image"),
    ],
)
def test_what_holds_no_image_or_hides_its_size_is_named(read, name, complaint):
    with pytest.raises(UserError, match=rf"{name}: not a readable image \(.*{complaint}"):
        read(get_testdata_file(name, download=False))


def test_a_truncated_file_and_one_of_bombastic_size_are_named(tmp_path):
    with pytest.raises(UserError, match=r"MR_truncated\.dcm: not a readable image"):
        open_image(get_testdata_file("MR_truncated.dcm", download=False))
    bomb = dataset(np.zeros((1, 1), np.uint16))
    bomb.Rows = bomb.Columns = 60_000
    bomb.save_as(tmp_path / "bomb.dcm", enforce_file_format=True)
    for read in (open_image, image_size):
        with pytest.raises(UserError, match=rf"bomb\.dcm: .*over the limit of {images.MAX_PIXELS}"):
            read(tmp_path / "bomb.dcm")


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path):
    small = dataset(np.zeros((1, 1), np.uint16))
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    small.save_as(tmp_path / "small.dcm", enforce_file_format=True)
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = squeeze.compress(bytes(300_000_000)) + squeeze.flush()
    head = (tmp_path / "small.dcm").read_bytes()[:300]
    (tmp_path / "bomb.dcm").write_bytes(head + content)
    with pytest.raises(UserError, match=r"bomb\.dcm: not a readable image \(deflated DICOM"):
        image_size(tmp_path / "bomb.dcm")


def test_a_png_stands_for_it_bit_by_bit(tmp_path):
    path = get_testdata_file("CT_small.dcm", download=False)
    write_png(path, tmp_path / "below" / "scan.png")
    assert not dicom.is_dicom(tmp_path / "below" / "scan.png")
    assert (np.asarray(open_image(path)) == np.asarray(open_image(tmp_path / "below" / "scan.png"))).all()
    assert [item.name for item in (tmp_path / "below").iterdir()] == ["scan.png"]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_gives_an_image_or_a_user_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.dcm"
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    dataset(levels, WindowCenter=30, WindowWidth=40).save_as(path, enforce_file_format=True)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(132, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (open_image, image_size):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
