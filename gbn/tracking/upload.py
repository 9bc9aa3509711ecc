"""Uploads runs to Weights & Biases from our own files, each once.

The store's files are the source of truth, so W&B's own offline records (``results/wandb/offline-run-*``) are not
needed and can be deleted. A run has the same id in W&B, which can be asked what it holds: complete runs are left
alone, incomplete ones continue after their last step. Runs found complete are noted in a ledger, which saves asking
again and is safe to delete.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gbn.store.files import write_atomically
from gbn.store.identity import identity
from gbn.store.record import Record
from gbn.store.records import DONE
from gbn.tracking.live import quiet_settings
from gbn.tracking.mirror import DIGEST, curve_digest, define_axes, description, log, summarize
from gbn.tracking.service import Service

Action = Literal["upload", "continue", "complete", "running", "differs", "gap"]

#: Explanations of every action except the first two.
REASONS: Mapping[Action, str] = {
    "complete": "is there, complete",
    "running": "is being mirrored by the process that trains it",
    "differs": "has other numbers there under the same id: find out which are right; W&B's are left as they are",
    "gap": "lacks points in the middle there, and W&B takes no earlier steps: upload it to another --project",
}


@dataclass(frozen=True)
class Remote:
    """The state of a run in W&B.

    Attributes:
        state: W&B's own word: running, finished, crashed, failed, killed.
        status: our status, from its summary; None before the run was done.
        updates: from its summary.
        digest: of the whole curve; None unless the mirror is complete.
        points: how many steps its history has.
        last: the last of these steps; -1 before the first.
    """

    state: str
    status: str | None
    updates: int | None
    digest: str | None
    points: int
    last: int


@dataclass(frozen=True)
class Destination:
    """The destination of runs: an entity (a user or a team) and a project."""

    entity: str
    project: str

    def path(self, run_id: str) -> str:
        """Return the path of a run in W&B's notation."""
        return f"{self.entity}/{self.project}/{run_id}"


def ask(api: Any, destination: Destination, run_id: str) -> Remote | None:
    """Return the state of a run in W&B; None if it has no such run (or project).

    Args:
        api: a ``wandb.Api``.

    Raises:
        Exception: whatever W&B raises when it cannot be asked.
    """
    from wandb.apis.public.runs import RunNotFoundError

    try:
        found = api.run(destination.path(run_id))
    except Exception as error:
        # W&B wraps this error in a CommError, as it does network failures.
        if isinstance(getattr(error, "exc", error), RunNotFoundError):
            return None
        raise
    summary = found.summary_metrics
    return Remote(
        state=found.state,
        status=summary.get("status"),
        updates=summary.get("updates"),
        digest=summary.get(DIGEST),
        points=int(found.historyLineCount or 0),
        last=int(found.lastHistoryStep),
    )


def decide(record: Record, remote: Remote | None) -> Action:
    """Decide what to do with a run, given its state in W&B."""
    if remote is None:
        return "upload"
    if record.status == "running" and remote.state == "running":
        return "running"
    there = [point for point in record.curve if point["update"] <= remote.last]
    if remote.digest is not None:
        # A run that is being trained again is compared when it is done.
        same = record.status not in DONE or remote.digest == curve_digest(record.curve)
        return "complete" if same else "differs"
    if remote.points > len(there):
        return "differs"
    if remote.points < len(there):
        return "gap"
    if record.status in DONE and (remote.status, remote.updates) == (record.status, _updates(record)):
        return "complete"  # mirrored by a version that did not mark complete mirrors
    if record.status not in DONE and len(there) == len(record.curve):
        return "complete"  # everything that the run has so far
    return "continue"


def _updates(record: Record) -> int | None:
    return (record.summary or {}).get("updates")


def upload(
    record: Record,
    destination: Destination,
    *,
    tags: Sequence[str] = (),
    timeout: float = 30.0,
    mode: Literal["online", "offline"] = "online",
    folder: str | Path | None = None,
    service: Service | None = None,
) -> int:
    """Upload a run, or the points that W&B lacks; return how many points were logged.

    Args:
        record: the run. Its summary follows its points if it is done; a failed run is marked as failed.
        tags: in addition to those in its configuration: the experiments that share it.
        timeout: seconds that W&B may take to start, and to upload the rest at the end.
        mode: offline writes W&B's own files instead, into `folder`.
        folder: where W&B works; a temporary folder by default.
        service: talks to W&B; by default a new one, which is closed at the end.

    Raises:
        ValueError: the configuration of an unfinished run is not valid in this version.
        TimeoutError: W&B did not answer in time.
        Exception: whatever W&B raises.
    """
    import wandb

    kept = identity_of(record)

    def begin() -> Any:
        run = wandb.init(
            entity=destination.entity,
            project=destination.project,
            **description(record.run_id, record.config, kept, tags),
            dir=place,
            mode=mode,
            reinit="create_new",
            resume="allow" if mode == "online" else None,
            settings=quiet_settings(timeout),
        )
        define_axes(run)
        return run

    def finish() -> None:
        if record.status in DONE and record.summary is not None:
            summarize(run, record.summary, record.curve)
        run.finish(exit_code=int(record.status == "failed"))

    with _workplace(folder) as place, nullcontext(service) if service else closing(Service(timeout)) as talk:
        run = talk.call(begin)
        count = talk.call(lambda: log(run, record.curve))
        talk.call(finish)
    return count


def _workplace(folder: str | Path | None) -> AbstractContextManager[str]:
    if folder is not None:
        return nullcontext(str(folder))
    return tempfile.TemporaryDirectory(prefix="gbn-wandb-", ignore_cleanup_errors=True)


def identity_of(record: Record) -> dict[str, Any]:
    """Return a run's identity: from its summary, or from its configuration if it is not done.

    Raises:
        ValueError: there is no configuration, or it is not valid in this version.
    """
    kept = (record.summary or {}).get("identity")
    if kept:
        return dict(kept)
    from gbn.config.schema import Config

    config = Config.model_validate(record.config)
    return identity(config.as_dict(), config.defaults())


class Ledger:
    """A cache of the runs found complete in each destination, to ask W&B less.

    Args:
        path: a JSON file; if it is missing or damaged, the ledger is empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            read = json.loads(self.path.read_text(encoding="utf-8"))
            self._known = {str(key): dict(value) for key, value in read.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._known = {}

    def has(self, destination: Destination, record: Record) -> bool:
        """Return whether this run, with these numbers, was found complete there."""
        known = self._known.get(destination.path(""), {}).get(record.run_id)
        return record.status in DONE and known == curve_digest(record.curve)

    def add(self, destination: Destination, record: Record) -> None:
        """Note that a run is complete there; ignored unless the run is done."""
        if record.status in DONE:
            known = self._known.setdefault(destination.path(""), {})
            known[record.run_id] = curve_digest(record.curve)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self._known, indent=1, sort_keys=True) + "\n")
