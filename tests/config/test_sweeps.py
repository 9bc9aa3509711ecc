"""A sweep is composed whole before it trains: its values, their number, and what is impossible only together."""

import pytest

from gbn.config.errors import ConfigError
from gbn.config.sweeps import check_sweep, expand


def test_sweeps_expand_in_order_and_are_checked_before_they_start():
    runs = expand(["norm=bn,gbn_cvar", "seed=range(0,3)"])
    assert runs[:2] == [["norm=bn", "++seed=0"], ["norm=bn", "++seed=1"]]
    assert len(check_sweep(["norm=bn,gbn_cvar", "seed=range(0,3)"])[0]) == len(runs) == 6
    with pytest.raises(ConfigError, match="did you mean 'gbn_mad'"):
        check_sweep(["norm=bn,gbn_md", "seed=0"])
    for wrong in (
        ["optimizer.lr=0.1,-1"],
        ["seed=0,-1"],
        ["seed=range(0,3)", "norm=bn,group", "norm.alpha=1"],
    ):
        with pytest.raises(ConfigError, match=r"optimizer\.lr=-1|seed=-1|norm\.alpha"):
            check_sweep(wrong)


def test_a_combination_is_impossible_where_each_of_its_values_is_possible_elsewhere():
    configs, impossible = check_sweep(["model=lenet,cnn", "dataset=digits,mnist"])
    assert [(one.model.name, one.dataset.name) for one in configs] == [
        *(("lenet", "mnist"), ("cnn", "digits"), ("cnn", "mnist"))
    ]
    assert list(impossible) == ["model=lenet dataset=digits"]
    with pytest.raises(ConfigError, match="model=lenet needs images"):
        check_sweep(["model=lenet,cnn", "dataset=digits"])


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        ("choice(1,2)", [1, 2]),
        ("sort(3,1,2)", [1, 2, 3]),
        ("sort(range(0,3),reverse=true)", [2, 1, 0]),
        ("range(3)", [0, 1, 2]),
        ("range(3,0,-1)", [3, 2, 1]),
        ("tag(a,choice(1,2))", [1, 2]),
        ("1,1", [1, 1]),
    ],
)
def test_the_functions_of_sweeps_work(value, seeds):
    assert [config.seed for config in check_sweep([f"seed={value}"])[0]] == seeds


def test_glob_chooses_among_the_files_of_a_group():
    names = [config.norm.name for config in check_sweep(["norm=glob(gbn_*range*)"])[0]]
    assert names == ["gbn_lower_range", "gbn_range", "gbn_upper_range"]
    assert sorted(config.seed for config in check_sweep(["seed=shuffle(1,2,3)"])[0]) == [1, 2, 3]
