"""Seeds on a command line."""

import argparse
import re

#: The most seeds in a list; no grid has that many.
MOST = 100_000


def seed_list(text: str) -> set[int]:
    """Parse `3`, `4-7` or `0,2,4-7` as a set of seeds (an argparse type).

    >>> sorted(seed_list("0,2,4-6"))
    [0, 2, 4, 5, 6]

    Raises:
        argparse.ArgumentTypeError: the text is not a list of seeds.
    """
    seed = r"\d{1,18}"
    if not re.fullmatch(rf"{seed}(-{seed})?(,{seed}(-{seed})?)*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of seeds: use 3 or 4-7 or 0,2,4-7")
    ends = [[int(end) for end in part.split("-")] for part in text.split(",")]
    ranges = [range(part[0], part[-1] + 1) for part in ends]
    if (count := sum(max(0, part.stop - part.start) for part in ranges)) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} holds {count:,} seeds: give {MOST:,} at most")
    if not all(ranges):
        raise argparse.ArgumentTypeError(
            f"{text!r} holds a range without a seed: a range runs upward, as 4-7"
        )
    return {seed for part in ranges for seed in part}
