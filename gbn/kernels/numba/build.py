"""The child process that compiles (:mod:`.objects`): given names and a target, it returns their objects."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from . import cache
from .compiling import ENTRY_POINTS, machine_code
from .objects import Entry
from .target import Target, this_machine

__all__ = ["function_of", "made", "main"]

#: Seconds to wait for another process that is compiling the same, before compiling it here as well.
_PATIENCE = 120.0

#: ELF: the type of a section that is a symbol table, and the bytes per symbol.
_SYMBOLS, _SYMBOL_SIZE = 2, 24


def function_of(name: str) -> Any:
    """Return the Python function of an entry point, given its name.

    Raises:
        ValueError: there is no such function.
    """
    module, _, rest = name.partition(":")
    place = importlib.import_module(module)
    if name in ENTRY_POINTS:
        return ENTRY_POINTS[name]
    base, _, components = rest.partition(":")
    factories = getattr(place, "FACTORIES", {})
    if base in factories and components.isdigit():
        return factories[base]((0,) * int(components))
    raise ValueError(f"{name!r} names no entry point")


def made(name: str, target: Target) -> bytes:
    """Return the object file of an entry point.

    Raises:
        ValueError: there is no such entry point.
        OSError: it is made for this machine's processor, but calls what this process does not have.
    """
    code = machine_code(function_of(name), target)
    if target == this_machine() and (lacking := _lacking(code)):
        raise OSError(f"its machine code calls {', '.join(lacking)}, which this process does not have")
    return code


def _lacking(code: bytes) -> list[str]:
    """Return the undefined symbols of an object file: LLVM would let a call to one end the process.

    Only ELF files, those of Linux, are checked.
    """
    if not code.startswith(b"\x7fELF\x02\x01"):
        return []
    (start,), (size, number) = struct.unpack_from("<Q", code, 0x28), struct.unpack_from("<HH", code, 0x3A)
    # name, type, flags, address, offset, size, link, ...
    sections = [struct.unpack_from("<IIQQQQII", code, start + size * k) for k in range(number)]
    process, lacking = ctypes.CDLL(None), []
    for _, kind, _, _, offset, length, link, _ in sections:
        if kind != _SYMBOLS:
            continue
        names = sections[link][4]
        for place in range(offset, offset + length, _SYMBOL_SIZE):
            name, _, _, section = struct.unpack_from("<IBBH", code, place)
            text = code[names + name : code.index(b"\0", names + name)].decode()
            if section == 0 and text and not hasattr(process, text):
                lacking.append(text)
    return lacking


@contextlib.contextmanager
def _alone(name: str, target: Target) -> Iterator[None]:
    """Wait while another process compiles the same; where the system has no such locks, go on."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = cache.lock_of(name, target)
    try:
        opened = path.open("wb")
    except OSError:
        yield
        return
    with opened:
        limit = time.monotonic() + _PATIENCE
        while time.monotonic() < limit:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                break
        yield
        path.unlink(missing_ok=True)


def main() -> None:
    """Read ``[names, triple, cpu, features]`` as JSON; write a line of JSON per name, followed by its object."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed may get into the stream
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which may have a checkpoint to write
    names, *words = json.load(sys.stdin)
    target = Target(*words)
    for name in names:
        head: dict[str, Any] = {"name": name}
        code = b""
        try:
            with _alone(name, target):
                found = cache.read(name, target)
                if found is None:
                    found = made(name, target)
                    Entry(name, found)  # if loading it crashes, it crashes this process and not the parent
                    head["unkept"] = _kept(name, target, found)
            code = found
            head = {"unkept": ""} | head | {"size": len(code)}
        except Exception as error:
            head["error"] = f"{type(error).__name__}: {error}"
        out.write(json.dumps(head).encode() + b"\n" + code)
        out.flush()


def _kept(name: str, target: Target, code: bytes) -> str:
    """Store an object; return why that failed, or ""."""
    try:
        cache.write(name, target, code)
    except OSError as error:
        return str(error)
    return ""
