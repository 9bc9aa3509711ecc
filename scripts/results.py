"""Write every committed table, figure and machine-written block again, from the archive and the committed CSVs.

    python scripts/results.py            # what `make tables` does
    python scripts/results.py --check    # write nothing; exit status 1 when something is stale

Trains nothing and times nothing. A table or a block is stale when its text differs; a figure when the data that it
shows do, not its pixels (gbn.plot_style). --list says where every file of results/ comes from, and what is needed to
make those that are not made here.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli

if TYPE_CHECKING:
    from gbn.plot_style import Picture

ROOT = Path(__file__).resolve().parents[1]

#: (file below the root, its text or its picture); None instead: it is not made any more.
Made = Iterator[tuple[Path, "str | Picture | None"]]


@dataclass(frozen=True)
class Part:
    """Files of one origin.

    Attributes:
        files: patterns of their paths below the root.
        by: the script that makes them one by one.
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

    results = root / "results"
    sources: dict[str, tuple[dict[str, Any], set[str]]] = {}  # what is compared -> kinds of files
    found = {path: formats.read_header(path) for path in sorted(results.glob("tables/*.md"))}
    found |= {path: drawn_from(path) for path in sorted(results.glob("figures/*.png"))}
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
        comparison = comparison_of(compared, results, lambda name, scale: load(root, name, scale))
        for kind in sorted(kinds):
            if kind:
                files = {f"figures/{one.name}.png": one for one in pictures(comparison, json.loads(kind))}
            else:
                name = comparison.runs.plan.name
                files = {f"tables/{name}{end}": text for end, text in formats.render(comparison).items()}
            made |= {results / file for file in files}
            yield from ((Path("results", file), content) for file, content in files.items())
    yield from (
        (path.relative_to(root), None) for path, header in found.items() if header and path not in made
    )


def drawn_from(path: Path) -> dict[str, Any] | None:
    """What a committed figure was made from."""
    from gbn.plot_style import source_and_digest

    return source_and_digest(path)[0]


def load(root: Path, experiment: str, scale: str | None) -> Any:
    """A grid of this checkout."""
    from gbn.config.grid import load_grid

    return load_grid(root / experiment, scale)


def patients(root: Path) -> Made:
    """Segmentation patient by patient; a table's name is the experiment's and its scale's."""
    import patients_table

    for path in sorted((root / "results/segmentation").glob("*.md")):
        name, _, scale = path.stem.partition("-")
        texts = patients_table.made(root / "experiments" / name, scale or None, root / "results", "archive")
        yield from ((Path("results/segmentation", file), text) for file, text in texts.items())


def profiles(root: Path) -> Made:
    """Profiles over several experiments, by what their first lines say."""
    import performance_profile

    from gbn.analysis.profiles.table import read_selection
    from gbn.plot_style import Picture

    for path in sorted((root / "results/profiles").glob("*.md")):
        chosen = read_selection(path)
        paths = [str(root / one) for one in chosen["experiments"]]
        texts, figure = performance_profile.made(chosen, root / "results", paths)
        yield from ((Path(f"results/profiles/{path.stem}{end}"), text) for end, text in texts.items())
        yield Path(f"results/profiles/{path.stem}.png"), Picture(path.stem, figure)


def gradient_variance(root: Path) -> Made:
    """Table and figure of each measured file."""
    import gradient_variance as script

    for path in sorted((root / "results/gradient_variance").glob("*.csv")):
        text, picture = script.made(path)
        yield path.relative_to(root).with_suffix(".md"), text
        yield path.relative_to(root).with_suffix(".png"), picture


def hessians(root: Path) -> Made:
    """Table and figure of the measured condition numbers."""
    import hessian_condition

    text, picture = hessian_condition.made(root / "results/preconditioning/hessian.csv")
    yield Path("results/preconditioning/hessian.md"), text
    yield Path("results/figures/bnp-hessian.png"), picture


def benchmarks(root: Path) -> Made:
    """The summary of each timed file, and the chart of the layers' ones."""
    import bench_norm
    import bench_precondition
    import bench_train

    folder = root / "results/benchmarks"
    for path in sorted(folder.glob("norm-*.csv")):
        text, picture = bench_norm.made(path)
        yield path.relative_to(root).with_suffix(".md"), text
        yield path.relative_to(root).with_suffix(".png"), picture
    for kind, script in (("train", bench_train), ("precondition", bench_precondition)):
        for path in sorted(folder.glob(f"{kind}-*.csv")):
            yield path.relative_to(root).with_suffix(".md"), script.made(path)


def ledger(root: Path) -> Made:
    """The claims with their verdicts."""
    from gbn.analysis.claims import load_papers, markdown, verdicts

    experiments = root / "experiments"
    judged = verdicts(root / "results", "archive", None, experiments)
    yield Path("results/CLAIMS.md"), markdown(judged, load_papers(experiments))


def blocks(root: Path) -> Made:
    """What stands between the markers of README.md and results/README.md; after the ledger, which it quotes."""
    import readme

    yield from ((Path(file), readme.filled(file, root)) for file in readme.FILES)


COMPARED = Part(
    ("results/tables/*.md", "results/tables/*.csv", "results/tables/*.runs.txt", "results/figures/*.png"),
    "speedup_table.py, plot_convergence.py, plot_layers.py, select_rates.py --plot",
    tables_and_figures,
)
#: The first part whose pattern fits has a file.
PARTS = (
    Part(("results/archive/*",), "archive.py", needs="the trained runs: it is what all else is made from"),
    Part(
        ("results/figures/*-overlays.png", "results/figures/*-areas.png"),
        "plot_segmentation.py",
        needs="the weights of the runs, which the archive does not hold",
    ),
    Part(
        ("results/figures/*-samples.png",),
        "plot_samples.py",
        needs="the pictures in the runs' folders, which the archive does not hold",
    ),
    Part(("results/features/*",), "train_features.py", needs="the training of a network"),
    Part(("results/validation/*",), "validate_statistics.py", needs="ten minutes of simulation"),
    Part(("results/benchmarks/*.notes.md",), "hand", needs="somebody who knows why a goal is missed"),
    Part(
        ("results/benchmarks/*.csv",),
        "bench_norm.py, bench_train.py, bench_precondition.py, bench_startup.py, bench_analysis.py, cost.py",
        needs="an idle machine of that kind",
    ),
    Part(
        ("results/gradient_variance/*.csv",),
        "gradient_variance.py",
        needs="the training of one arm, whose gradients are measured",
    ),
    Part(
        ("results/preconditioning/*.csv",),
        "hessian_condition.py",
        needs="the training of the networks whose Hessians are computed",
    ),
    Part(
        ("results/preconditioning/*.md", "results/figures/bnp-hessian.png"),
        "hessian_condition.py --render",
        hessians,
    ),
    COMPARED,
    Part(("results/segmentation/*",), "patients_table.py", patients),
    Part(("results/profiles/*",), "performance_profile.py", profiles),
    Part(("results/gradient_variance/*",), "gradient_variance.py --render", gradient_variance),
    Part(("results/benchmarks/*",), "bench_*.py --render", benchmarks),
    Part(("results/CLAIMS.md",), "claims.py --write", ledger),
    Part(("README.md", "results/README.md"), "readme.py", blocks),
)


def part_of(file: Path) -> Part | None:
    """Where a file comes from; None for one that nobody answers for."""
    fits = (part for part in PARTS if any(fnmatch(file.as_posix(), pattern) for pattern in part.files))
    return next(fits, None)


def stale(path: Path, content: "str | Picture") -> bool:
    """Whether a committed file is not what is made now."""
    from gbn.plot_style import digest, source_and_digest

    if not path.is_file():
        return True
    if isinstance(content, str):
        return path.read_bytes() != content.encode()
    return source_and_digest(path)[1] != digest(content.figure)


def parser() -> cli.Parser:
    """The command line."""
    result = cli.Parser(
        __doc__, statuses={1: "something is stale (without --check: what is not made any more)"}
    )
    kind = result.add_mutually_exclusive_group().add_argument
    kind("--check", action="store_true", help="say what is stale, write nothing")
    kind("--list", action="store_true", help="say where every file comes from, and what it takes to make it")
    return result


def run(args: argparse.Namespace) -> int:
    """Make everything, compare, write."""
    if args.list:
        for part in PARTS:
            print(
                ", ".join(part.files),
                f"  by {part.by}",
                *([f"  needs {part.needs}"] if part.needs else []),
                sep="\n",
            )
        return 0
    return write(ROOT, args.check)


def write(root: Path, check: bool = False) -> int:
    """Write what is stale below a root, or (`check`) only say so; the exit status."""
    from gbn.plot_style import png
    from gbn.store.files import write_atomically, write_bytes_atomically

    found, left = 0, 0
    for part in PARTS:
        for file, content in part.make(root) if part.make else ():
            path = root / file
            if content is None:
                left += 1
                print(
                    f"{file}: no script makes it any more; delete it, or make it anew with {part.by}",
                    flush=True,
                )
            elif not stale(path, content):
                if not check:
                    print(f"{file}: unchanged", flush=True)
            else:
                found += 1
                print(f"{file}: {'stale' if check else 'written'}", flush=True)
                if not check and isinstance(content, str):
                    write_atomically(path, content)
                elif not check:
                    write_bytes_atomically(path, png(content))
    print(f"{found + left} stale; `make tables` writes them again" if check else f"{found} written")
    return int(bool(left or (check and found)))


if __name__ == "__main__":
    cli.main(parser, run)
