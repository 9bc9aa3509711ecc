"""Table and figure of a study of gradient variance, from numbers whose means are known."""

import math
from pathlib import Path

import numpy as np
import pytest

from gbn.plot_style import save
from gbn.studies.gradient_variance import plot as gradient_variance_plot
from gbn.studies.gradient_variance import table as gradient_variance

ROOT = Path(__file__).resolve().parents[2]
HEADER = {
    "title": "the title of the study",
    "baseline": "plain",
    "trajectory": "centered",
    "exact": "exact",
    "command": "python scripts/gradient_variance.py experiments/some",
    "device": "Some CPU",
    "versions": "torch 2.13.0",
    "commit": "0123456789",
    "dirty": None,
    "date": "2026-11-25",
}
ARMS = {"exact": 8.0, "centered": 1.25, "plain": 1.0}
LAYERS = ("first.conv", "head", "network")


def rows(seeds=3, sizes=(32, 128, 512), lost=()):
    """Each seed's numbers lie evenly about the truth in the logarithm (cosines: as they are)."""
    made = []
    for seed in range(seeds):
        off = 0.1 * (seed - (seeds - 1) / 2)
        shared = {"seed": seed, "batches": 16}
        for update in (0, 93):
            place = {**shared, "update": update, "batch_size": 128}
            for arm, factor in ARMS.items():
                for layer in LAYERS:
                    at = {**place, "arm": arm, "layer": layer, "against": ""}
                    variance = factor * math.exp(off)
                    square = -0.1 if (arm, seed) in lost else 0.5
                    made += [
                        {**at, "quantity": "variance", "value": variance, "error": 0.1},
                        {**at, "quantity": "mean_square", "value": square, "error": 0.1},
                        {**at, "quantity": "noise_scale", "value": 128 * variance / square, "error": 9.0},
                        {**at, "quantity": "along_rms", "value": 1e-4 * math.exp(off), "error": 1e-6},
                    ]
                    for other, of_other in ARMS.items():
                        if other != arm:
                            ratio = factor / of_other * math.exp(off)
                            pair = {**at, "against": other}
                            made += [
                                {**pair, "quantity": "variance_ratio", "value": ratio, "error": 0.05 * ratio},
                                {**pair, "quantity": "cosine", "value": 0.9 + off, "error": 0.02},
                            ]
        for size in sizes:
            for arm, power in (("exact", 0.0), ("centered", -1.0)):
                at = {**shared, "update": 0, "batch_size": size, "arm": arm, "layer": "first", "against": ""}
                for quantity in gradient_variance.BY_SIZE:
                    value = 7.0 * (size / 32) ** (power + off)
                    made.append({**at, "quantity": quantity, "value": value, "error": 0.1})
    return made


def written(tmp_path, header=HEADER, **changes):
    path = tmp_path / "some-small.csv"
    gradient_variance.write(path, header, rows(**changes))
    return path


def study(tmp_path, **changes):
    return gradient_variance.read(written(tmp_path, **changes))


def test_what_is_written_is_read(tmp_path):
    read = study(tmp_path)
    assert read.header == HEADER
    assert (read.arms, read.states, read.layers) == (list(ARMS), [0, 93], ["first.conv", "head"])
    assert read.sizes == [32, 128, 512]
    assert len(read.rows) == len(rows())
    assert not read.rows.against.isna().any()


def test_means_over_seeds_and_their_intervals(tmp_path):
    read = study(tmp_path)
    ratio = read.over_seeds("exact", "variance_ratio", "plain", update=93)
    assert (ratio.n, ratio.value_low) == (3, pytest.approx(8.0, rel=1e-5))
    half = 4.302653 * 0.1 / math.sqrt(3)  # t quantile of two degrees of freedom
    assert math.log(ratio.high / 8.0) == pytest.approx(half, rel=1e-3)
    assert math.log(ratio.low / 8.0) == pytest.approx(-half, rel=1e-3)
    cosine = read.over_seeds("exact", "cosine", "plain", update=0)
    assert cosine.value_low == pytest.approx(0.9)
    assert cosine.high - cosine.low == pytest.approx(2 * half, rel=1e-3)
    assert read.over_seeds("exact", "variance_ratio", "exact", update=0).n == 0


def test_the_power_of_the_batch_size(tmp_path):
    read = study(tmp_path)
    assert read.slope("exact", "statistic_variance").value_low == pytest.approx(0.0, abs=1e-5)
    centered = read.slope("centered", "through_variance")
    assert (centered.n, centered.value_low) == (3, pytest.approx(-1.0, rel=1e-5))
    assert read.at_size("exact", "statistic_variance", 512).value_low == pytest.approx(7.0, rel=1e-5)


def test_a_mean_that_noise_hides_is_no_number(tmp_path):
    read = study(tmp_path, lost={("exact", 1)})
    scale = read.over_seeds("exact", "noise_scale", update=0)
    assert scale.n == 3
    assert math.isnan(scale.value_low)
    text = gradient_variance.markdown(read, "some-small")
    (line,) = [line for line in text.splitlines() if line.startswith("| exact") and " ? " in line][:1]
    assert "8.00 [" in line
    gradient_variance_plot.draw(read)


def test_the_table_says_what_was_measured(tmp_path):
    text = gradient_variance.markdown(study(tmp_path), "some-small")
    for part in ("some-small.png", "## After 0 updates", "## After 93 updates", "3 seeds", "same 16 independent",
                 "at most 5 % of a variance ratio, at most 0.02 for a cosine", "- commit: 0123456789",
                 "experiments/some", "8.00 [6.24, 10.3]", "0.900 [0.652, 1.148]", "| first.conv"):  # fmt: skip
        assert part in text, part
    assert "dirty" not in text
    by_size = [line for line in text.splitlines() if line.startswith("| centered") and "7 " in line]
    assert [cell.strip() for cell in by_size[0].split("|")[2:6]][:3] == ["7", "1.75", "0.438"]


def test_one_seed_has_no_interval_and_sizes_may_be_missing(tmp_path):
    read = study(tmp_path, seeds=1, sizes=())
    text = gradient_variance.markdown(read, "some-small")
    assert "against the batch size" not in text
    assert "[" not in "".join(line for line in text.splitlines() if line.startswith("| exact"))
    figure = gradient_variance_plot.draw(read)
    assert len(figure.axes) == 3


def test_the_figure_shows_every_arm_and_state(tmp_path):
    read = study(tmp_path)
    figure = gradient_variance_plot.draw(read)
    ratios, scales, cosines, along, through, statistic = figure.axes
    assert [label.get_text() for label in ratios.get_yticklabels()] == list(ARMS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "after 0 updates",
        "after 93 updates",
    ]
    first = ratios.containers[0].lines[0]
    np.testing.assert_allclose(
        np.asarray(first.get_xdata(), float), [8.0, 1.25], rtol=1e-5
    )  # the baseline has no ratio to itself
    np.testing.assert_allclose(np.asarray(first.get_ydata(), float), [-0.1, 0.9])
    assert len(scales.containers[0].lines[0].get_xdata()) == 3
    assert len(cosines.containers) == len(along.containers) == 2
    for axes in (through, statistic):
        named = {line.get_label() for line in axes.get_lines() if not line.get_label().startswith("_")}
        assert named == {"exact", "centered"}
    save([gradient_variance_plot.picture(read, name) for name in ("one", "two")], tmp_path)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        gradient_variance.read(tmp_path / "absent.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a file of scripts/gradient_variance"):
        gradient_variance.read(tmp_path / "other.csv")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results/gradient_variance").glob("*.csv")), ids=lambda path: path.stem
)
def test_committed_tables_are_what_their_numbers_give(path):
    expected = gradient_variance.markdown(gradient_variance.read(path), path.stem)
    assert path.with_suffix(".md").read_text(encoding="utf-8") == expected
