"""The figure of a tuning stage: every accuracy at its rate, the selected rate filled, a panel a group."""

import pytest

from gbn.analysis.comparison.selection import BestRate
from gbn.analysis.looks import REFERENCE, looks_of
from gbn.analysis.plots import rates as rates_plot
from gbn.measures import measure

ACCURACY = measure("val_full_accuracy")

RATES = ("0.01", "0.1", "1.0")


def best(group, arm, values):
    found = dict(zip(RATES, values, strict=True))
    chosen = max(found, key=found.get)
    return BestRate(group, arm, chosen, found, chosen in (RATES[0], RATES[-1]))


@pytest.mark.parametrize("groups", [("",), ("batch_1", "batch_2", "batch_6", "batch_60")])
def test_points_selection_and_panels(groups):
    values = {"bn": (0.2, 0.5, 0.4), "bnp": (0.3, 0.35, 0.6)}
    found = [best(group, arm, accuracies) for group in groups for arm, accuracies in values.items()]
    figure = rates_plot.draw(found, "tuning", looks_of(["bn", "bnp"], "bn", {}), 2, ACCURACY)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(groups)
    for axes in figure.axes:
        named = {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
        assert set(named) == set(values)
        assert named["bn"].get_color() == REFERENCE[0]
        for arm, line in named.items():
            assert list(line.get_xdata()) == [float(rate) for rate in RATES]
            assert list(line.get_ydata()) == pytest.approx([100 * value for value in values[arm]])
        selected = {
            (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
            for line in axes.get_lines()
            if len(line.get_xdata()) == 1
        }
        assert selected == {(0.1, 50.0), (1.0, 60.0)}
