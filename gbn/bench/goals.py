"""The goals and their verdicts, computed only from the rows of a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gbn.engine.clock import LIMIT

Row = Mapping[str, str]
MILLION = 1_000_000
NAMED = ("std", "mad", "cvar")


@dataclass(frozen=True)
class Goal:
    """A bound on one column, for the rows that it applies to.

    Attributes:
        text: the goal in words.
        applies: returns whether the goal applies to a row.
        column: the column of the number compared.
        bound: at most this, or at least this if ``at_least``.
        group: column whose values are judged separately (pairs, arms).
        case: columns that name a row's case.
    """

    text: str
    applies: Callable[[Row], bool]
    column: str
    bound: float
    at_least: bool = False
    group: str = "provider"
    case: tuple[str, ...] = ("shape", "dtype")


@dataclass(frozen=True)
class Verdict:
    """A goal's outcome for one pair or arm."""

    goal: Goal
    group: str
    values: tuple[tuple[float, str], ...]  # measured value, case
    unmeasured: tuple[str, ...]  # cases whose row has no timing
    disturbed: int = 0  # values measured while others used the machine

    @property
    def missed(self) -> tuple[tuple[float, str], ...]:
        """Values beyond the bound, worst first."""
        sign = -1 if self.goal.at_least else 1
        beyond = [one for one in self.values if sign * one[0] > sign * self.goal.bound]
        return tuple(sorted(beyond, key=lambda one: -sign * one[0]))

    @property
    def met(self) -> bool:
        """True if every case was measured, undisturbed or not, and within the bound."""
        return bool(self.values) and not self.missed and not self.unmeasured

    @property
    def worst(self) -> tuple[float, str]:
        """The value closest to the bound, or farthest beyond it, and its case."""
        return (min if self.goal.at_least else max)(self.values, key=lambda one: one[0])

    def by_how_much(self) -> str:
        """The miss at the worst case in percent of the bound, and the disturbed or missing measurements."""
        parts = []
        if self.missed:
            value = self.missed[0][0]
            parts.append(f"missed by {percent(abs(value / self.goal.bound - 1))}")
        if self.unmeasured:
            parts.append(f"not measured: {', '.join(self.unmeasured)}")
        if self.disturbed:
            parts.append(f"{self.disturbed} of {len(self.values)} measured on a disturbed machine")
        return "; ".join(parts)


def percent(share: float) -> str:
    """Format a share as ``1.8 %`` or ``18 %``, without digits that no timing justifies."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def disturbed(row: Row) -> bool:
    """Return whether other processes used more than a few percent of the machine in every attempt (CPU timings)."""
    return row["device"] == "cpu" and bool(row.get("others")) and float(row["others"]) > LIMIT


def _ours(row: Row) -> bool:
    return row["kernels"] == "auto"


def _named(row: Row) -> bool:
    return row["pair"].split("[")[0] in NAMED


def _cpu(row: Row) -> bool:
    return _ours(row) and row["device"] == "cpu" and row["dtype"] == "float32"


def _gpu(row: Row) -> bool:
    wanted = row["device"] == "cuda" and row["dtype"] in ("float32", "bfloat16")
    return _ours(row) and wanted and row["layout"] == "channels_last"


def _gated(row: Row) -> bool:
    return row["pair"].split("[")[0] == "iebn"


def _mixture(row: Row, form: str = "") -> bool:
    """Return whether a row is of mixture normalization, of one form or of any."""
    name = row["pair"]
    return name.split("[")[0] == "mixture" and (
        not form or ("per_channel" in name) == (form == "per_channel")
    )


def _large(row: Row) -> bool:
    return int(row["elements"]) >= MILLION


NORM = (
    Goal(
        "CPU, std, mad and cvar, a million elements or more: at most 0.6 times BatchNorm + ReLU",
        lambda row: _cpu(row) and _named(row) and _large(row),
        *("ratio", 0.6),
    ),
    Goal(
        "CPU, std, mad and cvar, everywhere: at most 0.9 times BatchNorm + ReLU",
        lambda row: _cpu(row) and _named(row),
        *("ratio", 0.9),
    ),
    Goal(
        "CPU, the other pairs: at most 1.2 times BatchNorm + ReLU",
        lambda row: _cpu(row) and not _named(row) and not _gated(row) and not _mixture(row),
        *("ratio", 1.2),
    ),
    Goal(
        "CPU, with instance enhancement (iebn): at most 1.2 times BatchNorm + ReLU",
        lambda row: _cpu(row) and _gated(row),
        *("ratio", 1.2),
    ),
    Goal(
        "CPU, one mixture a layer: at most 1.5 times BatchNorm + ReLU",
        lambda row: _cpu(row) and _mixture(row, "joint"),
        *("ratio", 1.5),
    ),
    Goal(
        "CPU, a mixture for each channel: at most 2 times BatchNorm + ReLU",
        lambda row: _cpu(row) and _mixture(row, "per_channel"),
        *("ratio", 2.0),
    ),
    Goal(
        "CPU, std, mad and cvar, a million elements or more: at most 1.5 times the limit of memory bandwidth",
        lambda row: _cpu(row) and _named(row) and _large(row),
        *("of_limit", 1.5),
    ),
    Goal(
        "GPU: at most the time of the faster of BatchNorm + ReLU eager and compiled",
        lambda row: _gpu(row) and not _mixture(row),
        *("ratio_best", 1.0),
    ),
    Goal(
        "GPU, beyond the L2 cache: at least 80 % of the copy bandwidth (1.25 times the limit)",
        lambda row: _gpu(row) and not _mixture(row) and row["beyond_cache"] == "yes",
        *("of_limit", 1.25),
    ),
    Goal(
        "kept for the backward pass: not more than BatchNorm + ReLU (a per cent for numbers per channel)",
        _ours,
        *("kept_ratio", 1.01),
    ),
)


def _of_mode(mode: str) -> Callable[[Row], bool]:
    return lambda row: _ours(row) and not _mixture(row) and row["mode"] == mode


TRAIN = tuple(
    Goal(
        f"training step, {mode}: images/s at least {bound} times the same net's with BatchNorm + ReLU",
        _of_mode(mode),
        *("ratio", bound, True, "arm", ("net", "batch", "precision")),
    )
    for mode, bound in (("eager", 1.0), ("compiled", 0.97))
)


def judge(rows: Sequence[Row], goals: Sequence[Goal]) -> list[Verdict]:
    """Return a verdict for each goal and each pair or arm that it applies to."""
    verdicts = []
    for goal in goals:
        spoken_of = [row for row in rows if goal.applies(row)]
        for group in dict.fromkeys(row[goal.group] for row in spoken_of):
            values, unmeasured, disturbances = [], [], 0
            for row in spoken_of:
                if row[goal.group] != group:
                    continue
                case = " ".join(row[column] for column in goal.case)
                if row["status"] == "ok" and row[goal.column]:
                    values.append((float(row[goal.column]), case))
                    disturbances += disturbed(row) and goal.column != "kept_ratio"
                else:
                    unmeasured.append(case)
            verdicts.append(Verdict(goal, group, tuple(values), tuple(unmeasured), disturbances))
    return verdicts
