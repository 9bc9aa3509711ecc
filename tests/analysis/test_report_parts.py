"""The parts of the report alone: looks, places on an axis, protocols, numbers, differences, weak baselines."""

import colorsys
import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbn.analysis import looks
from gbn.analysis.comparison.figures import Figure, Figures
from gbn.analysis.estimates.estimate import NOTHING, Estimate
from gbn.analysis.report import charts, competence, configurations, forest, protocol
from gbn.measures import measure


def hue(color):
    """The hue of #rrggbb."""
    return round(colorsys.rgb_to_hsv(*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0], 2)


class TestLooks:
    def test_a_control_has_the_hue_of_its_arm(self):
        arms = ["bn", "a", "a1", "a2", "b"]
        made = looks.looks_of(arms, "bn", {"a": ["a1", "a2"]})
        assert list(made) == arms
        assert len({made[name].light for name in arms}) == len(arms)
        assert len({hue(made[name].light) for name in ("a", "a1", "a2")}) == 1 != hue(made["b"].light)
        assert len({made[name].dash for name in ("a", "a1", "a2")}) == 3
        assert [made[name].of for name in arms] == ["", "", "a", "a", ""]

    @given(st.integers(1, 70), st.integers(0, 6))
    def test_no_two_arms_look_alike(self, families, controls):
        inner = {f"arm{i}": [f"arm{i}c{k}" for k in range(controls)] for i in range(families)}
        arms = ["bn", *(name for arm, own in inner.items() for name in (arm, *own))]
        made = looks.looks_of(arms, "bn", inner)
        assert len({(look.light, look.dash, look.marker) for look in made.values()}) == len(arms)
        assert len({(look.dark, look.dash, look.marker) for look in made.values()}) == len(arms)

    def test_a_control_without_its_arm_stands_alone(self):
        made = looks.looks_of(["bn", "c"], "bn", {"gone": ["c"]})
        assert made["c"].of == ""


class TestForest:
    def test_places_are_symmetric_in_the_logarithm(self):
        row = forest.interval(Estimate(1.0, 1.0, 0.5, 2.0, 8, "paired t"), reach=4)
        assert (row.low, row.value, row.high) == (25, 50, 75)
        assert (row.low_cut, row.high_cut, row.verdict, row.stands) == (False, False, "", False)

    def test_what_lies_outside_is_cut(self):
        row = forest.interval(Estimate(1.5, 1.5, 1.1, 9.0, 8, "paired t", p_holm=0.01), reach=4)
        assert (row.high, row.high_cut, row.verdict, row.stands) == (100, True, "faster", True)

    @pytest.mark.parametrize(
        ("low", "high", "bound", "drawn"),
        [(1.5, math.inf, "at least", True), (0, 0.5, "at most", True), (0, math.inf, "", False)],
    )
    def test_a_bound_is_marked_as_one(self, low, high, bound, drawn):
        row = forest.interval(Estimate(low, high, math.nan, math.nan, 4, "median"), reach=4)
        assert (row.bound, row.value is not None, row.low) == (bound, drawn, None)

    def test_no_pair_is_nothing(self):
        row = forest.interval(NOTHING, reach=4)
        assert (row.text, row.value, row.low) == ("-", None, None)

    @given(st.floats(1.25, 16))
    def test_ticks_hold_one_and_lie_inside(self, reach):
        ticks = forest._ticks(reach)
        assert (50, "1") in ticks
        assert all(0 <= place <= 100 for place, _ in ticks)
        assert 3 <= len(ticks) <= 5


class TestProtocol:
    TEXT = """# a title

**Question.** Is `a` faster than
[b](b.md)?

**Protocol.** Runs. <script>alert(1)</script> ![picture](https://example.org/x.png) [code](../x.py)
[paper](https://arxiv.org/abs/1) [bad](javascript:alert(1))

| a | b |
|---|---|
| 1 | 2 |
"""

    def test_the_question_is_its_paragraph_as_plain_text(self):
        assert protocol.question(self.TEXT) == "Is a faster than b?"
        assert protocol.question("# none\n\ntext") == ""

    def test_markdown_is_rendered_and_nothing_else_gets_through(self):
        html = protocol.html(self.TEXT)
        assert "<table>" in html
        assert "<h1>" not in html
        assert '<a href="https://arxiv.org/abs/1">paper</a>' in html
        assert "<a>code</a>" in html
        assert "<script" not in html
        assert "<img" not in html
        assert "picture" in html
        assert 'href="javascript' not in html

    def test_without_a_readme_there_is_none(self, tmp_path):
        assert protocol.readme(tmp_path) == ""
        assert protocol.readme(None) == ""
        (tmp_path / "README.md").write_text("x")
        assert protocol.readme(tmp_path / "sweep.yaml") == "x"


class TestRounding:
    @pytest.mark.parametrize(
        ("value", "short"),
        [(0.123456789, 0.12346), (128.0, 128), (math.nan, None), (math.inf, None), (None, None)],
    )
    def test_five_digits_and_nothing_json_lacks(self, value, short):
        assert charts.short(value) == short

    @given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner)))
    def test_embedded_json_reads_back_and_holds_no_markup(self, data):
        text = charts.embedded(data)
        assert json.loads(text) == data
        assert not set("<>&\u2028\u2029") & set(text)


def test_long_lines_are_thinned_with_their_ends():
    kept = charts._kept(10_000)
    assert (kept[0], kept[-1], len(kept)) == (0, 9_999, charts.MOST_POINTS)
    assert charts._kept(3).tolist() == [0, 1, 2]


def test_differences_of_configurations():
    reference = {"norm": {"name": "bn", "method": "bn"}, "optimizer": {"lr": 0.1}, "launcher": {"jobs": 1}}
    config = {
        "norm": {"name": "x", "method": "gbn", "alpha": 0.75},
        "optimizer": {"lr": 0.1},
        "launcher": {"jobs": 2},
    }
    found = configurations.differences(config, reference)
    assert found == [
        ("norm.alpha", "0.75", "not set"),
        ("norm.method", "gbn", "bn"),
    ]


def baseline(accuracy, others, key="test_accuracy"):
    config = {"dataset": {"name": "mnist"}, "model": {"name": "lenet"}, "trainer": {"epochs": 10.0}}
    estimate = Estimate(accuracy, accuracy, math.nan, math.nan, 1, "mean")
    usable = type("Usable", (), {"run_id": ["r"], "__len__": lambda self: 1})()
    runs = SimpleNamespace(
        plan=SimpleNamespace(reference="bn", settings=[""]), usable=lambda setting, arm: usable
    )
    last = Figure("", "last", "bn", estimate)
    figures = Figures(measure(key), (), {}, {last.key: last})
    known = [({**config, "dataset": {"name": name}}, value) for name, value in others]
    return competence.baselines(runs, figures, {"r": SimpleNamespace(config=config)}, known)[0]


def test_a_weak_baseline_is_said_to_be_weak():
    assert baseline(0.985, [("mnist", 0.99), ("cifar10", 0.85)]).warning == ""
    weak = baseline(0.95, [("mnist", 0.99), ("mnist", 0.97)])
    assert weak.warning.startswith("A weak baseline: 4.0 points below the competence run")
    assert weak.known == (("lenet", "10 epochs", "99.00"), ("lenet", "10 epochs", "97.00"))
    assert "No competence run on mnist" in baseline(0.99, [("cifar10", 0.85)]).warning


def test_no_classifier_vouches_for_a_generator():
    found = baseline(0.0214, [("mnist", 0.99)], "kid_inception")
    assert (found.value, found.measured, found.known) == ("21.40", "KID x 1000 (Inception)", ())
    assert found.warning.startswith("No competence run is measured by KID x 1000 (Inception)")
