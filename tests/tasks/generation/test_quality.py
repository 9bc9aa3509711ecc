"""FID against the closed form of Gaussians, KID against its definition written out."""

import itertools

import numpy as np
import pytest
import torch

from gbn.tasks.generation import quality
from gbn.tasks.generation.quality import frechet_distance, kernel_distance


def sample(count, dimensions, seed, shift=0.0, scale=1.0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) * scale + shift


def with_moments(mean, covariance, count, seed):
    """A sample that has exactly this mean and this covariance (with count - 1)."""
    x = sample(count, len(mean), seed).double()
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


def test_fid_of_gaussians_is_its_closed_form():
    rotation = torch.linalg.qr(sample(5, 5, 0).double())[0]
    variances = torch.tensor([[4.0, 1, 9, 0.25, 2], [1.0, 4, 1, 0.25, 8]], dtype=torch.float64)
    first, second = (rotation @ torch.diag(v) @ rotation.T for v in variances)
    shift = torch.tensor([1.0, -2, 0, 0.5, 0], dtype=torch.float64)
    # Covariances that commute: |shift|^2 + sum of squared differences of standard deviations.
    expected = float(shift.square().sum() + (variances[0].sqrt() - variances[1].sqrt()).square().sum())
    zero = torch.zeros(5, dtype=torch.float64)
    real, generated = with_moments(zero, first, 60, 1), with_moments(shift, second, 40, 2)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-9)


def test_fid_of_covariances_that_do_not_commute():
    first = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, -0.3], [-0.3, 3.0]], dtype=torch.float64)
    # tr of the root of a 2x2 matrix M: sqrt(tr M + 2 sqrt(det M)).
    product = first @ second
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()
    expected = float(first.trace() + second.trace() - 2 * root)
    zero = torch.zeros(2, dtype=torch.float64)
    got = frechet_distance(with_moments(zero, first, 30, 1), with_moments(zero, second, 30, 2))
    assert got == pytest.approx(expected, rel=1e-9)


def test_fid_is_computed_in_float64():
    """Features far from zero: in float32 the covariances would lose all their digits."""
    real = sample(200, 4, 0)
    far = (real.double() + 1e4).float()
    assert frechet_distance(far, far) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(far, far.double() + 3) == pytest.approx(4 * 9, rel=1e-9)


def kid_written_out(real, generated):
    """Binkowski et al. 2018, equation 4, term by term."""

    def kernel(x, y):
        return (np.dot(x, y) / len(x) + 1) ** 3

    m, n = len(real), len(generated)
    within_real = sum(kernel(real[i], real[j]) for i, j in itertools.permutations(range(m), 2)) / (
        m * (m - 1)
    )
    within = sum(kernel(generated[i], generated[j]) for i, j in itertools.permutations(range(n), 2))
    between = sum(kernel(x, y) for x in real for y in generated) / (m * n)
    return within_real + within / (n * (n - 1)) - 2 * between


def test_kid_of_sets_of_one_size_is_its_definition_over_the_whole_sets():
    real, generated = sample(24, 6, 0), sample(24, 6, 1, shift=0.4)
    expected = kid_written_out(real.double().numpy(), generated.double().numpy())
    assert kernel_distance(real, generated) == pytest.approx(expected, rel=1e-9)


def test_kid_of_many_images_averages_over_subsets(monkeypatch):
    real, generated = sample(900, 6, 0), sample(700, 6, 1, shift=0.4)
    whole = kernel_distance(real, generated)
    monkeypatch.setattr(quality, "SUBSET", 100)
    parts = kernel_distance(real, generated)
    assert parts == kernel_distance(real, generated)  # the subsets are the same each time
    assert parts != whole
    assert parts == pytest.approx(whole, rel=0.25)  # seven subsets of 100: a few per cent of noise


def test_kid_is_unbiased_and_may_be_negative():
    """Of two samples of one distribution: zero on average; a biased estimate would be positive each time."""
    found = np.array(
        [kernel_distance(sample(40, 3, seed), sample(40, 3, 1000 + seed)) for seed in range(200)]
    )
    assert (found < 0).any()
    assert abs(found.mean()) < 4 * found.std() / len(found) ** 0.5


def test_worse_images_have_larger_distances():
    real = sample(400, 5, 0)
    for distance in (kernel_distance, frechet_distance):
        near, far = (distance(real, sample(400, 5, 1, shift=shift)) for shift in (0.1, 0.5))
        assert near < far


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_what_cannot_be_measured(distance):
    real = sample(10, 3, 0)
    broken = real.clone()
    broken[2, 1] = torch.nan
    assert distance(real, broken) is None
    assert distance(real, broken.fill_(torch.inf)) is None
    with pytest.raises(ValueError, match=r"at least 2.*10 real and 1 generated"):
        distance(real, real[:1])
