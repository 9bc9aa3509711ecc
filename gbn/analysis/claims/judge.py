"""Verdicts on claims, computed from runs.

At each scale, the family of tests is all (claim, against) pairs of one claims.yaml that can be judged there. Holm's
procedure assigns a level to each test, and a claim is decided by the intervals of these levels. The full grid is
judged if it has a pair of the claim's runs; otherwise each miniature that has one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from gbn import measures
from gbn.analysis.claims.dates import started
from gbn.analysis.claims.files import applies, load_claims, outlines
from gbn.analysis.claims.quantities import Measurement, measure
from gbn.analysis.claims.rules import Outcome, decide, word
from gbn.analysis.claims.schema import Claim
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.decisions import holm_levels
from gbn.analysis.estimates.estimate import ALPHA, Estimate
from gbn.analysis.runs.load import NothingFound, Source, load_grid_runs
from gbn.analysis.runs.plan import GridLike
from gbn.config.grid import FULL, Outline, load_grid
from gbn.measures import Measure
from gbn.store.record import Record

#: (experiment, scale, the (setting, arm) needed) -> grid.
GridLoader = Callable[[str, str, set[tuple[str, str]]], GridLike]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim at one scale.

    Attributes:
        claim: the claim.
        outcome: "holds", "fails", "open", "not run" or "underspecified".
        scale: "full", or the miniature's name.
        measure: the curve that times and areas were taken from; empty if nothing ran.
        final: the key of final results: the measure on the test set if there is one.
        planned: scale -> the measure of the grid there; empty if there is no grid yet.
        estimates: arm of `against` -> estimate, with its interval at the level that Holm assigns to the test.
        levels: arm of `against` -> that level.
        tests: number of tests in the family.
        controls: control -> estimate of the arm against it at 95 %; not part of the verdict.
        n: number of pairs, the smallest over `against`.
        devices: machines of the runs behind the estimates.
        dates: when the first and the last of these runs began; None if unknown.
        early: how many of them began before the rule was committed; None if unknown.
        runs: how many there are.
        commands: the commands that train them.
        reason: one sentence that explains the verdict.
        power: how many seeds would decide, if the verdict is open.
    """

    claim: Claim
    outcome: Outcome
    scale: str = FULL
    measure: str = ""
    final: str = ""
    planned: Mapping[str, str] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    tests: int = 0
    controls: Mapping[str, Estimate] = field(default_factory=dict)
    n: int = 0
    devices: tuple[str, ...] = ()
    dates: tuple[datetime, datetime] | None = None
    early: int | None = None
    runs: int = 0
    commands: tuple[str, ...] = ()
    reason: str = ""
    power: str = ""

    @property
    def word(self) -> str:
        """The verdict in words: reproduced, not reproduced, inconclusive, ...; of a miniature supported (small)."""
        return word(self.outcome, self.scale)

    @property
    def claimed(self) -> Measure:
        """The measure of a published number: that of the full scale, whatever a miniature measures."""
        planned = measures.measure(self.planned.get(FULL, self.measure or measures.DEFAULT))
        return self.claim.verdict.compared(planned, planned.final)

    @property
    def compared(self) -> Measure:
        """The measure of a difference; if nothing ran, that of the full scale."""
        measured = measures.measure(self.measure or self.planned.get(FULL, measures.DEFAULT))
        return self.claim.verdict.compared(
            measured, measures.measure(self.final) if self.final else measured.final
        )

    @property
    def blind(self) -> bool | None:
        """True if the rule was committed before every run that it judges; None if unknown."""
        return None if self.early is None else self.early == 0


def verdicts(
    results_dir: str | Path = "results",
    source: Source = "archive",
    experiments: Sequence[str] | None = None,
    folder: str | Path = "experiments",
    grids: GridLoader | None = None,
) -> list[Verdict]:
    """Return the verdicts of every claim: one at full scale, or one per miniature that ran, or "not run".

    Args:
        results_dir: holds ``runs/`` and ``archive/``.
        source: "store", "archive" or "both".
        experiments: names of folders; None means all.
        folder: holds papers.yaml and the experiments.
        grids: loads the cells of a grid; by default :func:`gbn.config.grid.load_grid` from `folder`.

    Raises:
        ConfigError: a claims.yaml or sweep.yaml is invalid.
        StoreError: a file is damaged.
    """
    claims = load_claims(folder, experiments)
    load = grids or partial(_cells, Path(folder))
    found: dict[str, list[Verdict]] = {}
    for experiment in dict.fromkeys(claim.experiment for claim in claims):
        mine = [claim for claim in claims if claim.experiment == experiment]
        found |= _experiment(mine, outlines(folder, experiment), load, results_dir, source)
    return [verdict for claim in claims for verdict in found[claim.id]]


def _cells(folder: Path, experiment: str, scale: str, wanted: set[tuple[str, str]]) -> GridLike:
    return load_grid(folder / experiment, scale, only=wanted)


def _experiment(
    claims: Sequence[Claim],
    grids: Mapping[str, Outline],
    load: GridLoader,
    results_dir: str | Path,
    source: Source,
) -> dict[str, list[Verdict]]:
    """Return the verdicts by claim id; all claims belong to one experiment."""
    found: dict[str, list[Verdict]] = {claim.id: [] for claim in claims}
    for scale, grid in grids.items():
        family = [claim for claim in claims if applies(claim, grid, scale)]
        waiting = [claim for claim in family if not any(one.scale == FULL for one in found[claim.id])]
        if not waiting:
            continue
        cells = load(claims[0].experiment, scale, _wanted(family, grid))
        try:
            comparison = Comparison(load_grid_runs(cells, results_dir, source))
        except NothingFound:
            continue
        for claim, verdict in _family(family, comparison, scale).items():
            if claim in {one.id for one in waiting} and verdict.runs:
                found[claim].append(verdict)
    planned = {scale: grid.measure for scale, grid in grids.items()}
    return {
        claim.id: [
            replace(one, planned=planned) for one in found[claim.id] or [_unjudged(claim, bool(grids))]
        ]
        for claim in claims
    }


def _wanted(family: Sequence[Claim], grid: Outline) -> set[tuple[str, str]]:
    """Return the (setting, arm) that the rules name, and the grid's reference, which every plan needs."""
    wanted = {(c.verdict.setting, name) for c in family for name in c.verdict.names if name in grid.arms}
    return wanted | {(setting, grid.reference) for setting, _ in wanted}


def _family(family: Sequence[Claim], comparison: Comparison, scale: str) -> dict[str, Verdict]:
    measured = {
        (claim.id, against): _measured(comparison, claim, against, scale)
        for claim in family
        for against in claim.verdict.against
    }
    p = [one.estimate().p for one in measured.values()]
    levels = dict(zip(measured, holm_levels(p, ALPHA), strict=True))
    return {
        claim.id: _verdict(
            claim,
            {against: measured[claim.id, against] for against in claim.verdict.against},
            {against: levels[claim.id, against] for against in claim.verdict.against},
            len(measured),
            comparison,
            scale,
        )
        for claim in family
    }


def _measured(comparison: Comparison, claim: Claim, against: str, scale: str) -> Measurement:
    rule = claim.verdict
    return measure(comparison.times, comparison.figures, rule, rule.arm, against, rule.target_at(scale))


def _verdict(
    claim: Claim,
    measured: Mapping[str, Measurement],
    levels: Mapping[str, float],
    tests: int,
    comparison: Comparison,
    scale: str,
) -> Verdict:
    rule = claim.verdict
    estimates = {against: one.estimate(levels[against]) for against, one in measured.items()}
    higher = rule.compared(comparison.measured, comparison.figures.final).higher_is_better
    outcome, reason = decide(rule, claim.published, estimates, scale, higher)
    refused = next((one.refused for one in measured.values() if one.refused), "")
    records = _records(
        comparison, rule.setting, rule.arm, {name: one.seeds for name, one in measured.items()}
    )
    began = [started(record) for record in records]
    known = [moment for moment in began if moment is not None]
    early = None
    if claim.fixed is not None and len(known) == len(records):
        early = sum(moment < claim.fixed for moment in known)
    command = f"python scripts/reproduce.py experiments/{claim.experiment}"
    return Verdict(
        claim=claim,
        outcome=outcome,
        scale=scale,
        measure=comparison.measured.key,
        final=comparison.figures.final.key,
        estimates=estimates,
        levels=levels,
        tests=tests,
        controls={
            control: _measured(comparison, claim, control, scale).estimate()
            for control in rule.controls
            if control in comparison.runs.arms(rule.setting)
        },
        n=min(estimate.n for estimate in estimates.values()),
        devices=tuple(sorted({record.machine for record in records})),
        dates=(min(known), max(known)) if known else None,
        early=early,
        runs=len(records),
        commands=(command if scale == FULL else f"{command} --scale {scale}",),
        reason=refused or reason,
        power=_power(outcome, rule.pairs or 0, measured, estimates, levels),
    )


def _records(
    comparison: Comparison, setting: str, arm: str, seeds: Mapping[str, Sequence[int]]
) -> list[Record]:
    """Return the record of every run in a pair."""
    rows = comparison.runs.points.rows
    used = [
        rows[setting, name, seed].record
        for against, mine in seeds.items()
        for name in (arm, against)
        for seed in comparison.runs.statuses(setting, name)
        if seed in mine
    ]
    return list({(record.run_id, record.machine): record for record in used}.values())


def _power(
    outcome: Outcome,
    pairs: int,
    measured: Mapping[str, Measurement],
    estimates: Mapping[str, Estimate],
    levels: Mapping[str, float],
) -> str:
    """Describe what the least decided comparison needs; empty until the rule's own number of pairs is reached."""
    undecided = [name for name, one in estimates.items() if not one.p <= 1 - levels[name]]
    if outcome != "open" or not undecided or min(one.n for one in estimates.values()) < pairs:
        return ""
    least = max(undecided, key=lambda name: -1.0 if math.isnan(estimates[name].p) else estimates[name].p)
    return measured[least].advice(levels[least])


def _unjudged(claim: Claim, runnable: bool) -> Verdict:
    """Return the verdict on a claim without runs: it is waiting, or its rule cannot be judged at all."""
    commands = (f"python scripts/reproduce.py experiments/{claim.experiment}",) if runnable else ()
    if claim.waits_for is not None:
        return Verdict(claim, "not run", commands=commands, reason=f"waits for {claim.waits_for}")
    if claim.verdict.rule == "none":
        return Verdict(claim, "underspecified", reason=str(claim.verdict.reason))
    return Verdict(claim, "not run", commands=commands, reason="no pair of its runs has finished")
