"""Variance of the weight gradient by arm: the measured numbers in a file, averaged over seeds, as a table.

The file is a CSV in long format whose first line says in JSON where it was made and which arms are compared
(:func:`write`, :func:`read`); table and figure are made from it alone. Ratios and variances are averaged over seeds
as logarithms, cosines as they are; intervals are 95 % t intervals over seeds.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.pairs import mean_interval
from gbn.store.files import write_atomically

MARK = "gbn-gradient-variance"
COLUMNS = (
    *("seed", "update", "batch_size", "batches", "arm", "layer", "quantity", "against", "value", "error"),
)
NETWORK = "network"  # the layer of a row for all weights together
BY_SIZE = ("statistic_variance", "through_variance")
_ADDITIVE = ("cosine", "relative_bias", "along")


@dataclass(frozen=True)
class Measured:
    """The contents of a file.

    Attributes:
        header: where it was made: ``title``, ``baseline``, ``trajectory``, ``exact``, ``command``, environment.
        rows: the columns of :data:`COLUMNS`.
    """

    header: dict[str, Any]
    rows: pd.DataFrame

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the file."""
        return list(dict.fromkeys(self.rows.arm))

    @property
    def states(self) -> list[int]:
        """The numbers of updates after which gradients were measured."""
        return sorted(self.rows["update"].unique())

    @property
    def layers(self) -> list[str]:
        """The layers in the order of the file, without the network."""
        inside = self.rows[self.rows.quantity == "variance"].layer
        return [layer for layer in dict.fromkeys(inside) if layer != NETWORK]

    @property
    def sizes(self) -> list[int]:
        """Batch sizes of the statistic's own noise; empty if that was not measured."""
        return sorted(self.rows[self.rows.quantity.isin(BY_SIZE)].batch_size.unique())

    def over_seeds(
        self, arm: str, quantity: str, against: str = "", *, update: int, layer: str = NETWORK
    ) -> Estimate:
        """Return the mean over seeds with its interval, geometric for positive quantities; n = 0 without values."""
        rows = self.rows
        chosen = rows[
            (rows.arm == arm)
            & (rows.quantity == quantity)
            & (rows.against == against)
            & (rows["update"] == update)
            & (rows.layer == layer)
        ]
        return average(chosen.value.to_list(), geometric=quantity not in _ADDITIVE)

    def at_size(self, arm: str, quantity: str, size: int) -> Estimate:
        """Return the statistic's own noise at a batch size, as a geometric mean over seeds."""
        rows = self.rows
        chosen = rows[(rows.arm == arm) & (rows.quantity == quantity) & (rows.batch_size == size)]
        return average(chosen.value.to_list(), geometric=True)

    def slope(self, arm: str, quantity: str) -> Estimate:
        """Return the power of the batch size that a variance scales with: log-log least squares, mean over seeds."""
        chosen = self.rows[(self.rows.arm == arm) & (self.rows.quantity == quantity)]
        slopes = [
            float(np.polyfit(np.log(of_seed.batch_size), np.log(of_seed.value), 1)[0])
            for _, of_seed in chosen.groupby("seed")
            if len(of_seed) > 1 and (of_seed.value > 0).all()
        ]
        return mean_interval(slopes)


def average(values: Sequence[float], *, geometric: bool) -> Estimate:
    """Return the mean with its t interval; a geometric one is NaN if a value is not positive (n stays)."""
    if not geometric:
        return mean_interval(values)
    if any(not value > 0 for value in values):
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(values), "not positive")
    logs = mean_interval(np.log(values).tolist())
    center, low, high = (math.exp(x) for x in (logs.value_low, logs.low, logs.high))
    return Estimate(center, center, low, high, logs.n, "geometric mean", logs.sd)


def write(path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the file; numbers have six digits, more than their Monte Carlo error justifies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(
        index=False, float_format="%.6g", lineterminator="\n"
    )
    write_atomically(path, f"# {MARK} {json.dumps(header, sort_keys=True)}\n{table}")


def read(path: Path) -> Measured:
    """Read the file.

    Raises:
        ValueError: the file does not exist, or is not one of these.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}: give a CSV that scripts/gradient_variance.py wrote")
    try:
        with open(path, encoding="utf-8") as file:
            _, found, content = file.readline().partition(f"{MARK} ")
            if not found:
                raise ValueError(f"its first line lacks {MARK!r}")
            rows = pd.read_csv(
                file, dtype={"against": str}, keep_default_na=False, na_values={"value": [""], "error": [""]}
            )
        if lacking := [name for name in COLUMNS if name not in rows]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        return Measured(json.loads(content), rows)
    except ValueError as error:
        raise ValueError(f"{path} is not a file of scripts/gradient_variance.py: {error}") from None


def markdown(measured: Measured, stem: str) -> str:
    """Return the readable table; `stem` is the name of the CSV and the figure without their suffixes."""
    header = measured.header
    lines = [
        f"# Variance of the weight gradient: {stem}",
        "",
        f"Made from `{stem}.csv` by `python scripts/gradient_variance.py --render {stem}.csv`; "
        "change no number here.",
        "",
        f"![Variance of the weight gradient]({stem}.png)",
        "",
        *_explanation(measured),
    ]
    for update in measured.states:
        lines += ["", f"## After {update} updates", "", *_state(measured, update)]
    if measured.sizes:
        lines += ["", "## The statistic's own gradient against the batch size", "", *_sizes(measured)]
    return "\n".join([*lines, "", "## How it was measured", "", *_provenance(header), ""])


def _explanation(measured: Measured) -> list[str]:
    header, rows = measured.header, measured.rows
    seeds = sorted(rows.seed.unique())
    batches = sorted(rows[~rows.quantity.isin(BY_SIZE)].batches.unique())
    return [
        f"All arms at the weights of one run, trained with `{header['trajectory']}`, over the same "
        f"{'/'.join(map(str, batches))} independent training batches (drawn, and augmented, apart from training); "
        f"{len(seeds)} seeds. Gradients to the weights of convolutions and linear layers, all together.",
        "",
        "- **variance**: trace of the covariance of a batch's gradient, here as a ratio on the same batches;",
        "- **noise scale**: batch size x variance / squared length of the mean gradient, in images (McCandlish et "
        "al. 2018, arXiv 1812.06162); the length is estimated without the noise's share; ?: nothing is left of it;",
        "- **cosine**: between the mean gradients of two arms, the noise's share removed from products and lengths "
        "(it may come out beyond 1);",
        "- **along the weight**: root mean square of cos(weight, gradient), all layers but the classifier; rounding, "
        "where the gradient knows that the loss does not change with the weight's scale.",
        "",
        "Brackets: 95 % t interval over seeds, one row at a time. "
        f"Monte-Carlo standard error of a seed's number (finitely many batches): {_monte_carlo(measured)}.",
    ]


def _monte_carlo(measured: Measured) -> str:
    rows = measured.rows[(measured.rows.layer == NETWORK) & measured.rows.error.notna()]
    ratios = rows[rows.quantity == "variance_ratio"]
    cosines = rows[rows.quantity == "cosine"]
    if ratios.empty or cosines.empty:
        return "not estimated (too few batches)"
    relative = 100 * float((ratios.error / ratios.value).max())
    return f"at most {relative:.2g} % of a variance ratio, at most {cosines.error.max():.2g} for a cosine"


def _state(measured: Measured, update: int) -> list[str]:
    header = measured.header
    baseline, trained, exact = header["baseline"], header["trajectory"], header["exact"]
    columns = [
        (f"variance / {baseline}'s", "variance_ratio", baseline),
        (f"variance / {trained}'s", "variance_ratio", trained),
        ("noise scale", "noise_scale", ""),
        *([(f"cosine with {exact}", "cosine", exact)] if exact else []),
        (f"cosine with {baseline}", "cosine", baseline),
        ("along the weight", "along_rms", ""),
    ]
    cells = [
        [arm, *(_cell(measured.over_seeds(arm, quantity, other, update=update), quantity, arm == other)
                for _, quantity, other in columns)]
        for arm in measured.arms
    ]  # fmt: skip
    lines = table(["arm", *(name for name, _, _ in columns)], cells)
    if len(measured.layers) > 1:
        ratios = [
            [arm, *(_cell(measured.over_seeds(arm, "variance_ratio", baseline, update=update, layer=layer),
                          "variance_ratio", arm == baseline) for layer in measured.layers)]
            for arm in measured.arms
        ]  # fmt: skip
        lines += [
            "",
            f"Variance / {baseline}'s, layer by layer:",
            "",
            *table(["arm", *measured.layers], ratios),
        ]
    return lines


def _sizes(measured: Measured) -> list[str]:
    rows = measured.rows[measured.rows.quantity.isin(BY_SIZE)]
    (layer,), batches = rows.layer.unique(), "/".join(map(str, sorted(rows.batches.unique())))
    arms = list(dict.fromkeys(rows.arm))
    lines = [
        f"At `{layer}`, after {rows['update'].min()} updates, {batches} batches of each size, the same "
        "pre-activations and the same gradient from above for every arm. **dS/dw**: gradient of the statistic to "
        "the weight before it; an average over a share of the batch has a variance that goes with the batch "
        "size to the power -1, one sample's stays (power 0). **through S**: the part of the loss's gradient "
        "that goes through the statistic, -gain / D x (gradient to the bias) x dS/dw. The gradient to the "
        "bias is itself an average over the batch, so even with the exact way this part's variance falls at "
        "first, towards the squared mean of that gradient times the variance of dS/dw. Traces of the "
        "covariance, geometric means over seeds; power: least squares on logarithms.",
    ]
    for quantity, name in zip(BY_SIZE, ("dS/dw", "through S"), strict=True):
        cells = [
            [
                arm,
                *(f"{measured.at_size(arm, quantity, size).value_low:.3g}" for size in measured.sizes),
                _with_interval(measured.slope(arm, quantity), lambda value: f"{value:.2f}"),
            ]
            for arm in arms
        ]
        lines += [
            "",
            *table([f"variance of {name}", *(f"batch {size}" for size in measured.sizes), "power"], cells),
        ]
    return lines


def _cell(estimate: Estimate, quantity: str, itself: bool) -> str:
    if itself:
        return "1"
    if estimate.n == 0:
        return "-"
    if math.isnan(estimate.value_low):
        return "?"
    digits = {"cosine": ".3f", "along_rms": ".1e", "noise_scale": ",.0f"}.get(quantity)
    return _with_interval(estimate, lambda value: f"{value:{digits}}" if digits else _ratio(value))


def _ratio(value: float) -> str:
    """Format with three decimals around 1, where paired ratios are precise; fewer as it grows."""
    return f"{value:.3f}" if value < 2 else f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def _with_interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if estimate.n == 0:
        return "-"
    center = text(estimate.value_low)
    if math.isnan(estimate.low):
        return center
    return f"{center} [{text(estimate.low)}, {text(estimate.high)}]"


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Return an aligned Markdown table."""
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [heads, ["-" * width for width in widths], *cells]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]


def _provenance(header: Mapping[str, Any]) -> list[str]:
    names = ("command", "device", "kernels", "threads", "versions", "commit", "dirty", "date")
    return [f"- {name}: {header[name]}" for name in names if header.get(name)]
