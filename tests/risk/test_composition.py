"""Free composition, and what pairs are as Python objects."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import gbn.risk
from gbn.risk import Deviation, Quadrangle, Statistic, compose, deviation, quadrangle, statistic


def test_any_statistic_with_any_deviation(statistic: Statistic) -> None:
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    for name in gbn.risk.DEVIATIONS:
        pair = compose(statistic, name)
        torch.testing.assert_close(pair.statistic(x, 1), statistic(x, 1))
        torch.testing.assert_close(pair.deviation(x, 1), gbn.risk.deviation(name)(x, 1))
        assert pair.homogeneous == (statistic.homogeneous and pair.D.homogeneous)


def test_three_ways_to_name_a_part() -> None:
    by_mapping = compose({"name": "quantile", "alpha": 0.6}, {"name": "cvar", "alpha": 0.75})
    by_object = compose(statistic("quantile", alpha=0.6), deviation("cvar", alpha=0.75))
    assert by_mapping == by_object
    assert by_mapping.name == "quantile+cvar"
    assert by_mapping.parameters["statistic"]["alpha"] == 0.6
    assert deviation("std") == compose("mean", "std").D


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"the statistic was given as 0\.5; give a name"):
        compose(0.5, "std")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the deviation was given as"):
        compose("mean", statistic("mean"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown deviation 'standard'"):
        compose("mean", "standard")
    with pytest.raises(AttributeError, match=r"module 'gbn\.risk' has no attribute 'nothing'"):
        gbn.risk.nothing  # noqa: B018


def test_deviation_knows_its_statistic(pair: Quadrangle) -> None:
    about = pair.D.about
    assert type(about) is type(pair.S)
    shared = {k: v for k, v in pair.S.parameters.items() if k in pair.D.parameters}
    assert shared == {k: about.parameters[k] for k in shared}


def test_objects(pair: Quadrangle) -> None:
    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    for twin in (
        copy.deepcopy(pair),
        pickle.loads(pickle.dumps(pair)),
        quadrangle(pair.name, **pair.parameters),
    ):
        assert twin == pair
        assert hash(twin) == hash(pair)
        torch.testing.assert_close(twin.deviation(x), pair.deviation(x), rtol=0, atol=0)
        assert twin.has_error == pair.has_error
    with pytest.raises(AttributeError):
        pair.S.name_of_nothing = 1  # type: ignore[attr-defined]


def test_public_names_load() -> None:
    for name in gbn.risk.__all__:
        assert getattr(gbn.risk, name) is not None
    assert issubclass(gbn.risk.Statistic, gbn.risk.Functional)
    assert issubclass(Deviation, gbn.risk.Functional)
