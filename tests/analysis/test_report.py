"""The HTML report without a browser: what is in it, where its numbers come from, and what never gets in."""

import json
import re
from html.parser import HTMLParser

import pytest

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.comparison.times import speedup_curve
from gbn.analysis.estimates.survival import kaplan_meier
from gbn.analysis.plots.lines import difference_line, mean_line
from gbn.analysis.report import Sources, default_path, render, write
from gbn.analysis.report.document import command
from gbn.analysis.runs.load import load_any, load_grid_runs
from gbn.analysis.tables import numbers
from gbn.analysis.tables.sections import sections
from gbn.store.archive import Archive
from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, Machine, SimulatedGrid, write_runs

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
CONTROLS = {"gbn_fast": ["bn_matched[gbn_fast]", "bn_reparam[gbn_fast]"]}
ARMS = {
    "bn": Arm(),
    "gbn_fast": Arm(speed=1.5, own_spread=0.03),
    "bn_matched[gbn_fast]": Arm(speed=1.25, own_spread=0.03),
    "bn_reparam[gbn_fast]": Arm(speed=1.25, own_spread=0.03),
    "slow <b>&": Arm(speed=0.6, final=0.82, own_spread=0.1),
    "unstable": Arm(diverges_at=700),
}
GRID = SimulatedGrid(ARMS, controls=CONTROLS, seeds=range(6))


class Page(HTMLParser):
    """Tags, ids, addresses and visible text of a page, and the data embedded in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.words = [], [], [], []
        self.raw, self.data, self.inside = text, "", ""
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())
        self.data = json.loads(self.data) if self.data else None

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.tags.append(tag)
        self.ids += [known["id"]] if "id" in known else []
        self.addresses += [known[name] for name in ("src", "href", "action", "poster") if name in known]
        self.inside = "data" if known.get("id") == "data" else tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "data":
            self.data = (self.data or "") + data
        elif not self.inside:
            self.words.append(data)


def fail(folder, run_id, text):
    with RunStore(folder).writer(run_id) as writer:
        writer.write_config({"norm": {"name": "slow <b>&", "method": "gbn", "kwargs": ATTACK}})
        writer.write_error(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs but two of an arm: one failed, one is missing."""
    folder = tmp_path_factory.mktemp("results")
    gone = {GRID.record("", "slow <b>&", seed).run_id: seed for seed in (1, 2)}
    write_runs([record for record in GRID.records() if record.run_id not in gone], folder)
    fail(folder, next(iter(gone)), f"Traceback (most recent call last):\nRuntimeError: {ATTACK}")
    return folder


@pytest.fixture(scope="module")
def comparison(folder):
    return Comparison(load_grid_runs(GRID, folder))


@pytest.fixture(scope="module")
def page(comparison):
    return Page(render(Sources(comparison)))


def arm(page, name, what):
    return page.data["settings"][0][what][name]


class TestContent:
    def test_every_section_is_there_in_order(self, page):
        wanted = ["answer", "competence", "claims", "tables", "convergence", "thresholds", "survival"]
        wanted += ["layers", "configurations", "origin", "made"]
        assert [name for name in page.ids if name in wanted] == wanted
        assert [address for address in page.addresses if address.startswith("#")] == [
            "#main",
            *(f"#{name}" for name in wanted),
        ]

    def test_the_tables_are_those_of_the_markdown(self, page, comparison):
        for section in sections(comparison, ""):
            assert section.heading in page.text
            for row in section.rows:
                assert all(" ".join(cell.split()) in page.text for cell in row)

    def test_runs_are_counted_and_failures_shown_with_their_errors(self, page):
        for words in ("36 planned", "28 finished", "6 diverged", "1 failed", "1 missing"):
            assert words in page.text
        assert f"RuntimeError: {ATTACK}" in page.text

    def test_the_answer_names_each_arm_under_its_verdict(self, page, comparison):
        start = page.text.index("To 80 % accuracy, speed-up over bn")
        answer = page.text[start : page.text.index("Speed-up = reference / arm")]
        estimate = comparison.evidence.estimate("", "speedup_to_target", "gbn_fast", "bn", "updates", 0.8)
        assert re.search(rf"faster gbn_fast {re.escape(numbers.ratio(estimate))}", answer)
        assert "inconclusive slow <b>& <= " in answer  # four pairs with misses have no interval
        assert "bn_matched" not in answer  # a control is no candidate

    def test_configurations_differ_where_they_do_and_ids_are_listed(self, page):
        assert "norm.method gbn bn" in page.text
        assert all(
            entry.run_id in page.text for cell in GRID.cells for entry in [GRID.record("", cell.label, 3)]
        )

    def test_without_claims_recordings_and_competence_it_says_so(self, page):
        assert "No claims are recorded for these runs." in page.text
        assert "trainer.record.layers=true" in page.text
        assert "No competence run on simulated is archived" in page.text

    def test_a_reference_without_runs_is_no_error(self, tmp_path):
        write_runs(
            [r for r in GRID.records() if r.summary["identity"]["norm"]["name"] == "gbn_fast"], tmp_path
        )
        page = Page(render(Sources(Comparison(load_grid_runs(GRID, tmp_path)))))
        assert "No run of the reference bn yet, so no speed-up can be given." in page.text
        assert page.data["settings"][0]["speedups"] == {"updates": {}, "seconds": {}}


class TestData:
    def test_lines_are_the_analysis_own(self, page, comparison):
        for name in ARMS:
            line = mean_line(comparison.runs, "", name, "val_accuracy", "updates")
            drawn = arm(page, "updates", "lines")["val_accuracy"][name]
            assert drawn["x"] == pytest.approx(line.x, rel=1e-6)
            for key, values in (("mean", line.mean), ("low", line.low), ("high", line.high)):
                assert drawn[key] == pytest.approx(values, rel=1e-4, abs=1e-6)
            assert drawn["n"] == line.n
            assert drawn.get("cut", False) == (name == "unstable")

    def test_differences_are_paired(self, page, comparison):
        line = difference_line(comparison.runs, "", "gbn_fast", "bn", "val_accuracy", "updates")
        drawn = arm(page, "updates", "differences")["val_accuracy"]
        assert "bn" not in drawn
        assert drawn["gbn_fast"]["mean"] == pytest.approx(line.mean, rel=1e-4, abs=1e-6)

    def test_speedups_and_times_are_the_analysis_own(self, page, comparison):
        wanted = speedup_curve(comparison.times, "", "gbn_fast", "bn")
        drawn = arm(page, "updates", "speedups")["gbn_fast"]
        assert drawn["target"] == pytest.approx([target for target, _ in wanted])
        assert drawn["text"] == [numbers.ratio(estimate) for _, estimate in wanted]
        for shown, (_, estimate) in zip(drawn["value"], wanted, strict=True):
            known = estimate.value_low == estimate.value_high and estimate.value_low > 0
            assert shown == (pytest.approx(estimate.value_low, rel=1e-4) if known else None)
        times = [comparison.times.time("", "slow <b>&", seed, 0.8, "updates") for seed in (0, 3, 4, 5)]
        curve = kaplan_meier(times)
        drawn = arm(page, "updates", "survivals")["80 %"]["slow <b>&"]
        assert drawn["reached"] == pytest.approx([1 - share for share in curve.survival], abs=1e-5)
        assert (drawn["n"], drawn["hits"]) == (4, sum(time.reached for time in times))

    def test_epochs_and_images_follow_from_updates(self, page):
        axes = arm(page, "bn", "axes")
        assert axes["updates"][-1] == 2000
        assert axes["epochs"][-1] / axes["updates"][-1] == pytest.approx(1 / 100)
        assert axes["images"][-1] / axes["updates"][-1] == pytest.approx(128)

    def test_seconds_are_there_only_where_they_are_compared(self, page, tmp_path):
        assert page.data["settings"][0]["secondsReason"] is None
        assert "seconds" in page.data["settings"][0]["lines"]
        write_runs(GRID.records(Machine(clock="shared")), tmp_path)
        shared = Page(render(Sources(Comparison(load_grid_runs(GRID, tmp_path))))).data["settings"][0]
        assert shared["secondsReason"].startswith("shared clock")
        for what in ("lines", "differences", "speedups", "survivals"):
            assert list(shared[what]) == ["updates"]

    def test_each_arm_has_a_look_of_its_own(self, page):
        looks = [(one["light"], one["dash"], one["marker"]) for one in page.data["arms"]]
        assert len(set(looks)) == len(looks)


class TestSafety:
    def test_nothing_is_fetched(self, page):
        assert all(address.startswith(("#", "data:", "https://")) for address in page.addresses)
        assert not {"iframe", "object", "embed", "img", "video", "audio"} & set(page.tags)
        assert page.tags.count("link") == 1  # the empty icon, so that no browser asks for one
        ours = page.raw[: page.raw.index("plotly.js v")] + page.raw[page.raw.rindex("<script>") :]
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|importScripts", ours)

    def test_text_of_runs_stays_text(self, page):
        assert page.tags.count("script") == 4  # theme, data, plotly, ours
        assert "img" not in page.tags
        assert ATTACK not in page.raw
        assert "slow <b>&" in page.text

    def test_data_cannot_end_their_element(self, page):
        start = page.raw.index('id="data">') + len('id="data">')
        assert "<" not in page.raw[start : page.raw.index("</script>", start)]


class TestFile:
    def test_the_same_runs_give_the_same_file(self, folder, tmp_path):
        texts = [render(Sources(Comparison(load_grid_runs(GRID, folder)))) for _ in range(2)]
        assert texts[0] == texts[1]
        path = write(Sources(Comparison(load_grid_runs(GRID, folder))), tmp_path / "a" / "b.html")
        assert path.read_text(encoding="utf-8") == texts[0]
        assert str(folder) not in texts[0]

    def test_it_goes_where_its_source_belongs(self, comparison, folder, tmp_path):
        assert default_path(comparison) == folder / "scratch" / "reports" / "simulated.html"
        write_runs(GRID.records()[:12], tmp_path)
        Archive(tmp_path).add(RunStore(tmp_path), "x")
        archived = Comparison(load_grid_runs(GRID, tmp_path, "archive"))
        assert default_path(archived) == tmp_path / "reports" / "simulated.html"

    def test_the_command_makes_it_again(self, folder):
        runs = load_grid_runs(GRID, folder, targets=[0.5])
        assert command(Comparison(runs, Options("test_accuracy", "first"))) == (
            "gbn report experiments/simulated --measure test_accuracy --targets 0.5 --first-hit"
        )
        some = load_any(["simulated-*-bn-*", "simulated-*-gbn_fast-*"], folder, reference="bn")
        assert command(Comparison(some)) == (
            "gbn report --runs 'simulated-*-bn-*' 'simulated-*-gbn_fast-*' --reference bn"
        )

    @pytest.mark.slow
    def test_fifty_arms_stay_small(self, tmp_path):
        arms = {"bn": Arm(), **{f"arm_{i:02d}": Arm(speed=0.6 + i / 50, own_spread=0.1) for i in range(49)}}
        grid = SimulatedGrid(arms, seeds=range(10))
        write_runs(grid.records(), tmp_path)
        text = render(Sources(Comparison(load_grid_runs(grid, tmp_path))))
        assert len(text.encode()) < 8e6
        data = Page(text).data
        assert sum(one["shown"] for one in data["arms"]) == 12
        assert len({(one["light"], one["dash"], one["marker"]) for one in data["arms"]}) == 50
