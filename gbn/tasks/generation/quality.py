"""FID and KID: the distance of generated images from real ones in the features of a fixed network; lower is better.

* FID (Heusel et al., arXiv 1706.08500): \\|m - m'\\|^2 + tr(C + C' - 2 (C C')^(1/2)) of the features' means and
  covariances, in float64. Its estimate is biased upward, the more so the fewer images there are: compare only
  estimates from equal numbers of images.
* KID (Binkowski et al., arXiv 1801.01401): the unbiased estimate of the squared maximum mean discrepancy with the
  kernel (x . y / d + 1)^3; it can be negative. It is averaged over random subsets of :data:`SUBSET` images, as many
  as fit into the smaller set; if both sets are that small, it is the estimate for the whole sets.

Both are computed by torch-fidelity.
"""

import math

import torch
from torch import Tensor

from gbn.tasks.generation.features import fidelity

#: Images per set in one estimate of KID; each of its three kernel matrices has the square of this many entries.
SUBSET = 2000


def frechet_distance(real: Tensor, generated: Tensor) -> float | None:
    """Return the FID of features (N, d) and (M, d); None if a feature is not finite.

    Raises:
        ValueError: fewer than two images.
    """
    if not _usable(real, generated):
        return None
    module = fidelity("metric_fid")
    first, second = (module.fid_features_to_statistics(part.double().cpu()) for part in (real, generated))
    found = module.fid_statistics_to_metric(first, second, verbose=False)
    return float(found[module.KEY_METRIC_FID])


def kernel_distance(real: Tensor, generated: Tensor) -> float | None:
    """Return the KID of features (N, d) and (M, d), unscaled; None if a feature is not finite.

    Raises:
        ValueError: fewer than two images.
    """
    if not _usable(real, generated):
        return None
    smaller = min(len(real), len(generated))
    size = min(smaller, SUBSET)
    module = fidelity("metric_kid")
    found = module.kid_features_to_metric(
        real.double(),
        generated.double(),
        kid_subsets=math.ceil(smaller / size),
        kid_subset_size=size,
        verbose=False,
    )
    return float(found[module.KEY_METRIC_KID_MEAN])


def _usable(real: Tensor, generated: Tensor) -> bool:
    if min(len(real), len(generated)) < 2:
        raise ValueError(
            f"FID and KID need at least 2 images of each kind, {len(real)} real and {len(generated)} "
            "generated were given"
        )
    return bool(torch.isfinite(real).all() and torch.isfinite(generated).all())
