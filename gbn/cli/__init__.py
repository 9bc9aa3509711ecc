"""The command ``gbn``: its verbs, the parser that they share, and one way of reporting errors and exiting.

A verb is a function that adds its options to a :class:`Parser` and returns what does the work; its docstring is the
help. Its module is imported when the verb is called, and imports what takes long where the work is done. So ``gbn
--help`` loads nothing, a wrong command line is reported at once, and Ctrl-C works from the first second to the last.
"""

import argparse
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from types import TracebackType
from typing import NoReturn

from gbn.suggest import did_you_mean

#: Exit statuses: the request cannot be carried out, Ctrl-C, and a closed output pipe (128 + SIGPIPE).
WRONG, STOPPED, UNREAD = 2, 130, 141

#: verb -> (its module in gbn.cli, what it does). Its function there has the name of the verb's last word.
VERBS = {
    "train": ("train", "train one network with one normalizer or, with -m, a sweep"),
    "sweep": ("sweep", "train the missing runs of an experiment's grid"),
    "reproduce": ("sweep", "sweep, then write the experiment's table, figures and report"),
    "watch": ("watch", "follow a running sweep"),
    "runs": ("archive", "list the runs of a results folder"),
    "archive": ("archive", "pack finished runs into the archive, retract them, or check it"),
    "wandb": ("upload", "upload runs to Weights & Biases"),
    "table": ("tables", "write a speed-up table"),
    "report": ("tables", "write one HTML file about an experiment"),
    "profile": ("tables", "write a performance profile over several experiments"),
    "patients": ("tables", "write segmentation scores patient by patient"),
    "claims": ("claims", "print the papers' claims with their verdicts"),
    "plot convergence": ("plots", "draw curves, speed-up against the target, or a matrix"),
    "plot layers": ("plots", "draw what each arm's normalizers did along training"),
    "plot samples": ("plots", "draw the samples of generators side by side"),
    "plot segmentation": ("plots", "draw segmentations and a Bland-Altman plot"),
    "select rates": ("selection", "select each arm's best learning rate"),
    "select arms": ("selection", "rank the arms of a screen"),
    "cost": ("cost", "time an update of each arm of an experiment"),
    "bench norm": ("bench", "time norm layers"),
    "bench train": ("bench", "time training steps"),
    "bench precondition": ("bench", "time training steps with batch normalization preconditioning"),
    "bench startup": ("bench", "time from the command to the first update"),
    "bench analysis": ("bench", "time tables of many simulated runs"),
    "bench gpu": ("bench", "test and time a GPU machine, without installing anything"),
    "study variance": ("studies", "measure the noise of the weight gradient"),
    "study hessian": ("studies", "measure condition numbers of Hessians"),
    "study statistics": ("studies", "measure the coverage of the intervals by simulation"),
    "study features": ("studies", "train the feature network for FID and KID"),
    "results": ("results", "write every committed table, figure and generated block again"),
}


def _quiet(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Hide the traceback of Ctrl-C during imports, before :func:`leave_with` can catch it."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet


#: Does the work of a verb for its parsed arguments; returns the exit status.
Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """The parser of a verb; its errors are one line.

    Attributes:
        statuses: the meaning of exit statuses, to which a verb adds its own (1, 3).
        verbatim: whether the words of the command line are left to the verb as they are.
    """

    verbatim = False

    def __init__(self, prog: str, description: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        wrong = "cannot be done as asked: one line on standard error says why"
        self.statuses = {0: "done", WRONG: wrong, STOPPED: "stopped by Ctrl-C"}

    def format_help(self) -> str:
        """Return the help, with the exit statuses at its end."""
        lines = [f"  {status:<4} {meaning}" for status, meaning in sorted(self.statuses.items())]
        self.epilog = "\n".join(["exit status:", *lines])
        return super().format_help()

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the arguments, with ``words`` and ``given``: the command line and the options present on it.

        Raises:
            ValueError: the command line is wrong.
        """
        if self.verbatim:
            return argparse.Namespace(words=words)
        if empty := [word for word in words if word.endswith("=--")]:  # argparse reads it as no value at all
            self.error(f"argument {empty[0][:-3]}: expected a value")
        args = self.parse_intermixed_args(words)
        args.words = words
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
        raise ValueError(f"{message} (see {self.prog} --help)")


def main(*verb: str) -> NoReturn:
    """Carry out the command line, after the words of `verb` if there are any, and exit with its status."""
    leave_with(lambda: carry_out([*verb, *sys.argv[1:]]))


def carry_out(words: Sequence[str]) -> int:
    """Carry out a command line of ``gbn``; return its exit status.

    Raises:
        ValueError: there is no such verb, or the verb rejects what follows it.
    """
    for length in (2, 1):
        if (verb := " ".join(words[:length])) in VERBS:
            parser, run = parser_of(verb)
            return run(parser.parse(list(words[length:])))
    group = words[0] if words else ""
    members = [verb for verb in VERBS if verb.split()[0] == group]
    if not words or words[0] in ("-h", "--help") or (members and words[1:2] in ([], ["-h"], ["--help"])):
        print(_help(members or list(VERBS)))
        return 0
    given = " ".join(words[:2] if members else words[:1])
    raise ValueError(f"unknown verb {given!r}{did_you_mean(given, members or VERBS)} (see gbn --help)")


def parser_of(verb: str) -> tuple[Parser, Run]:
    """Return the parser of a verb in :data:`VERBS`, and what does its work."""
    function = getattr(import_module(f"gbn.cli.{VERBS[verb][0]}"), verb.split()[-1])
    parser = Parser(f"gbn {verb}", inspect.getdoc(function))
    return parser, function(parser)


def _help(verbs: Sequence[str]) -> str:
    lines = ["usage: gbn VERB [...]", "", *(f"  {verb:<20} {VERBS[verb][1]}" for verb in verbs), ""]
    return "\n".join([*lines, f"gbn {verbs[0]} --help says more and shows examples; so for each verb."])


def leave_with(act: Callable[[], int]) -> NoReturn:
    """Exit with the status that `act` returns.

    An error that the user can fix is one line on standard error and status 2, Ctrl-C is status 130, and a closed
    output pipe (``| head``) ends the command quietly. Other exceptions are bugs and keep their traceback.
    """
    print_anything()
    try:
        status = _status(act)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not at interpreter exit, where an error is a traceback
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = STOPPED
    except BrokenPipeError:
        # Nobody reads on: leave at once. What is still in the buffer has nowhere to go, and on a busy machine an
        # orderly exit right after pyarrow started its threads can end in its abort ("terminate called ...").
        os._exit(UNREAD)
    except Exception as error:
        stopped = _stopped(error)
        if not stopped and not _mendable(error):
            raise
        print("stopped" if stopped else f"error: {one_line(error)}", file=sys.stderr)
        status = STOPPED if stopped else WRONG
    sys.exit(status)


def _status(act: Callable[[], int]) -> int:
    try:
        return act()
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
