"""Moments from sums: right where the truth is known, and right about their own error."""

import math

import pytest
import torch

from gbn.studies.gradient_variance.moments import NETWORK, GradientSums, readings

SIZES = {"a": 4, "b": 2}
SPREAD = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0], dtype=torch.float64)
# The means are 60 degrees apart; the noise of the second arm is half the first one's plus its own.
MEANS = torch.zeros(2, 6, dtype=torch.float64)
MEANS[0, 0], MEANS[1, 0], MEANS[1, 1] = 1.0, 1.0, math.sqrt(3.0)


def draw(batches, seed, groups=16):
    generator = torch.Generator().manual_seed(seed)
    sums = GradientSums(["one", "two"], SIZES, groups=groups, batch_size=10)
    for _ in range(batches):
        z = SPREAD * torch.randn(2, 6, dtype=torch.float64, generator=generator)
        sums.add(MEANS + torch.stack([z[0], 0.5 * z[0] + z[1]]))
    return sums


def found(sums, against=("one",)):
    return {(row.arm, row.layer, row.quantity, row.against): row for row in readings(sums, against)}


def test_known_moments():
    rows = found(draw(2000, seed=3))
    whole, part = float(SPREAD.square().sum()), float(SPREAD[:4].square().sum())
    truth = {
        ("one", NETWORK, "variance", ""): whole,
        ("two", NETWORK, "variance", ""): 1.25 * whole,
        ("one", "a", "variance", ""): part,
        ("one", "b", "variance", ""): whole - part,
        ("one", NETWORK, "mean_square", ""): 1.0,
        ("two", NETWORK, "mean_square", ""): 4.0,
        ("one", NETWORK, "noise_scale", ""): 10 * whole,
        ("two", NETWORK, "variance_ratio", "one"): 1.25,
        ("two", NETWORK, "cosine", "one"): 0.5,
        ("two", NETWORK, "relative_bias", "one"): 3.0,
    }
    for key, value in truth.items():
        assert abs(rows[key].value - value) <= 4 * rows[key].error, (key, rows[key])
        assert rows[key].error < 0.3 * abs(value), key
    assert not any(arm == against for arm, _, _, against in rows)


def test_shared_noise_is_no_signal():
    """With few batches the plain inner product of means is mostly noise; the estimate is right on average."""
    batches, repeats = 8, 300
    unbiased, plain = [], []
    for seed in range(repeats):
        sums = draw(batches, seed)
        unbiased.append(sums.replicas().means[0, -1, 0, 1])
        total = sums.sums.sum(0) / batches
        plain.append(total[0] @ total[1])
    noise = 0.5 * float(SPREAD.square().sum()) / batches
    error = float(torch.stack(unbiased).std()) / math.sqrt(repeats)
    assert abs(float(torch.stack(unbiased).mean()) - 1.0) < 4 * error
    assert abs(float(torch.stack(plain).mean()) - (1.0 + noise)) < 4 * error
    assert 4 * error < noise


def test_the_reported_error_is_the_spread_over_repetitions():
    repeated = [found(draw(96, seed)) for seed in range(80)]
    for quantity, against in (("variance", ""), ("cosine", "one"), ("variance_ratio", "one")):
        rows = [one["two", NETWORK, quantity, against] for one in repeated]
        spread = torch.tensor([row.value for row in rows]).std()
        reported = torch.tensor([row.error for row in rows]).square().mean().sqrt()
        # 80 repetitions tell a standard deviation to 8 %
        assert 0.7 < reported / spread < 1.4, quantity


def test_order_of_batches_and_groups_do_not_change_the_estimate():
    one, other = found(draw(48, 1, groups=16)), found(draw(48, 1, groups=1))
    for key, row in one.items():
        assert other[key].value == pytest.approx(row.value, rel=1e-9)
        assert math.isnan(other[key].error)


def test_angles_with_the_weights():
    weights = torch.tensor([3.0, 0, 0, 4.0, 1.0, 0])
    sums = GradientSums(["along", "across"], SIZES, unnormalized=["b"])
    for sign in (1.0, -1.0, 1.0, 1.0):
        along = sign * torch.tensor([3.0, 0, 0, 4.0, 7.0, 0])
        across = sign * torch.tensor([4.0, 0, 0, -3.0, 7.0, 0])
        sums.add(torch.stack([along, across]), weights)
    rows = found(sums, ())
    assert rows["along", "a", "along", ""].value == pytest.approx(0.5)  # three of four point along
    assert rows["along", NETWORK, "along_rms", ""].value == pytest.approx(1.0)  # without b
    assert rows["across", "a", "along_rms", ""].value == pytest.approx(0.0, abs=1e-12)
    assert rows["across", "b", "along_rms", ""].value == pytest.approx(1.0)


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="more batches"):
        readings(draw(1, 0))
    with pytest.raises(ValueError, match="no arm 'three'"):
        readings(draw(4, 0), ["three"])
    with pytest.raises(ValueError, match="groups=0"):
        GradientSums(["one"], SIZES, groups=0)
