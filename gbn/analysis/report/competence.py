"""Check that the baseline is credible: compare the reference with experiments/competence and published results.

Competence runs are classifiers, so a measure other than test accuracy has nothing to be compared with.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbn.analysis.comparison.figures import Figures
from gbn.analysis.report import provenance
from gbn.analysis.report.protocol import readme
from gbn.analysis.runs.load import NothingFound, Runs, load_grid_runs
from gbn.analysis.tables import numbers
from gbn.measures import Measure
from gbn.store.identity import part_label
from gbn.store.record import Record

#: A reference is called weak if it is below the competence run on the same data by more than this.
WEAK = 0.02


@dataclass(frozen=True)
class Baseline:
    """The reference of one setting, with the competence runs on the same data set.

    Attributes:
        value: its result at the last epoch, as printed, with its unit.
        measured: the measure of that: "test accuracy", "KID x 1000 (own network 1a2b3c4d)".
        data, network, length: its configuration; n is the number of its runs.
        known: (network, length, accuracy) of each competence run on the same data.
        warning: why it is weak; empty if nothing suggests so.
    """

    setting: str
    value: str
    measured: str
    data: str
    network: str
    length: str
    n: int
    known: tuple[tuple[str, str, str], ...]
    warning: str


def baselines(
    runs: Runs,
    figures: Figures,
    records: Mapping[str, Record],
    competence: list[tuple[dict[str, Any], float]],
) -> list[Baseline]:
    """Return one baseline per setting that has a run of the reference.

    Args:
        competence: (configuration, test accuracy) of the archived competence runs, from :func:`archived`.
    """
    reference, final, found = runs.plan.reference, figures.final, []
    for setting in runs.plan.settings:
        usable = runs.usable(setting, reference)
        if len(usable) == 0:
            continue
        config = next((records[r].config for r in usable.run_id if r in records), {})
        last = figures.estimate(setting, "last", reference)
        same = [(c, a) for c, a in competence if _name(c, "dataset") == _name(config, "dataset")]
        same = same if final.family == "accuracy" else []
        value = " ".join(filter(None, (numbers.value(last, final), final.unit)))
        found.append(
            Baseline(
                setting, value, final.title, _data(config), _network(config), _length(config),
                len(usable), tuple((_network(c), _length(c), f"{100 * a:.2f}") for c, a in same),
                _warning(last.value_low, final, _name(config, "dataset"), same),
            )
        )  # fmt: skip
    return found


def archived(experiments: Path, results_dir: str | Path) -> list[tuple[dict[str, Any], float]]:
    """Return configuration and last test accuracy of the archived runs of ``experiments/competence``."""
    from gbn.config.grid import load_grid

    folder = experiments / "competence"
    if not (folder / "sweep.yaml").is_file():
        return []
    try:
        runs = load_grid_runs(load_grid(folder), results_dir, "archive")
    except NothingFound:
        return []
    return known(runs, provenance.records_of(runs, results_dir))


def known(runs: Runs, records: Mapping[str, Record]) -> list[tuple[dict[str, Any], float]]:
    """Return (configuration, last test accuracy) of each finished run of the reference."""
    rows = runs.runs[(runs.runs.arm == runs.plan.reference) & runs.runs["last"].notna()]
    pairs = zip(rows.run_id, rows["last"], strict=True)
    return [(records[run_id].config, float(last)) for run_id, last in pairs if run_id in records]


def field(experiments: Path) -> str:
    """Return the published results: the text of the competence experiment."""
    return readme(experiments / "competence")


def _warning(accuracy: float, final: Measure, data: str, others: list[tuple[dict[str, Any], float]]) -> str:
    if final.family != "accuracy":
        return f"No competence run is measured by {final.title}: nothing here vouches for this baseline."
    if not others:
        return f"No competence run on {data or 'this data set'} is archived: nothing here vouches for this baseline."
    config, best = max(others, key=lambda run: run[1])
    if accuracy >= best - WEAK:
        return ""
    return (
        f"A weak baseline: {100 * (best - accuracy):.1f} points below the competence run on the same data set "
        f"({_network(config)}, {_length(config)}). A speed-up over it is a statement about this network and schedule "
        "alone."
    )


def _name(config: Mapping[str, Any], part: str) -> str:
    return part_label({"name": "", **(config.get(part) or {})})


def _data(config: Mapping[str, Any]) -> str:
    data = config.get("dataset") or {}
    subset = data.get("subset")
    return part_label({"name": "unknown", **data}) + (f", {subset:,} training images" if subset else "")


def _network(config: Mapping[str, Any]) -> str:
    model = config.get("model") or {}
    name = part_label({"name": "unknown", **model})
    depth, width = model.get("depth"), model.get("width")
    return (
        name + (f"-{depth}" if depth else "") + (f", width {width:g}" if width not in (None, 1, 1.0) else "")
    )


def _length(config: Mapping[str, Any]) -> str:
    epochs = (config.get("trainer") or {}).get("epochs")
    return "unknown" if epochs is None else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"
