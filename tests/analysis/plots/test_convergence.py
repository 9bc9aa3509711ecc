"""Figures: what is drawn where, and that the files are there, readable and unchanging."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from gbn import plot_style as style
from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.estimates.pairs import t_quantile
from gbn.analysis.looks import looks_of_plan
from gbn.analysis.plots import convergence as plots
from gbn.analysis.plots.labels import spread
from gbn.analysis.plots.lines import difference_line, mean_line
from gbn.analysis.runs.load import load_grid_runs
from gbn.studies.validation.simulate import Arm, Machine, write_runs


@pytest.fixture
def comparison(grid, results):
    return Comparison(load_grid_runs(grid, results))


def of(grid, folder, machine=None, options=None):
    write_runs(grid.records(machine), folder)
    return Comparison(load_grid_runs(grid, folder), options or Options())


def test_files_are_there_and_readable(comparison, tmp_path):
    pictures, notes = plots.pictures(comparison)
    paths = style.save(pictures, tmp_path / "figures", paper=True)
    assert [path.name for path in paths] == [
        f"simulated-{unit}.{suffix}" for unit in ("updates", "seconds") for suffix in ("png", "pdf")
    ]
    assert notes == []
    for path in paths:
        if path.suffix == ".png":
            image = Image.open(path).convert("RGB")
            assert image.width == round(style.WIDTH * style.DPI)  # a printed page's width at 200 dots an inch
            pixels = np.asarray(image).reshape(-1, 3)
            for color in {look.light for look in looks_of_plan(comparison.runs.plan).values()}:
                wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
                assert (np.abs(pixels.astype(int) - wanted).max(axis=1) < 8).sum() > 100, color
        else:
            content = path.read_bytes()
            assert content.startswith(b"%PDF")
            assert b"CreationDate" not in content


def test_an_unchanged_figure_is_an_unchanged_file(comparison, tmp_path):
    first, second = (style.save(plots.pictures(comparison)[0], tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_panels_labels_and_axes(comparison):
    figure = plots.draw(comparison, "", "updates")
    accuracy, loss, difference = figure.axes
    assert [line.get_label() for line in accuracy.get_lines()][:4] == [
        "bn",
        "gbn_fast",
        "bn_matched",
        "bn_reparam",
    ]
    assert accuracy.get_ylabel() == "validation accuracy (%)"
    assert loss.get_ylabel() == "validation loss"
    assert difference.get_ylabel() == "accuracy - bn (points)"
    assert {axes.get_xlabel() for axes in figure.axes} == {"updates"}
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}
    assert {text.get_text() for text in difference.texts} == {"bn", "gbn_fast", "bn_matched", "bn_reparam"}
    caption = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "mean over 8 seeds; bands: pointwise 95 % t interval" in caption
    targets = [line for line in accuracy.get_lines() if line.get_label().startswith("_")]
    assert [line.get_ydata()[0] for line in targets] == [0.6, 0.8]


def test_the_horizontal_axis_can_be_linear(comparison):
    figure = plots.draw(comparison, "", "updates", linear=True)
    assert {axes.get_xscale() for axes in figure.axes} == {"linear"}
    assert "Horizontal axes" not in " ".join(text.get_text() for text in figure.texts)


def test_accuracies_stay_between_0_and_100_whatever_the_bands(make_grid, tmp_path):
    figure = plots.draw(
        of(
            make_grid(seeds=range(2), arms={"bn": Arm(spread=2), "gbn": Arm(spread=2)}, controls={}), tmp_path
        ),
        "",
        "updates",
    )
    low, high = figure.axes[0].get_ylim()
    assert low >= 0
    assert high <= 1.02


def test_a_short_axis_has_numbers_between_the_powers_of_ten(make_grid, tmp_path):
    figure = plots.draw(of(make_grid(updates=60), tmp_path), "", "updates")
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert {"5", "10", "20", "50"} <= set(shown)


def test_nothing_is_drawn_outside_the_page(comparison):
    figure = plots.draw(comparison, "", "updates")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    width, height = figure.get_size_inches() * figure.dpi
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    assert len(texts) == 6
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0, text.get_text()
        assert box.x1 <= width, text.get_text()
        assert box.y0 >= 0, text.get_text()
        assert box.y1 <= height, text.get_text()


def test_names_at_line_ends_do_not_overlap(comparison):
    figure = plots.draw(comparison, "", "updates")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = sorted(
        (Text.get_window_extent(text, renderer) for text in figure.axes[2].texts),
        key=lambda b: b.y0,
    )
    assert len(boxes) == 4
    for lower, upper in itertools.pairwise(boxes):
        assert upper.y0 >= lower.y1 - 2.5  # an underscore may touch the next name's ascender


def test_arms_of_a_row_differ_in_color_and_style(make_grid, tmp_path):
    arms = {"bn": Arm(), **{f"gbn_{k}": Arm(speed=1 + k / 10) for k in range(8)}}
    grid = make_grid(arms=arms, controls={}, seeds=range(2))
    figure = plots.draw(of(grid, tmp_path), "", "updates")
    assert len(figure.axes) == 6  # eight arms and the reference: two rows of at most six arms
    for axes in (figure.axes[0], figure.axes[3]):
        lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
        assert len({line.get_color() for line in lines}) == len(lines) >= 3
        assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)


def test_the_band_is_the_t_interval_over_seeds(comparison):
    line = mean_line(comparison.runs, "", "gbn_fast", "val_accuracy", "updates")
    curves = [comparison.runs.columns("", "gbn_fast", s, ["update", "val_accuracy"]) for s in range(8)]
    values = np.array([accuracy for _, accuracy in curves])
    assert np.array_equal(line.x, curves[0][0])
    assert np.allclose(line.mean, values.mean(axis=0))
    half = t_quantile(0.975, 7) * values.std(axis=0, ddof=1) / math.sqrt(8)
    assert np.allclose(line.high - line.mean, half)
    assert np.allclose(line.mean - line.low, half)


def test_the_difference_is_paired(comparison):
    line = difference_line(comparison.runs, "", "gbn_fast", "bn", "val_accuracy", "updates")
    alone = mean_line(comparison.runs, "", "gbn_fast", "val_accuracy", "updates")
    pairs = [
        np.subtract(*(comparison.runs.columns("", arm, s, ["val_accuracy"])[0] for arm in ("gbn_fast", "bn")))
        for s in range(8)
    ]
    assert np.allclose(line.mean, np.mean(pairs, axis=0))
    assert np.mean(line.high - line.low) < 0.5 * np.mean(alone.high - alone.low)


def test_seconds_are_averaged_at_equal_seconds(make_grid, tmp_path):
    grid = make_grid(arms={"bn": Arm(noise=0, spread=0)}, controls={}, seeds=[0, 1])
    records = grid.records()
    for point in records[1].curve:
        point["seconds"] *= 2
    write_runs(records, tmp_path)
    line = mean_line(load_grid_runs(grid, tmp_path), "", "bn", "val_accuracy", "seconds")
    assert line.x[0] == pytest.approx(0.1)  # the slower seed's first point
    assert line.x[-1] == pytest.approx(20)  # the faster one's last
    fast, slow = (0.9 * (1 - 1 / (1 + updates / 40)) for updates in (100, 50))
    at_one_second = np.interp(0.0, np.log(line.x), line.mean)
    assert at_one_second == pytest.approx((fast + slow) / 2, abs=2e-3)


def test_one_seed_has_no_band_and_the_caption_says_so(make_grid, tmp_path):
    comparison = of(make_grid(seeds=[0]), tmp_path)
    assert mean_line(comparison.runs, "", "bn", "val_accuracy", "updates").low is None
    figure = plots.draw(comparison, "", "updates")
    assert not figure.axes[0].collections
    assert "one seed has no band" in " ".join(text.get_text() for text in figure.texts)


def test_a_line_ends_where_a_seed_diverged(make_grid, tmp_path):
    grid = make_grid(arms={"bn": Arm(), "gbn_wild": Arm(diverges_at=300)}, controls={})
    comparison = of(grid, tmp_path)
    line = mean_line(comparison.runs, "", "gbn_wild", "val_accuracy", "updates")
    assert line.cut_by_divergence
    assert line.x[-1] < 300
    figure = plots.draw(comparison, "", "updates")
    assert any(drawn.get_marker() == "x" for drawn in figure.axes[0].get_lines())
    assert "a seed diverged" in " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def test_a_shared_clock_has_no_figure_against_seconds(make_grid, tmp_path):
    pictures, notes = plots.pictures(of(make_grid(), tmp_path, Machine(clock="shared")))
    assert [picture.name for picture in pictures] == ["simulated-updates"]
    assert notes == [
        "No figure against seconds: shared clock (32 of 32 runs shared their machine with other work)."
    ]


def test_settings_have_figures_of_their_own(make_grid, tmp_path):
    grid = make_grid(settings=("cnn", "model=a b"), seeds=range(2))
    write_runs([r for r in grid.records() if r.config["model"]["name"] == "cnn"], tmp_path)
    comparison = Comparison(load_grid_runs(grid, tmp_path))
    pictures, notes = plots.pictures(comparison)
    assert [picture.name for picture in pictures] == ["simulated-cnn-updates", "simulated-cnn-seconds"]
    assert notes == ["No figure of model=a b: no finished run."]


def test_a_measure_that_was_never_taken_draws_nothing(comparison):
    assert mean_line(comparison.runs, "", "bn", "val_accuracy_exact", "updates") is None
    plots.draw(Comparison(comparison.runs, Options("val_accuracy_exact")), "", "updates")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 2), max_size=8).map(sorted), st.floats(0.01, 0.3))
def test_names_are_spread_apart_and_stay_in_order(wanted, gap):
    places = spread(wanted, gap)
    assert len(places) == len(wanted)
    assert all(b - a >= gap * (1 - 1e-9) for a, b in itertools.pairwise(places))
    if all(b - a >= gap for a, b in itertools.pairwise(wanted)):
        assert places == pytest.approx(wanted)
