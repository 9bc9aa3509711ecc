"""Digests inside the store's own files, which reveal damage.

Each line of a curve, each segment of the provenance and the summary ends with a digest of the rest of itself, and
``config.yaml`` ends with a comment that holds one. Text without a digest was written by an earlier version and is
accepted as it is.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

#: The last key of a sealed mapping.
DIGEST = "digest"

#: Hexadecimal digits of a digest: 64 bits.
DIGITS = 16

_DIGEST = re.compile(rf"[0-9a-f]{{{DIGITS}}}")
_COMMENT = re.compile(rb"(.*\n)# digest: ([0-9a-f]{%d})\n" % DIGITS, re.DOTALL)


def digest(content: bytes) -> str:
    """Return the first :data:`DIGITS` hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def sealed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON-compatible mapping with its digest appended."""
    return {**entry, DIGEST: _digest_of(entry)}


def unsealed(entry: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return a mapping without its digest, and whether it had one.

    Raises:
        ValueError: the digest does not match.
    """
    rest = dict(entry)
    found = rest.pop(DIGEST, None)
    if found is None:
        last = next(reversed(rest.values()), None)
        if isinstance(last, str) and _DIGEST.fullmatch(last):
            raise ValueError(f"its last key is no longer {DIGEST!r}")
        return rest, False
    if found != _digest_of(rest):
        raise ValueError("it does not fit its digest")
    return rest, True


def sealed_text(text: str) -> str:
    """Return YAML text followed by a comment with its digest."""
    return f"{text}# digest: {digest(text.encode())}\n"


def check_text(content: bytes) -> None:
    """Compare YAML text with the digest in its last line, if it has one.

    Raises:
        ValueError: the digest does not match.
    """
    found = _COMMENT.fullmatch(content)
    if found is None:
        if b"digest: " in content[content.rfind(b"\n", 0, -1) + 1 :]:
            raise ValueError("the comment with its digest is damaged")
    elif found[2].decode() != digest(found[1]):
        raise ValueError("it does not fit its digest")


def _digest_of(entry: Mapping[str, Any]) -> str:
    return digest(json.dumps(entry).encode())
