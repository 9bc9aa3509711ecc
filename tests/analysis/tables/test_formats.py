"""The files of a table: what they say, and that each format can be read by what it is for."""

import io
import re

import pandas as pd
import pytest

from gbn.analysis.comparison import figures
from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.results import summary_text
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables import formats
from gbn.studies.validation.simulate import Arm, Machine, write_runs


@pytest.fixture
def comparison(grid, results):
    return Comparison(load_grid_runs(grid, results))


def rows(markdown, heading):
    """The cells of the first Markdown table below a heading that begins so."""
    after = markdown.split(f"**{heading}", 1)[1]
    lines = [line for line in after.splitlines() if line.startswith("|") or not line][1:]
    table = []
    for line in lines:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif table:
            break
    return [table[0], *table[2:]]


def test_the_direction_is_printed_before_any_number(comparison):
    text = formats.markdown(comparison)
    assert "Speed-up = reference / arm, reference `bn`: greater than 1 means that the arm is faster." in text
    assert text.index("Speed-up = reference / arm") < text.index("|")
    assert "Made from 32 of 32 planned runs, read from the run store" in text
    assert "Devices: Simulated CPU, torch 2.13.0, kernels reference." in text


def test_every_arm_stands_beside_the_aa_row_and_its_controls(comparison):
    table = rows(formats.markdown(comparison), "Updates to a fixed accuracy")
    assert table[0] == [
        "arm",
        "updates to 60 %",
        "reached",
        "speed-up",
        "updates to 80 %",
        "reached",
        "speed-up",
    ]
    assert [row[0] for row in table[1:]] == [
        "bn",
        "A/A (bn against bn)",
        "gbn_fast",
        "bn_matched[gbn_fast]",
        "bn_reparam[gbn_fast]",
    ]
    assert table[1][2:4] == ["8/8", "1 (reference)"]
    assert re.fullmatch(r"1\.00 \[0\.\d\d, 1\.\d\d\]", table[2][3])
    assert re.fullmatch(r"1\.(4|5)\d \[1\.\d\d, 1\.\d\d\]\*", table[3][3])


def test_the_metric_of_the_maximum_has_its_aa_row_and_the_accuracy_difference(comparison):
    table = rows(formats.markdown(comparison), "Updates to the maximum of bn")
    assert table[0][-1] == "last - bn (points)"
    assert table[1][0] == "A/A (bn against bn)"
    assert table[1][1] == "56"
    assert re.fullmatch(r"[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]\*", table[2][-1])
    assert "Read a row only beside the A/A row" in formats.markdown(comparison)


def test_accuracies_have_three_selections_spread_and_n(comparison):
    table = rows(formats.markdown(comparison), "Test accuracy")
    assert table[0][1:5] == ["n", "last epoch", "best by validation", "best on test"]
    assert table[1][1] == "8"
    assert all(re.fullmatch(r"\d\d\.\d\d ± \d+\.\d\d", cell) for cell in table[1][2:5])
    last = comparison.figures.of_runs["", "bn"]["last"]
    assert table[1][2] == f"{100 * last.mean():.2f} ± {100 * last.std():.2f}"


def test_controls_are_compared_in_their_own_table(comparison):
    table = rows(formats.markdown(comparison), "Each arm against its own controls")
    assert [row[:2] for row in table[1:]] == [
        ["gbn_fast", "bn_matched[gbn_fast]"],
        ["gbn_fast", "bn_reparam[gbn_fast]"],
    ]


def test_measured_controls_bring_the_mean_training_loss(make_grid, tmp_path, monkeypatch):
    """Against the reference, and of the arm against its control."""
    control = "bn_measured_reparam[gbn_fast]"
    grid = make_grid(
        arms={name: Arm() for name in ("bn", "gbn_fast", control)}, controls={"gbn_fast": [control]}
    )
    write_runs(grid.records(), tmp_path)
    means = {"bn": 2.0, "gbn_fast": 1.75, control: 1.5}
    monkeypatch.setattr(figures, "_training_loss", lambda runs, setting, arm, seed: means[arm] + seed / 100)
    text = formats.markdown(Comparison(load_grid_runs(grid, tmp_path)))
    found = {row[0]: row[-2:] for row in rows(text, "Test accuracy")}
    assert found["arm"] == ["mean training loss, lower is better", "training_loss - bn"]
    assert found["bn"] == ["2.0350 ± 0.0245", "-"]
    assert found["gbn_fast"][1].startswith("-0.2500 [-0.2500, -0.2500]")
    header, against = rows(text, "Each arm against its own controls")
    place = header.index("training_loss")
    assert against[place].startswith("+0.2500 [+0.2500, +0.2500]")
    assert "bn_tracking has the arm's forward pass" in text


def test_it_says_what_this_many_pairs_can_decide(comparison):
    note = re.search(
        r"With up to 8 pairs, the smallest speed-up that can be distinguished from 1 is (1\.\d\d) \(median",
        summary_text(comparison),
    )
    estimates = [one.estimate for one in comparison.evidence.tests("", "updates", "bn")]
    widths = sorted(estimate.high / estimate.value_low for estimate in estimates)
    assert note[1] == f"{widths[len(widths) // 2]:.2f}"


def test_misses_are_shown_as_misses(make_grid, tmp_path):
    grid = make_grid(arms={"bn": Arm(), "gbn": Arm(final=0.7)}, controls={})
    write_runs(grid.records(), tmp_path)
    text = formats.markdown(Comparison(load_grid_runs(grid, tmp_path)))
    table = rows(text, "Updates to a fixed accuracy")
    assert table[3][4:6] == ["> 2,000", "0/8"]
    assert table[3][6].startswith("<= 0.")
    assert "Where a run missed the target, the speed-up is the median over pairs" in text


def test_one_seed_is_called_what_it_is(make_grid, tmp_path):
    grid = make_grid(seeds=[0])
    write_runs(grid.records(), tmp_path)
    text = formats.markdown(Comparison(load_grid_runs(grid, tmp_path)))
    assert "One pair has no interval: it decides nothing, whatever its ratio." in text
    assert "needs 2 seeds" in text


def test_what_is_missing_or_not_compared_is_listed(make_grid, tmp_path):
    grid = make_grid()
    write_runs([r for r in grid.records(Machine(clock="shared")) if r.config["seed"] != 7][:-1], tmp_path)
    text = formats.markdown(Comparison(load_grid_runs(grid, tmp_path)))
    assert "- bn: missing: seeds 7." in text
    assert "- bn_reparam[gbn_fast]: missing: seeds 6, 7." in text
    assert (
        "- seconds not compared: shared clock (27 of 27 runs shared their machine with other work)." in text
    )
    assert "unequal seeds" in text
    assert "Seconds to" not in text


def test_an_absent_reference_is_said(make_grid, tmp_path):
    grid = make_grid()
    write_runs([r for r in grid.records() if r.config["norm"]["name"] != "bn"], tmp_path)
    text = formats.markdown(Comparison(load_grid_runs(grid, tmp_path)))
    assert "no run of the reference bn: no speed-up can be given" in text


def test_the_csv_holds_the_numbers_that_are_printed(comparison):
    text = formats.csv(comparison)
    frame = pd.read_csv(io.StringIO(text), comment="#", keep_default_na=True)
    chosen = frame[
        (frame.quantity == "speedup_to_target") & (frame.arm == "gbn_fast") & (frame.against == "bn")
    ]
    row = chosen[(chosen.unit == "updates") & (chosen.target == 0.8)].iloc[0]
    printed = rows(formats.markdown(comparison), "Updates to a fixed accuracy")[3][6]
    assert printed == f"{row.value_low:.2f} [{row.interval_low:.2f}, {row.interval_high:.2f}]*"
    assert row.p_holm < 0.05
    assert row.verdict == "faster"
    causes = frame.quantity.str.startswith("effect_")
    assert len(frame[~causes]) == len(comparison.figures.of_arms) + len(comparison.evidence.contrasts)
    assert set(frame[causes].arm) == {"gbn_fast"}


def test_the_latex_is_balanced_and_escaped(comparison):
    text = formats.latex(comparison)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 9
    assert r"bn\_matched[gbn\_fast]" in text
    for line in text.splitlines():
        if line.startswith("%") or "\\caption" in line or "\\label" in line:
            continue
        assert not re.search(
            r"(?<!\\)[_%#$](?!\\(pm|geq|leq)\$)", re.sub(r"\$(\\pm|\\geq|\\leq|<|>)\$", "", line)
        ), line
    body = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}\n\\toprule\n(.*?)\\bottomrule", text, re.DOTALL)
    for columns, lines in body:
        for line in lines.splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1, line
    captions = re.findall(r"\\caption\{(.*)\}", text)
    assert len(captions) == 9
    for caption in captions:
        assert caption.count("{") == caption.count("}")


def test_latex_specials_are_escaped():
    assert formats._escape(r"a_b & 5 % >= <= < ± \x ~ ^ {c} #1 $") == (
        r"a\_b \& 5 \% $\geq$ $\leq$ $<$ $\pm$ \textbackslash{}x \textasciitilde{} \textasciicircum{} "
        r"\{c\} \#1 \$"
    )


def test_every_run_is_listed_with_where_it_came_from(comparison, grid):
    lines = formats.run_list(comparison).splitlines()
    listed = [line.split() for line in lines if not line.startswith("#")]
    assert {line[-1] for line in listed} == {
        run_id for cell in grid.cells for run_id in cell.run_ids.values()
    }
    assert all(len(line) == 6 for line in listed)
    assert {(line[3], line[4]) for line in listed} == {("finished", "store")}


def test_headers_tell_how_to_make_the_table_again(comparison, tmp_path):
    options = Options(measure="val_accuracy", interpolation="first")
    for path in formats.write(Comparison(comparison.runs, options), tmp_path / "t"):
        assert formats.read_header(path) == {
            "experiment": "experiments/simulated",
            "scale": None,
            "source": "store",
            "measure": "val_accuracy",
            "interpolation": "first",
        }
    other = tmp_path / "other.md"
    other.write_text("# Just text\n")
    assert formats.read_header(other) is None
    other.write_text("<!-- gbn-table {broken -->\n")
    assert formats.read_header(other) is None


def test_tables_are_the_same_however_often_they_are_made(comparison, grid, results):
    again = Comparison(load_grid_runs(grid, results))
    assert formats.render(again) == formats.render(comparison)


def test_a_padded_table_is_rectangular(comparison):
    for block in re.findall(r"(?:^\|.*\n)+", formats.markdown(comparison), re.MULTILINE):
        assert len({len(line) for line in block.splitlines()}) == 1


def test_rounding_noise_is_written_as_zero(make_grid, tmp_path):
    # The same curve under two names: every difference is zero, whatever order a processor sums in.
    grid = make_grid(arms={"bn": Arm(noise=0), "gbn_std": Arm(noise=0)}, controls={})
    write_runs(grid.records(), tmp_path)
    frame = pd.read_csv(io.StringIO(formats.csv(Comparison(load_grid_runs(grid, tmp_path)))), comment="#")
    row = frame[(frame.quantity == "last_difference") & (frame.arm == "gbn_std")].iloc[0]
    assert (row.value_low, row.interval_low, row.interval_high, row.sd) == (0, 0, 0, 0)
    numbers = frame.select_dtypes("float").abs()
    assert not ((numbers > 0) & (numbers < 1e-12)).any().any()
