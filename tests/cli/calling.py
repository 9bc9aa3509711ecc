"""Verbs called in this process."""

from pathlib import Path

from gbn import cli

ROOT = Path(__file__).resolve().parents[2]
#: The verbs whose command line is ours; that of `train` is Hydra's.
VERBS = sorted({*cli.VERBS} - {"train"})


def call(verb, *arguments):
    """Carry out a verb with these arguments; return its status. Errors are raised."""
    return cli.carry_out([*verb.split(), *map(str, arguments)])
