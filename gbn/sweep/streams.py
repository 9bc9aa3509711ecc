"""Standard output and error that may be lost while runs go on: a run fails for no line that nobody reads."""

import io
import os
import sys
from typing import Any


class _Lossy(io.FileIO):
    """A descriptor of a stream; what cannot be written to it is dropped, and so is all that follows."""

    def write(self, content: Any, /) -> int:
        """Write it, or drop it; the number of bytes."""
        try:
            return super().write(content) or 0
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for compiled code and children as well
            os.close(nowhere)
            return memoryview(content).nbytes


def outlive_readers() -> None:
    """From here on nothing is raised where standard output or error cannot be written.

    So it is when the terminal was closed (its signal asks for checkpoints), when the reader of a pipe has ended, and
    when the disk of a log is full.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):  # none, closed, or in memory
            continue
        stream.flush()
        lossy = io.TextIOWrapper(
            io.BufferedWriter(_Lossy(descriptor, "w", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=name == "stderr",
        )
        setattr(sys, name, lossy)
