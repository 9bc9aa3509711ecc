"""Seeds on a command line."""

import argparse
import re


def seed_list(text: str) -> set[int]:
    """The seeds that `3`, `4-7` or `0,2,4-7` means: an argparse type.

    >>> sorted(seed_list("0,2,4-6"))
    [0, 2, 4, 5, 6]

    Raises:
        argparse.ArgumentTypeError: another text.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds: use 3 or 4-7 or 0,2,4-7")
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    seeds = {seed for part in ends for seed in range(part[0], part[-1] + 1)}
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed: a range runs upwards, as 4-7")
    return seeds
