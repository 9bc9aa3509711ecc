"""The ACDC set: what is read, how it is split, what is refused; on files written here."""

import numpy as np
import pytest
import torch

from gbn.data.files import data_root
from gbn.data.image_set import DataError
from gbn.data.segmentation.acdc import FOLDER, Patients, cardiac
from gbn.data.segmentation.framing import Framing
from tests.data.segmentation.acdc_files import row, volume, write_set, write_table, write_volume

FRAME = Framing(side=32)
REAL = data_root(None)  # read before the variable GBN_DATA is taken away from the tests


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cardiac")
    write_set(root)
    return root


@pytest.fixture
def own(tmp_path):
    write_set(tmp_path, patients=range(5))
    return tmp_path


def test_folds_are_parts_without_common_patients(root):
    data = cardiac(root, patients=Patients("all", test_fold=2), framing=FRAME)
    assert data.patients_of("test") == ("002", "007")
    assert data.patients_of("val") == ("003", "008")
    assert data.patients_of("train") == ("000", "001", "004", "005", "006", "009")
    assert data.patients == tuple(f"{patient:03d}" for patient in range(10))
    # Two frames, and three of four slices show something.
    assert [len(data.part(part)) for part in ("train", "val", "test")] == [36, 12, 12]
    assert (data.in_channels, data.image_size, data.num_classes, data.unit) == (1, 32, 2, "px")
    assert (data.train.pixel_size == 1).all()


def test_every_fold_is_tested_on_once(root):
    tested = [
        cardiac(root, patients=Patients("all", test_fold=fold), framing=FRAME).patients_of("test")
        for fold in range(5)
    ]
    assert sorted(name for names in tested for name in names) == [f"{patient:03d}" for patient in range(10)]


def test_other_choices_of_patients_and_parts(root):
    assert cardiac(root, framing=FRAME).patients == tuple(f"{patient:03d}" for patient in range(8))
    fixed = cardiac(root, patients=Patients("all", split="split_70_10_20"), framing=FRAME)
    assert (fixed.patients_of("val"), fixed.patients_of("test")) == (("003",), ("004", "009"))
    named = cardiac(root, patients=Patients(["000", "001", "003"], validation_fold=3), framing=FRAME)
    assert [named.patients_of(part) for part in ("train", "val", "test")] == [("001",), ("003",), ("000",)]
    systole = cardiac(root, patients=Patients("all", frames="es"), framing=FRAME)
    assert all("frame07" in place for place in systole.train.places)


def test_masks_are_the_cavity_and_all_that_the_epicardium_encloses(root):
    data = cardiac(root, patients=Patients("all"), framing=Framing(side=36, normalise="none"))
    image, label = volume(2, 1)
    first = data.train.places.index("patient002_frame01.npz slice 0")
    assert torch.equal(data.train.images[first, 0], torch.from_numpy(image[0, 2:38]))
    drawn = torch.from_numpy(label[0, 2:38])
    assert data.structures == ("cavity", "epicardium")
    assert torch.equal(data.train.masks[first], torch.stack((drawn == 3, drawn >= 2)))
    assert data.patients[data.train.patients[first]] == "002"
    for structure, channel in (("cavity", 0), ("epicardium", 1)):
        one = cardiac(root, structures=structure, patients=Patients("all"), framing=Framing(side=36))
        assert one.structures == (structure,)
        chosen = data.train.masks[:, [channel]]
        assert torch.equal(one.train.masks, chosen[chosen.any((1, 2, 3))])


def test_slices_without_structure_are_dropped_or_kept(root):
    kept = cardiac(root, patients=Patients("all"), framing=Framing(side=32, empty_slices="keep"))
    assert len(kept.train) == 48
    assert (~kept.train.masks.any((1, 2, 3))).sum() == 12
    # The slice that shows myocardium alone has no cavity.
    assert len(cardiac(root, "cavity", patients=Patients("all"), framing=FRAME).train) == 24


def test_pixels_of_resampled_windows_keep_their_size(root):
    data = cardiac(root, patients=Patients("all"), framing=Framing(side=16, window=32))
    assert (data.train.pixel_size == 2).all()
    assert data.image_size == 16


def test_intensities_are_those_of_the_whole_frame(root):
    data = cardiac(root, patients=Patients("all"), framing=Framing(side=20, empty_slices="keep"))
    image, _ = volume(2, 1)
    first = data.train.places.index("patient002_frame01.npz slice 0")
    expected = (image[0, 10:30, 8:28] - image.mean()) / image.std()
    np.testing.assert_allclose(data.train.images[first, 0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_digest_is_of_the_content(own):
    before = cardiac(own, patients=Patients("all"), framing=FRAME).digest
    assert cardiac(own, "cavity", patients=Patients("all"), framing=Framing(side=24)).digest == before
    image, _ = volume(3, 7)
    image[0, 0, 0] += 0.5
    write_volume(own, 3, 7, image=image)
    assert cardiac(own, patients=Patients("all"), framing=FRAME).digest != before


def refusal(root, **options):
    with pytest.raises(DataError) as caught:
        cardiac(root, **({"patients": Patients("all"), "framing": FRAME} | options))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_set_says_where_it_belongs(tmp_path):
    message = refusal(tmp_path)
    assert str(tmp_path / FOLDER / "patients.csv") in message
    assert "dataset.root" in message


def test_an_empty_list_of_patients(own):
    write_table(own, [])
    assert "patients.csv lists no patient" in refusal(own)


def test_a_choice_that_leaves_a_part_empty(own):
    assert "the train part has no patient" in refusal(own, patients=Patients([]))
    assert "the test part has no patient" in refusal(own, patients=Patients(["001", "002"]))


def test_a_patient_in_two_parts(own):
    write_table(own, [row(patient) for patient in range(5)] + [row(3, fold5=0)])
    assert "lists patient 003 twice" in refusal(own)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fold5": 5}, "patient 002: fold5 is '5', allowed are 0 to 4"),
        ({"split_70_10_20": "dev"}, "split_70_10_20 is 'dev', allowed are train, val, test"),
        ({"es_frame": "x"}, "es_frame is 'x'"),
        ({"height": 41}, "the image is float32 (4, 40, 36), patients.csv says float (4, 41, 36)"),
    ],
)
def test_a_broken_row(own, changes, words):
    write_table(own, [row(patient, **(changes if patient == 2 else {})) for patient in range(5)])
    assert words in refusal(own)


def test_a_table_without_a_column(own):
    (own / FOLDER / "patients.csv").write_text("patient,fold5\n001,0\n")
    assert "has no column ed_frame, es_frame, slices" in refusal(own)


def test_an_unknown_patient(own):
    assert "has no patient '12'; its patients are 000 to 004" in refusal(own, patients=Patients(["12"]))


def test_missing_files_are_counted(own):
    (own / FOLDER / "patient001_frame07.npz").unlink()
    (own / FOLDER / "patient003_frame01.npz").unlink()
    assert "patient001_frame07.npz is missing (2 of 10 files are)" in refusal(own)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_truncated_files(own, keep):
    path = own / FOLDER / "patient001_frame07.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path} is truncated or not an archive" in refusal(own)


def test_a_file_without_a_mask(own):
    path = own / FOLDER / "patient001_frame07.npz"
    np.savez(path, image=volume(1, 7)[0])
    assert f"{path} is truncated or not an archive of image and label" in refusal(own)


def test_labels_out_of_range(own):
    _, label = volume(1, 7)
    label[0, 0, 0] = 4
    path = write_volume(own, 1, 7, label=label)
    assert f"{path}: labels are uint8 from 0 to 4; allowed" in refusal(own)
    write_volume(own, 1, 7, label=label - 4.5)
    assert "labels are float64" in refusal(own)


def test_masks_that_do_not_match_their_image(own):
    path = write_volume(own, 1, 7, label=volume(1, 7)[1][:, 1:])
    assert f"{path}: the mask (4, 39, 36) does not match its image (4, 40, 36)" in refusal(own)


def test_values_that_are_not_finite(own):
    image = volume(1, 7)[0]
    image[1, 2, 3] = np.nan
    path = write_volume(own, 1, 7, image=image)
    assert f"{path}: the image has values that are not finite" in refusal(own)


def test_a_patient_without_the_structure(own):
    for frame in (1, 7):
        write_volume(own, 1, frame, label=np.zeros((4, 40, 36), np.uint8))
    assert "patient 001 has no slice with cavity and epicardium" in refusal(own)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"test_fold": 5}, "the folds are 0 to 4, 5"), ({"test_fold": 2, "validation_fold": 2}, "are both 2")],
)
def test_wrong_folds(values, message):
    with pytest.raises(ValueError, match=message):
        Patients(**values)


@pytest.mark.slow
def test_the_packed_patients():
    """The real files, where they are: 45 patients, 821 slices with cavity, 828 with left ventricle, of 866."""
    if not (REAL / FOLDER).is_dir():
        pytest.skip(f"no {FOLDER} among the data sets")
    for structures, empty, count in (("cavity", "drop", 821), ("both", "drop", 828), ("both", "keep", 866)):
        data = cardiac(REAL, structures, framing=Framing(side=144, empty_slices=empty))
        assert len(data.patients) == 45
        assert sum(len(data.part(part)) for part in ("train", "val", "test")) == count
