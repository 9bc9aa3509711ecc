"""Performance profiles as a Markdown table and a CSV, each with a header from which it can be regenerated."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.profiles.score import Profile
from gbn.analysis.profiles.tasks import Tasks
from gbn.analysis.tables import numbers
from gbn.analysis.tables.section import Section, grid_lines

MARK = "gbn-profile"


def render(
    tasks: Tasks, profiles: Sequence[Profile], selection: Mapping[str, Any], r_max: float
) -> dict[str, str]:
    """Return suffix -> text; `selection` is what regenerates it (:func:`read_selection`)."""
    line = f"{MARK} {json.dumps(dict(selection), sort_keys=True)}"
    return {
        ".md": f"<!-- {line} -->\n{markdown(tasks, profiles, r_max)}",
        ".csv": f"# {line}\n{csv(tasks, profiles)}",
    }


def read_selection(path: Path) -> dict[str, Any]:
    """Return the selection that a file of :func:`render` was made from.

    Raises:
        ValueError: the first line does not contain it.
    """
    with open(path, encoding="utf-8") as file:
        _, found, content = file.readline().partition(f"{MARK} ")
    if not found:
        raise ValueError(
            f"{path} is not one of our performance profiles: its first line does not say what made it"
        )
    return dict(json.loads(content.strip().removesuffix("-->")))


def markdown(tasks: Tasks, profiles: Sequence[Profile], r_max: float) -> str:
    """Return the table for people."""
    lines = ["# Performance profiles", ""]
    for section in (overview(tasks, profiles, r_max), by_task(tasks, profiles)):
        lines += [f"**{section.heading}**", "", *grid_lines(section), "", *section.notes, ""]
    if tasks.left_out:
        lines += ["**Left out**", "", *(f"- {name}: {why}" for name, why in tasks.left_out.items()), ""]
    return "\n".join(lines)


def overview(tasks: Tasks, profiles: Sequence[Profile], r_max: float) -> Section:
    """Return score and mean speed-up of each arm."""
    count = len(tasks.names)
    rows = []
    for one in profiles:
        reference = one.arm == tasks.reference
        rows.append(
            (
                one.arm,
                _score(one.score),
                *(f"{sum(r <= tau for r in one.ratios)}/{count}" for tau in (1.0, 1.1, 1.5, r_max)),
                "1 (reference)" if reference else numbers.ratio(one.speedup),
                "" if reference else f"{numbers.ratio(one.reached_speedup)} ({one.tasks_reached}/{count})",
            )
        )
    seeds = sorted({len(one.seeds) for one in tasks.settings})
    shown = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    unreached = [
        name for index, name in enumerate(tasks.names) if all(math.isinf(p.ratios[index]) for p in profiles)
    ]
    notes = [
        f"Score: the integral of the performance profile from 1 to {r_max:g}, divided by {r_max - 1:g} (Dahl et al. "
        "2023, arXiv 2306.07179): 1 if the arm is the fastest on every task. A task is a setting with one target; "
        f"an arm's time is its median over seeds ({shown}), a miss as infinity. Bracket: percentile bootstrap over "
        "seeds, 95 %, too narrow with few seeds; it says nothing of tasks that were not run. A score depends on "
        "which arms are profiled together.",
        f"Mean speed-up: {tasks.unit} of {tasks.reference} / {tasks.unit} of the arm (greater than 1: the arm is "
        "faster), geometric mean over tasks, 95 % t interval over seeds (settings independent, targets of a setting "
        "averaged seed by seed). With a miss a task is known by bounds, and so is the mean; an interval does not "
        "exist then. Over reached tasks: those that every run of both arms reached, and how many these are; it says "
        "nothing of the rest.",
    ]
    if unreached:
        notes.append(f"No arm's median run reached {', '.join(unreached)}: counted for none.")
    return Section(
        f"Over {count} tasks: score, tasks within a multiple of the best time, mean speed-up",
        (
            *("arm", "score", "best", "within 1.1", "within 1.5", f"within {r_max:g}"),
            *("mean speed-up", "over reached tasks"),
        ),
        tuple(rows),
        ("\n\n".join(notes),),
    )


def by_task(tasks: Tasks, profiles: Sequence[Profile]) -> Section:
    """Return each arm's time as a multiple of the best, task by task."""
    rows = [
        (name, *("missed" if math.isinf(r := one.ratios[index]) else numbers.number(r) for one in profiles))
        for index, name in enumerate(tasks.names)
    ]
    return Section(
        f"Median {tasks.unit} as a multiple of the best arm's (1: the fastest)",
        ("task", *(one.arm for one in profiles)),
        tuple(rows),
    )


def _score(estimate: Estimate) -> str:
    text = f"{estimate.value_low:.3f}"
    return text if math.isnan(estimate.low) else f"{text} [{estimate.low:.3f}, {estimate.high:.3f}]"


def csv(tasks: Tasks, profiles: Sequence[Profile]) -> str:
    """Return unformatted numbers: a row per arm with its score and mean speed-ups, then a row per arm and task."""
    rows: list[dict[str, Any]] = []
    for one in profiles:
        rows.append(
            {
                "arm": one.arm,
                "task": "",
                "score": one.score.value_low,
                "score_low": one.score.low,
                "score_high": one.score.high,
                **_columns("speedup", one.speedup),
                **_columns("reached_speedup", one.reached_speedup),
                "tasks_reached": one.tasks_reached,
            }
        )
    rows += [
        {"arm": one.arm, "task": name, "multiple": one.ratios[index]}
        for index, name in enumerate(tasks.names)
        for one in profiles
    ]
    buffer = io.StringIO()
    pd.DataFrame(rows).to_csv(buffer, index=False, float_format="%.6g", lineterminator="\n")
    return buffer.getvalue()


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        f"{name}_value_low": estimate.value_low,
        f"{name}_value_high": estimate.value_high,
        f"{name}_interval_low": estimate.low,
        f"{name}_interval_high": estimate.high,
    }
