"""The figures of a comparison as a long frame: the contents of a table's .csv."""

import math
from typing import Any

import pandas as pd

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.estimate import Figure
from gbn.analysis.estimates.pairs import smallest_ratio
from gbn.analysis.tables.causes_frame import effect_figures


def frame(comparison: Comparison) -> pd.DataFrame:
    """Return one row per figure, with unrounded numbers.

    The primary interval (interval_low, interval_high) is at 95 % for each row separately. Beside it are p and p_holm,
    the interval at the level at which Holm's correction of the table tests the row (holm_*), and, for speed-ups, the
    sensitivity intervals, the permutation's p, the verdict and how many seeds would decide it (1,000,000 means that
    many or more).
    """
    return pd.DataFrame(
        [
            {**_estimate(figure), **_evidence(comparison, figure)}
            for figure in (*comparison.figures, *effect_figures(comparison))
        ]
    )


def _estimate(figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    log_sd = estimate.sd if figure.quantity.startswith("speedup") else math.nan
    return {
        "setting": figure.setting,
        "quantity": figure.quantity,
        "target": figure.target,
        "unit": figure.unit,
        "arm": figure.arm,
        "against": figure.against,
        "n": estimate.n,
        "value_low": estimate.value_low,
        "value_high": estimate.value_high,
        "interval_low": estimate.low,
        "interval_high": estimate.high,
        "sd": estimate.sd,
        "method": estimate.method,
        "arm_misses": estimate.arm_misses,
        "against_misses": estimate.reference_misses,
        "saved_31_percent": figure.saved if figure.quantity == "speedup_to_maximum" else None,
        "smallest_ratio_told_from_1": smallest_ratio(log_sd, estimate.n),
        "p": estimate.p,
        "p_holm": estimate.p_holm,
        "holm_level": estimate.holm_level,
        "holm_low": estimate.holm_low,
        "holm_high": estimate.holm_high,
    }


def _evidence(comparison: Comparison, figure: Figure) -> dict[str, Any]:
    if not figure.quantity.startswith("speedup") or figure.estimate.method == "A/A" or not figure.estimate.n:
        return {}
    more = comparison.evidence(figure)
    return {
        "percentile_low": more.bootstrap.percentile[0],
        "percentile_high": more.bootstrap.percentile[1],
        "bca_low": more.bootstrap.bca[0],
        "bca_high": more.bootstrap.bca[1],
        "p_sign_flip": more.sign_flip,
        "verdict": more.verdict,
        "seeds_to_decide": more.seeds,
    }
