"""The cost of an update: interleaved timings of a grid's arms, as written by scripts/cost.py.

Seconds of training runs are comparable only if each run had its machine to itself. The cost of an update needs no
such runs: all arms are timed in one process, in turns, so that whatever slows the machine slows all of them. Rounds
within a block follow each other within milliseconds and are not independent, so a block counts once, by its median.
The interval of a ratio is the paired t interval of log(reference / arm) over blocks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import LEVEL, Estimate
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import Runs
from gbn.analysis.runs.plan import Plan
from gbn.store.record import Record

#: Columns that a file must have; the others are for human readers.
COLUMNS = (
    *("experiment", "setting", "arm", "run_id", "block", "status", "seconds_per_update", "kernels"),
    *("device_kind", "threads", "torch", "commit", "date"),
)
#: Columns that identify the machine; those of libraries that it does not have may be missing or empty.
MACHINE = ("device_kind", "torch", "kernels", "numpy", "numba", "triton", "cuda", "cudnn")
#: The status of a row that counts; any other names the problem ("busy": other processes used the machine).
OK = "ok"


@dataclass(frozen=True)
class Costs:
    """The timings in one file.

    Attributes:
        path: the file.
        experiment: the plan that was timed, with its scale ("gbn_cifar10-small").
        machine: device kind, kernels and library versions, in the format of a run's record.
        threads: number of threads of the timed process.
        date, commit: when, and at which commit, the timings were made.
        seconds: (setting, arm) -> block -> median seconds per update; undisturbed blocks only.
        run_ids: (setting, arm) -> the id of a run of the timed configuration.
        dropped: number of rows that do not count, by status.
    """

    path: Path
    experiment: str
    machine: str
    threads: int
    date: str
    commit: str
    seconds: Mapping[tuple[str, str], Mapping[int, float]]
    run_ids: Mapping[tuple[str, str], str]
    dropped: Mapping[str, int]


def read(path: str | Path) -> Costs:
    """Read a file written by scripts/cost.py.

    Raises:
        ValueError: the file does not exist, lacks columns or rows, mixes machines or plans, or has a time that is not
            a positive number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}: give a CSV that scripts/cost.py wrote")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # not text, or not a table
        raise ValueError(f"{path} was not written by scripts/cost.py: {error}") from None
    lacking = [name for name in COLUMNS if name not in frame]
    if lacking or frame.empty:
        what = f"lacks {', '.join(lacking)}" if lacking else "has no rows"
        raise ValueError(f"{path} {what}: it was not written by scripts/cost.py")
    for names in (("experiment",), MACHINE, ("threads",)):
        kinds = frame[[name for name in names if name in frame]].drop_duplicates()
        if len(kinds) > 1:
            raise ValueError(
                f"{path} mixes {', '.join(names)} ({len(kinds)} kinds): a file is of one machine and plan"
            )
    good = frame[frame.status == OK]
    seconds: dict[tuple[str, str], dict[int, float]] = {}
    for row in good.itertuples():
        value = _positive(row.seconds_per_update, path)
        seconds.setdefault((row.setting, row.arm), {})[int(row.block)] = value
    first = frame.iloc[0]
    return Costs(
        path=path,
        experiment=first.experiment,
        machine=_machine(first),
        threads=int(first.threads),
        date=first.date[:10],
        commit=first.commit,
        seconds=seconds,
        run_ids={(row.setting, row.arm): row.run_id for row in frame.itertuples()},
        dropped=frame[frame.status != OK].status.value_counts(sort=False).to_dict(),
    )


def _machine(row: "pd.Series[str]") -> str:
    """Return the machine as the record of a run made there would name it."""
    versions = {name: row.get(name) for name in ("torch", "numpy", "numba", "triton")}
    segment = {name: row.get(name) for name in ("device_kind", "kernels", "cuda", "cudnn")}
    return Record("", "finished", {}, provenance=[segment | {"versions": versions}]).machine


def _positive(text: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(
            f"{path}: seconds_per_update={text!r} in a row that is ok; must be a positive number"
        )
    return value


def find(results_dir: str | Path, plan: Plan) -> list[Costs]:
    """Return the cost files of a plan under ``<results_dir>/benchmarks/``, newest first."""
    paths = Path(results_dir).glob(f"benchmarks/cost-{plan.name}-*.csv")
    # One plan's name may be a prefix of another's ("gbn_cifar10", "gbn_cifar10-small"), so the file's content
    # decides.
    costs = [one for one in map(read, sorted(paths)) if one.experiment == plan.name]
    return sorted(costs, key=lambda one: (one.date, one.path.name), reverse=True)


def refusal(costs: Costs, runs: Runs) -> str | None:
    """Return why these costs do not apply to these runs; None if they do.

    They apply if some of the runs used the same device kind, kernels and libraries, and the arms are the same
    configurations. The number of threads may differ, since parallel runs use fewer: the cost describes the machine as
    it was timed.
    """
    if costs.experiment != runs.plan.name:
        return f"{costs.path.name} is of {costs.experiment}, these runs are of {runs.plan.name}"
    machines = sorted(runs.runs.machine.dropna().unique())
    if costs.machine not in machines:
        ran = "; ".join(machines) or "no machine"
        return (
            f"{costs.path.name} was timed on {costs.machine}, these runs ran on {ran}: time an update there "
            "(scripts/cost.py)"
        )
    planned = {(entry.setting, entry.arm, entry.run_id) for entry in runs.plan.entries}
    known = {(setting, arm) for setting, arm, _ in planned}
    changed = sorted(
        " ".join(filter(None, key))
        for key, run_id in costs.run_ids.items()
        if key in known and (*key, run_id) not in planned
    )
    if changed:
        return (
            f"{costs.path.name} timed other configurations of {', '.join(changed)}: time them again "
            "(scripts/cost.py)"
        )
    return None


def choose(runs: Runs) -> tuple[Costs | None, list[str]]:
    """Return the newest file that applies to these runs, and why newer ones were refused."""
    if runs.results_dir is None:
        return None, []
    reasons: list[str] = []
    for costs in find(runs.results_dir, runs.plan):
        reason = refusal(costs, runs)
        if reason is None:
            return costs, reasons
        reasons.append(reason)
    return None, reasons


def ratio(costs: Costs, setting: str, arm: str, against: str, level: float = LEVEL) -> Estimate:
    """Return seconds per update of `against` divided by those of `arm`: above 1, the arm's update is cheaper.

    Returns:
        The geometric mean over the blocks that both have, with its paired t interval; n counts these blocks.
    """
    ours, theirs = (costs.seconds.get((setting, name), {}) for name in (arm, against))
    blocks = sorted(ours.keys() & theirs.keys())
    first, second = ([Time(one[block], one[block]) for block in blocks] for one in (ours, theirs))
    return pairs.speedup(first, second, level)


def seconds_per_update(costs: Costs, setting: str, arm: str) -> float:
    """Return the median over blocks; NaN if the arm was not timed."""
    values = costs.seconds.get((setting, arm), {})
    return float(pd.Series(list(values.values()), dtype=float).median())
