"""Simulated runs and timings whose truth is known: the links multiply, and each finds its own."""

import math

import pytest

from gbn.analysis.comparison import decomposition
from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.comparison.decomposition import controls_of, time_ratio
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.runs.plan import Plan, plan_of_grid
from gbn.analysis.tables.formats import markdown
from gbn.analysis.tables.frame import frame
from gbn.studies.validation.simulate import Arm, Machine, write_runs

MATCHED, REPARAM, MEASURED, ARM = "bn_matched[gbn]", "bn_reparam[gbn]", "bn_measured_reparam[gbn]", "gbn"
FACTORS = ("total", "initialization", "parametrization", "calibration_and_shape")
INITIALIZATION, PARAMETRIZATION, OWN = 1.4, 0.8, 1.25


def arms(matched=1.0, reparam=1.0, arm=1.0, own_spread=0.05, **common):
    """Speeds, given link by link."""
    return {
        "bn": Arm(**common),
        ARM: Arm(speed=matched * reparam * arm, own_spread=own_spread, **common),
        MATCHED: Arm(speed=matched, own_spread=own_spread, norm={"method": "bn_matched"}, **common),
        REPARAM: Arm(speed=matched * reparam, own_spread=own_spread, norm={"method": "bn_reparam"}, **common),
    }


@pytest.fixture
def compared(make_grid, tmp_path):
    def compare(chosen, machine=None, drop=(), **changes):
        controls = changes.pop("controls", {ARM: [MATCHED, REPARAM]})
        grid = make_grid(arms=chosen, controls=controls, **changes)
        records = [
            grid.record(s, a, n, machine)
            for n in grid.seeds
            for s in grid.settings
            for a in grid.arms
            if (a, n) not in drop
        ]
        write_runs(records, tmp_path)
        return Comparison(load_grid_runs(grid, tmp_path), Options())

    return compare


def links(chain):
    return [link for name, link in chain.links.items() if name != "total"]


def make_costs(comparison, ratio=1.25, noise=0.01, machine=None, **changes):
    """Costs of bn and gbn over eight blocks; gbn's update takes 1 / ratio of bn's."""
    wobble = [math.exp(noise * (-1) ** block * (1 + block % 3)) for block in range(8)]
    machines = comparison.runs.runs.machine.dropna().unique()
    ids = {(e.setting, e.arm): e.run_id for e in comparison.runs.plan.entries if e.seed == 0}
    fields = {
        "path": comparison.runs.results_dir / "benchmarks" / "cost-simulated.csv",
        "experiment": comparison.runs.plan.name,
        "machine": machine or machines[0],
        "threads": 2,
        "date": "2026-01-01",
        "commit": "0" * 40,
        "seconds": {
            ("", "bn"): dict.fromkeys(range(8), 0.01),
            ("", ARM): {block: 0.01 / ratio * wobble[block] for block in range(8)},
        },
        "run_ids": ids,
        "dropped": {},
    }
    return Costs(**(fields | changes))


def test_the_links_multiply_to_the_whole(compared):
    found = compared(arms(INITIALIZATION, PARAMETRIZATION, OWN)).evidence.chains[""]
    speedups = [chain for chain in found if chain.quantity == "speedup"]
    assert {(chain.target, chain.unit) for chain in speedups} == {
        (t, u) for t in (0.6, 0.8) for u in ("updates", "seconds")
    }
    for chain in speedups:
        assert chain.exact
        assert math.prod(link.value_low for link in links(chain)) == pytest.approx(
            chain.links["total"].value_low, rel=1e-12
        )
    for chain in (chain for chain in found if chain.quantity != "speedup"):
        assert math.fsum(link.value_low for link in links(chain)) == pytest.approx(
            chain.links["total"].value_low, abs=1e-12
        )


def test_each_link_finds_its_own_truth(compared):
    comparison = compared(arms(INITIALIZATION, PARAMETRIZATION, OWN), seeds=tuple(range(12)))
    for chain in comparison.evidence.chains[""]:
        if chain.quantity != "speedup":
            continue
        truth = (INITIALIZATION, PARAMETRIZATION, OWN)
        for link, true in zip(links(chain), truth, strict=True):
            assert link.value_low == pytest.approx(true, rel=0.06)
            assert link.low < true < link.high
        assert chain.links["total"].value_low == pytest.approx(math.prod(truth), rel=0.06)


@pytest.mark.parametrize("place", range(3))
def test_an_effect_shows_in_its_link_alone(compared, place):
    speeds = [1.0, 1.0, 1.0]
    speeds[place] = 1.5
    comparison = compared(arms(*speeds, own_spread=0.0, noise=0.0))
    chain = next(one for one in comparison.evidence.chains[""] if one.quantity == "speedup")
    for index, link in enumerate(links(chain)):
        assert link.value_low == pytest.approx(1.5 if index == place else 1.0, rel=5e-3)


def test_only_seeds_that_all_four_have(compared):
    comparison = compared(arms(1.2), drop={(MATCHED, 3), ("bn", 5)})
    for chain in comparison.evidence.chains[""]:
        assert chain.seeds == (0, 1, 2, 4, 6, 7)
        assert {chain.links["total"].n, *(link.n for link in links(chain))} == {6}


def test_misses_give_medians_that_do_not_claim_to_multiply(compared):
    chosen = arms(1.2, 1.0, 1.1) | {REPARAM: Arm(final=0.79, norm={"method": "bn_reparam"})}
    by_target = {
        (one.target, one.unit): one
        for one in compared(chosen).evidence.chains[""]
        if one.quantity == "speedup"
    }
    reached, missed = by_target[0.6, "updates"], by_target[0.8, "updates"]
    assert reached.exact
    assert reached.links["total"].method == "paired t"
    assert not missed.exact
    assert {one.method for one in (missed.links["total"], *links(missed))} == {"median"}
    assert missed.links["initialization"].value_low == pytest.approx(
        1.2, rel=0.1
    )  # neither of its arms missed
    assert missed.links["parametrization"].arm_misses == 8
    assert missed.links["parametrization"].value_low == 0 or missed.links["parametrization"].value_low < 1
    assert missed.links["calibration and shape"].reference_misses == 8


@pytest.mark.parametrize("place", range(4))
def test_with_a_measured_control_calibration_is_a_factor_of_its_own(compared, place):
    speeds = [1.0, 1.0, 1.0, 1.0]
    speeds[place] = 1.5
    *_, measured, whole = (math.prod(speeds[: end + 1]) for end in range(4))
    chosen = arms(*speeds[:2], own_spread=0.0, noise=0.0)
    chosen[ARM] = Arm(speed=whole, own_spread=0.0, noise=0.0)
    chosen[MEASURED] = Arm(speed=measured, own_spread=0.0, noise=0.0, norm={"method": "bn_measured_reparam"})
    comparison = compared(chosen, controls={ARM: [REPARAM, MEASURED, MATCHED]})
    chain = next(one for one in comparison.evidence.chains[""] if one.quantity == "speedup")
    assert chain.names == ("bn", MATCHED, REPARAM, MEASURED, ARM)
    assert [*chain.links] == ["total", "initialization", "parametrization", "calibration", "shape"]
    for index, link in enumerate(links(chain)):
        assert link.value_low == pytest.approx(1.5 if index == place else 1.0, rel=5e-3)
    text = markdown(comparison)
    assert "shape (bn_measured_reparam / arm)" in text
    assert "Pairs: seeds that all five have." in text
    assert "the shape, is the deviation's own effect" in text


@pytest.mark.parametrize(
    ("method", "last"), [("gbn", "calibration and shape"), ("iebn", "own"), ("mixture", "own")]
)
def test_without_it_the_last_factor_is_named_for_what_it_holds(compared, method, last):
    chosen = arms() | {ARM: Arm(norm={"method": method})}
    comparison = compared(chosen)
    assert {[*chain.links][-1] for chain in comparison.evidence.chains[""]} == {last}
    assert ("the last factor is the correction of that" in markdown(comparison)) == (method == "gbn")


def test_no_chain_without_both_controls(compared):
    assert not compared(arms(), controls={ARM: [MATCHED]}).evidence.chains[""]


def test_controls_are_known_by_method_not_by_name(make_grid):
    chosen = {
        "bn": Arm(),
        ARM: Arm(),
        "slow start": Arm(norm={"method": "bn_reparam"}),
        "bn_matched elsewhere": Arm(norm={"method": "bn_matched"}),
        "control": Arm(norm={"method": "layer"}),
    }
    grid = make_grid(arms=chosen, controls={ARM: ["control", "slow start", "bn_matched elsewhere"]})
    assert controls_of(plan_of_grid(grid), ARM) == ("bn_matched elsewhere", "slow start")
    assert controls_of(plan_of_grid(grid), "bn") is None


def test_controls_are_known_by_label_where_methods_are_not():
    plan = Plan("p", "", (), "bn", controls={ARM: (REPARAM, MATCHED)})
    assert controls_of(plan, ARM) == (MATCHED, REPARAM)


def test_a_chain_begins_at_plain_bn(make_grid):
    grid = make_grid(arms=arms(), controls={ARM: [MATCHED, REPARAM]}, reference=MATCHED)
    assert controls_of(plan_of_grid(grid), ARM) is None


def test_time_is_updates_times_cost(compared):
    comparison = compared(arms(2.0), Machine(clock="shared"))
    found = time_ratio(comparison.times, make_costs(comparison), "", ARM, 0.8)
    assert found.updates.value_low == pytest.approx(2, rel=0.05)
    assert found.cost.value_low == pytest.approx(1.25, rel=0.02)
    assert found.time.value_low == pytest.approx(found.updates.value_low * found.cost.value_low)
    width = {name: math.log(e.high / e.low) for name, e in vars(found).items() if hasattr(e, "high")}
    assert max(width["updates"], width["cost"]) < width["time"] < width["updates"] + width["cost"]
    assert found.time.n == 8


def test_a_dear_update_takes_a_speedup_away(compared):
    comparison = compared(arms(1.25))
    time = time_ratio(comparison.times, make_costs(comparison, ratio=0.8), "", ARM, 0.8).time
    assert time.low < 1 < time.high


def test_time_with_misses_is_a_bound(compared):
    chosen = arms() | {ARM: Arm(final=0.79)}
    comparison = compared(chosen)
    found = time_ratio(comparison.times, make_costs(comparison), "", ARM, 0.8)
    assert found.time.method == "product of a median"
    assert found.time.arm_misses == 8
    assert found.time.value_low == 0
    assert found.time.value_high == pytest.approx(found.updates.value_high * found.cost.value_low)
    each = found.updates.high * found.cost.high  # both at 95 %; Bonferroni's are wider
    assert found.time.high >= each


def test_costs_from_elsewhere_are_refused_unless_asked_for(compared):
    comparison = compared(arms(2.0))
    other = make_costs(comparison, machine="Other CPU, torch 2.13.0, kernels reference")
    with pytest.raises(ValueError, match=r"was timed on Other CPU.*Simulated CPU"):
        time_ratio(comparison.times, other, "", ARM, 0.8)
    forecast = time_ratio(comparison.times, other, "", ARM, 0.8, elsewhere=True)
    assert forecast.time.value_low == pytest.approx(2.5, rel=0.05)


def test_an_arm_that_was_not_timed_has_no_time(compared):
    comparison = compared(arms())
    found = time_ratio(comparison.times, make_costs(comparison), "", MATCHED, 0.8)
    assert found.updates.n == 8
    assert (found.cost.n, found.time.n) == (0, 0)


def test_the_product_of_two_estimates_is_wider_than_each():
    one = decomposition.pairs.mean_interval([0.1, 0.2, 0.3])
    estimate = decomposition.Estimate(math.exp(0.2), math.exp(0.2), 1, 2, 3, "paired t", one.sd)
    whole = decomposition.product(estimate, estimate)
    assert whole.value_low == pytest.approx(math.exp(0.4))
    assert whole.low < math.exp(0.4) < whole.high


def test_the_csv_has_the_links(compared):
    comparison = compared(arms(INITIALIZATION, PARAMETRIZATION, OWN), Machine(clock="shared"))
    numbers = frame(comparison).set_index(["quantity", "target"]).sort_index()
    names = [f"effect_speedup_{link}" for link in FACTORS]
    total, *parts = (numbers.loc[(name, 0.8), "value_low"].item() for name in names)
    assert total == pytest.approx(math.prod(parts))
    assert set(numbers.loc[names].arm) == {ARM}
    assert "cost_of_update" not in numbers.index.get_level_values(0)
