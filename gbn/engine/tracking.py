"""The mirror of a run in Weights & Biases.

Our own files are the truth; W&B shows them. So whatever happens to W&B (not installed, not logged in, no network, a
full disk, a crash of its service) is said once and never stops or changes a run.
"""

import contextlib
import netrc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast


def resolve_mode(mode: str) -> str:
    """``auto`` becomes online where a W&B login is found (WANDB_API_KEY or netrc), offline otherwise.

    WANDB_MODE, W&B's own variable, decides where it is set.
    """
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE") in ("online", "offline", "disabled"):
        return os.environ["WANDB_MODE"]
    return "online" if os.environ.get("WANDB_API_KEY") or _in_netrc() else "offline"


def _in_netrc() -> bool:
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Tracker:
    """Mirrors one run; every method is safe to call at any time and never raises.

    Args:
        options: the section ``tracker``: mode, project, entity, tags, timeout.
        run_id: the run's id here, and in W&B.
        config: the resolved configuration.
        results_dir: W&B's own files go to its subfolder ``wandb``.
        group: what runs are grouped by in W&B: the experiment, or the arm's slug without the seed.
        tags: added to the configured ones.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        run_id: str,
        config: Mapping[str, Any],
        results_dir: Path,
        group: str | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        self._run: Any = None
        self._starting: threading.Thread | None = None
        self.mode = resolve_mode(options["mode"])
        if self.mode != "disabled":
            # W&B takes a second to start: meanwhile the run loads its data and builds its network.
            arguments = (options, run_id, config, results_dir, group, tags)
            self._starting = threading.Thread(target=self._guarded, args=(lambda: self._start(*arguments),))
            self._starting.start()

    def _ready(self) -> bool:
        """Wait for the start, which has its own time-out; whether there is a run to write to."""
        if self._starting is not None:
            self._starting.join()
            self._starting = None
        return self._run is not None

    def log(self, point: Mapping[str, Any]) -> None:
        """A point of the curve; the step is the update."""
        if self._ready():
            values = {key: value for key, value in point.items() if key != "update" and value is not None}
            self._guarded(lambda: self._run.log(values, step=point["update"]))

    def finish(self, summary: Mapping[str, Any] | None = None, *, failed: bool = False) -> None:
        """Close the mirror, with the run's summary if it has one."""
        if not self._ready():
            return

        def close() -> None:
            if summary is not None:
                for key in ("status", "updates", "seconds", "best_by_validation", "best_on_test"):
                    self._run.summary[key] = summary.get(key)
            self._run.finish(exit_code=int(failed))

        self._guarded(close)
        self._run = None

    def _start(
        self,
        options: Mapping[str, Any],
        run_id: str,
        config: Mapping[str, Any],
        results_dir: Path,
        group: str | None,
        tags: tuple[str, ...],
    ) -> None:
        import wandb

        folder = results_dir / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        # Artifacts and the cache would otherwise be staged in the user's home.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve()))
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve()))
        self._run = wandb.init(
            project=options["project"],
            entity=options["entity"],
            id=run_id,
            name=run_id,
            group=group,
            tags=[tag[:64] for tag in (*options["tags"], *tags)],
            config=dict(config),
            dir=str(results_dir),
            mode=cast(Any, self.mode),
            reinit="create_new",  # never the run that another call in this process may have left open
            resume="allow" if self.mode == "online" else None,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=options["timeout"],
                login_timeout=options["timeout"],
                x_disable_stats=True,
                disable_git=True,
            ),
        )

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do it; on any failure say so once and go on without W&B."""
        try:
            with warnings.catch_warnings(), contextlib.suppress(BrokenPipeError):
                warnings.simplefilter("ignore")  # W&B's own deprecations are not ours to raise
                action()
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            # Not through logging, which a launcher may have switched off.
            print(
                f"W&B is lost ({first}): the run goes on, its files are complete", file=sys.stderr, flush=True
            )
            self._run = None
