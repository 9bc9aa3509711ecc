"""Display of a sweep's snapshots on the terminal, and the loop that refreshes it."""

import math
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gbn import measures
from gbn.sweep.watch.snapshot import ArmState, Median, Snapshot

_COLORS = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "missing": "dim"}
_MARKS = {"failed": "failed", "interrupted": "stopped"}
_MOST_ERRORS = 5


def follow(look: Callable[[], Snapshot], console: Console, every: float, *, stay: bool = False) -> Snapshot:
    """Show new snapshots until the sweep is over (with `stay`: until interrupted); the last one remains visible.

    Args:
        look: makes a snapshot.
        console: a terminal.
        every: seconds between snapshots.
        stay: continue after the sweep is over.
    """
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            snapshot = look()
            live.update(render(snapshot, height=console.height), refresh=True)
            if snapshot.over and not stay:
                return snapshot
            time.sleep(every)


def render(snapshot: Snapshot, height: int | None = None) -> RenderableType:
    """Render a snapshot as text.

    Args:
        snapshot: what to show.
        height: lines of the terminal; if there are too many arms, inactive ones are hidden. None shows all.
    """
    head = [Text(snapshot.title, style="bold"), _bar(snapshot), _time(snapshot)]
    errors = _errors(snapshot)
    shown = snapshot.arms
    if height is not None:
        settings = len({arm.setting for arm in snapshot.arms})
        # Above each table are a blank line, the setting and the column names; the legend takes three lines.
        shown = _fitting(snapshot.arms, height - len(head) - len(errors) - 3 * settings - 4)
    tables = [
        part
        for setting in dict.fromkeys(arm.setting for arm in shown)
        for part in _table(snapshot, [arm for arm in shown if arm.setting == setting])
    ]
    hidden = len(snapshot.arms) - len(shown)
    if hidden:
        tables.append(
            Text(f"not shown for lack of space: {hidden} of {len(snapshot.arms)} arms", style="dim")
        )
    if shown:
        tables.append(Text(_legend(snapshot), style="dim"))
    return Group(*head, *errors, *tables)


def _bar(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        ProgressBar(
            total=max(1, snapshot.total),
            completed=snapshot.done,
            width=16,
            complete_style=_COLORS["done"],
            finished_style=_COLORS["done"],
        ),
        _totals(snapshot),
    )
    return grid


def _totals(snapshot: Snapshot) -> Text:
    text = Text().append(f"{snapshot.done}/{snapshot.total} done", style=_COLORS["done"])
    for status in ("running", "failed", "interrupted", "missing"):
        if count := snapshot.counts.get(status, 0):
            text.append(f" · {count} {status}", style=_COLORS[status])
    for status in ("diverged", "not_applicable"):
        if count := snapshot.counts.get(status, 0):
            text.append(f" · {count} of the done {status.replace('_', ' ')}", style="dim")
    return text


def _time(snapshot: Snapshot) -> Text:
    if not snapshot.total:
        return Text("no run there yet")
    if snapshot.over:
        failed = snapshot.command if snapshot.counts.get("failed") else ""
        return Text(
            "nothing is left to come" + (f"; the failed are tried again by\n{failed}" if failed else "")
        )
    left = snapshot.left
    text = Text()
    if left.seconds is not None:
        end = datetime.now() + timedelta(seconds=left.seconds)
        until = f"{end:%H:%M}" if left.seconds < 20 * 3600 else f"{end:%a %H:%M}"
        text.append(f"about {span(left.seconds)} left (until {until}), {_processes(left.processes)}")
    elif left.processes:
        text.append(f"{_processes(left.processes)}; how long it takes is known when a run is finished")
    else:
        text.append("no process is at work", style="yellow")
        if left.work:
            text.append(f"; about {span(left.work)} of one process's work is left")
        if snapshot.command:
            text.append(f"\n{snapshot.command}")
    if left.uncovered and (left.seconds is not None or left.work):
        text.append(f"; {left.uncovered} runs not counted: none of their setting is finished", style="dim")
    return text


def _table(snapshot: Snapshot, arms: Sequence[ArmState]) -> list[RenderableType]:
    """Render the arms of one setting, under its name if it has one."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("arm", overflow="fold")
    for name, justify in (
        ("done", "right"),
        ("running", "left"),
        ("now (runs)", "right"),
        ("final (runs)", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for arm in arms:
        count = Text(f"{arm.done}/{arm.planned}", style=_COLORS["done"] if arm.done == arm.planned else "")
        for status, mark in _MARKS.items():
            if number := arm.counts.get(status, 0):
                count.append(f"\n{number} {mark}", style=_COLORS[status])
        # Text, not str: rich would interpret the brackets of bn_matched[gbn_cvar_75] as markup.
        table.add_row(
            Text(arm.arm),
            count,
            Text("\n".join(_running(arm)), style=_COLORS["running"]),
            Text(
                f"{_value(arm.now, snapshot.measure)} @ {arm.now.update} ({arm.now.runs})" if arm.now else "-"
            ),
            Text(f"{_value(arm.final, snapshot.measure)} ({arm.final.runs})" if arm.final else "-"),
        )
    setting = arms[0].setting
    return [Text(""), *([Text(setting, style="bold underline")] if setting else []), table]


def _running(arm: ArmState) -> list[str]:
    return [
        f"s{seed} {state.update or 0}/{state.total or '?'}" for seed, state in sorted(arm.running.items())
    ]


def _value(found: Median, measure: str) -> str:
    if math.isinf(found.value):
        return "diverged"
    known = measures.measure(measure)
    return f"{found.value:.4g}" if known.family == "loss" else known.number(found.value)


def _legend(snapshot: Snapshot) -> str:
    known = measures.measure(snapshot.measure)
    unit = f" in {known.unit}" if known.unit else f" x {known.scale:g}" if known.scale != 1 else ""
    unit += "" if known.higher_is_better or known.family == "loss" else f" ({known.direction})"
    return (
        f"Medians of {snapshot.measure}{unit}. now: @ the latest update that all begun runs of the arm have; "
        "final: the last point of the done runs."
    )


def _errors(snapshot: Snapshot) -> list[Text]:
    found = [
        (f"{arm.setting} {arm.arm} s{seed}".strip(), line)
        for arm in snapshot.arms
        for seed, line in sorted(arm.errors.items())
    ]
    lines = [
        Text(f"{where}: {line}", style="red", no_wrap=True, overflow="ellipsis")
        for where, line in found[:_MOST_ERRORS]
    ]
    if len(found) > _MOST_ERRORS:
        lines.append(Text(f"and {len(found) - _MOST_ERRORS} more", style="red"))
    return lines


def _fitting(arms: Sequence[ArmState], lines: int) -> tuple[ArmState, ...]:
    """Return the arms that fit into this many lines: running ones first, then failed, then begun; order is kept."""

    def rank(arm: ArmState) -> int:
        if arm.running:
            return 0
        if arm.counts.get("failed") or arm.counts.get("interrupted"):
            return 1
        return 2 if 0 < arm.done < arm.planned else 3 if arm.done else 4

    left, chosen = lines, set()
    for number, arm in sorted(enumerate(arms), key=lambda item: rank(item[1])):
        left -= max(len(arm.running), 1 + sum(arm.counts.get(status, 0) > 0 for status in _MARKS))
        if left < 0:
            break
        chosen.add(number)
    return tuple(arm for number, arm in enumerate(arms) if number in chosen)


def _processes(count: int) -> str:
    return f"{count} process{'es' * (count > 1)} at work"


def span(seconds: float) -> str:
    """Format a duration: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 36:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
