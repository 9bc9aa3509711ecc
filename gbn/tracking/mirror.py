"""How a run appears in Weights & Biases, whether it is mirrored while it trains or uploaded afterward.

W&B draws the mean and a band over each *group* of runs, so a group is an arm in a setting: the runs that differ only
in the seed. The experiment for which a run was made is its job type; every experiment that uses it can be a tag.
The step is the update.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gbn.methods import own_options
from gbn.store.identity import arm_of, canonical, group_of, norm_label, part_label

#: Where, how visibly and on whose machine a run is made is not published.
_PRIVATE = ("results_dir", "tracker", "launcher")

#: Other x axes for a panel's curves; they get no panels of their own.
_AXES = ("update", "epoch", "images", "seconds")

_SUMMARY = ("status", "updates", "seconds", "wall_seconds", "clock", "diverged_at", "parameters")
_BEST = ("best_by_validation", "best_on_test")

#: The summary's key for :func:`curve_digest`: written last, so its presence means that the mirror is complete.
DIGEST = "curve_digest"


def description(
    run_id: str, config: Mapping[str, Any], kept: Mapping[str, Any] | None, tags: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the arguments of ``wandb.init`` that describe the run: id, name, group, job type, tags, configuration.

    Args:
        run_id: its id, here and in W&B.
        config: the resolved configuration; it stays nested, so that runs can be filtered by ``norm.alpha``.
        kept: the run's identity; None leaves the run without a group.
        tags: more tags: the configured ones, experiments that share the run.
    """
    own: list[str] = []
    if kept is not None:
        own = [norm_label(arm_of(kept)), part_label(kept["model"]), part_label(kept["dataset"])]
    named = (*tags, config.get("experiment"), *own)
    return {
        "id": run_id,
        "name": run_id,
        "group": group_of(kept) if kept is not None else None,
        "job_type": config.get("experiment"),
        "tags": list(dict.fromkeys(tag[:64] for tag in named if tag)),  # W&B refuses longer ones
        "config": _public(config),
    }


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    public = {key: value for key, value in config.items() if key not in _PRIVATE}
    if isinstance(public.get("dataset"), Mapping):
        public["dataset"] = {key: value for key, value in public["dataset"].items() if key != "root"}
    if isinstance(public.get("norm"), Mapping):
        public["norm"] = own_options(public["norm"])
    return public


def define_axes(run: Any) -> None:
    """Tell a W&B run to draw curves over updates, and which values of a curve its summary keeps.

    ``val_accuracy`` keeps its last and its largest value, every other key its last.
    """
    for axis in _AXES:
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric="update")
    run.define_metric("val_accuracy", step_metric="update", summary="last,max")


def values(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point of the curve as logged to W&B, including `update`, over which curves are drawn."""
    return {key: value for key, value in point.items() if value is not None}


def log(run: Any, points: Iterable[Mapping[str, Any]]) -> int:
    """Log points to a W&B run, except those that it already has; return how many were logged.

    A resumed W&B run starts after its last step, and W&B accepts no earlier one.
    """
    count = 0
    for point in points:
        if point["update"] >= run.starting_step:
            run.log(values(point), step=point["update"])
            count += 1
    return count


def log_picture(run: Any, update: int, name: str, path: Path) -> None:
    """Log a picture file with the point of its update, unless the W&B run is past that update."""
    import wandb

    if update >= run.starting_step:
        run.log({name: wandb.Image(str(path))}, step=update)


def summarize(run: Any, summary: Mapping[str, Any], curve: Sequence[Mapping[str, Any]]) -> None:
    """Copy the summary of a done run to that of its W&B run, and last the mark that it is complete."""
    for key in (*_SUMMARY, *_BEST):
        run.summary[key] = summary.get(key)
    if "best" in summary:  # for tasks without a test set
        run.summary["best"] = summary["best"]
    environment = summary.get("environment") or {}
    run.summary["device_kind"] = environment.get("device_kind")
    run.summary[DIGEST] = curve_digest(curve)


def curve_digest(curve: Iterable[Mapping[str, Any]]) -> str:
    """Return a hash of a curve's numbers; times are left out, since they differ when a run is repeated."""
    kept = [
        {key: value for key, value in point.items() if value is not None and "second" not in key}
        for point in curve
    ]
    return hashlib.sha256(canonical(kept).encode()).hexdigest()[:16]
