"""What became of the runs of one command, written by however many processes, read by the one that began them."""

import json
import os
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from gbn.engine.run import Outcome

_PATH, _TOTAL, _BEGAN = "GBN_JOURNAL", "GBN_JOURNAL_TOTAL", "GBN_JOURNAL_BEGAN"


class Journal:
    """An append-only file of outcomes. Worker processes find it through the environment (:meth:`inherited`)."""

    def __init__(self, path: Path, total: int, began: float) -> None:
        self.path, self.total, self.began = path, total, began

    @classmethod
    def begin(cls, folder: Path, total: int) -> "Journal":
        """A new journal for a command of `total` runs; processes started from here on inherit it."""
        folder.mkdir(parents=True, exist_ok=True)
        began = time.time()
        path = (
            folder / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(began))}-{os.getpid()}.jsonl"
        ).resolve()
        path.touch()
        os.environ |= {_PATH: str(path), _TOTAL: str(total), _BEGAN: repr(began)}
        return cls(path, total, began)

    @classmethod
    def inherited(cls) -> "Journal | None":
        """The journal of the command that started this process, if it began one."""
        if _PATH not in os.environ:
            return None
        return cls(Path(os.environ[_PATH]), int(os.environ[_TOTAL]), float(os.environ[_BEGAN]))

    def record(self, outcome: Outcome) -> None:
        """Append an outcome and, in a sweep, say how far it is."""
        line = json.dumps(asdict(outcome)) + "\n"
        # One write of one line to a file opened for appending: lines of parallel processes never mix.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        if self.total == 1:
            print(f"{outcome.run_id}: {outcome.message}", flush=True)
            return
        done = len(self.outcomes())
        passed = time.time() - self.began
        left = timedelta(seconds=round(passed / done * (self.total - done)))
        word = "done before" if outcome.skipped else outcome.status
        print(
            f"[{done}/{self.total}, {timedelta(seconds=round(passed))} passed, about {left} left] "
            f"{outcome.run_id} {word}: {outcome.message}",
            flush=True,
        )

    def outcomes(self) -> list[Outcome]:
        """All outcomes so far."""
        return [Outcome(**json.loads(line)) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def close(self) -> int:
        """Say at the end of a sweep what failed and where its error is; the command's exit status."""
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
            if outcome.status in ("failed", "locked"):
                print(f"{outcome.status}: {outcome.run_id}: {outcome.message}", file=sys.stderr)
        if any(outcome.status in ("failed", "locked") for outcome in outcomes):
            return 1
        if any(not outcome.ok for outcome in outcomes):
            return 130
        return 0 if len(outcomes) == self.total else 1
