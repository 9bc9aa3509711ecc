"""``gbn results``: every committed table, figure and generated block, from the archive and the committed CSVs.

A generated block is between ``<!-- begin generated: NAME -->`` and ``<!-- end generated: NAME -->`` of README.md and
results/README.md; NAME is an experiment, with ``@scale`` if it has one, or ``benchmarks``, or ``verdicts`` (the
overview of results/CLAIMS.md).
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.cli import bench, studies, tables

if TYPE_CHECKING:
    from gbn.plot_style import Picture

#: The files that have generated blocks.
FILES = ("README.md", "results/README.md")
#: (file below the root, its text or its picture); None instead: it is not made any more.
Made = Iterator[tuple[Path, "str | Picture | None"]]


@dataclass(frozen=True)
class Part:
    """Files of one origin.

    Attributes:
        files: patterns of their paths below the root.
        by: the commands that make them one by one.
        make: root -> all of them; None: they are not made here.
        needs: what making them takes that is not committed.
    """

    files: tuple[str, ...]
    by: str
    make: Callable[[Path], Made] | None = None
    needs: str = ""


def tables_and_figures(root: Path) -> Made:
    """Tables by their first lines, figures by what their PNGs say, each comparison loaded once."""
    from gbn.analysis.plots.committed import pictures
    from gbn.analysis.tables import formats
    from gbn.analysis.tables.committed import comparison_of
    from gbn.config.grid import load_grid
    from gbn.plot_style import source_and_digest

    results = root / "results"
    sources: dict[str, tuple[dict[str, Any], set[str]]] = {}  # what is compared -> kinds of files
    found = {path: formats.read_header(path) for path in sorted(results.glob("tables/*.md"))}
    found |= {path: source_and_digest(path)[0] for path in sorted(results.glob("figures/*.png"))}
    for path, header in found.items():
        if header is None:
            if part_of(path.relative_to(root)) is COMPARED:
                yield path.relative_to(root), None
            continue
        own = {"kind", "linear", "quantities", "layers"}
        compared = {key: value for key, value in header.items() if key not in own}
        kinds = sources.setdefault(json.dumps(compared, sort_keys=True), (compared, set()))[1]
        kinds.add(json.dumps(header, sort_keys=True) if "kind" in header else "")
    made = set()
    for compared, kinds in sources.values():
        comparison = comparison_of(compared, results, lambda name, scale: load_grid(root / name, scale))
        for kind in sorted(kinds):
            files: dict[str, str | Picture] = {}
            if kind:
                files |= {f"figures/{one.name}.png": one for one in pictures(comparison, json.loads(kind))}
            else:
                name = comparison.runs.plan.name
                files |= {f"tables/{name}{end}": text for end, text in formats.render(comparison).items()}
            made |= {results / file for file in files}
            yield from ((Path("results", file), content) for file, content in files.items())
    yield from (
        (path.relative_to(root), None) for path, header in found.items() if header and path not in made
    )


def patients(root: Path) -> Made:
    """Segmentation patient by patient; a table's name is the experiment's and its scale's."""
    for path in sorted((root / "results/segmentation").glob("*.md")):
        name, _, scale = path.stem.partition("-")
        experiment = root / "experiments" / name
        texts = tables.patient_tables(experiment, scale or None, root / "results", "archive")
        yield from ((Path("results/segmentation", file), text) for file, text in texts.items())


def profiles(root: Path) -> Made:
    """Profiles over several experiments, by what their first lines say."""
    from gbn.analysis.profiles.table import read_selection
    from gbn.plot_style import Picture

    for path in sorted((root / "results/profiles").glob("*.md")):
        chosen = read_selection(path)
        paths = [str(root / one) for one in chosen["experiments"]]
        texts, figure = tables.profile_files(chosen, root / "results", paths)
        yield from ((Path(f"results/profiles/{path.stem}{end}"), text) for end, text in texts.items())
        yield Path(f"results/profiles/{path.stem}.png"), Picture(path.stem, figure)


def hessians(root: Path) -> Made:
    """Table and figure of the measured condition numbers."""
    text, picture = studies.hessian_files(root / "results/preconditioning/hessian.csv")
    yield Path("results/preconditioning/hessian.md"), text
    yield Path("results/figures/bnp-hessian.png"), picture


def ledger(root: Path) -> Made:
    """The claims with their verdicts."""
    from gbn.analysis.claims import load_papers, markdown, verdicts

    experiments = root / "experiments"
    judged = verdicts(root / "results", "archive", None, experiments)
    yield Path("results/CLAIMS.md"), markdown(judged, load_papers(experiments))


def blocks(root: Path) -> Made:
    """The texts with generated blocks; after the ledger, which they quote."""
    yield from ((Path(file), filled(file, root)) for file in FILES)


def filled(file: str, root: Path) -> str:
    """Return a file's text with its blocks regenerated."""
    special = {"benchmarks": _benchmarks_block, "verdicts": _verdicts_block}

    def fill(match: re.Match[str]) -> str:
        name = match[2]
        text = special[name](root) if name in special else _table_block(name, root)
        if "/" in file:  # links are relative to the file
            text = text.replace("](results/", "](")
        return f"{match[1]}{text}{match[4]}"

    pattern = re.compile(r"(<!-- begin generated: (\S+) -->\n)(.*?)(<!-- end generated: \2 -->)", re.DOTALL)
    return pattern.sub(fill, (root / file).read_text(encoding="utf-8"))


def _table_block(name: str, root: Path) -> str:
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


def _benchmarks_block(root: Path) -> str:
    """Return the chart of each device's newest benchmark of the layers, and the verdict on every goal."""
    from gbn.bench.environment import read_rows
    from gbn.bench.goals import NORM, TRAIN
    from gbn.bench.markdown import goal_overview

    lines = [""]
    folder = root / "results" / "benchmarks"
    for path in _newest(folder, "norm"):
        rows = read_rows(path)
        kind = rows[0]["device_kind"]
        lines += [f"![Forward and backward on {kind}](results/benchmarks/{path.stem}.png)", ""]
        train = [one for one in _newest(folder, "train") if read_rows(one)[0]["device_kind"] == kind]
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


def _verdicts_block(root: Path) -> str:
    """Return the overview of the ledger."""
    from gbn.analysis.claims.ledger import OVERVIEW

    text = (root / "results" / "CLAIMS.md").read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in OVERVIEW)
    return "\n" + text[begin + len(OVERVIEW[0]) : end].strip() + "\n\n"


def _newest(folder: Path, what: str) -> list[Path]:
    """Return the newest file of each device kind."""
    by_kind = {path.stem[: -len("-2026-01-01")]: path for path in sorted(folder.glob(f"{what}-*.csv"))}
    return list(by_kind.values())


def beside(stem: str, by: str, files: "Callable[[Path], Mapping[str, str | Picture]]") -> Part:
    """Return the part of the files that are made beside each CSV of a stem below results/."""

    def make(root: Path) -> Made:
        for path in sorted(root.glob(f"results/{stem}*.csv")):
            for suffix, content in files(path).items():
                yield path.relative_to(root).with_suffix(suffix), content

    return Part((f"results/{stem}*",), f"{by} --render", make)


COMPARED = Part(
    ("results/tables/*.md", "results/tables/*.csv", "results/tables/*.runs.txt", "results/figures/*.png"),
    "gbn table, gbn plot convergence, gbn plot layers, gbn select rates --plot",
    tables_and_figures,
)
#: The first part whose pattern fits has a file.
PARTS = (
    Part(("results/archive/*",), "gbn archive", needs="the trained runs: it is what all else is made from"),
    Part(
        ("results/figures/*-overlays.png", "results/figures/*-areas.png"),
        "gbn plot segmentation",
        needs="the weights of the runs, which the archive does not hold",
    ),
    Part(
        ("results/figures/*-samples.png",),
        "gbn plot samples",
        needs="the pictures in the runs' folders, which the archive does not hold",
    ),
    Part(("results/features/*",), "gbn study features", needs="the training of a network"),
    Part(("results/validation/*",), "gbn study statistics", needs="ten minutes of simulation"),
    Part(("results/benchmarks/*.notes.md",), "hand", needs="somebody who knows why a goal is missed"),
    Part(
        ("results/benchmarks/*.csv",),
        "gbn bench norm, train, precondition, startup and analysis, and gbn cost",
        needs="an idle machine of that kind",
    ),
    Part(
        ("results/gradient_variance/*.csv",),
        "gbn study variance",
        needs="the training of one arm, whose gradients are measured",
    ),
    Part(
        ("results/preconditioning/*.csv",),
        "gbn study hessian",
        needs="the training of the networks whose Hessians are computed",
    ),
    Part(
        ("results/preconditioning/*.md", "results/figures/bnp-hessian.png"),
        "gbn study hessian --render",
        hessians,
    ),
    COMPARED,
    Part(("results/segmentation/*",), "gbn patients", patients),
    Part(("results/profiles/*",), "gbn profile", profiles),
    beside("gradient_variance/", "gbn study variance", studies.variance_files),
    beside("benchmarks/norm-", "gbn bench norm", bench.norm_files),
    beside("benchmarks/train-", "gbn bench train", bench.train_files),
    beside("benchmarks/precondition-", "gbn bench precondition", bench.precondition_files),
    Part(("results/CLAIMS.md",), "gbn claims --write", ledger),
    Part(("README.md", "results/README.md"), "gbn results", blocks),
)


def part_of(file: Path) -> Part | None:
    """Return where a file comes from; None for one that nothing makes."""
    fits = (part for part in PARTS if any(fnmatch(file.as_posix(), pattern) for pattern in part.files))
    return next(fits, None)


def stale(path: Path, content: "str | Picture") -> bool:
    """Return whether a committed file differs from what is made now."""
    from gbn.plot_style import digest, source_and_digest

    if not path.is_file():
        return True
    if isinstance(content, str):
        return path.read_bytes() != content.encode()
    return source_and_digest(path)[1] != digest(content.figure)


def results(result: cli.Parser) -> cli.Run:
    """Write every committed table, figure and generated block again, from the archive and the committed CSVs.

    Works in the working folder, a checkout; trains nothing and times nothing. A table or a block is stale when its
    text differs; a figure when the data that it shows do, not its pixels (gbn.plot_style).

    Examples:
        gbn results            # what `make tables` does
        gbn results --check
        gbn results --list
    """
    result.statuses |= {1: "something is stale (without --check: what is not made any more)"}
    kind = result.add_mutually_exclusive_group().add_argument
    kind("--check", action="store_true", help="say what is stale, write nothing")
    kind("--list", action="store_true", help="say where every file comes from, and what it takes to make it")
    return _results


def _results(args: argparse.Namespace) -> int:
    if args.list:
        for part in PARTS:
            needs = [f"  needs {part.needs}"] if part.needs else []
            print(", ".join(part.files), f"  by {part.by}", *needs, sep="\n")
        return 0
    if not Path("results/archive").is_dir():
        raise LookupError(
            f"no results/archive in {Path.cwd()}: call gbn results in a checkout of the repository"
        )
    return write(Path.cwd(), args.check)


def write(root: Path, check: bool = False) -> int:
    """Write what is stale below a root, or (`check`) only say so; return the exit status."""
    from gbn.plot_style import png
    from gbn.store.files import write_bytes_atomically

    found, left = 0, 0
    for part in PARTS:
        for file, content in part.make(root) if part.make else ():
            path = root / file
            if content is None:
                left += 1
                print(
                    f"{file}: nothing makes it any more; delete it, or make it anew by {part.by}",
                    flush=True,
                )
            elif not stale(path, content):
                if not check:
                    print(f"{file}: unchanged", flush=True)
            else:
                found += 1
                print(f"{file}: {'stale' if check else 'written'}", flush=True)
                if not check:
                    made = content.encode() if isinstance(content, str) else png(content)
                    write_bytes_atomically(path, made)
    print(f"{found + left} stale; `make tables` writes them again" if check else f"{found} written")
    return int(bool(left or (check and found)))
