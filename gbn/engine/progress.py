"""Progress of a training run: a bar on a terminal, an occasional plain line elsewhere, nothing on request."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from gbn import measures


class Progress:
    """The display of a run; this one shows nothing."""

    def update(self, update: int, loss: float | None) -> None:
        """Report an update; `loss` is given if it is known without waiting for the device."""

    def point(self, point: Mapping[str, Any]) -> None:
        """Report a recorded point of the curve."""

    def close(self) -> None:
        """End the display."""


def _loss(point: Mapping[str, Any]) -> str:
    loss = point.get("train_loss", point.get("generator_loss"))
    return f"loss {loss:.3f}" if loss is not None else ""


def _quality(point: Mapping[str, Any]) -> str:
    """Return the run's main measure as text: "val 61.20 %" for a classifier, otherwise its name and number."""
    key = next((key for key in measures.ranked(point) if point[key] is not None), None)
    if key is None:
        return ""
    known, value = measures.measure(key), point[key]
    name = "val" if known.family == "accuracy" else known.title.partition(" (")[0]
    return " ".join(filter(None, (name, known.number(value), known.unit)))


def _rate(images: float) -> str:
    return f"{images:,.0f} images/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Plain(Progress):
    """Prints a line at points of the curve, at most every `every` seconds: for logs and pipes."""

    def __init__(self, run_id: str, start: int, total: int, batch_size: int, every: float = 5.0) -> None:
        self.run_id, self.start, self.total = run_id, start, total
        self.batch_size, self.every = batch_size, every
        self.began = self.last = time.monotonic()

    def point(self, point: Mapping[str, Any]) -> None:
        """Print the run's progress, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self.last < self.every and point["update"] < self.total:
            return
        self.last = now
        done = point["update"] - self.start
        per_update = (now - self.began) / max(1, done)
        left = per_update * (self.total - point["update"])
        print(
            f"{self.run_id}  update {point['update']}/{self.total}  {_loss(point)}  {_quality(point)}  "
            f"{_rate(self.batch_size / max(per_update, 1e-9))}  {_clock(left)} left",
            flush=True,
        )


class Bar(Progress):
    """A rich progress bar with loss, quality, images/s and time left."""

    def __init__(self, run_id: str, start: int, total: int, batch_size: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.batch_size = batch_size
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(run_id, total=total, completed=start, state="")
        self.loss, self.quality = "", ""
        self.bar.start()

    def update(self, update: int, loss: float | None) -> None:
        """Move the bar."""
        if loss is not None:
            self.loss = f"loss {loss:.3f}"
        speed = self.bar.tasks[0].speed
        rate = _rate(speed * self.batch_size) if speed else ""
        self.bar.update(
            self.task, completed=update, state="  ".join(filter(None, (self.loss, self.quality, rate)))
        )

    def point(self, point: Mapping[str, Any]) -> None:
        """Show the new quality."""
        self.loss, self.quality = _loss(point), _quality(point)

    def close(self) -> None:
        """Leave the finished bar on the screen."""
        self.bar.stop()


def make_progress(style: str, run_id: str, start: int, total: int, batch_size: int) -> Progress:
    """Return the display of a run; `auto` is a bar if standard output is a terminal, otherwise plain lines."""
    if style == "auto":
        style = "bar" if sys.stdout.isatty() else "plain"
    if style == "bar":
        return Bar(run_id, start, total, batch_size)
    return Plain(run_id, start, total, batch_size) if style == "plain" else Progress()
