"""The command line shared by all scripts: one parser, one way of reporting errors, one way of exiting.

A script has two functions, ``parser() -> Parser`` and ``run(args) -> int``, and ends with ``cli.main(parser, run)``.
Nothing heavy is imported here, and a script imports what it needs inside `run`: a wrong command line is reported at
once, and Ctrl-C works from the first second to the last.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn

from gbn.suggest import did_you_mean

#: Exit statuses: the request cannot be carried out, Ctrl-C, and a closed output pipe (128 + SIGPIPE).
WRONG, STOPPED, UNREAD = 2, 130, 141


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Hide the traceback of Ctrl-C during a script's own imports, before :func:`main` can catch it."""
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
        statuses: the meaning of the script's own exit statuses (1, 3).
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
        """Return the arguments, with ``given``: the options present on the command line.

        Raises:
            ValueError: the command line is wrong.
        """
        words = list(sys.argv[1:] if argv is None else argv)
        if empty := [word for word in words if word.endswith("=--")]:  # argparse reads it as no value at all
            self.error(f"argument {empty[0][:-3]}: expected a value")
        args = self.parse_intermixed_args(words)
        named = (self._option_string_actions.get(word.partition("=")[0]) for word in words)
        args.given = frozenset(action.option_strings[-1] for action in named if action is not None)
        return args

    def error(self, message: str) -> NoReturn:
        """Reject the command line.

        Raises:
            ValueError: always.
        """
        if message.startswith("unrecognized arguments: --"):
            word = message.split()[2].partition("=")[0]
            message += did_you_mean(word, self._option_string_actions)
        raise ValueError(f"{message} (see --help)")


def main(parser: Callable[[], Parser], run: Callable[[argparse.Namespace], int]) -> NoReturn:
    """Run a script and exit with its status.

    An error that the user can fix is one line on standard error and status 2, Ctrl-C is status 130, and a closed
    output pipe (``| head``) ends the script quietly. Other exceptions are bugs and keep their traceback.
    """
    print_anything()
    try:
        status = _status(parser, run)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not at interpreter exit, where an error is a traceback
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
    """Return whether an exception was Ctrl-C before a library converted it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _mendable(error: Exception) -> bool:
    """Return whether the user can fix the cause of an exception; a missing key or index is a bug."""
    if isinstance(error, KeyError | IndexError):
        return False
    store = sys.modules.get("gbn.store.files")  # loaded if one of its errors was raised
    kinds = (
        ValueError,
        LookupError,
        OSError,
        argparse.ArgumentTypeError,
        *([store.StoreError] if store else []),
    )
    return isinstance(error, kinds)


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, or its class if it has no message."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(filter(None, map(str.strip, text.splitlines()))) or type(error).__name__


def print_anything() -> None:
    """Print characters that standard output's encoding lacks, such as the ± of a table, as ? from here on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def alone(args: argparse.Namespace, option: str, *beside: str) -> None:
    """Reject all options that have no meaning with `option`: all except those in `beside`.

    Raises:
        ValueError: such an option is given.
    """
    others = sorted(args.given - {option, *beside})
    if option in args.given and others:
        raise ValueError(f"{option} goes without {', '.join(others)}: leave out one or the other")


def belongs(args: argparse.Namespace, option: str, *owners: str) -> None:
    """Reject an option given without one that it belongs to.

    Raises:
        ValueError: `option` is given, but none of its owners.
    """
    if option in args.given and not args.given & {*owners}:
        raise ValueError(f"{option} belongs to {' or '.join(owners)}: give both or neither")


def one_of(what: str, given: str, allowed: Iterable[str]) -> str:
    """Check that a name is among the allowed ones.

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
