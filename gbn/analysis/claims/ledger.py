"""The ledger of claims as Markdown and in the terminal."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

from gbn.analysis.claims import judge, wording
from gbn.analysis.claims.files import CLAIMS, load_papers
from gbn.analysis.claims.judge import Verdict
from gbn.analysis.claims.schema import Paper
from gbn.analysis.runs.load import Source
from gbn.analysis.tables.section import Section, grid_lines

COLUMNS = ("claim", "verdict", "published", "here", "n", "rule first")
COMMAND = "python scripts/claims.py --source archive --write"

#: The text around the overview in the ledger.
OVERVIEW = ("<!-- begin overview -->", "<!-- end overview -->")

_INTRODUCTION = """\
What the five papers claim, and questions of ours that they leave open: each with a rule that was written down as
data (`experiments/*/claims.yaml`), and with the verdict that code computes from the archived runs by that rule.

* **reproduced**, **not reproduced**: the intervals show it, at full scale; **inconclusive**: they do not decide. A
  miniature can show no more than **supported (its name)** or **not supported (its name)**. **not run** is followed by
  what is missing, **underspecified** by the reason why no rule can be given.
* *here* is a speed-up (reference / arm: above 1 the arm is faster), a share of updates saved, or percentage points.
  The bracket is the interval at the level that Holm's procedure gives the test, over all tests of its file at that
  scale; n counts pairs.
* *rule first*: whether the rule was committed before the first of the runs that it judges began. If it was not, the
  verdict is not a blind test.
"""


def section(verdicts: Sequence[Verdict], linked: bool = False) -> Section:
    """Return a summary of some verdicts, one row each."""
    rows = [
        (
            f"[{one.claim.id}](#{one.claim.id})" if linked else one.claim.id,
            one.word,
            wording.published(one.claim, True, one.claimed),
            here(one),
            str(one.n) if one.runs else "",
            {True: "yes", False: "no", None: "?" if one.runs else ""}[one.blind],
        )
        for one in verdicts
    ]
    return Section("", COLUMNS, tuple(rows))


def here(verdict: Verdict) -> str:
    """Return the measured value, one per comparison if there are several."""
    rule, many = verdict.claim.verdict, len(verdict.estimates) > 1
    parts = [
        wording.result(rule, estimate, verdict.compared) + (f" against {name}" if many else "")
        for name, estimate in verdict.estimates.items()
    ]
    return "; ".join(parts)


def counts(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts by word: "3 reproduced, 12 not run"."""
    return ", ".join(f"{count} {word}" for word, count in Counter(one.word for one in verdicts).most_common())


#: The order of the columns of an overview.
_WORDS = (
    *("reproduced", "supported", "inconclusive", "not supported", "not reproduced"),
    *("underspecified", "not run"),
)


def overview(verdicts: Sequence[Verdict], papers: Mapping[str, Paper]) -> Section:
    """Count the outcomes of each paper's claims, and of our own questions about it."""
    found = {one.word for one in verdicts}
    words = sorted(found, key=lambda word: (_WORDS.index(word.split(" (")[0]), word))
    rows = []
    for key, mine in by_paper(verdicts, papers).items():
        for origin, whose in (("published", "the paper's"), ("ours", "ours")):
            count = Counter(one.word for one in mine if one.claim.origin == origin)
            if count:
                name = papers[key].method or papers[key].title.partition(":")[0]
                rows.append((name, whose, *(str(count[word]) if count[word] else "" for word in words)))
    return Section("", ("paper", "claims", *words), tuple(rows))


def by_paper(verdicts: Sequence[Verdict], papers: Mapping[str, Paper]) -> dict[str, list[Verdict]]:
    """Return the verdicts by paper key in the order of papers.yaml, without papers that have none."""
    grouped = {key: [one for one in verdicts if one.claim.paper == key] for key in papers}
    return {key: mine for key, mine in grouped.items() if mine}


def markdown(verdicts: Sequence[Verdict], papers: Mapping[str, Paper]) -> str:
    """Return the whole ledger: a table for each paper, then every claim with its rule, result and reason."""
    lines = [f"<!-- made by `{COMMAND}` -->", "# Claims and verdicts", "", _INTRODUCTION]
    grouped = by_paper(verdicts, papers)
    lines += [f"{len({one.claim.id for one in verdicts})} claims: {counts(verdicts)}.", ""]
    lines += [OVERVIEW[0], "", *grid_lines(overview(verdicts, papers)), "", OVERVIEW[1], ""]
    for key, mine in grouped.items():
        paper = papers[key]
        lines += [f"## {paper.title}", "", f"{paper.authors}, [{paper.venue}]({paper.url}).", ""]
        lines += [*grid_lines(section(mine, linked=True)), ""]
        experiment = ""
        for number, one in enumerate(mine):
            if one.claim.experiment != experiment:
                experiment = one.claim.experiment
                lines += [f"### Protocol: [{experiment}](../experiments/{experiment}/README.md)", ""]
            again = number > 0 and mine[number - 1].claim.id == one.claim.id
            lines += [*([] if again else _claim(one)), *_result(one), ""]
    return "\n".join(lines).rstrip() + "\n"


def _claim(verdict: Verdict) -> list[str]:
    claim = verdict.claim
    source = f"[{claim.source.read}]({claim.source.url})"
    whose = "Published" if claim.origin == "published" else "Ours"
    lines = [f"#### {claim.id}", "", f"{claim.wording}", ""]
    number = f": {wording.published(claim, measure=verdict.claimed)}" if claim.origin == "published" else ""
    unit = f" ({claim.published.unit})" if claim.published and claim.verdict.quantity else ""
    lines.append(f"* {whose}, read in: {source}{number}{unit}. {claim.conditions}")
    if claim.underspecified:
        unknowns = ", ".join(f"{what} ({_code(key)})" for what, key in claim.underspecified.items())
        lines.append(f"* Not known (and what covers it): {unknowns}.")
    return [*lines, f"* Rule: {wording.rule_in_words(verdict)}"]


def _code(key: str) -> str:
    """Return a configuration key formatted as code, anything else unchanged."""
    return f"`{key}`" if re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key) else key


def _result(verdict: Verdict) -> list[str]:
    if not verdict.runs:
        tail = f" Then: `{verdict.commands[0]}`." if verdict.commands else ""
        return [f"* **{verdict.word}**: {verdict.reason.rstrip('.')}.{tail}"]
    lines = [f"* **{verdict.word}**: {verdict.reason}{f'; {verdict.power}' if verdict.power else ''}."]
    rule = verdict.claim.verdict
    for name, estimate in verdict.estimates.items():
        level = f"{100 * verdict.levels[name]:.4g} % interval"
        level += f" (Holm over {verdict.tests} tests)" if verdict.tests > 1 else ""
        misses = (
            f", misses {estimate.arm_misses} and {estimate.reference_misses}"
            if estimate.method == "median"
            else ""
        )
        lines.append(
            f"  * {rule.arm} against {name}: {wording.result(rule, estimate, verdict.compared)}, n = {estimate.n}, "
            f"{estimate.method}{misses}, {level}"
        )
    for name, estimate in verdict.controls.items():
        lines.append(
            f"  * for comparison, against {name}: {wording.result(rule, estimate, verdict.compared)}, "
            f"n = {estimate.n}, 95 % interval"
        )
    measured, machines = wording.measured_on(verdict), "; ".join(verdict.devices)
    lines.append(f"  * scale {wording.at_scale(verdict)}, measured on {measured}; {machines}")
    if verdict.dates:
        first, last = (f"{moment:%Y-%m-%d}" for moment in verdict.dates)
        lines.append(f"  * {verdict.runs} runs, started {first}{'' if first == last else f' to {last}'}")
    lines.append(f"  * rule older than its runs? {wording.age(verdict)}")
    return [*lines, f"  * `{verdict.commands[0]}`"]


_STYLES = {"holds": "green", "fails": "red", "open": "yellow", "not run": "dim", "underspecified": "dim"}


def terminal(verdicts: Sequence[Verdict], papers: Mapping[str, Paper], width: int | None = None) -> str:
    """Return the ledger for a terminal of some width, with colors; without `width`, plain Markdown tables for a pipe.

    Claims that were not run have no row: the remarks name them with what is missing.
    """
    parts: list[str] = []
    for key, mine in by_paper(verdicts, papers).items():
        ran = [one for one in mine if one.runs]
        parts += _wrapped(f"{papers[key].title} ({papers[key].venue})", width)
        if ran:
            parts += ["", *grid_lines(section(ran)), ""] if width is None else [_rich(ran, width)]
        parts += [*_remarks(mine, width), ""]
    if any(one.blind is False for one in verdicts):
        late = "rule first: no = the rule was written after runs that it judges had begun, so it is not a blind test."
        parts += _wrapped(late, width)
    return "\n".join([*parts, *_wrapped(f"{counts(verdicts)}.", width)]) + "\n"


def of_experiment(path: str | Path, results_dir: str | Path, source: Source, width: int | None = None) -> str:
    """Return the verdicts of one experiment for the terminal; empty if it has no claims.

    Raises:
        ConfigError: a claims.yaml or papers.yaml is invalid.
    """
    folder = Path(path).parent if Path(path).suffix else Path(path)
    if not (folder / CLAIMS).is_file():
        return ""
    judged = judge.verdicts(results_dir, source, [folder.name], folder.parent)
    return terminal(judged, load_papers(folder.parent), width)


def _remarks(verdicts: Sequence[Verdict], width: int | None) -> list[str]:
    """Return the reason of each verdict; claims with the same reason share a line."""
    reasons: dict[str, list[str]] = {}
    for one in verdicts:
        text = f"{one.reason.rstrip('.')}{f'; {one.power}' if one.power else ''}"
        reasons.setdefault(text if one.runs else f"{one.word}: {text}", []).append(one.claim.id)
    return [
        part
        for text, ids in reasons.items()
        for part in _wrapped(f"- {', '.join(ids)}: {text}", width, subsequent_indent="  ")
    ]


def _wrapped(text: str, width: int | None, subsequent_indent: str = "") -> list[str]:
    if width is None:
        return [text]
    return wrap(text, width, subsequent_indent=subsequent_indent, break_on_hyphens=False)


def _rich(verdicts: Sequence[Verdict], width: int) -> str:
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold underline")
    made = section(verdicts)
    for name in made.columns:
        table.add_column(name, justify="right" if name == "n" else "left", no_wrap=name == "claim")
    for one, row in zip(verdicts, made.rows, strict=True):
        name = "\n".join(wrap(row[0], 22 if width < 110 else 40))  # breaks at hyphens
        # Text, so that a bracket is an interval rather than markup
        table.add_row(name, Text(row[1], _STYLES[one.outcome]), *map(Text, row[2:]))
    console = Console(file=StringIO(), width=width, force_terminal=True)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
