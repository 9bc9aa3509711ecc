"""The Sunnybrook challenge's folders, on files written here: what is paired, split, drawn and refused."""

import sys

import numpy as np
import pytest
import torch

from gbn.data.image_set import DataError
from gbn.data.segmentation.contour_files import filled
from gbn.data.segmentation.dicom import read_slice
from gbn.data.segmentation.framing import Framing
from gbn.data.segmentation.sunnybrook import sunnybrook
from tests.data.segmentation.sunnybrook_files import (
    CONTOURS,
    HEIGHT,
    IMAGES,
    WIDTH,
    circle,
    pixels,
    write_challenge,
    write_contour,
    write_dicom,
)

FRAME = Framing(side=32, normalise="none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sunnybrook")
    write_challenge(root)
    return root


@pytest.fixture
def own(tmp_path):
    write_challenge(tmp_path)
    return tmp_path


def test_the_challenges_parts(root):
    data = sunnybrook(root, framing=FRAME)
    assert data.patients_of("train") == ("SC-HF-I-1", "SC-N-40")
    assert data.patients_of("val") == ("SC-HYP-6",)
    assert data.patients_of("test") == ("SC-HF-NI-11",)
    assert (data.name, data.unit, data.structures) == ("sunnybrook", "mm", ("cavity", "epicardium"))


def test_images_masks_and_sizes(root):
    data = sunnybrook(root, framing=FRAME)
    assert data.train.places == ("SC-HF-I-1 IM-0004-0020.dcm", "SC-N-40 IM-0944-0020.dcm")
    window = (slice(8, 40), slice(4, 36))
    np.testing.assert_array_equal(data.train.images[0, 0].numpy(), pixels(24)[window])
    for channel, radius in enumerate((6.2, 9.4)):
        drawn = filled(np.round(circle(radius), 2), HEIGHT, WIDTH)
        np.testing.assert_array_equal(data.train.masks[0, channel].numpy(), drawn[window])
    assert data.train.pixel_size.tolist() == [[1.5, 1.25]] * 2


def test_a_structure_takes_all_slices_with_its_contour(root):
    assert len(sunnybrook(root, "cavity", framing=FRAME).train) == 4
    assert len(sunnybrook(root, "epicardium", framing=FRAME).train) == 2


def test_resampled_pixels_are_as_much_larger(root):
    data = sunnybrook(root, framing=Framing(side=24, window="whole"))
    torch.testing.assert_close(data.train.pixel_size[0], torch.tensor([3.0, 2.5]))
    area = data.train.masks[0].sum((1, 2)) * data.train.pixel_size[0].prod()
    expected = torch.tensor([6.2, 9.4]) ** 2 * torch.pi * 1.5 * 1.25
    torch.testing.assert_close(area, expected, rtol=0.08, atol=0)


def test_volumes_are_the_patients_slices(root):
    data = sunnybrook(root, "cavity", framing=Framing(side=48, normalise="volume"))
    both = np.stack([pixels(24), pixels(44)])
    expected = (both[0] - both.mean()) / both.std()
    inside = data.train.images[0, 0, :, 4:44].numpy()
    np.testing.assert_allclose(inside, expected, atol=1e-5)


def test_a_split_of_ones_own(root):
    split = {"train": ["SC-HYP-06"], "val": ["SC-N-40"], "test": ["SC-HF-I-1"]}
    data = sunnybrook(root, split=split, framing=FRAME)
    assert data.patients == ("SC-HF-I-1", "SC-HYP-6", "SC-N-40")


def test_the_digest_is_of_the_content(own):
    before = sunnybrook(own, framing=FRAME).digest
    assert sunnybrook(own, framing=Framing(side=24)).digest == before
    write_contour(own / CONTOURS["val"] / "SC-HYP-06", 20, "i", circle(5.0))
    assert sunnybrook(own, framing=FRAME).digest != before


def test_the_series_that_has_all_contoured_images_is_taken(own):
    folder = own / IMAGES["train"] / "SC-N-40"
    write_dicom(folder / "IM-0900-0020.dcm", pixels(0))  # a scout: not the whole series
    assert "SC-N-40 IM-0944-0020.dcm" in sunnybrook(own, framing=FRAME).train.places
    write_dicom(folder / "IM-0900-0040.dcm", pixels(0))
    message = refusal(own)
    assert "IM-0900-0020.dcm or" in message
    assert "keep only the short-axis series" in message
    # The contour's own series decides where it is there.
    write_dicom(folder / "IM-0001-0020.dcm", pixels(0))
    write_dicom(folder / "IM-0001-0040.dcm", pixels(0))
    assert "SC-N-40 IM-0001-0020.dcm" in sunnybrook(own, framing=FRAME).train.places


def refusal(root, structures="both", **options):
    with pytest.raises(DataError) as caught:
        sunnybrook(root, structures, **({"framing": FRAME} | options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_contours(tmp_path):
    assert f"no contours under {tmp_path}" in refusal(tmp_path)


def test_a_contour_without_an_image(own):
    (own / IMAGES["val"] / "SC-HYP-6" / "IM-0001-0020.dcm").unlink()
    message = refusal(own)
    assert "IM-0001-0020-icontour-manual.txt has no image: no IM-*-0020.dcm" in message


def test_missing_contours_of_a_structure(own):
    folder = own / CONTOURS["val"] / "SC-HYP-06" / "contours-manual" / "IRCCI-expert"
    (folder / "IM-0001-0020-ocontour-manual.txt").unlink()
    message = refusal(own)
    assert f"{folder}: missing contours" in message
    assert "an 'i' contour and an 'o' contour" in message
    assert len(sunnybrook(own, "cavity", framing=FRAME).val) == 2


def test_missing_contours_of_a_patient(own):
    split = {"train": ["SC-N-1"], "val": ["SC-N-40"], "test": ["SC-HF-I-1"]}
    assert "has no contours of patient SC-N-1" in refusal(own, split=split)


def test_a_patient_in_two_parts(own):
    write_contour(own / CONTOURS["test"] / "SC-HYP-06", 40, "o", circle(9.0))
    assert "patient SC-HYP-6 is in val and test" in refusal(own)
    split = {"train": ["SC-N-40", "SC-HF-I-01"], "val": ["SC-HF-I-1"], "test": ["SC-HYP-6"]}
    assert "patient SC-HF-I-1 is in train and val" in refusal(own, split=split)


def test_an_empty_part(own):
    assert "the val part has no patient" in refusal(own, split={"train": ["SC-N-40"], "test": ["SC-HF-I-1"]})


def test_two_contours_of_one_image(own):
    write_contour(own / CONTOURS["val"] / "SC-HYP-06" / "again", 20, "i", circle(5.0))
    assert "are contours of one image" in refusal(own)


def test_files_that_belong_to_no_patient_or_part(own):
    path = write_contour(own / CONTOURS["val"] / "someone", 20, "i", circle(5.0))
    assert f"{path} is not a contour of a patient" in refusal(own)
    path.unlink()
    path = write_contour(own / "elsewhere" / "SC-N-7", 20, "i", circle(5.0))
    assert f"{path} is in no folder that tells its part" in refusal(own)


def test_points_outside_the_image(own):
    path = write_contour(own / CONTOURS["train"] / "SC-N-40", 20, "o", circle(25.0))
    message = refusal(own)
    assert message.startswith(str(path))
    assert f"lies outside its image of {WIDTH} x {HEIGHT} pixels" in message


def test_contours_that_cannot_be_of_one_heart(own):
    path = write_contour(own / CONTOURS["train"] / "SC-N-40", 20, "o", circle(3.0, x=35, y=44))
    assert f"{path.name} do not overlap" in refusal(own)
    path = write_contour(own / CONTOURS["train"] / "SC-N-40", 20, "o", circle(0.1))
    assert f"{path}: the contour encloses no pixel center" in refusal(own)


@pytest.mark.parametrize("keep", [0, 100, 400, 3000])
def test_truncated_dicom(own, keep):
    path = own / IMAGES["val"] / "SC-HYP-6" / "IM-0001-0020.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(own)
    assert message.startswith(f"{path}: truncated, or no DICOM image that can be read: ")


def test_slices_are_rescaled(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", pixels(0), RescaleSlope=2, RescaleIntercept=-1024)
    image, spacing = read_slice(path)
    np.testing.assert_array_equal(image, pixels(0) * 2.0 - 1024)
    assert (image.dtype, spacing) == (np.float32, (1.5, 1.25))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spacing": None}, "PixelSpacing is missing"),
        ({"spacing": (0, 1)}, "PixelSpacing is [0.0, 1.0]"),
    ],
)
def test_slices_without_spacing(tmp_path, options, words):
    path = write_dicom(tmp_path / "a.dcm", pixels(0), **options)
    with pytest.raises(DataError, match="two positive numbers") as caught:
        read_slice(path)
    assert words in str(caught.value)


def test_several_frames_in_one_file(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.stack([pixels(0), pixels(1)]))
    with pytest.raises(DataError, match=r"the image is \(2, 48, 40\), needed is one grayscale slice"):
        read_slice(path)


def test_without_pydicom(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"need pydicom.*pip install pydicom"):
        read_slice(tmp_path / "a.dcm")
