"""Check whether a rule was written before its runs.

A claim states when its rule was committed (``fixed``), so that a ledger can tell which runs began earlier, without
git. :func:`check_dates` compares that statement with the history: the first commit in which the rule reads as it does
today (its verdict, the published number of a number rule, and the curve that the grid measures on).
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gbn import measures
from gbn.analysis.claims.files import CLAIMS, SWEEP
from gbn.analysis.claims.schema import Claim
from gbn.store.record import Record

_FORMAT = "%H %aI"


def started(record: Record) -> datetime | None:
    """Return the date of a run's first segment, since a rule written while its run trains is not blind; None if its
    record has no date.
    """
    dates = [segment.get("date") for segment in record.provenance] + [record.environment.get("date")]
    moments = [datetime.fromisoformat(str(date)) for date in dates if date]
    return min((one if one.tzinfo else one.replace(tzinfo=UTC) for one in moments), default=None)


@dataclass(frozen=True)
class RuleDate:
    """A claim's stated date and that of the history.

    Attributes:
        claim: the claim.
        committed: the date of the first commit with the rule as it reads today; None if it is not committed.
    """

    claim: Claim
    committed: datetime | None

    @property
    def problem(self) -> str | None:
        """The reason why the history contradicts the stated date; None if it does not."""
        if self.committed is None:
            return "the rule, as it reads today, is not committed"
        moment = f"{self.committed:%Y-%m-%dT%H:%M:%SZ}"
        if self.claim.fixed is None:
            return f"no date is stated: add fixed: {moment}"
        if self.claim.fixed < self.committed:
            return (
                f"fixed says {self.claim.fixed:%Y-%m-%dT%H:%M:%SZ}, but git has this rule since {moment} only"
            )
        return None


class NoHistory(LookupError):
    """The rules' dates cannot be checked: there is no git or no repository, or the clone is shallow."""


def check_dates(claims: Sequence[Claim], folder: str | Path = "experiments") -> list[RuleDate]:
    """Return each claim's stated date with that of the history.

    Raises:
        NoHistory: there is no full history to check against.
    """
    root = Path(folder)
    if _git(root, "rev-parse", "--is-shallow-repository").strip() != "false":
        raise NoHistory(
            "this is a shallow clone: fetch the whole history (git fetch --unshallow) to check dates"
        )
    dated: list[RuleDate] = []
    for experiment in dict.fromkeys(claim.experiment for claim in claims):
        mine = [claim for claim in claims if claim.experiment == experiment]
        dated += _experiment(root / experiment, mine)
    return dated


def _experiment(folder: Path, claims: Sequence[Claim]) -> list[RuleDate]:
    """Walk back from the newest commit for as long as a rule reads as it does in the working tree."""
    today = _rules(
        (folder / CLAIMS).read_text(encoding="utf-8"),
        (folder / SWEEP).read_text(encoding="utf-8") if (folder / SWEEP).exists() else "",
    )
    committed: dict[str, datetime] = {}
    same = {claim.id for claim in claims}
    for commit, moment in _commits(folder):
        then = _rules(_shown(folder, commit, CLAIMS), _shown(folder, commit, SWEEP))
        same = {name for name in same if then.get(name) == today[name]}
        if not same:
            break
        committed |= dict.fromkeys(same, moment)
    return [RuleDate(claim, committed.get(claim.id)) for claim in claims]


def _commits(folder: Path) -> Iterator[tuple[str, datetime]]:
    """Yield the commits that touched a rule or its grid, newest first. Author dates survive a rebase."""
    for line in _git(folder, "log", f"--format={_FORMAT}", "--", CLAIMS, SWEEP).splitlines():
        commit, moment = line.split()
        yield commit, datetime.fromisoformat(moment).astimezone(UTC)


def _rules(claims: str, sweep: str) -> dict[str, Any]:
    """Return, by claim id, everything that the verdict depends on except the runs."""
    grid = yaml.safe_load(sweep) or {}
    presets = {
        scale: preset["measure"] for scale, preset in grid.get("scales", {}).items() if "measure" in preset
    }
    measure = (grid.get("measure", measures.DEFAULT), presets)
    rules = {}
    for claim in (yaml.safe_load(claims) or {}).get("claims", []):
        published = claim.get("published") if claim.get("verdict", {}).get("rule") == "number" else None
        rules[claim.get("id")] = (claim.get("verdict"), published, measure)
    return rules


def _shown(folder: Path, commit: str, name: str) -> str:
    """Return a file as of a commit; empty if the commit does not have it."""
    try:
        return _git(folder, "show", f"{commit}:./{name}")
    except NoHistory:
        return ""


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        raise NoHistory(
            f"git {arguments[0]} failed in {folder}, so dates cannot be checked: {said}"
        ) from None
    return done.stdout
