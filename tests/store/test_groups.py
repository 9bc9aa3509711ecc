"""A group is an arm in a setting: all that names a run but its seed."""

import pytest

from gbn.store.groups import group_of
from gbn.store.identity import run_id_of

KEPT = {
    "dataset": {"name": "cifar10", "revision": 1},
    "model": {"name": "cnn", "revision": 1},
    "norm": {"name": "gbn_cvar", "method": "gbn", "alpha": 0.6, "revision": 1},
    "optimizer": {"lr": 0.05},
    "seed": 0,
}


def test_it_is_the_run_id_without_the_seed():
    group = group_of(KEPT)
    assert group.startswith("cifar10-cnn-gbn_cvar_0.6-")
    assert group.rsplit("-", 1)[0] == run_id_of(KEPT).rsplit("-", 2)[0]
    assert KEPT["seed"] == 0  # the identity is left as it was


@pytest.mark.parametrize("seed", [1, 17])
def test_seeds_share_it(seed):
    assert group_of(KEPT | {"seed": seed}) == group_of(KEPT)


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"lr": 0.1}},
        {"norm": KEPT["norm"] | {"revision": 2}},
        {"dataset": {"name": "cifar10", "revision": 1, "subset": 500}},
    ],
)
def test_whatever_else_differs_makes_another(other):
    assert group_of(KEPT | other) != group_of(KEPT)


def test_an_identity_needs_its_parts():
    with pytest.raises(ValueError, match="norm"):
        group_of({key: part for key, part in KEPT.items() if key != "norm"})
