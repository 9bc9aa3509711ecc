"""claims.yaml and papers.yaml: what is refused, in one line that helps; and all files of this repository."""

from pathlib import Path

import pytest
import yaml

from gbn.analysis.claims import load_claims, load_papers
from gbn.config.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def test_a_claim_is_read_as_it_stands(world, claim):
    world.claims(claim(published={"low": 0.31, "high": 0.47, "unit": "share"}, fixed="2026-11-25T12:00:00Z"))
    path = world.experiments / "sim" / "claims.yaml"
    path.write_text(path.read_text().replace("'2026-11-25T12:00:00Z'", "2026-11-25T12:00:00Z"))
    (one,) = load_claims(world.experiments)
    assert (one.id, one.experiment, one.paper) == ("faster", "sim", "gbn")
    assert one.published.range == (0.31, 0.47)
    assert one.fixed.isoformat() == "2026-11-25T12:00:00+00:00"
    assert (one.verdict.null, one.verdict.target_at("small")) == (1.0, 0.6)


def test_in_order_of_paper_and_experiment(world, claim):
    world.claims(claim(id="b", paper="other", waits_for="x"), experiment="aaa")
    world.claims(claim(id="a"), claim(id="c"))
    assert [one.id for one in load_claims(world.experiments)] == ["a", "c", "b"]


REFUSED = {
    "an unknown key": ({"alpha": 1}, {}, "unknown key 'alpha'"),
    "a misspelt key of the rule": ({}, {"quantitiy": "x"}, "did you mean 'verdict.quantity'?"),
    "a misspelt key of the source": ({"source": {"url": "https://x.org", "raed": "abstract"}}, {}, "source.read"),
    "no source": ({"source": {"read": "abstract"}}, {}, "key source.url is missing"),
    "an address that is none": ({"source": {"url": "arXiv", "read": "abstract"}}, {}, "source.url"),
    "an id that is no kebab": ({"id": "Faster_1"}, {}, "id: String should match"),
    "an unknown origin": ({"origin": "theirs"}, {}, "'published' or 'ours'; got 'theirs'"),
    "an unknown paper": ({"paper": "gnb"}, {}, "did you mean 'gbn'?"),
    "a number without a number": ({"published": 31}, {}, '"not available", or a mapping'),
    "low above high": ({"published": {"low": 0.5, "high": 0.3, "unit": "x"}}, {}, "low 0.5 is above high 0.3"),
    "low without high": ({"published": {"low": 0.5, "unit": "x"}}, {}, "needs a value, or low and high"),
    "a value outside": ({"published": {"value": 1, "low": 2, "high": 3, "unit": "x"}}, {}, "outside [2, 3]"),
    "an unknown quantity": ({}, {"quantity": "speed"}, "verdict.quantity: Input should be 'speedup_to_target'"),
    "an unknown unit": ({}, {"unit": "epochs"}, "'updates' or 'seconds'; got 'epochs'"),
    "an unknown arm": ({}, {"arm": "gnb"}, "unknown arm of claim faster in experiments/sim: 'gnb'"),
    "against an unknown arm": ({}, {"against": ["contrl"]}, "did you mean 'control'?"),
    "a control that is no arm": ({}, {"controls": ["bn_matched[gbn]"]}, "allowed: bn, control, gbn, gbn_2"),
    "an unknown setting": ({}, {"setting": "cnn"}, "unknown setting of claim faster"),
    "a target that the grid lacks": ({}, {"target": 0.7}, "target 0.7 is not a target of the grid at scale full"),
    "a target for an unknown scale": ({}, {"target": {"full": 0.6, "smal": 0.6}}, "did you mean 'small'?"),
    "no target for the full scale": ({}, {"target": {"small": 0.6}}, "target has no entry for the scale full"),
    "a target of no time": ({}, {"quantity": "area_difference"}, "target is needed for quantity speedup_to_target"),
    "a time without a target": ({}, {"target": None}, "target is needed for quantity speedup_to_target"),
    "seconds of no time": (
        {}, {"quantity": "last_difference", "target": None, "unit": "seconds"}, "applies only to times"
    ),
    "an effect of nothing": ({}, {"relevant": 1.0}, "relevant must lie above 1"),
    "no smallest effect": ({}, {"relevant": None}, "rule: direction needs relevant"),
    "nothing to compare with": ({}, {"against": []}, "rule: direction needs against"),
    "an arm twice": ({}, {"against": ["bn", "control"]}, "control: named more than once"),
    "against itself": ({}, {"against": ["gbn"]}, "gbn: named more than once"),
    "one pair": ({}, {"pairs": 1}, "verdict.pairs"),
    "a miniature that would reproduce": ({}, {"scale": "small"}, "verdict.scale: Input should be 'full'"),
    "a number rule without a number": ({}, {"rule": "number"}, "published is not available"),
    "a date that is none": ({"fixed": "yesterday"}, {}, "fixed"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "rule", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_line(world, claim, changes, rule, message):
    world.claims(claim(rule, **changes))
    with pytest.raises(ConfigError) as refused:
        load_claims(world.experiments)
    assert message in str(refused.value)
    assert "sim" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_rule_of_none_needs_a_reason_and_nothing_else(world, claim):
    world.claims(claim() | {"verdict": {"rule": "none"}})
    with pytest.raises(ConfigError, match="needs a reason and nothing else"):
        load_claims(world.experiments)
    world.claims(claim() | {"verdict": {"rule": "none", "reason": "x", "pairs": 5}})
    with pytest.raises(ConfigError, match=r"given: pairs"):
        load_claims(world.experiments)


def test_ids_are_unique_over_all_experiments(world, claim):
    world.claims(claim())
    world.claims(claim(waits_for="x"), experiment="later")
    with pytest.raises(ConfigError, match="'faster' is defined twice, in later and sim"):
        load_claims(world.experiments, ["later"])


def test_without_a_sweep_a_claim_says_what_it_waits_for(world, claim):
    world.claims(claim(), experiment="later")
    with pytest.raises(ConfigError, match="waits_for must say what is missing"):
        load_claims(world.experiments)


def test_a_scale_that_lacks_the_arm_is_left_out(world, claim):
    world.claims(claim(rule={"arm": "gbn_2", "controls": []}))  # scale tiny has no gbn_2
    assert len(load_claims(world.experiments)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: [1]", "claim 1: must be a mapping"),
        ("claim: []", "must hold exactly one key, `claims`"),
        ("- 1", "holds a list; a mapping is needed"),
        ("claims: [", "is not YAML"),
        ("claims: [{experiment: x}]", "experiment is not a key"),
    ],
)
def test_a_file_of_another_shape(world, claim, text, message):
    world.claims(claim()).write_text(text)
    with pytest.raises(ConfigError, match=r"claims\.yaml") as refused:
        load_claims(world.experiments)
    assert message in str(refused.value)


def test_an_unknown_experiment_is_named(world, claim):
    world.claims(claim())
    with pytest.raises(ConfigError, match=r"unknown experiment 'simm' .did you mean 'sim'"):
        load_claims(world.experiments, ["simm"])


def test_papers_are_checked(world):
    papers = yaml.safe_load((world.experiments / "papers.yaml").read_text())
    papers["gbn"]["year"] = 2019
    (world.experiments / "papers.yaml").write_text(yaml.safe_dump(papers))
    with pytest.raises(ConfigError, match=r"papers\.yaml, gbn: unknown key 'year'"):
        load_papers(world.experiments)
    with pytest.raises(ConfigError, match="no file"):
        load_papers(world.results)


class TestThisRepository:
    def test_all_claims_load_and_each_paper_has_some(self):
        claims = load_claims(ROOT / "experiments")
        assert {one.paper for one in claims} == set(load_papers(ROOT / "experiments"))

    def test_every_published_number_is_a_claim(self):
        found = {(c.paper, *c.published.range) for c in load_claims(ROOT / "experiments") if c.published}
        assert found >= {
            ("iebn", 0.028, 0.028),
            ("mixture", 0.31, 0.47),
            ("mixture", 1.58, 2.38),
            ("mixture", -4.21, -4.21),
        }

    def test_an_experiment_with_claims_has_its_protocol(self):
        for one in load_claims(ROOT / "experiments"):
            folder = ROOT / "experiments" / one.experiment
            text = (folder / "README.md").read_text()
            assert "claims.yaml" in text, f"experiments/{one.experiment}/README.md does not link its rules"
            if not (folder / "sweep.yaml").exists():
                assert "Waits for" in text
