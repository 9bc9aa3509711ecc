"""Results of the simulations in :mod:`validation`, as the report and table of scripts/validate_statistics.py."""

import csv
import io
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.runs.load import load_grid_runs
from gbn.analysis.tables.section import Section, grid_lines
from gbn.store.archive import Archive
from gbn.studies.validation import validation
from gbn.studies.validation.simulate import Arm, SimulatedGrid
from gbn.studies.validation.validation import EFFECT, NOISE, SHARED, Finding

ACCEPTED = (0.93, 0.97)
LESS = "Errs more often than it says"
MORE = "Wider than it must be, so that it decides too seldom"


def whole_path(experiments: int) -> Iterator[Finding]:
    """Test the whole path: curves on disk, loaded, crossed, paired, corrected.

    Each setting of the grid is one simulated experiment.
    """
    arms = {"bn": Arm(own_spread=0.1), "same": Arm(own_spread=0.1), "fast": Arm(speed=EFFECT, own_spread=0.1)}
    for n in (5, 10):
        settings = [f"experiment{i}" for i in range(experiments)]
        grid = SimulatedGrid(arms, seeds=range(n), settings=settings, thresholds=(0.8,))
        with tempfile.TemporaryDirectory() as folder:
            Archive(folder).add(grid.records(), "experiments/simulated")
            comparison = Comparison(load_grid_runs(grid, folder, "archive"))
        for arm, effect in (("same", 1.0), ("fast", EFFECT)):
            found = [
                comparison.evidence.estimate(setting, "speedup_to_target", arm, "bn", "updates", 0.8)
                for setting in settings
            ]
            case = ("simulated curves, target 80 %", effect, n)
            covered = sum(one.low <= effect <= one.high for one in found) / experiments
            decided = sum(one.decided for one in found) / experiments
            yield Finding("whole path", *case, "coverage, paired t", covered, experiments, 0.95)
            what = "false positives, after Holm" if effect == 1 else "power, after Holm"
            yield Finding("whole path", *case, what, decided, experiments, 0.05 if effect == 1 else math.nan)
            mean = sum(math.log(one.value_low) for one in found) / experiments
            bias = math.exp(mean) / effect
            yield Finding("whole path", *case, "estimated / true speed-up", bias, experiments, 1.0)


def table(findings: Sequence[Finding]) -> list[str]:
    """Return rows of noise and true speed-up, with columns of quantities by number of pairs."""
    quantities = list(dict.fromkeys(one.quantity for one in findings))
    cells = {(one.noise, one.effect, one.n, one.quantity): one for one in findings}
    rows = []
    for noise, effect, n in dict.fromkeys((one.noise, one.effect, one.n) for one in findings):
        texts = [_cell(cells.get((noise, effect, n, quantity))) for quantity in quantities]
        rows.append((noise, f"{effect:g}", str(n), *texts))
    return grid_lines(Section("", ("noise", "speed-up", "pairs", *quantities), tuple(rows)))


def _cell(finding: Finding | None) -> str:
    if finding is None:
        return "-"
    if "estimated" in finding.quantity and "share" not in finding.quantity:
        return f"{finding.value:.3f}"
    promised = f" (promised {100 * finding.promised:.1f} %)" if finding.study == "power" else ""
    return f"{100 * finding.value:.1f} %{promised}" + " (!)" * bool(failure(finding))


def failure(finding: Finding) -> str | None:
    """Return what a finding violates, beyond twice its own Monte Carlo error; None if it keeps its promise."""
    if finding.quantity.startswith("coverage") and "bootstrap" not in finding.quantity:
        low, high = (end + sign * 2 * finding.error for end, sign in zip(ACCEPTED, (-1, 1), strict=True))
        if finding.value < low:
            return LESS
        return MORE if finding.value > high else None
    if "false positive" in finding.quantity and "alone" not in finding.quantity:
        return LESS if finding.value > 0.05 + 2 * finding.error else None
    return None


HEADINGS = {
    "uncensored": "Every run reaches the target",
    "censored": "Runs end before the target (primary: paired t where no run missed, else the sign test's)",
    "survival curve": "Kaplan-Meier and restricted means, runs censored at random times",
    "family": f"Tables of {validation.FAMILY} arms that share their reference",
    "power": "Power that was promised and that was found",
    "whole path": "From curves on disk through loading, crossing, pairing and Holm",
}


def markdown(findings: Sequence[Finding], head: str) -> str:
    """Return the report: failures first, then every number."""
    lines = ["# What the intervals and tests are worth, measured", "", head, ""]
    lines += [
        f"log(reference / arm) = log(speed-up) + noise of standard deviation {NOISE}; the seeds' own speeds "
        f"(standard deviation {SHARED} of the logarithm) cancel in a pair. Nominal level 95 %. (!): an interval that "
        f"covers less than {100 * ACCEPTED[0]:.0f} % or more than {100 * ACCEPTED[1]:.0f} %, or more than 5 % false "
        "positives, by more than twice the Monte Carlo error. Bootstrap intervals are sensitivity only and carry no "
        "mark: they cover too little with few pairs, as the table shows.",
        "",
    ]
    lines += verdicts(findings)
    for study, heading in HEADINGS.items():
        own = [one for one in findings if one.study == study]
        if own:
            most = max(one.repetitions for one in own)
            lines += ["", f"**{heading}** (up to {most:,} repetitions a cell)", "", *table(own)]
    return "\n".join(lines) + "\n"


def verdicts(findings: Sequence[Finding]) -> list[str]:
    """Return what errs more often than it promises, and what is merely wider than necessary."""
    broken: dict[str, dict[tuple[str, str], list[Finding]]] = {LESS: {}, MORE: {}}
    for one in findings:
        why = failure(one)
        if why:
            broken[why].setdefault((one.quantity, one.noise), []).append(one)
    lines = []
    for why, cases in broken.items():
        lines += [f"**{why}**", ""]
        for (quantity, noise), found in cases.items():
            values = ", ".join(
                f"{100 * one.value:.1f} % ({one.n} pairs, speed-up {one.effect:g})" for one in found
            )
            lines.append(f"- {quantity}; {noise}: {values}.")
        lines += [""] if cases else ["- Nothing.", ""]
    return lines[:-1]


def csv_of(findings: Iterable[Finding], head: str) -> str:
    """Return one row per finding, below the header."""
    text = io.StringIO(newline="")
    text.write(f"# {head}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ("study", "noise", "speedup", "pairs", "quantity", "value", "error", "promised", "repetitions")
    )
    for one in findings:
        numbers = (f"{value:.6g}" for value in (one.value, one.error, one.promised))
        writer.writerow(
            (one.study, one.noise, f"{one.effect:g}", one.n, one.quantity, *numbers, one.repetitions)
        )
    return text.getvalue()
