"""Mixture normalization on plain tensors: fitting a mixture to a batch, and normalizing by its components.

The samples of a batch are the C-vectors at every position of every image. A :class:`Mixture` of K Gaussians with
diagonal variances is fitted to some of them without gradient (:mod:`gbn.kernels.mixture.fit`), and

    t_ik  = posterior of component k for sample i
    m_k, q_k, l_k = mean and variance weighted by w_ik = t_ik / sum_i t_ik, and mean_i t_ik
    y_i   = weight * sum_k t_ik / sqrt(l_k) * (x_i - m_k) / sqrt(q_k + eps) + bias

(Kalayeh and Shah: Training Faster by Separating Modes of Variation in Batch-normalized Models, TPAMI 2019, arXiv
1806.02892; the formula is reconstructed.) ``joint``: one mixture of C-vectors, so a sample has K posteriors;
``per_channel``: one mixture of scalars per channel, so every value has K posteriors.
"""

from gbn.kernels.mixture.fit import fitted, seeded
from gbn.kernels.mixture.gaussians import FORMS, LARGE, Mixture, Moments, channel_moments, has_small_squares
from gbn.kernels.mixture.normalize import implementation, normalize_by_batch, normalize_by_mixture
from gbn.kernels.mixture.sampling import sample, uniform

__all__ = [
    "FORMS",
    "LARGE",
    "Mixture",
    "Moments",
    "channel_moments",
    "fitted",
    "has_small_squares",
    "implementation",
    "normalize_by_batch",
    "normalize_by_mixture",
    "sample",
    "seeded",
    "uniform",
]
