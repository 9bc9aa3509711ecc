"""Mirrors a run to Weights & Biases while it trains.

Our own files are the source of truth; W&B shows them, as :mod:`gbn.tracking.mirror` describes. So any failure of W&B
(not installed, not logged in, no network, a full disk, a crash of its service) is reported once and never stops or
changes a run; ``gbn wandb`` uploads whatever is then missing.
"""

import netrc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from gbn.tracking.mirror import define_axes, description, log, log_picture, summarize
from gbn.tracking.service import Service

_CLOUD = ("api.forge.coreweave.com", "api.wandb.ai")  # one server: a login is stored under either name


def resolve_mode(mode: str) -> str:
    """Return the mode; ``auto`` becomes online if a W&B login is found (see :func:`logged_in`), else offline.

    W&B's own variable WANDB_MODE takes precedence if it is set.
    """
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE") in ("online", "offline", "disabled"):
        return os.environ["WANDB_MODE"]
    return "online" if logged_in() else "offline"


def logged_in() -> bool:
    """Return whether a W&B login is found: WANDB_API_KEY, WANDB_IDENTITY_TOKEN_FILE, or an entry in netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    given = os.environ.get("WANDB_BASE_URL", f"https://{_CLOUD[0]}").split("//")[-1].split("/")[0]
    try:
        entries = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    hosts = _CLOUD if given in _CLOUD else (given,)
    return any(entries.authenticators(host) is not None for host in hosts)


class Tracker:
    """Mirrors one run; every method is safe to call at any time and never raises.

    Args:
        options: the configuration's section ``tracker``: mode, project, entity, tags, timeout.
        run_id: the run's id, here and in W&B.
        config: the resolved configuration.
        results_dir: the results folder; W&B's own files go to its subfolder ``wandb``.
        kept: the run's identity, which determines its group.
        recorded: reads the curve on disk, so that a resumed run continues in W&B without a gap.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        run_id: str,
        config: Mapping[str, Any],
        results_dir: Path,
        kept: Mapping[str, Any] | None = None,
        recorded: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
    ) -> None:
        self._recorded = recorded
        self._logged = False
        self._run: Any = None
        self._starting: Callable[[], Any] | None = None
        self.mode = resolve_mode(options["mode"])
        if self.mode != "disabled":
            # W&B takes a second to start; meanwhile the run loads its data and builds its network.
            arguments = (options, run_id, config, results_dir, kept)
            self._service = Service(options["timeout"])
            self._starting = self._service.begin(lambda: self._start(*arguments))

    def _ready(self) -> bool:
        """Wait for the start; return whether there is a run to write to."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            self._run = self._guarded(starting)
        return self._run is not None

    def log(self, point: Mapping[str, Any]) -> None:
        """Log a point of the curve; the step is the update."""
        if self._ready():
            self._ask(lambda run: log(run, [*self._earlier(point["update"]), point]))

    def picture(self, update: int, name: str, path: Path) -> None:
        """Log a picture saved after an update whose point is already logged."""
        if self._ready():
            self._ask(lambda run: log_picture(run, update, name, path))

    def _earlier(self, update: int) -> list[Mapping[str, Any]]:
        """Return the points before this process's first one: W&B may lack some of them."""
        if self._logged:
            return []
        self._logged = True
        return [point for point in self._recorded() if point["update"] < update]

    def finish(self, summary: Mapping[str, Any] | None = None, *, failed: bool = False) -> None:
        """Close the mirror, with the run's summary if it has one."""
        if not self._ready():
            return

        def close(run: Any) -> None:
            if summary is not None:
                summarize(run, summary, self._recorded())
            run.finish(exit_code=int(failed))

        self._ask(close)
        if self._run is not None:
            self._run = None
            self._service.close()

    def _ask(self, action: Callable[[Any], object]) -> None:
        run = self._run
        self._guarded(lambda: self._service.call(lambda: action(run)))

    def _start(
        self,
        options: Mapping[str, Any],
        run_id: str,
        config: Mapping[str, Any],
        results_dir: Path,
        kept: Mapping[str, Any] | None,
    ) -> Any:
        import wandb

        keep_in(results_dir / "wandb")
        run = wandb.init(
            project=options["project"],
            entity=options["entity"],
            **description(run_id, config, kept, options["tags"]),
            dir=str(results_dir),
            mode=cast(Any, self.mode),
            reinit="create_new",  # never a run that another call in this process left open
            resume="allow" if self.mode == "online" else None,
            settings=quiet_settings(options["timeout"]),
        )
        define_axes(run)
        return run

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Do it and return its result; on any failure report it once and continue without W&B."""
        try:
            return action()
        except (Exception, SystemExit) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            # Not through logging, which a launcher may have turned off.
            print(
                f"W&B is lost ({first}): the run goes on, its files are complete", file=sys.stderr, flush=True
            )
            self._run = None
            self._service.close()
            return None


def keep_in(folder: Path) -> None:
    """Make W&B print nothing, and keep its artifacts and cache in a folder instead of the user's home."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")  # messages outside runs, such as a failure while it exits
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve()))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve()))


def quiet_settings(timeout: float) -> Any:
    """Return W&B's settings for our runs: print nothing, measure nothing, wait for nothing longer than `timeout`.

    Args:
        timeout: seconds for a login, for a start, and for the remaining upload at the end.
    """
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=timeout,
        login_timeout=timeout,
        finish_timeout=timeout,
        finish_timeout_raises=True,
        x_disable_stats=True,
        disable_git=True,
    )
