"""What every data set with labels must be: each of the registry, and those of other packages.

``pytest --gbn-dataset their.module:load`` puts one of another package through it, and runs nothing else; what needs a
root takes the variable GBN_DATA.
"""

import os

import pytest
import torch
from torch import nn

from gbn.config.datasets import SHAPES
from gbn.data import DATASETS, DataError, DeviceSet, TrainLoader, load, load_custom, split
from gbn.data.image_set import channel_statistics

#: Before a fixture takes it away.
ROOT = os.environ.get("GBN_DATA")


def pytest_generate_tests(metafunc):
    foreign = [
        pytest.param(target, marks=pytest.mark.foreign, id=f"custom[{target}]")
        for target in metafunc.config.getoption("--gbn-dataset")
    ]
    metafunc.parametrize("name", [*DATASETS, *foreign])


@pytest.fixture
def loader(name, tmp_path, request):
    """Loads the set; a known one in miniature, one that is not here is skipped."""
    if name not in DATASETS:
        return lambda: load_custom(name, root=ROOT)
    fake = request.getfixturevalue("fake")
    if fake.knows(name):
        fake(name).install(tmp_path)
        return lambda: load(name, tmp_path, download=False)
    try:
        load(name, ROOT, download=False)
    except DataError as missing:
        pytest.skip(str(missing))
    return lambda: load(name, ROOT, download=False)


def test_images_and_labels_are_what_they_should_be(loader, name):
    loaded = loader()
    if name in DATASETS:
        assert SHAPES.keys() == DATASETS.keys()
        assert SHAPES[name] == (loaded.image_size, loaded.in_channels)
    for part in ("train", "test"):
        images, labels = getattr(loaded, f"{part}_images"), getattr(loaded, f"{part}_labels")
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous()
        assert images.shape == (len(labels), loaded.in_channels, loaded.image_size, loaded.image_size)
    assert loaded.train_labels.bincount(minlength=loaded.num_classes).min() > 0, (
        "a class has no training image"
    )
    assert (loaded.mean, loaded.std) == channel_statistics(loaded.train_images)


def test_a_second_look_finds_the_same_bytes_and_the_same_digest(loader):
    first, second = loader(), loader()
    assert first.digest == second.digest
    for part in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(first, part), getattr(second, part)), part


def test_a_network_trains_on_its_batches(loader):
    loaded = loader()
    training, validation = split(loaded.train_labels, max(1, len(loaded.train_labels) // 5), seed=0)
    assert not set(training.tolist()) & set(validation.tolist())
    train = DeviceSet(loaded.train_images, loaded.train_labels, loaded.mean, loaded.std)
    batches = TrainLoader(train, training, min(len(training), 64), seed=0)
    assert batches.steps_per_epoch >= 1
    x, labels = batches.batch(0)
    assert x.isfinite().all()
    assert x.shape == (len(labels), loaded.in_channels, loaded.image_size, loaded.image_size)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), loaded.num_classes))
    nn.functional.cross_entropy(model(x), labels).backward()
    assert model[1].weight.grad.isfinite().all()
    assert model[1].weight.grad.any()
