"""What an update costs: interleaved timings of a grid's arms, as scripts/cost.py writes them.

Seconds of training runs are compared only where each run had its machine to itself. An update's cost needs no
such runs: all arms are timed in one process, in turns, so that whatever slows the machine slows all of them.
Rounds within a block follow each other within milliseconds and are not independent, so a block counts once, by
its median; the interval of a ratio is the paired t over blocks of log(reference / arm).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gbn.analysis.estimates import pairs as statistics
from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.load import Runs
from gbn.analysis.runs.plan import Plan
from gbn.store.records import Record

#: What a file must hold to be read; the rest is for people.
COLUMNS = (
    *("experiment", "setting", "arm", "run_id", "block", "status", "seconds_per_update", "kernels"),
    *("device_kind", "threads", "torch", "commit", "date"),
)
#: What identifies the machine; a library that it does not have may lack or be empty.
MACHINE = ("device_kind", "torch", "kernels", "numpy", "numba", "triton", "cuda", "cudnn")
#: The status of a row that counts; the others name what was wrong ("busy": others used the machine).
OK = "ok"


@dataclass(frozen=True)
class Costs:
    """The timings of one file.

    Attributes:
        path: the file.
        experiment: the plan it was made for, with its scale ("gbn_cifar10-small").
        machine: device kind, kernels and versions of libraries, written as a run's record has them.
        threads: of the timed process.
        date, commit: when, at which commit.
        seconds: (setting, arm) -> block -> median seconds an update; undisturbed blocks only.
        run_ids: (setting, arm) -> the id of a run of the configuration that was timed.
        dropped: rows that do not count -> how many, by status.
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
    """Read a file of scripts/cost.py.

    Raises:
        ValueError: no such file, columns that lack, no rows, rows of several machines or plans, or a time that
            is no positive number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file {path}: give a CSV that scripts/cost.py wrote")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # no text, or no table
        raise ValueError(f"{path} is no file of scripts/cost.py: {error}") from None
    lacking = [name for name in COLUMNS if name not in frame]
    if lacking or frame.empty:
        what = f"lacks {', '.join(lacking)}" if lacking else "has no rows"
        raise ValueError(f"{path} {what}: it is no file of scripts/cost.py")
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
    """The machine as a record of a run made there would name it."""
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
            f"{path}: seconds_per_update={text!r} of a row that is ok; a positive number is needed"
        )
    return value


def find(results_dir: str | Path, plan: Plan) -> list[Costs]:
    """The cost files of a plan under ``<results_dir>/benchmarks/``, newest first."""
    paths = Path(results_dir).glob(f"benchmarks/cost-{plan.name}-*.csv")
    # The name of one plan may begin that of another ("gbn_cifar10", "gbn_cifar10-small"): the file itself tells.
    costs = [one for one in map(read, sorted(paths)) if one.experiment == plan.name]
    return sorted(costs, key=lambda one: (one.date, one.path.name), reverse=True)


def refusal(costs: Costs, runs: Runs) -> str | None:
    """Why these costs do not belong to these runs; None where they do.

    They do where some of the runs ran on the same device kind with the same kernels and libraries, and the arms are
    the same configurations. The number of threads is not held against them, since parallel runs have fewer: the
    cost answers for the machine as it was timed.
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
    """The newest file that belongs to these runs, and why newer ones were refused."""
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
    """Seconds an update of `against` / those of `arm`: greater than 1, the arm's update is cheaper.

    Returns:
        The geometric mean over the blocks that have both, with its paired t interval; n counts these blocks.
    """
    ours, theirs = (costs.seconds.get((setting, name), {}) for name in (arm, against))
    blocks = sorted(ours.keys() & theirs.keys())
    return statistics.speedup(_times(ours, blocks), _times(theirs, blocks), level) if blocks else NOTHING


def seconds_per_update(costs: Costs, setting: str, arm: str) -> float:
    """The median over blocks; NaN where the arm was not timed."""
    values = costs.seconds.get((setting, arm), {})
    return float(pd.Series(list(values.values()), dtype=float).median())


def _times(seconds: Mapping[int, float], blocks: Sequence[int]) -> list[Time]:
    return [Time(seconds[block], seconds[block]) for block in blocks]
