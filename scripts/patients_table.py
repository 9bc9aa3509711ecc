"""Segmentation patient by patient -> <experiment>-<scale>.md and .csv (one row per run, patient and structure).

    python scripts/patients_table.py experiments/bnunet_cardiac --scale small --source archive

From the summaries of finished runs; with --source archive into segmentation/ of --results, else of its scratch/.
"""

import argparse

from gbn import cli
from gbn.analysis import options
from gbn.arguments import output_folder

EXAMPLES = ("python scripts/patients_table.py experiments/bnunet_cardiac --scale small --source archive",)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, EXAMPLES)
    options.add_experiment(result)
    options.add_results(result)
    result.add_argument("--out", type=output_folder, metavar="DIR", help="output folder")
    return result


def run(args: argparse.Namespace) -> int:
    """Find the runs, write, list the files."""
    from gbn.store.files import write_atomically

    folder = args.out or options.out_dir(args, "segmentation") / "segmentation"
    texts = made(args.experiment, args.scale, args.results, args.source)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    print(next(iter(texts.values())))
    print("Written:", *(folder / name for name in texts), sep="\n  ")
    return 0


def made(experiment: str, scale: str | None, results: str, source: str) -> dict[str, str]:
    """Return file name -> text.

    Raises:
        LookupError: no run of the experiment there has patients' scores.
    """
    from gbn.analysis.tables.section import grid_lines
    from gbn.analysis.tables.segmentation import patient_frame, patient_sections
    from gbn.config.grid import load_grid
    from gbn.store.archive import Archive
    from gbn.store.records import DONE, RunStore

    grid = load_grid(experiment, scale)
    ids = set(grid.run_ids())
    store = RunStore(results)
    records = [record for record in Archive(results) if record.run_id in ids] if source != "store" else []
    if source != "archive":
        records = [*(store.load(run_id) for run_id in store.run_ids() if run_id in ids), *records]
    records = [record for record in records if record.status in DONE]
    frame = patient_frame(grid, records)
    lines = [f"# {grid.title}: patient by patient", ""]
    for setting, section in patient_sections(frame, grid.reference).items():
        lines += [f"## {setting}", ""] if setting else []
        lines += [f"**{section.heading}**", "", *grid_lines(section), "", *section.notes, ""]
    found = sorted({(one.environment["device_kind"], str(one.environment["commit"])[:10]) for one in records})
    origin = "; ".join(f"{device}, commit {commit}" for device, commit in found)
    lines += [f"From {len(records)} runs in the {source}, {origin}.", ""]
    stem = "-".join(filter(None, (grid.name, grid.scale)))
    return {f"{stem}.md": "\n".join(lines), f"{stem}.csv": frame.to_csv(index=False, float_format="%.6g")}


if __name__ == "__main__":
    cli.main(parser, run)
