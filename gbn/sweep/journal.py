"""The outcomes of one command's runs, written by any number of processes and read by the one that started them."""

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from gbn.engine.run import Outcome

_BAD = ("failed", "locked")

_unwritten: list[Outcome] = []  # by this process, when the disk was full

_PATH, _TOTAL, _BEGAN = "GBN_JOURNAL", "GBN_JOURNAL_TOTAL", "GBN_JOURNAL_BEGAN"


def standing(began: float, done: int, total: int) -> str:
    """Return a command's progress: "[3/8, 0:01:30 passed, about 0:02:30 left]".

    Args:
        began: when it began, as ``time.monotonic()`` counts, which setting the clock does not affect.
        done: number of its runs that have ended, at least one.
        total: number of its runs.
    """
    passed = max(0.0, time.monotonic() - began)  # meaningless if another machine shares the journal
    left = timedelta(seconds=round(passed / done * (total - done)))
    return f"[{done}/{total}, {timedelta(seconds=round(passed))} passed, about {left} left]"


class Journal:
    """An append-only file of outcomes. Worker processes find it through the environment (:meth:`inherited`)."""

    def __init__(self, path: Path, total: int, began: float) -> None:
        self.path, self.total, self.began = path, total, began

    @classmethod
    def begin(cls, folder: Path, total: int) -> "Journal":
        """Create a journal for a command of `total` runs; processes started from here on inherit it."""
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        path = (folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl").resolve()
        path.touch()
        os.environ |= {_PATH: str(path), _TOTAL: str(total), _BEGAN: repr(began)}
        return cls(path, total, began)

    @classmethod
    def inherited(cls) -> "Journal | None":
        """Return the journal of the command that started this process, or None."""
        if _PATH not in os.environ:
            return None
        return cls(Path(os.environ[_PATH]), int(os.environ[_TOTAL]), float(os.environ[_BEGAN]))

    def record(self, outcome: Outcome) -> None:
        """Append an outcome and print it; in a sweep, with the progress."""
        self._write(outcome)
        if self.total == 1:
            if outcome.status not in _BAD:  # which are reported on standard error at the end
                print(f"{outcome.run_id}: {outcome.message}", flush=True)
            return
        word = "done before" if outcome.skipped else outcome.status
        so_far = standing(self.began, len(self.outcomes()), self.total)
        print(f"{so_far} {outcome.run_id} {word}: {outcome.message}", flush=True)

    def _write(self, outcome: Outcome) -> None:
        # One write of one line to a file opened for appending: lines of parallel processes never mix. The newline
        # before it is in case a full disk has truncated the last line.
        line = f"\n{json.dumps(asdict(outcome))}\n".encode()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                whole = os.write(descriptor, line) == len(line)
            finally:
                os.close(descriptor)
        except OSError:
            whole = False
        if not whole:
            _unwritten.append(outcome)

    def outcomes(self) -> list[Outcome]:
        """Return all outcomes so far."""
        found = []
        for line in self.path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError):  # an empty or truncated line
                found.append(Outcome(**json.loads(line)))
        return [*found, *_unwritten]

    def close(self) -> int:
        """Report at the end of a sweep what failed and where its error is; return the command's exit status."""
        outcomes = self.outcomes()
        if self.total > 1:
            counts: dict[str, int] = {}
            for outcome in outcomes:
                word = "done before" if outcome.skipped else outcome.status
                counts[word] = counts.get(word, 0) + 1
            missing = self.total - len(outcomes)
            if missing:
                counts["without an outcome (not begun, or its process was killed)"] = missing
            print(f"{self.total} runs: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
        for outcome in outcomes:
            if outcome.status in _BAD:
                print(f"{outcome.status}: {outcome.run_id}: {outcome.message}", file=sys.stderr)
        if any(outcome.status in _BAD for outcome in outcomes):
            return 1
        if any(not outcome.ok for outcome in outcomes):
            return 130
        return 0 if len(outcomes) == self.total else 1
