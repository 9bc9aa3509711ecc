"""Fill the generated blocks of README.md and results/README.md from the archive and the benchmark files.

    python scripts/readme.py            # rewrite the blocks
    python scripts/readme.py --check    # exit status 1 if a block is stale

A block is between ``<!-- begin generated: NAME -->`` and ``<!-- end generated: NAME -->``; NAME is an experiment,
with ``@scale`` if it has one, or ``benchmarks``, or ``verdicts`` (the overview of results/CLAIMS.md, which
scripts/claims.py makes).
"""

import argparse
import re
from pathlib import Path

from gbn import cli

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "results/README.md")
_BLOCK = re.compile(r"(<!-- begin generated: (\S+) -->\n)(.*?)(<!-- end generated: \2 -->)", re.DOTALL)


def block(name: str, root: Path = ROOT) -> str:
    """Return the summary table of an experiment from the archive, with the devices, dates and commits."""
    from gbn.analysis import Comparison, NothingFound, Options, load_grid_runs
    from gbn.analysis.tables.formats import explanation, footnotes
    from gbn.analysis.tables.section import grid_lines
    from gbn.analysis.tables.sections import summary
    from gbn.config.grid import load_grid
    from gbn.store.archive import Archive

    experiment, _, scale = name.partition("@")
    grid = load_grid(root / "experiments" / experiment, scale or None)
    try:
        runs = load_grid_runs(grid, root / "results", "archive")
    except NothingFound:
        return "\nNot run yet.\n\n"
    comparison = Comparison(runs, Options())
    lines = ["", *explanation(comparison), ""]
    for setting in runs.plan.settings:
        section = summary(comparison, setting)
        lines += [f"**{setting}**", ""] if setting else []
        lines += [*grid_lines(section), "", *section.notes, ""]
    lines += [f"- {note}" for note in footnotes(comparison)]
    ids = set(grid.run_ids())
    environments = [record.environment for record in Archive(root / "results") if record.run_id in ids]
    dates = sorted(str(one.get("date"))[:10] for one in environments)
    commits = sorted({str(one.get("commit"))[:10] for one in environments})
    between = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    table = f"[{runs.plan.name}.md](results/tables/{runs.plan.name}.md)"
    lines += ["", f"Measured {between} at commits {', '.join(commits)}; full table: {table}."]
    return "\n".join(lines) + "\n\n"


def benchmarks(root: Path = ROOT) -> str:
    """Return the chart of each device's newest benchmark of the layers, and the verdict on every goal."""
    from gbn.bench.environment import read_rows
    from gbn.bench.goals import NORM, TRAIN
    from gbn.bench.markdown import goal_overview

    lines = [""]
    folder = root / "results" / "benchmarks"
    for path in newest(folder, "norm"):
        rows = read_rows(path)
        kind = rows[0]["device_kind"]
        lines += [f"![Forward and backward on {kind}](results/benchmarks/{path.stem}.png)", ""]
        train = [one for one in newest(folder, "train") if read_rows(one)[0]["device_kind"] == kind]
        lines += goal_overview(rows, NORM)
        for one in train:
            lines += ["", *goal_overview(read_rows(one), TRAIN)]
        files = ", ".join(map(_measured, (path, *train)))
        lines += ["", f"Measured on {kind}: {files}.", ""]
    return "\n".join(lines) + "\n" if len(lines) > 1 else "\nNot run yet.\n\n"


def _measured(path: Path) -> str:
    """Return a benchmark's summary, with the date and commit of the measurement."""
    from gbn.bench.environment import read_rows

    first = read_rows(path)[0]
    link = f"[{path.stem}.md](results/benchmarks/{path.stem}.md)"
    return f"{link} on {first['date'][:10]} at commit {first['commit'][:10]}"


def verdicts(root: Path = ROOT) -> str:
    """Return the overview of the ledger."""
    from gbn.analysis.claims.ledger import OVERVIEW

    text = (root / "results" / "CLAIMS.md").read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in OVERVIEW)
    return "\n" + text[begin + len(OVERVIEW[0]) : end].strip() + "\n\n"


def newest(folder: Path, what: str) -> list[Path]:
    """Return the newest file of each device kind."""
    by_kind = {path.stem[: -len("-2026-01-01")]: path for path in sorted(folder.glob(f"{what}-*.csv"))}
    return list(by_kind.values())


def filled(file: str, root: Path = ROOT) -> str:
    """Return a file's text with its blocks regenerated."""

    def fill(match: re.Match[str]) -> str:
        made = {"benchmarks": benchmarks, "verdicts": verdicts}.get(match[2])
        text = made(root) if made is not None else block(match[2], root)
        if "/" in file:  # links are relative to the file
            text = text.replace("](results/", "](")
        return f"{match[1]}{text}{match[4]}"

    return _BLOCK.sub(fill, (root / file).read_text(encoding="utf-8"))


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, statuses={1: "(--check) a block is stale"})
    result.add_argument("--check", action="store_true", help="list the stale blocks, write nothing")
    return result


def run(args: argparse.Namespace) -> int:
    """Rewrite, or check."""
    from gbn.store.files import write_atomically

    stale = []
    for file in FILES:
        text = filled(file)
        if text != (ROOT / file).read_text(encoding="utf-8"):
            stale.append(file)
            if not args.check:
                write_atomically(ROOT / file, text)
    print(f"{'stale' if args.check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return int(args.check and bool(stale))


if __name__ == "__main__":
    cli.main(parser, run)
