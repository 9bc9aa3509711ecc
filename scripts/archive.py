"""Pack the records of finished runs into results/archive/, retract records, or check the archive."""

import argparse
from pathlib import Path

from gbn import cli
from gbn.analysis import options
from gbn.arguments import name, usable_folder

EXAMPLES = (
    "python scripts/archive.py experiments/quick",
    "python scripts/archive.py --runs 'cifar10-resnet-bn-*' --label competence",
    "python scripts/archive.py --retract RUN_ID --reason 'trained on the test set'",
    "python scripts/archive.py --check",
)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    statuses = {1: "a record was refused, or (--check) a table differs from the archive"}
    result = cli.Parser(__doc__, EXAMPLES, statuses)
    options.add_runs(result)
    options.add_results(result, source=None)
    add = result.add_argument
    add("--label", type=name, help="names the shard (default: the experiment, or 'runs')")
    add("--dry-run", action="store_true", help="print what would be added, write nothing")
    add("--retract", metavar="RUN_ID", help="retract the records of a run; needs --reason")
    add("--reason", help="why, stored with the retraction")
    add("--shard", help="with --retract: in this shard only")
    add("--check", action="store_true", help="read everything, then compare results/tables/ with the archive")
    return result


def run(args: argparse.Namespace) -> int:
    """Add, retract or check."""
    cli.alone(args, "--check", "--results")
    cli.alone(args, "--retract", "--results", "--reason", "--shard")
    for option in ("--reason", "--shard"):
        cli.belongs(args, option, "--retract")
    if args.experiment and args.given & {"--retract", "--check"}:
        raise ValueError(f"--retract and --check take no experiment: leave out {args.experiment!r}")
    if args.check:
        return check(args)
    if not args.dry_run:
        usable_folder(Path(args.results) / "archive")
    if "--retract" in args.given:
        return retract(args)
    options.check_runs(args)
    return pack(args)


def pack(args: argparse.Namespace) -> int:
    """Add the finished runs; return 1 if a record was refused."""
    from gbn.store.archive import Archive
    from gbn.store.files import StoreError
    from gbn.store.records import RunStore

    grid = options.grid(args)
    store, archive = RunStore(args.results), Archive(args.results)
    if grid is None:
        ids = store.match(args.runs)
    else:
        ids = [run_id for cell in grid.cells for run_id in cell.run_ids.values()]
    ids = list(dict.fromkeys(ids))
    records, damaged = [], []
    for run_id in ids:
        try:
            if run_id in store:
                records.append(store.load(run_id))
        except StoreError as error:
            damaged.append((run_id, str(error)))
    if not records and not damaged:
        raise LookupError(f"nothing found: none of these runs is in {store.runs_dir}/; nothing was archived")
    label = args.label or (grid.name if grid else "runs")
    result = archive.add(records, label, dry_run=args.dry_run)
    result.refused += damaged
    verb = "would add" if args.dry_run else "added"
    print(f"{verb} {len(result.added)} records" + (f" in {result.shard}" if result.shard else ""))
    for run_id in result.added:
        print(f"  {run_id}")
    missing = len(ids) - len(records) - len(damaged)
    print(f"known already: {len(result.known)}; of {len(ids)} runs {missing} are missing")
    for run_id, status in result.unfinished:
        print(f"  not packed, {status}: {run_id}")
    for run_id, reason in result.refused:
        print(f"  REFUSED {run_id}: {reason}")
    if result.refused:
        print(
            "A refused record contradicts the archive (or itself). Find out which is right; if the archived one is"
        )
        print("wrong, take it back with --retract RUN_ID --reason ..., then archive again.")
    return 1 if result.refused else 0


def retract(args: argparse.Namespace) -> int:
    """Retract a run's records."""
    from gbn.store.archive import Archive

    if not (args.reason or "").strip():
        raise ValueError("--retract needs --reason: a record is never taken back without one")
    for shard in Archive(args.results).retract(args.retract, args.reason, args.shard):
        print(f"retracted {args.retract} of {shard}")
    return 0


def check(args: argparse.Namespace) -> int:
    """Read every shard, compare every committed table; return 1 if something differs.

    Raises:
        LookupError: there is no archive.
        StoreError: one of its shards is damaged.
    """
    from gbn.analysis.tables.committed import differences
    from gbn.config.grid import load_grid
    from gbn.store.archive import Archive

    archive = Archive(args.results)
    if not archive.shards():
        raise LookupError(
            f"{archive.folder} holds no shard, so there is nothing to check: give --results DIR"
        )
    print(f"{len(archive)} records in {len(archive.shards())} shards, no contradiction")
    found = differences(args.results, load_grid)
    for difference in found:
        print(f"- {difference}")
    tables = Path(args.results) / "tables"
    same = "every table is what the archive gives" if tables.is_dir() else "no tables to compare"
    print(f"{tables}: " + (f"{len(found)} differences" if found else same))
    return 1 if found else 0


if __name__ == "__main__":
    cli.main(parser, run)
