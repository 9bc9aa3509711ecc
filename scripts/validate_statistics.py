"""Simulated pairs with a known speed-up -> results/validation/statistics.{md,csv}: the coverage of the intervals.

python scripts/validate_statistics.py                     # about ten minutes on one idle core
python scripts/validate_statistics.py --repetitions 200   # a quick look
"""

import argparse
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from gbn import cli
from gbn.arguments import Whole, output_folder

FOLDER = Path(__file__).resolve().parents[1] / "results" / "validation"


def header(repetitions: int, seed: int) -> str:
    """Return the line that states the command, versions, commit and date."""
    from gbn.engine.provenance import git_state, package_versions

    versions, state = {**package_versions(), "scipy": version("scipy")}, git_state()
    named = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "scipy"))
    dirty = f" with changes {state['dirty']}" if state["dirty"] else ""
    return (
        f"scripts/validate_statistics.py --repetitions {repetitions} --seed {seed}; {named}; commit "
        f"{(state['commit'] or 'unknown')[:10]}{dirty}; {datetime.now(UTC):%Y-%m-%d}."
    )


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__)
    add = result.add_argument
    what = "samples per cell, at least ten; thousands to be informative (default: 4000)"
    add("--repetitions", type=Whole(10, 10**7), default=4000, metavar="N", help=what)
    add("--seed", type=Whole(0), default=0, metavar="N", help="seed of the random numbers (default: 0)")
    what = "output folder (default: results/validation)"
    add("--out", type=output_folder, default=str(FOLDER), metavar="DIR", help=what)
    return result


def run(args: argparse.Namespace) -> int:
    """Simulate, write, print what fails."""
    from gbn.store.files import write_atomically
    from gbn.studies.validation import validation
    from gbn.studies.validation.report import csv_of, markdown, whole_path

    head, findings = header(args.repetitions, args.seed), []
    for study in (
        validation.uncensored,
        validation.censored,
        validation.survival_curves,
        validation.families,
        validation.predicted_power,
    ):
        findings += list(study(args.repetitions, args.seed))
        print(f"{study.__name__}: done", flush=True)
    findings += list(whole_path(min(300, args.repetitions)))
    args.out.mkdir(parents=True, exist_ok=True)
    files = {"statistics.md": markdown(findings, head), "statistics.csv": csv_of(findings, head)}
    for name, text in files.items():
        write_atomically(args.out / name, text)
    print("Written:", *(args.out / name for name in files), sep="\n  ")
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
