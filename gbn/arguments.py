"""What an option may hold: numbers within bounds, times, names, and files and folders that can be read or written.

Each is an argparse type: it takes the text and returns the value, or raises ``argparse.ArgumentTypeError`` with what
was given and what is allowed. Defaults that are texts go through them as well.
"""

import argparse
import contextlib
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: The largest number that any option takes: beyond it nothing here ends within a lifetime, or fits into a memory.
MOST = 10**9


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 1
    most: int = MOST

    def __call__(self, text: str) -> int:
        """The number that `text` is."""
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not self.least <= int(text) <= self.most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {self.least} to {self.most:,}"
            )
        return int(text)


@dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`; `least` itself only where it is not 0 or `zero` is true."""

    least: float = 0.0
    most: float = float(MOST)
    zero: bool = False

    def __call__(self, text: str) -> float:
        """The number that `text` is."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.least <= value <= self.most or (value == 0 and not self.zero):
            above = (
                f"above {self.least:g}, at most"
                if self.least == 0 and not self.zero
                else f"from {self.least:g} to"
            )
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {above} {self.most:g}")
        return value


def duration(text: str) -> float:
    """`90s`, `20m`, `1.5h` or plain seconds, as seconds.

    Raises:
        argparse.ArgumentTypeError: another text, or no time at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, re.ASCII)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: use 90s, 20m or 2h")
    return seconds


def name(text: str) -> str:
    """A name that can be a part of a file's: not empty, no path.

    Raises:
        argparse.ArgumentTypeError: another text.
    """
    if (
        not text.strip()
        or text.startswith(".")
        or re.search(r"[/\\\x00-\x1f]", text)
        or len(os.fsencode(text)) > 150
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: use letters, digits, - and _, 150 at most")
    return text


def existing_folder(text: str) -> str:
    """A folder that is there.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    if not os.path.isdir(text):
        what = "is a file" if os.path.isfile(text) else "is not there"
        raise argparse.ArgumentTypeError(f"the folder {text!r} {what}: give one that exists")
    return text


def existing_file(text: str) -> Path:
    """A file that is there.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    if not os.path.isfile(text):
        what = "is a folder" if os.path.isdir(text) else "is not there"
        raise argparse.ArgumentTypeError(f"the file {text!r} {what}: give one that exists")
    return Path(text)


def output_folder(text: str) -> Path:
    """A folder that is there and can be written, or that can be made.

    Raises:
        argparse.ArgumentTypeError: it cannot.
    """
    try:
        return usable_folder(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_file(text: str) -> Path:
    """A file that can be written or replaced.

    Raises:
        argparse.ArgumentTypeError: it cannot.
    """
    path = Path(text)
    if os.path.isdir(text or "."):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: give the path of a file")
    if len(os.fsencode(path.name)) > 200:  # what is written first has a longer name
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file: use 200 letters at most")
    output_folder(str(path.parent))
    return path


def usable_folder(folder: str | Path) -> Path:
    """A folder that files can be written into, made where it is missing when something is.

    Returns:
        `folder`, as a path. Nothing is left on disk.

    Raises:
        ValueError: no text, a file in the way, a link to nothing, a name that is too long, no permission.
    """
    path = Path(folder)
    here = path.absolute()
    try:
        if not str(folder):
            raise NotADirectoryError(0, "it has no name")
        try:
            here.stat()
        except FileNotFoundError:
            while not os.path.lexists(here):
                here = here.parent
            for part in path.absolute().relative_to(here).parts:
                with contextlib.suppress(FileNotFoundError):
                    (here / part).lstat()  # raises where the name of a folder to be made is too long
        if not here.is_dir():
            raise NotADirectoryError(0, f"{here} is no folder")
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        raise ValueError(
            f"the folder {str(folder)!r} cannot be written ({error.strerror}): give another"
        ) from None
    return path
