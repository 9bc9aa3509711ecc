"""The target of compilation: a processor as LLVM knows it, and which of its instructions kernels use.

``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` override this machine's own, as they do for numba.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

__all__ = ["Target", "current", "emitting", "this_machine"]


@dataclass(frozen=True)
class Target:
    """A processor as LLVM knows it.

    Attributes:
        triple: such as ``x86_64-unknown-linux-gnu``.
        cpu: such as ``znver3``; determines instruction scheduling.
        features: ``+avx2,-avx512f,...``: what it has and what it lacks. Kernels use special instructions only if they
            are named here.
    """

    triple: str
    cpu: str
    features: str

    def has(self, feature: str) -> bool:
        """Return whether the processor is known to have a feature."""
        return f"+{feature}" in self.features.split(",")

    @property
    def arm(self) -> bool:
        """True for a 64-bit Arm, which has NEON, fused multiply-add and half precision."""
        return self.triple.startswith(("aarch64", "arm64"))

    @property
    def fuses(self) -> bool:
        """True if it has a multiply-add that rounds once."""
        return self.arm or self.has("fma") or self.has("avx512f")

    @property
    def converts_halves(self) -> bool:
        """True if it converts half precision; elsewhere LLVM would call a library that may be missing."""
        return self.arm or self.has("f16c") or self.has("avx512f")

    def machine(self) -> Any:
        """Return LLVM's code generator for it, for code that is linked where it is loaded."""
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        x86 = self.triple.startswith("x86")
        return llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu,
            features=self.features,
            opt=3,
            reloc="static" if x86 else "default",
            codemodel="jitdefault",
            jit=True,
        )


@functools.cache
def this_machine() -> Target:
    """Return the processor that this process runs on, or the one that numba's environment variables name."""
    llvm.initialize_native_target()
    name, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    own = llvm.get_host_cpu_name()
    if features is None:
        try:
            features = llvm.get_host_cpu_features().flatten() if name in (None, own) else ""
        except RuntimeError:  # LLVM cannot detect features on every system
            features = ""
    return Target(llvm.get_process_triple(), name or own, features)


_current: Target | None = None


@contextlib.contextmanager
def emitting(target: Target) -> Iterator[None]:
    """Emit code for the given target within this context."""
    global _current
    before, _current = _current, target
    try:
        yield
    finally:
        _current = before


def current() -> Target:
    """Return the target that code is emitted for."""
    return _current or this_machine()
