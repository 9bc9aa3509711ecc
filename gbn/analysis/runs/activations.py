"""Recordings of the layers as a tidy frame: what the normalizers of an arm saw and did over training.

:mod:`gbn.engine.recording.recorder` defines how each quantity is measured. A run has recordings if it was trained
with ``trainer.record.layers=true``. Only this module reads them, so tables never wait for them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gbn.analysis.runs.load import USABLE, NothingFound, Runs

#: The columns of :func:`layer_frame`.
COLUMNS = [
    "setting",
    "arm",
    "seed",
    "run_id",
    "update",
    "depth",
    "layer",
    "quantity",
    "low",
    "median",
    "high",
]


@dataclass(frozen=True)
class Quantity:
    """Display settings of a recorded quantity.

    Attributes:
        label: axis label, with a line break if it is long.
        log: whether the quantity is positive and spans orders of magnitude; it is then averaged and drawn as a
            logarithm.
        neutral: the value when nothing unusual happens (under batch normalization, or on a Gaussian).
        bounds: limits that the quantity cannot exceed.
        room: the smallest range that an axis spans (in log units if `log`), so that negligible differences look
            negligible.
    """

    label: str
    log: bool = False
    neutral: float | None = None
    bounds: tuple[float, float] | None = None
    room: float = 0.1


_SHARE, _POSITIVE = (0.0, 1.0), (0.0, math.inf)

#: Every quantity that is recorded.
QUANTITIES = {
    "statistic": Quantity("(S - mean) / std", neutral=0.0),
    "deviation": Quantity("D / std", neutral=1.0, bounds=_POSITIVE),
    "active": Quantity("active share\nafter ReLU", bounds=_SHARE),
    "dead": Quantity("share of dead\nchannels", neutral=0.0, bounds=_SHARE),
    "skewness": Quantity("skewness", neutral=0.0, room=0.4),
    "kurtosis": Quantity("excess kurtosis", neutral=0.0, room=0.4),
    "tail_index": Quantity("upper tail\nindex (Hill)", neutral=4.7, bounds=_POSITIVE, room=1.0),
    "gap_statistic": Quantity("|running S - S|\n/ std", neutral=0.0, bounds=_POSITIVE),
    "gap_deviation": Quantity("running D / D", neutral=1.0, bounds=_POSITIVE),
    "gain": Quantity("gain"),
    "bias": Quantity("bias"),
    "slope": Quantity("gain std / D", neutral=1.0),
    "level": Quantity("output at the\nmean", neutral=0.0),
    "gradient_weight": Quantity("gradient norm,\nweight", log=True),
    "gradient_gain": Quantity("gradient norm,\ngain", log=True),
    "gradient_bias": Quantity("gradient norm,\nbias", log=True),
    "weight_norm": Quantity("weight norm", log=True),
    "relative_update": Quantity("|update|\n/ |weight|", log=True),
    "effective_rate": Quantity("rate / |weight|²", log=True),
}

#: The quantities that a figure shows by default, in this order.
SHOWN = (
    *("statistic", "deviation", "active", "dead", "skewness", "tail_index", "gap_statistic"),
    *("gradient_weight", "relative_update", "effective_rate"),
)


def layer_frame(runs: Runs) -> pd.DataFrame:
    """Return the recordings of the usable runs, one row per run, update, layer and quantity.

    The columns are :data:`COLUMNS`: `depth` counts the network's normalizers from 0, `layer` is the module path, and
    `low`, `median` and `high` are the 10 %, 50 % and 90 % quantiles over channels. For a quantity with a single value
    per layer (``dead``, norms, rates), `median` holds it and `low` and `high` are NaN. Without recordings the frame
    is empty.

    Raises:
        StoreError: a file is damaged.
    """
    rows: list[tuple[Any, ...]] = []
    for entry in runs.runs[runs.runs.status.isin(USABLE)].itertuples(index=False):
        record = runs.points.rows[entry.setting, entry.arm, entry.seed].record
        for recording in record.layers:
            head = (entry.setting, entry.arm, int(entry.seed), entry.run_id, recording["update"])
            for depth, (layer, quantities) in enumerate(recording["layers"].items()):
                for quantity, value in quantities.items():
                    three = value if isinstance(value, list) else (None, value, None)
                    rows.append((*head, depth, layer, quantity, *three))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"low": float, "median": float, "high": float})


def require(frame: pd.DataFrame, runs: Runs) -> None:
    """Raise NothingFound, saying what to do, if no run has recordings."""
    if frame.empty:
        count = int(runs.runs.status.isin(USABLE).sum())
        raise NothingFound(
            f"nothing found: none of the {count} finished runs of {runs.plan.name} has recordings of its layers; "
            "train with trainer.record.layers=true (a run that is done is not trained again: remove its folder first)"
        )


def layers_to_show(frame: pd.DataFrame, setting: str, wanted: Sequence[str] = ()) -> list[str]:
    """Return the module paths to show as columns of a figure: those in `wanted`, or the first, middle and last one.

    The default considers only normalizers with a fused ReLU, if there are any, since most quantities describe the
    ReLU.

    Raises:
        ValueError: a wanted layer was not recorded.
    """
    here = frame[frame.setting == setting].sort_values("depth", kind="stable")
    every = list(dict.fromkeys(here.layer))
    for layer in wanted:
        if layer not in every:
            raise ValueError(f"no normalizer {layer!r} was recorded; choose from {', '.join(every)}")
    if wanted:
        return list(wanted)
    active = list(dict.fromkeys(here.layer[here.quantity == "active"])) or every
    return list(dict.fromkeys(active[i] for i in (0, (len(active) - 1) // 2, -1)))


def seed_table(frame: pd.DataFrame, setting: str, arm: str, layer: str, quantity: str) -> pd.DataFrame:
    """Return the medians of an arm's quantity in one layer, with one row per update and one column per seed.

    Quantities drawn on a log scale are returned as logarithms; undefined values are NaN.
    """
    here = frame[
        (frame.setting == setting)
        & (frame.arm == arm)
        & (frame.layer == layer)
        & (frame.quantity == quantity)
    ]
    table = here.pivot_table(index="update", columns="seed", values="median", dropna=False)
    return np.log(table.where(table > 0)) if QUANTITIES[quantity].log else table
