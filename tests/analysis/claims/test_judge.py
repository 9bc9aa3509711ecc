"""Verdicts from simulated runs whose truth is known."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gbn.analysis.claims import load_claims
from gbn.analysis.claims.judge import _cells
from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, Machine, write_runs

FAST, SAME, SLOW = Arm(speed=1.5, own_spread=0.05), Arm(own_spread=0.01), Arm(speed=0.7, own_spread=0.05)
NOISY = Arm(speed=1.15, own_spread=0.3)


def one(world):
    (verdict,) = world.judge()
    return verdict


def test_a_faster_arm_is_reproduced(world, claim):
    world.claims(claim())
    world.runs(bn=Arm(), gbn=FAST, control=SAME)
    verdict = one(world)
    assert (verdict.word, verdict.n, verdict.scale, verdict.tests, verdict.runs) == (
        "reproduced",
        8,
        "full",
        1,
        16,
    )
    assert verdict.estimates["bn"].value_low == pytest.approx(1.5, rel=0.05)
    assert verdict.levels == {"bn": 0.95}
    assert verdict.estimates["bn"].low > 1
    assert verdict.controls["control"].value_low == pytest.approx(1.5, rel=0.05)
    assert verdict.commands == ("python scripts/reproduce.py experiments/sim",)
    assert verdict.devices == ("Simulated CPU, torch 2.13.0, kernels reference",)
    assert (verdict.measure, verdict.power) == ("val_accuracy", "")


@pytest.mark.parametrize(
    ("arm", "reason"), [(SLOW, "the opposite direction"), (SAME, "the smallest effect that counts")]
)
def test_a_slower_and_an_equal_arm_are_not_reproduced(world, claim, arm, reason):
    world.claims(claim())
    world.runs(bn=Arm(), gbn=arm)
    verdict = one(world)
    assert verdict.word == "not reproduced"
    assert reason in verdict.reason


def test_noise_leaves_it_open_and_says_how_many_seeds_would_decide(world, claim):
    world.claims(claim())
    world.runs(bn=Arm(), gbn=NOISY)
    verdict = one(world)
    assert verdict.word == "inconclusive"
    assert verdict.power.startswith("inconclusive at n = 8")
    assert "would decide" in verdict.power


def test_too_few_pairs_leave_it_open_however_clear(world, claim):
    world.claims(claim())
    world.runs(bn=Arm(), gbn=FAST, seeds=range(5))
    verdict = one(world)
    assert verdict.estimates["bn"].low > 1
    assert (verdict.word, verdict.n, verdict.power) == ("inconclusive", 5, "")


class TestScales:
    def test_a_miniature_supports(self, world, claim):
        world.claims(claim())
        world.runs("small", bn=Arm(), gbn=FAST)
        verdict = one(world)
        assert (verdict.word, verdict.scale) == ("supported (small)", "small")
        assert verdict.commands == ("python scripts/reproduce.py experiments/sim --scale small",)

    def test_a_miniature_does_not_support(self, world, claim):
        world.claims(claim())
        world.runs("small", bn=Arm(), gbn=SLOW)
        assert one(world).word == "not supported (small)"

    def test_one_pair_at_full_scale_outweighs_any_miniature(self, world, claim):
        world.claims(claim())
        world.runs("small", bn=Arm(), gbn=FAST)
        world.runs("full", bn=Arm(), gbn=FAST, seeds=[3])
        assert [(v.word, v.n) for v in world.judge()] == [("inconclusive", 1)]

    def test_baselines_alone_at_full_scale_outweigh_nothing(self, world, claim):
        world.claims(claim())
        world.runs("small", bn=Arm(), gbn=FAST)
        world.runs("full", bn=Arm())
        assert one(world).word == "supported (small)"

    def test_each_miniature_that_ran_has_its_verdict(self, world, claim):
        world.claims(claim(rule={"controls": []}))
        world.runs("small", bn=Arm(), gbn=FAST)
        world.runs("tiny", bn=Arm(), gbn=SLOW)
        assert [v.word for v in world.judge()] == ["supported (small)", "not supported (tiny)"]

    def test_targets_by_scale(self, world, claim):
        world.claims(claim(rule={"target": {"full": 0.6, "small": 0.8}}))
        world.runs("small", bn=Arm(), gbn=FAST)
        world.runs("tiny", bn=Arm(), gbn=FAST)  # it has no target there
        verdict = one(world)
        assert verdict.scale == "small"
        times = verdict.estimates["bn"]
        world.claims(claim(rule={"target": 0.6}))
        assert next(v for v in world.judge() if v.scale == "small").estimates["bn"] != times


class TestNothingToJudge:
    def test_not_run(self, world, claim):
        world.claims(claim())
        verdict = one(world)
        assert (verdict.word, verdict.n, verdict.estimates) == ("not run", 0, {})
        assert verdict.commands

    def test_it_waits(self, world, claim):
        world.claims(claim(waits_for="a GPU"))
        assert (one(world).word, one(world).reason) == ("not run", "waits for a GPU")

    def test_what_it_waited_for_came(self, world, claim):
        world.claims(claim(waits_for="a GPU"))
        world.runs(bn=Arm(), gbn=FAST)
        assert one(world).word == "reproduced"

    def test_an_experiment_without_a_sweep_cannot_run(self, world, claim):
        world.claims(claim(waits_for="norm=theirs", rule={"arm": "theirs"}), experiment="later")
        verdict = one(world)
        assert (verdict.word, verdict.reason, verdict.commands) == ("not run", "waits for norm=theirs", ())

    def test_underspecified(self, world, claim):
        world.claims(claim() | {"verdict": {"rule": "none", "reason": "No margin is given."}})
        assert (one(world).word, one(world).reason) == ("underspecified", "No margin is given.")


class TestMisses:
    """The arm never reaches the target: no ratio exists, and none is made up."""

    NEVER = Arm(final=0.55, own_spread=0.05)

    def test_all_missed_is_decided_by_the_sign_test(self, world, claim):
        world.claims(claim())
        world.runs(bn=Arm(), gbn=self.NEVER)
        verdict = one(world)
        estimate = verdict.estimates["bn"]
        assert (estimate.method, estimate.arm_misses, estimate.value_low) == ("median", 8, 0)
        assert verdict.word == "not reproduced"

    def test_five_pairs_with_a_miss_have_no_interval(self, world, claim):
        world.claims(claim(rule={"pairs": 5}))
        world.runs(bn=Arm(), gbn=self.NEVER, seeds=range(5))
        verdict = one(world)
        assert verdict.word == "inconclusive"
        assert "5 pairs with misses have no interval at this level (bn)" in verdict.reason

    def test_a_diverged_run_is_a_miss(self, world, claim):
        world.claims(claim())
        world.runs(bn=Arm(), gbn=Arm(diverges_at=8))
        verdict = one(world)
        assert verdict.estimates["bn"].arm_misses == 8
        assert verdict.word == "not reproduced"


class TestHolm:
    def test_the_family_takes_a_lucky_verdict_back(self, world, claim):
        """Alone p = .03 decides; beside a claim that nothing supports it does not."""
        lucky, null = claim(), claim(id="null", rule={"arm": "gbn_2", "controls": []})
        world.runs(bn=Arm(), gbn=LUCKY, gbn_2=NOISY)
        world.claims(lucky)
        alone = one(world)
        assert 0.025 < alone.estimates["bn"].p < 0.05
        assert alone.word == "reproduced"
        world.claims(lucky, null)
        first, second = world.judge()
        assert (first.word, second.word) == ("inconclusive", "inconclusive")
        assert (first.tests, first.levels["bn"]) == (2, 0.975)
        assert first.estimates["bn"].low < 1 < alone.estimates["bn"].low

    def test_a_sure_one_frees_the_next(self, world, claim):
        world.runs(bn=Arm(), gbn=LUCKY, gbn_2=FAST)
        world.claims(claim(), claim(id="sure", rule={"arm": "gbn_2", "controls": []}))
        first, second = world.judge()
        assert (first.word, second.word) == ("reproduced", "reproduced")
        assert (first.levels["bn"], second.levels["bn"]) == (0.95, 0.975)

    def test_what_has_not_run_yet_counts(self, world, claim):
        """A verdict must not weaken as the rest of its family comes in."""
        world.claims(claim(), claim(id="later", rule={"arm": "gbn_2", "controls": []}))
        world.runs(bn=Arm(), gbn=LUCKY)
        first, second = world.judge()
        assert (first.word, first.tests, second.word) == ("inconclusive", 2, "not run")

    def test_another_file_is_another_family(self, world, claim):
        world.runs(bn=Arm(), gbn=LUCKY, gbn_2=NOISY)
        world.claims(claim())
        world.claims(claim(id="null", waits_for="x", rule={"arm": "gbn_2"}), experiment="elsewhere")
        assert next(v for v in world.judge() if v.claim.id == "faster").word == "reproduced"


LUCKY = Arm(speed=1.15, own_spread=0.165)


class TestNumbers:
    RULE = {"rule": "number", "quantity": "saving_to_maximum", "unit": "updates"}  # noqa: RUF012

    def claim(self, claim, **published):
        unit = {"unit": "share of updates saved"}
        return claim(self.RULE, without=("target", "relevant"), published=published | unit)

    def arms(self, speed):
        return {"bn": Arm(noise=0.0), "gbn": Arm(speed=speed, noise=0.0, own_spread=0.03)}

    def test_a_saving_in_the_published_range(self, world, claim):
        world.claims(self.claim(claim, low=0.31, high=0.47))
        world.runs(**self.arms(1.6))
        verdict = one(world)
        assert verdict.word == "reproduced"
        assert verdict.estimates["bn"].value_low == pytest.approx(1 - 1 / 1.6, abs=0.02)
        assert verdict.estimates["bn"].low < verdict.estimates["bn"].value_low < verdict.estimates["bn"].high

    @pytest.mark.parametrize(("speed", "side"), [(1.2, "below"), (3.0, "above")])
    def test_a_saving_outside(self, world, claim, speed, side):
        world.claims(self.claim(claim, low=0.31, high=0.47))
        world.runs(**self.arms(speed))
        assert one(world).word == "not reproduced"
        assert f"lies {side} the published number" in one(world).reason

    def test_an_interval_that_holds_both_is_open(self, world, claim):
        world.claims(self.claim(claim, value=0.05))
        world.runs(bn=Arm(noise=0.0), gbn=Arm(speed=1.1, noise=0.0, own_spread=0.4))
        verdict = one(world)
        assert verdict.word == "inconclusive"
        assert "would decide" in verdict.power


class TestDates:
    def judged(self, world, claim, fixed):
        world.claims(claim(fixed=fixed))
        world.runs(bn=Arm(), gbn=FAST, date="2026-11-25T12:00:00+00:00")
        return one(world)

    def test_a_rule_before_its_runs(self, world, claim):
        verdict = self.judged(world, claim, datetime(2026, 11, 25, 11, 59, tzinfo=UTC))
        assert (verdict.blind, verdict.early) == (True, 0)
        assert verdict.dates == (datetime(2026, 11, 25, 12, tzinfo=UTC),) * 2

    def test_a_rule_after_its_runs(self, world, claim):
        verdict = self.judged(world, claim, datetime(2026, 11, 25, 12, 1, tzinfo=UTC))
        assert (verdict.blind, verdict.early, verdict.runs) == (False, 16, 16)

    def test_a_day_alone_counts_as_its_end(self, world, claim):
        assert self.judged(world, claim, datetime(2026, 11, 25).date()).blind is False

    def test_no_date_is_no_proof(self, world, claim):
        assert self.judged(world, claim, None).blind is None

    def test_runs_without_a_date_prove_nothing(self, world, claim):
        world.claims(claim(fixed=datetime(2026, 11, 25, tzinfo=UTC)))
        world.runs(bn=Arm(), gbn=FAST)
        assert (one(world).blind, one(world).dates) == (None, None)

    def test_the_archive_keeps_dates(self, world, claim):
        verdict = self.judged(world, claim, datetime(2026, 11, 25, 11, tzinfo=UTC))
        Archive(world.results).add(RunStore(world.results), "sim")
        (archived,) = world.judge(source="archive")
        assert (archived.word, archived.blind, archived.dates) == (verdict.word, True, verdict.dates)


def test_seconds_of_a_shared_clock_are_refused(world, claim):
    world.claims(claim(rule={"unit": "seconds"}))
    world.runs(bn=Arm(), gbn=FAST, machine=Machine(clock="shared"))
    verdict = one(world)
    assert (verdict.word, verdict.n) == ("inconclusive", 0)
    assert verdict.reason.startswith("seconds are not compared: shared clock")


def test_only_the_experiments_asked_for(world, claim):
    world.claims(claim())
    world.claims(claim(id="other-claim", waits_for="x"), experiment="later")
    assert [v.claim.id for v in world.judge(["experiments/later"])] == ["other-claim"]


def test_a_grid_is_composed_only_where_its_rules_look(world, claim):
    asked = []

    def load(experiment, scale, wanted):
        asked.append((scale, wanted))
        return world.load(experiment, scale, wanted)

    from gbn.analysis.claims import verdicts

    world.claims(claim())
    world.runs(bn=Arm(), gbn=FAST)
    verdicts(world.results, "store", None, world.experiments, load)
    assert asked == [("full", {("", "bn"), ("", "gbn"), ("", "control")})]


def test_the_default_loader_composes_these_cells(world, claim):
    spec = {"title": "t", "base": ["model=mlp"], "reference": "bn", "seeds": 2, "targets": [0.6]}
    world.sweep(spec | {"arms": {"bn": ["norm=bn"], "gbn": ["norm=gbn_mad"], "control": ["norm=layer"]}})
    world.claims(claim())
    (loaded,) = load_claims(world.experiments)
    grid = _cells(world.experiments, loaded.experiment, "full", {("", "bn"), ("", "gbn")})
    assert [cell.label for cell in grid.cells] == ["bn", "gbn"]


def test_runs_of_two_machines_are_named(world, claim):
    world.claims(claim())
    world.runs(bn=Arm(), gbn=FAST, seeds=range(4))
    there = replace(world.grids["full"], seeds=range(4, 8))
    rest = [r for r in there.records(Machine("Another CPU")) if r.config["norm"]["name"] in ("bn", "gbn")]
    write_runs(rest, world.results)
    verdict = one(world)
    assert verdict.n == 8
    assert [device.split(",")[0] for device in verdict.devices] == ["Another CPU", "Simulated CPU"]
