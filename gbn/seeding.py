"""Random streams derived from a run's seed and a purpose.

Every use of randomness has its own stream, named after its purpose, so none can shift another: an arm with
more parameters or a deeper network still sees the same batches and the same augmentations at the same seed.
Pure Python, no torch; the usual form is ``torch.Generator().manual_seed(derive(seed, "order", epoch))``.
"""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, the same on every machine and in every version of Python.

    ``derive(0, "augment", 7)`` and ``derive(0, "augment", "7")`` differ, and so do ``("a", "bc")`` and
    ``("ab", "c")``: each part enters the hash (SHA-256) with its type and its length.

    Args:
        seed: the run's seed, any integer; 0 is a seed like any other.
        *purpose: strings and integers that name the stream, for example ``"init", "stem.conv.weight"``.

    Returns:
        An integer in [0, 2**63).

    Raises:
        TypeError: a part that is neither a string nor an integer (a float or a bool is rejected rather than
            converted: the streams of 1, 1.0 and True would silently be the same or differ).
    """
    digest = hashlib.sha256(b"gbn")
    for part in (seed, *purpose):
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise TypeError(
                f"derive takes integers and strings, not {part!r} ({type(part).__name__}): "
                "name the stream with strings and integers"
            )
        text = str(part).encode()
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1
