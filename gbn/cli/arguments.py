"""Types of command-line options: bounded numbers, durations, names, and readable or writable files and folders.

Each is an argparse type: it takes the text and returns the value, or raises ``argparse.ArgumentTypeError`` with what
was given and what is allowed. Defaults given as text are parsed as well.
"""

import argparse
import contextlib
import math
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: The largest number that any option takes: with more, nothing here would ever finish or fit into memory.
MOST = 10**9


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 1
    most: int = MOST

    def __call__(self, text: str) -> int:
        """Return `text` as a number."""
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or not self.least <= int(text) <= self.most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {self.least} to {self.most:,}"
            )
        return int(text)


@dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`; 0 itself is allowed only if `zero` is true."""

    least: float = 0.0
    most: float = float(MOST)
    zero: bool = False

    def __call__(self, text: str) -> float:
        """Return `text` as a number."""
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
    """Return `90s`, `20m`, `1.5h` or plain seconds as seconds.

    Raises:
        argparse.ArgumentTypeError: the text is not a duration, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text, re.ASCII)
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: use 90s, 20m or 2h")
    return seconds


def name(text: str) -> str:
    """Check a name that becomes part of a file name: not empty, no path.

    Raises:
        argparse.ArgumentTypeError: the text is not such a name.
    """
    if (
        not text.strip()
        or text.startswith(".")
        or re.search(r"[/\\\x00-\x1f]", text)
        or len(os.fsencode(text)) > 150
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name: use letters, digits, - and _, 150 at most")
    return text


def existing_folder(text: str) -> str:
    """Check that a folder exists, and return it.

    Raises:
        argparse.ArgumentTypeError: it does not.
    """
    if not os.path.isdir(text):
        what = "is a file" if os.path.isfile(text) else "does not exist"
        raise argparse.ArgumentTypeError(f"the folder {text!r} {what}: give one that exists")
    return text


def existing_file(text: str) -> Path:
    """Check that a file exists, and return it.

    Raises:
        argparse.ArgumentTypeError: it does not.
    """
    if not os.path.isfile(text):
        what = "is a folder" if os.path.isdir(text) else "does not exist"
        raise argparse.ArgumentTypeError(f"the file {text!r} {what}: give one that exists")
    return Path(text)


def output_folder(text: str) -> Path:
    """Check that a folder is writable or can be created, and return it.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    try:
        return usable_folder(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_file(text: str) -> Path:
    """Check that a file can be written or replaced, and return it.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    path = Path(text)
    if os.path.isdir(text or "."):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder: give the path of a file")
    if len(os.fsencode(path.name)) > 200:  # the temporary file has a longer name
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of a file: use 200 letters at most")
    output_folder(str(path.parent))
    return path


def usable_folder(folder: str | Path) -> Path:
    """Check that files can be written into a folder, or that it can be created later.

    Returns:
        `folder`, as a path. Nothing is left on disk.

    Raises:
        ValueError: an empty name, a file in the way, a dangling link, a name that is too long, or no permission.
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
                    (here / part).lstat()  # raises if the name of a folder to be created is too long
        if not here.is_dir():
            raise NotADirectoryError(0, f"{here} is no folder")
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        raise ValueError(
            f"the folder {str(folder)!r} cannot be written ({error.strerror}): give another"
        ) from None
    return path
