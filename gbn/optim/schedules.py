"""Learning-rate schedules as pure functions of the update number.

A rate that depends only on the update needs no state in the checkpoint, and a resumed run has the same rates
by construction.
"""

import math
from collections.abc import Mapping
from typing import Any


def learning_rate(options: Mapping[str, Any], base: float, update: int, total: int, per_epoch: int) -> float:
    """Return the rate of one update, counted from 0; see :func:`schedule_factor`."""
    return base * schedule_factor(options, update, total, per_epoch)


def schedule_factor(options: Mapping[str, Any], update: int, total: int, per_epoch: int) -> float:
    """Return the factor by which the base rate is multiplied at an update.

    Args:
        options: the section ``schedule``: name (constant, step, cosine, one_cycle), warmup_epochs (linear from
            1/w to 1 over the first w updates; the schedule proper runs over the rest), and the schedule's own keys.
        update: 0 to total - 1.
        total: number of updates of the whole run.
        per_epoch: number of updates per epoch.

    Raises:
        ValueError: an unknown schedule, or a warm-up as long as the run.
    """
    warmup = round(options["warmup_epochs"] * per_epoch)
    if warmup >= total > 0 and warmup > 0:
        raise ValueError(
            f"schedule.warmup_epochs={options['warmup_epochs']} is {warmup} updates, but the whole run has {total}: "
            "shorten the warm-up"
        )
    if update < warmup:
        return (update + 1) / warmup
    done = (update - warmup) / max(1, total - warmup)
    name = options["name"]
    if name == "constant":
        return 1.0
    if name == "step":
        return options["gamma"] ** sum(done >= milestone for milestone in options["milestones"])
    if name == "cosine":
        return options["final"] + (1 - options["final"]) * (1 + math.cos(math.pi * done)) / 2
    if name == "one_cycle":
        if done < options["peak"]:
            return options["start"] + (1 - options["start"]) * done / options["peak"]
        return 1 + (options["final"] - 1) * (done - options["peak"]) / (1 - options["peak"])
    raise ValueError(f"unknown schedule {name!r}; allowed: constant, step, cosine, one_cycle")
