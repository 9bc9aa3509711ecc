"""Standard output and error that may be closed while runs continue: no run fails because its output has no reader."""

import io
import os
import sys
from typing import Any


class _Lossy(io.FileIO):
    """A stream's file descriptor; after a failed write, that output and all that follows is dropped."""

    def write(self, content: Any, /) -> int:
        """Write or drop the content; return its number of bytes."""
        try:
            return super().write(content) or 0
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for compiled code and children as well
            os.close(nowhere)
            return memoryview(content).nbytes


def outlive_readers() -> None:
    """Ignore failed writes to standard output and error from here on.

    Writes fail when the terminal was closed (its signal asks for checkpoints), when the reader of a pipe has exited,
    and when the disk of a log is full.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):  # missing, closed, or in memory
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
