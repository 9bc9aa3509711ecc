"""The command line that all scripts share: one parser, one way of saying what is wrong, one way of ending.

A script has two functions, ``parser() -> Parser`` and ``run(args) -> int``, and ends with ``cli.main(parser, run)``.
Nothing heavy is imported here, and a script imports what it works with inside `run`: a wrong line is answered at
once, and Ctrl-C ends a script in its first second as in its last.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn

from gbn.suggest import did_you_mean

#: Exit statuses: what was asked cannot be done, Ctrl-C, and a reader of the output that went away (128 + SIGPIPE).
WRONG, STOPPED, UNREAD = 2, 130, 141


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a script's own imports are made, before :func:`main` can catch it, shows no traceback either."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line.

    Args:
        description: the script's docstring.
        examples: command lines for ``--help``.
        statuses: what the script's own exit statuses (1, 3) mean.
    """

    def __init__(
        self, description: str | None, examples: Sequence[str] = (), statuses: Mapping[int, str] | None = None
    ) -> None:
        wrong = "cannot be done as asked: one line on standard error says why"
        known = {0: "done", **(statuses or {}), WRONG: wrong, STOPPED: "stopped by Ctrl-C"}
        lines = ["examples:", *(f"  {line}" for line in examples), ""] if examples else []
        lines += ["exit status:", *(f"  {status:<4} {meaning}" for status, meaning in sorted(known.items()))]
        super().__init__(
            description=description,
            epilog="\n".join(lines),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The arguments, with ``given``: the options that stand on the line.

        Raises:
            ValueError: a wrong line.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if empty := [word for word in words if word.endswith("=--")]:  # argparse takes it for no value at all
            self.error(f"argument {empty[0][:-3]}: expected a value")
        args = self.parse_intermixed_args(words)
        named = (self._option_string_actions.get(word.partition("=")[0]) for word in words)
        args.given = frozenset(action.option_strings[-1] for action in named if action is not None)
        return args

    def error(self, message: str) -> NoReturn:
        """Refuse the line.

        Raises:
            ValueError: always.
        """
        if message.startswith("unrecognized arguments: --"):
            word = message.split()[2].partition("=")[0]
            message += did_you_mean(word, self._option_string_actions)
        raise ValueError(f"{message} (see --help)")


def main(parser: Callable[[], Parser], run: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Run a script and exit with its status.

    What the user can mend is one line on standard error and status 2, Ctrl-C is status 130, a reader of the output
    that went away (``| head``) ends the script quietly. Other exceptions are faults of ours and keep their traceback.
    """
    print_anything()
    try:
        status = _status(parser, run)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not at the interpreter's end, where an error is a traceback
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in its buffer
        status = UNREAD
    except Exception as error:
        stopped = _stopped(error)
        if not stopped and not _mendable(error):
            raise
        print("stopped" if stopped else f"error: {one_line(error)}", file=sys.stderr)
        status = STOPPED if stopped else WRONG
    sys.exit(status)


def _status(parser: Callable[[], Parser], run: Callable[[argparse.Namespace], int]) -> int:
    try:
        return run(parser().parse())
    except SystemExit as ended:  # --help
        return int(ended.code or 0)


def _stopped(error: BaseException | None) -> bool:
    """Whether an exception was Ctrl-C before a library made something else of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _mendable(error: Exception) -> bool:
    """Whether an exception says what the user can change; a missing key or index is a fault of the program."""
    if isinstance(error, KeyError | IndexError):
        return False
    store = sys.modules.get("gbn.store.files")  # loaded where one of its errors was raised
    kinds = (
        ValueError,
        LookupError,
        OSError,
        argparse.ArgumentTypeError,
        *([store.StoreError] if store else []),
    )
    return isinstance(error, kinds)


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its class where it says nothing."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(filter(None, map(str.strip, text.splitlines()))) or type(error).__name__


def print_anything() -> None:
    """From here on a character that standard output's encoding lacks, such as the ± of a table, is printed as ?."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def alone(args: argparse.Namespace, option: str, *beside: str) -> None:
    """Refuse the options that say nothing beside `option`: all but those `beside`.

    Raises:
        ValueError: both are given.
    """
    others = sorted(args.given - {option, *beside})
    if option in args.given and others:
        raise ValueError(f"{option} goes without {', '.join(others)}: leave out one or the other")


def belongs(args: argparse.Namespace, option: str, *owners: str) -> None:
    """Refuse an option without the one it belongs to.

    Raises:
        ValueError: `option` is given, and none of its owners.
    """
    if option in args.given and not args.given & {*owners}:
        raise ValueError(f"{option} belongs to {' or '.join(owners)}: give both or neither")


def one_of(what: str, given: str, allowed: Iterable[str]) -> str:
    """A name that has to be among others.

    Returns:
        `given`.

    Raises:
        ConfigError: it is not.
    """
    from gbn.config.errors import unknown

    names = list(dict.fromkeys(allowed))
    if given not in names:
        raise unknown(what, given, names)
    return given
