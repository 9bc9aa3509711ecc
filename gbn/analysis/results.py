"""The results of an experiment: tables, figures, a summary for the terminal, and a comparison with the archive."""

import itertools
from pathlib import Path

import pandas as pd

from gbn.analysis.comparison.comparison import Comparison, Options
from gbn.analysis.runs.load import NothingFound, Runs, Source, load_grid_runs
from gbn.analysis.runs.plan import GridLike, plan_of_grid
from gbn.analysis.tables import formats, numbers
from gbn.analysis.tables.section import Section, grid_lines
from gbn.analysis.tables.sections import ONE, summary
from gbn.store.archive import Archive, contradiction
from gbn.store.records import RunStore
from gbn.store.trained_on import differ, digests


def write_results(
    grid: GridLike | None,
    runs: Runs | str | Path,
    out_dir: str | Path | None = None,
    *,
    source: Source = "store",
    options: Options | None = None,
    figures: bool = True,
    paper: bool = False,
) -> str:
    """Write the tables and figures of some runs.

    Args:
        grid: the experiment they belong to; the runs must be of its plan. None: any set of runs. runs: from
            :func:`gbn.analysis.runs.load.load_grid_runs` or :func:`gbn.analysis.runs.load.load_any`; or the results
            directory to load the grid's runs from.
        out_dir: gets ``tables/<name>.{md,csv,runs.txt}`` and ``figures/<name>-*.png``. By default
            the results directory itself for archived runs and its ``scratch/`` (not committed) for others.
        source: where the grid's runs are read, if `runs` is a directory.
        options: how targets are measured.
        figures: False writes tables only.
        paper: write LaTeX tables and PDF figures too.

    Returns:
        The text for the terminal: the summary table, the notes and the files written.

    Raises:
        NothingFound: no run of the grid is finished there.
        ValueError: the runs do not belong to the grid, or there is no output folder.
    """
    if not isinstance(runs, Runs):
        if grid is None:
            raise ValueError("a results directory alone does not say which runs are meant: give a grid too")
        out_dir = out_dir or output_folder(runs, source)
        runs = load_grid_runs(grid, runs, source)
    if out_dir is None:
        raise ValueError("runs that are already loaded do not say where to write: give out_dir")
    if grid is not None and plan_of_grid(grid).entries != runs.plan.entries:
        raise ValueError(
            f"these runs are of {runs.plan.name}, not of {grid.name} at this scale: load them with this grid"
        )
    comparison = Comparison(runs, options or Options())
    paths = formats.write(comparison, Path(out_dir) / "tables", paper)
    notes: list[str] = []
    if figures:
        from gbn.analysis.plots import convergence as plots
        from gbn.plot_style import save

        drawn, notes = plots.pictures(comparison)
        paths += save(drawn, Path(out_dir) / "figures", paper)
    files = "\n".join(f"  {path}" for path in paths)
    remarks = "".join(f"{note}\n" for note in notes)
    return f"{summary_text(comparison)}{remarks}Written:\n{files}\n"


def output_folder(results_dir: str | Path, source: Source) -> Path:
    """Return where tables/ and figures/ go: only output from the archive belongs among the committed results."""
    return Path(results_dir) if source == "archive" else Path(results_dir) / "scratch"


def summary_text(comparison: Comparison) -> str:
    """Return the short table for the terminal, with the notes."""
    lines = [comparison.runs.plan.title, *formats.explanation(comparison), ""]
    for setting in comparison.runs.plan.settings:
        section = summary(comparison, setting)
        lines += [f"[{setting}]"] if setting else []
        lines += [*grid_lines(section), *section.notes, ""]
    lines += [f"- {note}" for note in formats.footnotes(comparison)]
    return "\n".join(lines) + "\n"


def compare_with_archive(
    grid: GridLike, results_dir: str | Path = "results", options: Options | None = None
) -> str:
    """Compare this machine's figures (run store) with the archived ones, arm by arm.

    Returns:
        Text for the terminal; it says so if the archive is empty or the store has no finished run.
    """
    try:
        here = Comparison(load_grid_runs(grid, results_dir, "store"), options or Options())
        there = Comparison(load_grid_runs(grid, results_dir, "archive"), options or Options())
    except NothingFound as nothing:
        return f"No comparison with the archive: {nothing}.\n"
    final = here.figures.final
    shown = "test accuracy in percent" if final.family == "accuracy" else final.label
    lines = [f"This machine next to the archive (same arms, same seeds; {shown}).", ""]
    for setting in here.runs.plan.settings:
        lines += [f"[{setting}]"] if setting else []
        lines += [*grid_lines(_beside(here, there, setting)), ""]
    ours, theirs = ("; ".join(sorted(side.runs.runs.machine.dropna().unique())) for side in (here, there))
    lines += [_agreement(grid, results_dir), f"Here: {ours}. Archived: {theirs}."]
    return "\n".join(lines) + "\n"


def _beside(here: Comparison, there: Comparison, setting: str) -> Section:
    targets, reference, final = here.times.targets(setting), here.runs.plan.reference, here.figures.final
    columns = ["arm", "n here", "n archived", "last here", "last archived", "here - archived"]
    columns += [
        f"{where} to {here.measured.target(t)}" for t in targets for where in ("speed-up", "archived")
    ]
    rows = []
    for arm in here.runs.arms(setting):
        both = [side.figures.of_runs.get((setting, arm)) for side in (here, there)]
        ours, theirs = (pd.Series(dtype=float) if one is None else one["last"] for one in both)
        change = (ours - theirs).dropna()
        row = [arm, str(len(ours)), str(len(theirs))]
        row += [numbers.value(side.figures.estimate(setting, "last", arm), final) for side in (here, there)]
        row.append(final.number(float(change.mean()), "+") if len(change) else numbers.NONE)
        for target in targets:
            key = (setting, "speedup_to_target", arm, reference, "updates", target)
            row += [
                ONE if arm == reference else numbers.ratio(side.evidence.estimate(*key))
                for side in (here, there)
            ]
        rows.append(tuple(row))
    return Section("", tuple(columns), tuple(rows))


def _agreement(grid: GridLike, results_dir: str | Path) -> str:
    """Say how many of the runs that both have are equal number by number."""
    store, shared, equal, changed = RunStore(results_dir), 0, 0, 0
    archived: dict[str, list] = {}
    for record in Archive(results_dir):
        archived.setdefault(record.run_id, []).append(record)
    for entry in plan_of_grid(grid).entries:
        others = archived.get(entry.run_id, [])
        if others and store.status(entry.run_id) in ("finished", "diverged"):
            shared += 1
            ours = store.load(entry.run_id)
            equal += any(contradiction(other, ours) is None for other in others)
            pairs = itertools.product(digests(ours.provenance), digests(others[0].provenance))
            changed += any(differ(*pair) for pair in pairs)
    text = f"{changed} of them were trained on other data than the archived ones. " if changed else ""
    return (
        f"{shared} runs are on both sides, {equal} of them equal in every number. {text}Elsewhere rounding differs "
        "(another processor, version or number of threads): then means and intervals are what to compare."
    )
