"""Stratified splits and subsets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gbn.data import split, subset

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(torch.tensor)
SPLIT = [4, 10, 13, 16, 27, 31, 42, 65, 88, 89]
SUBSET = [2, 3, 30, 41, 45, 47, 54, 68, 86, 99]


def assert_stratified(part, labels, count):
    """Each class present in its share, to within one."""
    assert len(part) == count
    counts = labels[part].bincount(minlength=5)
    ideal = labels.bincount(minlength=5) * count / len(labels)
    assert ((counts - ideal).abs() < 1).all()


@given(LABELS, st.data(), st.integers(0, 3))
def test_split_is_a_stratified_partition(labels, data, seed):
    validation = data.draw(st.integers(0, len(labels) - 1))
    train, held_out = split(labels, validation, seed)
    assert torch.equal(torch.cat([train, held_out]).sort().values, torch.arange(len(labels)))
    assert torch.equal(train.sort().values, train)
    assert torch.equal(held_out.sort().values, held_out)
    assert_stratified(held_out, labels, validation)
    again = split(labels, validation, seed)
    assert torch.equal(again[0], train)
    assert torch.equal(again[1], held_out)


def test_seeds_split_differently():
    labels = torch.arange(1000) % 10
    held_out = [set(split(labels, 100, seed)[1].tolist()) for seed in range(3)]
    for i, first in enumerate(held_out):
        for second in held_out[:i]:
            # 10 in common are expected by chance.
            assert len(first & second) < 30


def test_every_image_has_its_chance():
    labels = torch.arange(100) % 10
    times = torch.zeros(100)
    for seed in range(400):
        times[split(labels, 20, seed)[1]] += 1
    # Binomial(400, 1/5): mean 80, standard deviation 8; five of those for 100 images.
    assert (times - 80).abs().max() < 40


@given(LABELS, st.data())
def test_subset_is_stratified_and_fixed(labels, data):
    count = data.draw(st.integers(1, len(labels)))
    part = subset(labels, count)
    assert torch.equal(part, part.unique())
    assert_stratified(part, labels, count)
    assert torch.equal(part, subset(labels, count))


def test_subset_takes_only_candidates_and_moves_little_with_them():
    labels = torch.arange(1000) % 10
    parts = []
    for seed in range(2):
        train, _ = split(labels, 100, seed)
        parts.append(set(subset(labels, 200, among=train).tolist()))
        assert parts[-1] <= set(train.tolist())
    # A tenth of the candidates differs; an unrelated draw would share 200 * 200 / 900, that is 44.
    assert len(parts[0] & parts[1]) > 140


def test_larger_subsets_contain_smaller_ones():
    labels = torch.arange(1000) % 10
    assert set(subset(labels, 100).tolist()) < set(subset(labels, 300).tolist())


def test_splits_are_fixed_for_ever():
    # Archived runs were trained on these images.
    labels = torch.arange(100) % 10
    assert split(labels, 10, 0)[1].tolist() == SPLIT
    assert subset(labels, 10).tolist() == SUBSET


@pytest.mark.parametrize("validation", [-1, 10, 11])
def test_impossible_splits(validation):
    with pytest.raises(ValueError, match=f"validation={validation} images cannot be cut from 10.*0 to 9"):
        split(torch.zeros(10, dtype=torch.int64), validation, 0)


@pytest.mark.parametrize("count", [0, 11])
def test_impossible_subsets(count):
    with pytest.raises(ValueError, match=f"subset of {count} images cannot be taken from 10"):
        subset(torch.zeros(10, dtype=torch.int64), count)
