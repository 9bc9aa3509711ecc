"""Claims and their verdicts as the page shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gbn.analysis.claims import Verdict, verdicts, wording
from gbn.analysis.claims.schema import RATIOS, Claim
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.runs.load import Source
from gbn.analysis.tables import numbers
from gbn.config.errors import ConfigError
from gbn.measures import ACCURACY, Measure

#: The badge's tone in the style sheet for each outcome.
TONES = {"holds": "good", "fails": "bad", "open": "open", "not run": "none", "underspecified": "none"}


@dataclass(frozen=True)
class Row:
    """A claim with its verdict.

    Attributes:
        word, tone: of the badge.
        where: the setting that the rule names.
        findings: (name, text) of what was measured, and why it gives this verdict.
        background: (name, text) of the rule, the source and the conditions.
    """

    word: str
    tone: str
    wording: str
    where: str
    findings: tuple[tuple[str, str], ...]
    background: tuple[tuple[str, str], ...]


def rows(results_dir: str | Path, source: Source, experiment: str | Path | None) -> tuple[list[Row], str]:
    """Return the claims of one experiment (none for other runs), and why they cannot be judged, if so."""
    if experiment is None:
        return [], ""
    folder = Path(experiment)
    folder = folder.parent if folder.suffix else folder
    if not (folder / "claims.yaml").is_file():
        return [], ""
    try:
        judged = verdicts(results_dir, source, [folder.name], folder.parent)
    except ConfigError as error:  # a misspelling in a claim must not break the rest of the report
        return [], str(error)
    return [
        Row(
            one.word, TONES[one.outcome], one.claim.wording, one.claim.verdict.setting,
            tuple(_findings(one)), tuple(_background(one)),
        )
        for one in judged
    ], ""  # fmt: skip


def _findings(verdict: Verdict) -> Iterator[tuple[str, str]]:
    claim = verdict.claim
    yield "why", verdict.reason + (f"; {verdict.power}" if verdict.power else "")
    compared = verdict.compared
    for against, estimate in verdict.estimates.items():
        level = verdict.levels[against]
        text = f"{measured(claim, estimate, compared)} (n = {estimate.n}; {100 * level:.4g} % interval)"
        yield f"against {against}", text
    for control, estimate in verdict.controls.items():
        text = f"{measured(claim, estimate, compared)} (n = {estimate.n}; no part of the verdict)"
        yield f"beside {control}", text
    if verdict.early is not None and verdict.runs and not verdict.blind:
        yield (
            "not blind",
            f"the rule was written after {verdict.early} of the {verdict.runs} runs it judges had begun",
        )


def _background(verdict: Verdict) -> Iterator[tuple[str, str]]:
    claim = verdict.claim
    if verdict.tests > 1:
        yield "family", f"{verdict.tests} tests of this file, intervals at Holm's levels"
    yield "published", _published(claim)
    if claim.origin == "ours":
        yield "origin", "a question of ours that the paper leaves open"
    yield "rule", _rule(verdict)
    yield "read in", f"{claim.source.read}, {claim.source.url}"
    yield "conditions", claim.conditions
    if claim.underspecified:
        yield "not known", ", ".join(f"{what} ({key})" for what, key in claim.underspecified.items())
    if verdict.blind and verdict.runs:
        yield "rule's age", "written before every run it judges"
    for command in verdict.commands:
        yield "command", command


def measured(claim: Claim, estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Return an estimate in the unit of the claim's quantity."""
    if claim.verdict.quantity in RATIOS:
        return numbers.ratio(estimate)
    if claim.verdict.quantity == "saving_to_maximum":
        text = numbers.difference(estimate)
        return f"{text} % saved" if estimate.n else text
    unit = measure.points if estimate.n else ""
    return " ".join(filter(None, (numbers.difference(estimate, measure), unit)))


def _published(claim: Claim) -> str:
    if claim.published is None:
        return "claimed, number not available"
    low, high = claim.published.range
    number = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    value = claim.published.value
    if value is not None and low != high:
        number = f"{value:g} ({number})"
    return f"{number}, {claim.published.unit}"


def _rule(verdict: Verdict) -> str:
    rule = verdict.claim.verdict
    if rule.rule == "none":
        return f"none: {rule.reason}"
    return f"{rule.rule}: {wording.rule_in_words(verdict)}"
