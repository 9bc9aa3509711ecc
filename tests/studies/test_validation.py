"""The key claims of the statistics at fewer repetitions, each within its own binomial error."""

import math

import numpy as np
import pytest

from gbn.studies.validation import validation

REPETITIONS = 400
NORMAL = "normal (lognormal times)"


def rates(findings):
    return {(f.noise, f.effect, f.n, f.quantity): f for f in findings}


def allowed(share, repetitions):
    """Three binomial standard errors: one in four hundred such checks fails by chance."""
    return 3 * math.sqrt(share * (1 - share) / repetitions)


@pytest.fixture(scope="module")
def symmetric():
    return rates(validation.uncensored(REPETITIONS, noises=(NORMAL, validation.BOTH_SKEWED)))


@pytest.mark.slow
class TestUncensored:
    @pytest.mark.parametrize("n", validation.PAIRS)
    @pytest.mark.parametrize("effect", [1.0, validation.EFFECT])
    @pytest.mark.parametrize("noise", [NORMAL, validation.BOTH_SKEWED])
    def test_the_primary_interval_covers(self, symmetric, noise, effect, n):
        found = symmetric[noise, effect, n, "coverage, paired t"]
        slack = allowed(0.95, REPETITIONS)
        assert 0.93 - slack <= found.value <= 0.97 + slack

    @pytest.mark.parametrize("n", validation.PAIRS)
    def test_nothing_is_found_where_nothing_is(self, symmetric, n):
        for test in ("paired t", "sign flips"):
            found = symmetric[NORMAL, 1.0, n, f"false positives, {test}"]
            assert found.value <= 0.05 + allowed(0.05, REPETITIONS)

    def test_a_bootstrap_of_five_pairs_covers_too_little(self, symmetric):
        for method in ("percentile", "BCa"):
            assert symmetric[NORMAL, 1.0, 5, f"coverage, bootstrap {method}"].value < 0.9

    @pytest.mark.parametrize("n", validation.PAIRS)
    def test_the_known_speedup_is_recovered(self, symmetric, n):
        found = symmetric[NORMAL, validation.EFFECT, n, "estimated / true speed-up"]
        assert abs(math.log(found.value)) < 4 * validation.NOISE / math.sqrt(n * REPETITIONS)

    def test_five_pairs_give_sign_flips_no_chance(self, symmetric):
        assert symmetric[NORMAL, validation.EFFECT, 5, "power, sign flips"].value == 0


@pytest.mark.slow
def test_a_missed_target_never_makes_a_false_claim_likelier():
    found = rates(validation.censored(REPETITIONS))
    for (_, _, _, quantity), one in found.items():
        if quantity == "false positives, primary":
            assert one.value <= 0.05 + allowed(0.05, one.repetitions)
        if quantity == "coverage, primary" and one.repetitions > 50:
            assert one.value >= 0.93 - allowed(0.95, one.repetitions)


@pytest.mark.slow
def test_holm_keeps_a_table_of_eight_honest():
    found = rates(validation.families(REPETITIONS))
    for (noise, effect, n, quantity), one in found.items():
        if quantity == "any false positive, after Holm":
            assert one.value <= 0.05 + allowed(0.05, REPETITIONS)
            if effect == 1:
                assert found[noise, effect, n, "any false positive, alone"].value > 0.12


@pytest.mark.slow
def test_power_is_what_was_promised():
    for one in validation.predicted_power(REPETITIONS):
        assert one.promised >= 0.8
        assert abs(one.value - one.promised) <= allowed(0.8, REPETITIONS)


@pytest.mark.slow
def test_survival_estimates_cover():
    for one in validation.survival_curves(100):
        assert one.value >= 0.93 - allowed(0.95, one.repetitions)


@pytest.mark.parametrize("name", list(validation.DISTRIBUTIONS))
def test_every_noise_has_mean_zero_and_the_same_spread(name):
    sample = validation.DISTRIBUTIONS[name](np.random.default_rng(0), (200_000,))
    assert abs(float(sample.mean())) < 0.01
    assert float(sample.std()) == pytest.approx(1, abs=0.02)


def test_the_restricted_mean_of_the_truth_is_what_many_runs_show():
    rng, horizon = np.random.default_rng(0), math.exp(6.2)
    spread = math.hypot(validation.SHARED, validation.NOISE)
    for effect, sd in ((1.0, validation.SHARED), (validation.EFFECT, spread)):
        times = np.exp(rng.normal(6 - math.log(effect), sd, 400_000))
        assert validation._restricted(effect, horizon) == pytest.approx(
            float(np.minimum(times, horizon).mean()), rel=0.005
        )


def test_censoring_leaves_a_miss_where_the_run_ended():
    arm, reference = validation.pairs(
        np.random.default_rng(0), validation.DISTRIBUTIONS[NORMAL], 1.0, 200, math.exp(6)
    )
    assert {time.reached for time in (*arm, *reference)} == {True, False}
    assert all(time.low <= math.exp(6) for time in (*arm, *reference))
    assert 70 < sum(time.reached for time in reference) < 130
