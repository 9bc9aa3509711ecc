"""Claims and their verdicts as the page shows them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gbn.analysis.claims import Verdict, verdicts, wording
from gbn.analysis.runs.load import Source
from gbn.config.errors import ConfigError

#: The badge's tone in the style sheet for each outcome.
TONES = {"holds": "good", "fails": "bad", "open": "open", "not run": "none", "underspecified": "none"}


@dataclass(frozen=True)
class ShownClaim:
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


def claims_of(
    results_dir: str | Path, source: Source, experiment: str | Path | None
) -> tuple[list[ShownClaim], str]:
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
        ShownClaim(
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
        text = f"{wording.result(claim.verdict, estimate, compared)} (n = {estimate.n}; {100 * level:.4g} % interval)"
        yield f"against {against}", text
    for control, estimate in verdict.controls.items():
        text = (
            f"{wording.result(claim.verdict, estimate, compared)} (n = {estimate.n}; no part of the verdict)"
        )
        yield f"for comparison, {control}", text
    if verdict.early is not None and verdict.runs and not verdict.blind:
        yield (
            "not blind",
            f"the rule was written after {verdict.early} of the {verdict.runs} runs it judges had begun",
        )


def _background(verdict: Verdict) -> Iterator[tuple[str, str]]:
    claim = verdict.claim
    if verdict.tests > 1:
        yield "family", f"{verdict.tests} tests of this file, intervals at Holm's levels"
    yield "published", wording.published(claim, measure=verdict.claimed)
    if claim.origin == "ours":
        yield "origin", "a question of ours that the paper leaves open"
    yield "rule", wording.rule_in_words(verdict)
    yield "read in", f"{claim.source.read}, {claim.source.url}"
    yield "conditions", claim.conditions
    if claim.underspecified:
        yield "not known", ", ".join(f"{what} ({key})" for what, key in claim.underspecified.items())
    if verdict.blind and verdict.runs:
        yield "rule's age", "written before every run it judges"
    for command in verdict.commands:
        yield "command", command
