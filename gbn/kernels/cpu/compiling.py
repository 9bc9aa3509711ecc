"""How the kernels are compiled, and where the machine code is kept between processes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

__all__ = ["compiled", "entry_point", "inlined"]

_log = logging.getLogger(__name__)

# No fast-math: sums are written in the order that is meant. No reference counting: kernels own no arrays, and
# numba would count at every call, in the innermost loop.
_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "_nrt": False}

#: For functions that kernels call.
compiled: Callable[..., Any] = numba.njit(**_OPTIONS)

#: For the body of a loop, which LLVM would call where it is used twice.
inlined: Callable[..., Any] = numba.njit(forceinline=True, **_OPTIONS)


def _stamp(function: Any) -> str:
    """A hash of all sources here and in the function's folder: numba itself looks only at the function's file."""
    folder = Path(__file__).parent
    folders = dict.fromkeys((folder, Path(function.__code__.co_filename).parent))
    sources = [*(path for each in folders for path in sorted(each.glob("*.py"))), folder.parent / "plan.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


class _Cache(caching.FunctionCache):
    """numba's cache on disk (beside the sources, or in the user's cache folder), tied to all sources."""

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = caching.IndexDataCacheFile(
            cache_path=self._cache_path, filename_base=self._impl.filename_base, source_stamp=_stamp(function)
        )


def entry_point(function: Any) -> Any:
    """Compile ``function(address)`` to a C function ``void (int64)``, from the cache where it is there."""
    from numba.core.ccallback import CFunc

    signature, return_type = (numba.types.int64,), numba.types.void
    made = CFunc(
        function,
        (signature, return_type),
        locals={},
        options=_OPTIONS,
    )
    try:
        made._cache = _Cache(function)  # type: ignore[attr-defined]
    except Exception as error:  # an unwritable folder costs the compilation in every process, nothing more
        _log.warning("compiled kernels cannot be kept on disk (%s): each process compiles them again", error)
    made.compile()
    return made
