"""Figures of recorded layers: what is drawn where, for which arms, and how the script answers."""

import numpy as np
import pytest

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.pairs import t_quantile
from gbn.analysis.plots import layers as layer_plots
from gbn.analysis.plots.convergence import PanelRow
from gbn.analysis.plots.layers import Choice
from gbn.analysis.runs.activations import layer_frame
from gbn.analysis.runs.load import load_grid_runs
from gbn.plot_style import save

ROW = PanelRow("gbn_fast and its controls", (("bn", "bn"), ("gbn_fast", "gbn_fast")))


@pytest.fixture
def drawn(grid, recorded):
    """(frame, comparison) of two recorded arms of four."""
    runs = load_grid_runs(grid, recorded)
    return layer_frame(runs), Comparison(runs)


def test_rows_are_quantities_and_columns_layers(drawn):
    frame, comparison = drawn
    chosen = Choice(("active", "weight_norm", "deviation"), ("stem.norm", "last.norm"))
    figure = layer_plots.draw(frame, comparison, "", ROW, chosen)
    assert len(figure.axes) == 4  # deviation has no value anywhere, so no row
    active, _, norm_stem, norm_last = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["stem.norm", "last.norm"]
    assert active.get_ylabel() == "active share\nafter ReLU"
    assert (active.get_yscale(), norm_stem.get_yscale(), active.get_xscale()) == ("linear", "log", "log")
    lines = {line.get_label(): line for line in active.get_lines()}
    assert {"bn", "gbn_fast"} <= set(lines)
    # eight seeds: 0.3 + 0.01 seed + update / 10,000
    np.testing.assert_allclose(lines["bn"].get_xdata(), [5, 100, 2000])
    np.testing.assert_allclose(lines["bn"].get_ydata(), [0.3355, 0.345, 0.535], rtol=1e-6)
    band = active.collections[0].get_paths()[0].vertices
    last = 0.5 + 0.01 * np.arange(8)
    half = t_quantile(0.975, 7) * last.std(ddof=1) / np.sqrt(8)
    assert band[:, 1].max() == pytest.approx(0.535 + half)
    geometric = np.exp(np.log(100 * last).mean())
    (line,) = [line for line in norm_last.get_lines() if line.get_label() == "bn"]
    assert line.get_ydata()[-1] == pytest.approx(geometric)


def test_a_quantity_that_a_layer_lacks_says_so(drawn):
    frame, comparison = drawn
    without = frame[(frame.layer != "last.norm") | (frame.quantity != "active")]
    chosen = Choice(("active",), ("stem.norm", "last.norm"))
    _, last = layer_plots.draw(without, comparison, "", ROW, chosen).axes
    assert [text.get_text() for text in last.texts] == ["not defined here"]


def test_arms_without_recordings_are_left_out_and_files_are_unchanging(drawn, tmp_path):
    frame, comparison = drawn
    chosen = Choice(("active", "dead"), ("stem.norm",))
    pictures, notes = layer_plots.pictures(frame, comparison, chosen)
    first = save(pictures, tmp_path / "a")
    assert [path.name for path in first] == ["simulated-layers.png"]
    assert notes == []
    second = save(layer_plots.pictures(frame, comparison, chosen)[0], tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    figure = layer_plots.draw(frame, comparison, "", ROW, chosen)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bn", "gbn_fast"]
    nothing, notes = layer_plots.pictures(frame[:0], comparison, chosen)
    assert nothing == []
    assert notes == ["No figure of these runs: no run has recordings of its layers."]


def test_a_wide_band_does_not_flatten_the_lines():
    shown = layer_plots.QUANTITIES["skewness"]
    lines = np.array([0.0, 1.0])
    assert layer_plots._limits(lines, np.array([-50.0, 50.0]), shown) == pytest.approx((-1.15, 2.15))
    assert layer_plots._limits(lines, np.array([np.nan]), shown) == pytest.approx((-0.05, 1.05))
    flat = layer_plots._limits(np.array([2.0, 2.0]), np.array([2.0]), shown)
    assert flat == pytest.approx((1.78, 2.22))  # no difference is drawn as none
    share = layer_plots._limits(np.array([0.0, 0.01]), np.array([-0.4, 0.4]), layer_plots.QUANTITIES["dead"])
    assert -0.02 < share[0] < 0


def test_ticks_are_short():
    assert [layer_plots._short(value, 0) for value in (0.0, 0.25, 0.01, 8.5e-4, 1e-3, 300.0)] == [
        "0",
        "0.25",
        "0.01",
        "8.5e-4",
        "1e-3",
        "300",
    ]


def test_an_unknown_quantity_is_refused():
    with pytest.raises(ValueError, match="no quantity 'activity' is recorded; choose from statistic"):
        Choice(("activity",))


def test_a_figure_without_a_panel_is_refused(drawn):
    frame, comparison = drawn
    with pytest.raises(ValueError, match=r"none of deviation, slope is defined in stem\.norm"):
        layer_plots.draw(frame, comparison, "", ROW, Choice(("deviation", "slope"), ("stem.norm",)))
