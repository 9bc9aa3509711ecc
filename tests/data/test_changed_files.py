"""Whatever changes in the files of a data set changes its digest, or is refused before."""

from types import SimpleNamespace

import pytest
import torch

from gbn.config.datasets import DatasetConfig
from gbn.data import DataError, load
from gbn.data.segmentation.acdc import Patients, cardiac
from gbn.data.segmentation.framing import Framing
from gbn.data.segmentation.sunnybrook import sunnybrook
from gbn.tasks.classification.task import Classification
from tests.data.segmentation.acdc_files import row, write_set, write_table
from tests.data.segmentation.sunnybrook_files import CONTOURS, write_challenge

FRAME = Framing(side=24)
FROM_FILES = ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"]  # with a miniature in conftest.py


def flipped(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("name", FROM_FILES)
def test_other_content_has_another_digest_or_does_not_load(name, fake, tmp_path):
    made = fake(name)
    made.install(tmp_path, packed=False)
    first = load(name, tmp_path, download=False)
    seen = {first.digest}
    for file, content in made.contents.items():
        path = tmp_path / made.folder / file
        path.write_bytes(flipped(content))
        if name in ("mnist", "fashion_mnist"):  # no checksum of the unpacked files is published
            other = load(name, tmp_path, download=False)
            same = all(
                torch.equal(getattr(first, part), getattr(other, part))
                for part in ("train_images", "train_labels", "test_images", "test_labels")
            )
            assert not same
            assert other.digest not in seen
            seen.add(other.digest)
        else:
            with pytest.raises(DataError, match=f"{file} is truncated or corrupted"):
                load(name, tmp_path, download=False)
        path.write_bytes(content)
    assert load(name, tmp_path, download=False).digest == first.digest


def of_attack(root, attack):
    """The digest of digits that are attacked with another set's images."""
    dataset = DatasetConfig(name="digits", revision=1, validation=200, root=str(root), download=False)
    trainer = SimpleNamespace(attack=SimpleNamespace(dataset=attack))
    return Classification.digest(SimpleNamespace(dataset=dataset, trainer=trainer), load("digits"))


def test_the_images_of_an_attack_are_data_too(fake, tmp_path):
    made = fake("mnist")
    made.install(tmp_path, packed=False)
    found = [of_attack(tmp_path, None), of_attack(tmp_path, "mnist")]
    path = tmp_path / made.folder / "train-images-idx3-ubyte"
    path.write_bytes(flipped(path.read_bytes()))
    found.append(of_attack(tmp_path, "mnist"))
    assert found[0] == load("digits").digest
    assert len(set(found)) == 3
    assert [digest[:2] == "2:" for digest in found] == [False, True, True]


def test_the_parts_of_the_heart_patients_are_data_too(tmp_path):
    write_set(tmp_path, patients=range(5))

    def digest(folds):
        write_table(tmp_path, [row(patient, fold5=folds[patient]) for patient in range(5)])
        return cardiac(tmp_path, patients=Patients("all"), framing=FRAME).digest

    found = [digest(folds) for folds in ([0, 1, 2, 3, 4], [0, 1, 2, 4, 3], [0, 2, 1, 3, 4], [2, 1, 0, 3, 4])]
    assert found[0] == found[1]  # both train
    assert len(set(found)) == 3


def test_the_folders_of_sunnybrook_are_data_too(tmp_path):
    write_challenge(tmp_path)
    before = sunnybrook(tmp_path, framing=FRAME).digest
    (tmp_path / CONTOURS["train"] / "SC-N-40").rename(tmp_path / CONTOURS["val"] / "SC-N-40")
    moved = sunnybrook(tmp_path, framing=FRAME)
    assert moved.patients_of("val") == ("SC-HYP-6", "SC-N-40")
    assert moved.digest != before
