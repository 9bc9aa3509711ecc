"""Check that committed tables equal what the archive gives: regenerate them all and compare.

Each table's first line says what it was made from (:func:`gbn.analysis.tables.formats.read_header`), so everything
under ``results/tables/`` can be found and regenerated without a list kept by hand.
"""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.runs.load import NothingFound, load_any, load_grid_runs
from gbn.analysis.runs.plan import GridLike
from gbn.analysis.tables import formats
from gbn.store.files import StoreError

GridLoader = Callable[[str, str | None], GridLike]


def comparison_of(header: Mapping[str, Any], results_dir: str | Path, load_grid: GridLoader) -> Comparison:
    """Return the comparison that a table's header, or a figure's source, describes; from the archive.

    Args:
        header: from :func:`gbn.analysis.tables.formats.read_header` or :func:`gbn.plot_style.source_and_digest`.
        results_dir: holds ``archive/``.
        load_grid: (experiment, scale) -> grid; :func:`gbn.config.grid.load_grid`.

    Raises:
        ValueError: the header names neither an experiment nor runs, or a source other than the archive.
        NothingFound: the archive has none of its runs.
    """
    if header.get("source") != "archive":
        raise ValueError(
            f"it was made from {header.get('source')!r}: commit only tables of --source archive, "
            "since only they can be made again"
        )
    options = Options(header["measure"], header["interpolation"])
    if header.get("experiment"):
        grid = load_grid(header["experiment"], header.get("scale"))
        runs = load_grid_runs(
            grid, results_dir, "archive", header.get("targets") or (), measure=header["measure"]
        )
    elif header.get("runs"):
        runs = load_any(
            header["runs"], results_dir, "archive", header.get("reference"), header.get("targets") or (),
            name=header.get("name", "runs"), measure=header["measure"],
        )  # fmt: skip
    else:
        raise ValueError("its header names neither an experiment nor runs")
    return Comparison(runs, options)


def differences(results_dir: str | Path, load_grid: GridLoader) -> list[str]:
    """Return how the tables under ``<results_dir>/tables/`` differ from what the archive gives; empty if none does.

    Each entry begins with the file's name. A file that is not one of our tables, a table that cannot be regenerated
    and a table that lacks one of its formats count as differences too.
    """
    folder = Path(results_dir) / "tables"
    found: list[str] = []
    made: dict[str, dict[str, str]] = {}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path in files:
        suffix = next((known for known in formats.SUFFIXES if path.name.endswith(known)), None)
        header = formats.read_header(path) if suffix else None
        if suffix is None or header is None:
            found.append(f"{path.name}: no table of ours (unknown suffix, or its first line was edited)")
            continue
        stem = str(path)[: -len(suffix)]
        key = f"{stem} {sorted(header.items())}"
        try:
            if key not in made:
                made[key] = formats.render(comparison_of(header, results_dir, load_grid))
        except (ValueError, NothingFound, LookupError, OSError, StoreError) as error:
            found.append(f"{path.name}: cannot be made again: {error}")
            continue
        found += difference(path, made[key][suffix])
        absent = [other for other in formats.SUFFIXES if not Path(stem + other).exists()]
        found += [f"{path.name}: its companion {Path(stem).name}{other} is missing" for other in absent]
    return found


def difference(path: Path, expected: str) -> list[str]:
    """Return an empty list if the file holds `expected`, else one entry with the first differing lines."""
    text = path.read_text(encoding="utf-8")
    if text == expected:
        return []
    lines = difflib.unified_diff(
        text.splitlines(), expected.splitlines(), "committed", "from the archive", lineterm="", n=0
    )
    shown = [line for line in lines if not line.startswith("@@")][:8]
    return [f"{path.name}: differs from the archive:\n  " + "\n  ".join(shown)]
