"""Speed-up tables as Markdown, LaTeX and CSV, each with a header from which it can be regenerated.

The first line of each file is machine-readable (:func:`read_header`): experiment or runs, scale, source and how
targets were measured. A ``.runs.txt`` next to the table names every run that it was made from.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gbn import measures
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.tables import headings
from gbn.analysis.tables.frame import frame
from gbn.analysis.tables.section import Section, grid_lines
from gbn.analysis.tables.sections import sections
from gbn.store.files import write_atomically

MARK = "gbn-table"
#: What is always written, and what only for a paper.
SUFFIXES, PAPER = (".md", ".csv", ".runs.txt"), ".tex"
_OPENINGS = {".md": "<!-- ", ".csv": "# ", ".tex": "% ", ".runs.txt": "# "}


def render(comparison: Comparison, paper: bool = False) -> dict[str, str]:
    """Return the files of a table, suffix -> text; LaTeX only for a `paper`."""
    made = all_sections(comparison)
    files = {
        ".md": markdown(comparison, made),
        ".csv": csv(comparison),
        ".runs.txt": run_list(comparison),
    }
    return files | ({PAPER: latex(comparison, made)} if paper else {})


def header(comparison: Comparison, suffix: str) -> str:
    """Return the machine-readable first line of a file."""
    closing = " -->" if suffix == ".md" else ""
    return f"{_OPENINGS[suffix]}{MARK} {json.dumps(comparison.selection, sort_keys=True)}{closing}\n"


def read_header(path: Path) -> dict[str, Any] | None:
    """Return the contents of a table's first line; None for a file that is not one of our tables."""
    with open(path, encoding="utf-8") as file:
        first = file.readline()
    _, found, content = first.partition(f"{MARK} ")
    if not found:
        return None
    try:
        value = json.loads(content.strip().removesuffix("-->"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def explanation(comparison: Comparison) -> list[str]:
    """Return what a reader needs before the first number."""
    runs, options = comparison.runs, comparison.options
    reference = runs.plan.reference
    usable = runs.runs[runs.runs.status.isin(["finished", "diverged"])]
    interpolated = options.interpolation == "interpolated"
    how = "log-linear between points" if interpolated else "the first point there, without interpolation"
    where = {"store": "run store", "archive": "archive", "both": "run store and archive"}[runs.source]
    return [
        f"Speed-up = reference / arm, reference `{reference}`: greater than 1 means that the arm is faster.",
        f"Made from {len(usable)} of {len(runs.runs)} planned runs, read from the {where}; pairs share their seed "
        "(initial weights, batches).",
        f"Targets: {headings.crossing(comparison.measured)}, {how}. "
        f"Devices: {'; '.join(sorted(usable.machine.unique()))}.",
        "Intervals: 95 %, each row on its own; *: significant after Holm's correction over all rows and targets of a "
        "table.",
        *_apart(comparison),
    ]


def _apart(comparison: Comparison) -> list[str]:
    """Say that values of a feature network are comparable only among themselves."""
    measured = comparison.measured
    if not measured.network:
        return []
    return [
        f"{measured.key} is computed from the features of {measured.network.replace('own', 'our own')}: it cannot be "
        "compared with values of other features, of another number of images, or from other publications."
    ]


def footnotes(comparison: Comparison) -> list[str]:
    """Return notes on what is missing, mixed or not compared."""
    notes = [*comparison.runs.notes, *_without_targets(comparison)]
    for setting, reason in comparison.times.seconds_reasons.items():
        where, arms = f"{setting}: " if setting else "", comparison.runs.arms(setting)
        if reason and arms:
            notes.append(f"{where}seconds not compared: {reason}.")
        if (reference := comparison.runs.plan.reference) not in arms:
            notes.append(f"{where}no run of the reference {reference}: no speed-up can be given.")
    if comparison.evidence.costs is None:
        notes += [f"Cost of an update not used: {one}." for one in comparison.evidence.refused_costs]
    return notes


def _without_targets(comparison: Comparison) -> list[str]:
    planned = comparison.runs.plan.measure
    if comparison.measured.comparable(measures.measure(planned)):
        return []
    return [
        f"The fixed targets are values of {planned}: none was fixed for {comparison.measured.key} (give --targets)."
    ]


def all_sections(comparison: Comparison) -> dict[str, list[Section]]:
    """Return the sections of every setting."""
    return {setting: list(sections(comparison, setting)) for setting in comparison.runs.plan.settings}


def markdown(comparison: Comparison, made: Mapping[str, Sequence[Section]] | None = None) -> str:
    """Return the table for people; columns are padded, so that it reads well in a terminal too.

    Args:
        comparison: what is compared.
        made: its :func:`all_sections`, if they are at hand.
    """
    made = made or all_sections(comparison)
    lines = [header(comparison, ".md"), f"# {comparison.runs.plan.title}\n", *explanation(comparison), ""]
    for setting in comparison.runs.plan.settings:
        if setting:
            lines += [f"## {setting}", ""]
        for section in made[setting]:
            lines += [f"**{section.heading}**", "", *grid_lines(section), ""]
            lines += [*section.notes, ""] if section.notes else []
    notes = footnotes(comparison)
    if notes:
        lines += ["**Missing, mixed, left out**", "", *(f"- {note}" for note in notes), ""]
    lines.append(f"Runs: `{comparison.runs.plan.name}.runs.txt`.")
    return "\n".join(lines) + "\n"


def latex(comparison: Comparison, made: Mapping[str, Sequence[Section]] | None = None) -> str:
    r"""Return one ``table`` per section, for ``\usepackage{booktabs}``; see :func:`markdown`."""
    made = made or all_sections(comparison)
    plan = comparison.runs.plan
    parts = [header(comparison, ".tex"), r"% needs \usepackage{booktabs}" + "\n"]
    parts += [f"% {line}\n" for line in explanation(comparison)]
    for setting in plan.settings:
        for number, section in enumerate(made[setting], start=1):
            parts.append(_latex_table(section, plan.title, setting, f"tab:{plan.name}-{setting}{number}"))
    parts += [f"% {note}\n" for note in footnotes(comparison)]
    return "".join(parts)


def _latex_table(section: Section, title: str, setting: str, label: str) -> str:
    where = f" ({setting})" if setting else ""
    caption = _escape(f"{title}{where}. {section.heading}. {' '.join(section.notes)}".strip())
    body = "\n".join(" & ".join(map(_escape, row)) + r" \\" for row in section.rows)
    return (
        "\\begin{table}\n  \\centering\\footnotesize\n"
        f"  \\caption{{{caption}}}\n  \\label{{{label}}}\n"
        f"  \\begin{{tabular}}{{{'l' + 'r' * (len(section.columns) - 1)}}}\n\\toprule\n"
        + " & ".join(map(_escape, section.columns))
        + f" \\\\\n\\midrule\n{body}\n\\bottomrule\n  \\end{{tabular}}\n\\end{{table}}\n"
    )


_LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
}


def _escape(text: str) -> str:
    text = text.replace(">=", "\0").replace("<=", "\1")
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.replace("\0", r"$\geq$").replace("\1", r"$\leq$")


def csv(comparison: Comparison) -> str:
    """Return the unformatted figures: one row per figure, six digits; read it with ``comment="#"``."""
    buffer = io.StringIO()
    numbers = frame(comparison)
    for name in numbers.select_dtypes("float"):
        # values that are zero up to rounding become zero on every processor
        numbers[name] = numbers[name].mask(numbers[name].abs() < 1e-12, 0.0)
    numbers.to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    lines = [f"# {line}\n" for line in (*explanation(comparison), *footnotes(comparison))]
    return header(comparison, ".csv") + "".join(lines) + buffer.getvalue()


def run_list(comparison: Comparison) -> str:
    """Return every run of the plan with its status and the source of its record."""
    lines = [header(comparison, ".runs.txt").rstrip("\n"), "# setting arm seed status source run_id"]
    for row in comparison.runs.runs.fillna({"source": "-"}).itertuples():
        lines.append(
            " ".join(
                str(value).replace(" ", "_")
                for value in (
                    row.setting or "-",
                    row.arm,
                    row.seed,
                    row.status,
                    row.source or "-",
                    row.run_id,
                )
            )
        )
    return "\n".join(lines) + "\n"


def write(comparison: Comparison, folder: Path, paper: bool = False) -> list[Path]:
    """Write the files of the table into a folder and return their paths."""
    made = render(comparison, paper)
    texts = {folder / f"{comparison.runs.plan.name}{end}": text for end, text in made.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_atomically(path, text)
    return list(texts)
