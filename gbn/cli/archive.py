"""``gbn runs`` and ``gbn archive``: the runs on disk, and the archive that their records are packed into."""

import argparse
from pathlib import Path

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import name, usable_folder

STATUSES = ("finished", "diverged", "failed", "not_applicable", "running", "interrupted")


def runs(result: cli.Parser) -> cli.Run:
    """List runs: id, status, last update, seconds, where the record is.

    Examples:
        gbn runs
        gbn runs 'cifar10-resnet-*' --source archive
        gbn runs --status failed running
    """
    add = result.add_argument
    add("runs", nargs="*", metavar="GLOB", help="ids or patterns on ids (default: all)")
    options.add_results(result, source="both")
    add("--status", nargs="+", choices=STATUSES, help="only runs with one of these")
    return _runs


def _runs(args: argparse.Namespace) -> int:
    from fnmatch import fnmatchcase

    from gbn.store.archive import Archive
    from gbn.store.records import RunStore

    records = [*(RunStore(args.results) if args.source != "archive" else ())]
    records += [*(Archive(args.results) if args.source != "store" else ())]
    for pattern in args.runs:
        if not any(fnmatchcase(record.run_id, pattern) for record in records):
            raise LookupError(f"no run fits {pattern!r} in {args.results} (--source {args.source})")
    shown = 0
    for record in sorted(records, key=lambda record: record.run_id):
        if args.runs and not any(fnmatchcase(record.run_id, pattern) for pattern in args.runs):
            continue
        if args.status and record.status not in args.status:
            continue
        shown += 1
        update = record.curve[-1]["update"] if record.curve else 0
        seconds = (record.summary or {}).get("wall_seconds")
        time = f"{seconds:.0f} s" if seconds else ""
        place = record.shard or record.source
        print(f"{record.run_id:<60} {record.status:<12} {update:>7} {time:>8}  {place}")
    print(f"{shown} of {len(records)} records")
    return 0


def archive(result: cli.Parser) -> cli.Run:
    """Pack the records of finished runs into archive/ of --results, retract records, or check the archive.

    Examples:
        gbn archive experiments/quick
        gbn archive --runs 'cifar10-resnet-bn-*' --label competence
        gbn archive --retract RUN_ID --reason 'trained on the test set'
        gbn archive --check
    """
    result.statuses |= {1: "a record was refused, or (--check) a table differs from the archive"}
    options.add_runs(result)
    options.add_results(result, source=None)
    add = result.add_argument
    add("--label", type=name, help="names the shard (default: the experiment, or 'runs')")
    add("--dry-run", action="store_true", help="print what would be added, write nothing")
    add("--retract", metavar="RUN_ID", help="retract the records of a run; needs --reason")
    add("--reason", help="why, stored with the retraction")
    add("--shard", help="with --retract: in this shard only")
    add("--check", action="store_true", help="read everything, then compare tables/ with the archive")
    return _archive


def _archive(args: argparse.Namespace) -> int:
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
