"""The digits inside scikit-learn: read without importing it, the same pixels, a fixed stratified split."""

import importlib.util

import numpy as np
import pytest
import torch

from gbn.data import DataError, load

TEST_LABELS = [5, 9, 4, 2, 4, 9, 5, 9, 7, 1, 0, 0, 7, 8, 6, 3, 4, 6, 9, 0]
DIGEST = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"


def test_pixels_and_labels_are_scikit_learns():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    ours = load("digits")
    pixels = torch.cat([ours.train_images, ours.test_images]).flatten(1).numpy()
    labels = torch.cat([ours.train_labels, ours.test_labels]).numpy()
    expected = np.column_stack([np.rint(theirs.data * 255 / 16), theirs.target])
    # The same images as a multiset: sorted rows are equal.
    assert sorted(map(tuple, np.column_stack([pixels, labels]).tolist())) == sorted(
        map(tuple, expected.astype(int).tolist())
    )


def test_shape_classes_and_split():
    digits = load("digits")
    assert digits.train_images.shape == (1437, 1, 8, 8)
    assert digits.test_images.shape == (360, 1, 8, 8)
    assert digits.train_images.dtype == torch.uint8
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)
    assert digits.classes == tuple("0123456789")
    # Between 174 and 183 images a class, a fifth of them: 35 to 37.
    counts = digits.test_labels.bincount()
    assert counts.min() >= 34
    assert counts.max() <= 38
    whole = counts + digits.train_labels.bincount()
    assert ((counts - whole * 360 / 1797).abs() <= 1).all()


def test_the_split_is_fixed_for_ever():
    # Archived runs were tested on these images.
    digits = load("digits")
    assert digits.test_labels[:20].tolist() == TEST_LABELS
    assert digits.digest == DIGEST


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"digits: scikit-learn.*pip install scikit-learn"):
        load("digits")
