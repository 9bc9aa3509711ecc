"""``gbn wandb``: upload runs to Weights & Biases from our own files."""

import argparse
import sys
from collections import Counter
from contextlib import closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from gbn import cli
from gbn.cli import options
from gbn.cli.arguments import Number, name, usable_folder

if TYPE_CHECKING:
    from gbn.store.record import Record
    from gbn.tracking.service import Service
    from gbn.tracking.upload import Destination

PROJECT = "gbn"  # conf/tracker/wandb.yaml's
PATIENCE = 2  # consecutive failures of W&B before the rest is left for another time


class Unreachable(ConnectionError):
    """W&B cannot be reached; the message says what to do."""


def wandb(result: cli.Parser) -> cli.Run:
    """Upload runs to Weights & Biases from our own files (configuration, curve, summary), each once.

    A run keeps its id: complete runs are left alone, incomplete ones continue after their last step. W&B's own
    offline records (results/wandb/offline-run-*) are not needed and can be deleted.

    Examples:
        gbn wandb experiments/quick
        gbn wandb --runs '*' --project gbn --entity my-team --dry-run
        gbn wandb experiments/gbn_cifar10 --scale small --from-archive
    """
    result.statuses |= {1: "a run could not be uploaded"}
    options.add_runs(result)
    options.add_results(result, source=None)
    add = result.add_argument
    add("--from-archive", action="store_true", help="take archived records instead of the store's runs")
    add("--unfinished", action="store_true", help="also upload running, interrupted and failed runs")
    add("--project", type=name, default=PROJECT, help=f"W&B project (default: {PROJECT})")
    add("--entity", type=name, help="W&B user or team (default: the login's own)")
    what = "timeout for each answer from W&B (default: 30)"
    add("--timeout", type=Number(most=86400), default=30.0, metavar="SECONDS", help=what)
    what = "ask W&B what it has, print what would be done, change nothing"
    add("--dry-run", action="store_true", help=what)
    return _wandb


def _wandb(args: argparse.Namespace) -> int:
    from gbn.tracking.service import Service

    options.check_runs(args)
    records, tags = chosen(args)
    if not records:
        print(
            "nothing to do: none of these runs is done" + ("" if args.unfinished else " (see --unfinished)")
        )
        return 0
    try:
        with closing(Service(args.timeout)) as service:
            return sync(args, records, tags, service)
    except KeyboardInterrupt:
        print("\nstopped; the same command resumes from here", file=sys.stderr)
        return cli.STOPPED


def chosen(args: argparse.Namespace) -> "tuple[list[Record], list[str]]":
    """Return the records to upload, and their tags from the experiment.

    Raises:
        LookupError, StoreError: a pattern matches no run.
    """
    from gbn.store.archive import Archive
    from gbn.store.records import DONE, RunStore

    grid = options.grid(args)
    store = RunStore(args.results)
    if args.from_archive:
        patterns = args.runs or []
        wanted = set() if grid is None else {one for cell in grid.cells for one in cell.run_ids.values()}
        found: dict[str, Record] = {}
        for record in Archive(args.results):
            if record.run_id in wanted or any(fits(record.run_id, pattern) for pattern in patterns):
                found.setdefault(record.run_id, record)  # W&B has one run per id: take the first machine's
        for pattern in patterns:
            if not any(fits(run_id, pattern) for run_id in found):
                raise LookupError(f"no run fits {pattern!r} in the archive of {args.results}")
        records = list(found.values())
    else:
        ids = store.match(args.runs) if grid is None else [i for c in grid.cells for i in c.run_ids.values()]
        records = [store.load(run_id) for run_id in dict.fromkeys(ids) if run_id in store]
    kept = [record for record in records if record.status in DONE or args.unfinished]
    return kept, [grid.name] if grid else []


def fits(run_id: str, pattern: str) -> bool:
    """Return whether an id matches an id, a shell pattern or the path of a run's folder."""
    return fnmatchcase(run_id, Path(pattern).name)


def connect(args: argparse.Namespace, service: "Service") -> "tuple[object, Destination]":
    """Return W&B's API and the destination of the runs.

    Raises:
        Unreachable: there is no login or no network, or W&B refuses the login.
    """
    from gbn.tracking.live import keep_in, logged_in
    from gbn.tracking.upload import Destination

    if not logged_in():
        raise Unreachable("not logged in to W&B: `wandb login`, or set WANDB_API_KEY, then start again")
    keep_in(Path(args.results) / "wandb")
    import wandb

    try:
        api = service.call(lambda: wandb.Api(timeout=max(1, round(args.timeout))))
        entity = args.entity or service.call(lambda: api.default_entity)
    except Exception as error:  # W&B raises whatever its transport raised
        raise Unreachable(
            f"W&B cannot be reached or refuses the login ({first_line(error)}): check the network and "
            "`wandb login`, then start again; nothing was changed"
        ) from None
    if not entity:
        raise Unreachable("W&B names no default entity for this login: give --entity USER_OR_TEAM")
    return api, Destination(entity, args.project)


def first_line(error: Exception) -> str:
    """Return an error's first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def sync(args: argparse.Namespace, records: "list[Record]", tags: list[str], service: "Service") -> int:
    """Upload each run and print the result."""
    from gbn.tracking import upload

    if not args.dry_run:
        usable_folder(Path(args.results) / "wandb")
    api, destination = connect(args, service)
    ledger = upload.Ledger(Path(args.results) / "wandb" / "synced.json")

    def one(record: "Record") -> tuple[str, str]:
        """Upload one run; return (what was done, the same in words)."""
        if ledger.has(destination, record):
            return "complete", upload.REASONS["complete"]
        action = upload.decide(record, service.call(lambda: upload.ask(api, destination, record.run_id)))
        if action in ("upload", "continue"):
            if args.dry_run:
                return f"to {action}", f"would be {'uploaded' if action == 'upload' else 'continued'}"
            count = upload.upload(record, destination, tags=tags, timeout=args.timeout, service=service)
            ledger.add(destination, record)
            rest = " (the rest was there)" if action == "continue" else ""
            return "uploaded", f"{count} points uploaded{rest}"
        if action == "complete" and not args.dry_run:
            ledger.add(destination, record)
        return action, upload.REASONS[action]

    counts: Counter[str] = Counter()
    failures = 0
    print(f"{len(records)} runs to {destination.entity}/{destination.project}", flush=True)
    for number, record in enumerate(records, start=1):
        try:
            action, text = one(record)
            failures = 0
        except Exception as error:
            action, text = "failed", f"failed: {first_line(error)}"
            failures += 1
        counts[action] += 1
        if action != "complete":
            print(f"[{number}/{len(records)}] {record.run_id} {text}", flush=True)
        if failures == PATIENCE:
            left = f"{len(records) - number} of {len(records)} runs are left"
            print(f"error: W&B failed {PATIENCE} times in a row: {left}", file=sys.stderr)
            break
    print(", ".join(f"{count} {action}" for action, count in sorted(counts.items())))
    return int(any(counts[action] for action in ("failed", "differs", "gap")))
