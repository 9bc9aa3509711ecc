"""Kernels for processors of other kinds: made by LLVM for each, and run where this processor can."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from gbn.kernels.mixture.numba.entries import FACTORIES, OF_ANY, name_of
from gbn.kernels.numba import launch_precondition, passes, passes_last, precondition  # noqa: F401 - make names known
from gbn.kernels.numba.build import function_of
from gbn.kernels.numba.compiling import ENTRY_POINTS
from gbn.kernels.numba.launch import entries
from gbn.kernels.numba.layout import LAST, PLANES
from gbn.kernels.numba.target import Target, this_machine

ROOT = Path(__file__).resolve().parents[2]

_V2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt"
_V3 = f"{_V2},+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_V4 = f"{_V3},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
TARGETS = {
    "x86-64": Target("x86_64-unknown-linux-gnu", "generic", ""),
    "x86-64-v2": Target("x86_64-unknown-linux-gnu", "x86-64-v2", _V2),
    "x86-64-v3": Target("x86_64-unknown-linux-gnu", "x86-64-v3", _V3),
    "x86-64-v4": Target("x86_64-unknown-linux-gnu", "x86-64-v4", _V4),
    "windows": Target("x86_64-pc-windows-msvc", "x86-64-v3", _V3),
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", ""),
    "apple-m1": Target("arm64-apple-macosx", "apple-m1", ""),
}
#: Every entry point; mixtures of one, two and three components, and the most.
NAMES = (
    *ENTRY_POINTS,
    *(name_of(name, k) for name in FACTORIES for k in ((0,) if name in OF_ANY else (1, 2, 3, 8))),
)
COMPILE = """
import sys
from gbn.kernels.numba.build import made
from gbn.kernels.numba.target import Target
target = Target(*sys.argv[1:4])
for name in sys.argv[4:]:
    assert made(name, target), name
"""


def child(*arguments: str, timeout: float = 900, **environment: str) -> None:
    """Run Python in a process of its own, which an assertion of LLVM's may kill."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])


@functools.cache
def _own() -> frozenset[str]:
    return frozenset(this_machine().features.split(","))


def runs_here(target: Target) -> bool:
    """Whether this processor, and its system's object files, are of the target's kind."""
    alike = target.triple == llvm.get_process_triple()
    return alike and all(one in _own() for one in target.features.split(",") if one)


def test_every_entry_point_that_is_called_is_compiled_here() -> None:
    sites = itertools.product((PLANES, LAST), (False, True), (False, True))
    called = {name for site in sites for name in entries(*site)}
    called |= {*launch_precondition.ENTRIES}
    assert called <= set(NAMES)
    for name in NAMES:
        assert callable(function_of(name))
    with pytest.raises(ValueError, match="names no entry point"):
        function_of("gbn.kernels.numba.passes:forwards")


@pytest.mark.parametrize("name", TARGETS)
def test_instructions(name: str) -> None:
    target = TARGETS[name]
    runs = "yes" if runs_here(target) else "no"
    child("tests/kernels/instructions.py", target.triple, target.cpu, target.features, runs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2", "aarch64"])
def test_the_kernel_with_the_most_in_it(name: str) -> None:
    target = TARGETS[name]
    names = ("gbn.kernels.numba.measure:measure_any", name_of("normalize", 3))
    child("-c", COMPILE, target.triple, target.cpu, target.features, *names)


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_every_entry_point(name: str) -> None:
    target = TARGETS[name]
    child("-c", COMPILE, target.triple, target.cpu, target.features, *NAMES, timeout=1800)


def _cut(name: str) -> dict[str, str]:
    target = TARGETS[name]
    if not runs_here(target):
        pytest.skip(f"this processor is no {name}")
    return {"NUMBA_CPU_NAME": target.cpu, "NUMBA_CPU_FEATURES": target.features}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x86-64-v2"])
def test_kernels_equal_the_reference_with_features_cut(name: str) -> None:
    chosen = [
        "tests/kernels/test_numba.py",
        "-k",
        "odd and mad or odd and std or odd and huber or odd and cvar or last and mad",
    ]
    command = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow", *chosen]
    child(*command, **_cut(name))


@pytest.mark.long
@pytest.mark.parametrize("name", ["x86-64", "x86-64-v2", "x86-64-v3"])
def test_all_kernel_tests_with_features_cut(name: str) -> None:
    files = [
        "test_cpu.py",
        "test_numba_gated.py",
        "test_mixture_numba.py",
        "test_fused.py",
        "test_mixture_autograd.py",
    ]
    chosen = [*(f"tests/kernels/{file}" for file in files), "tests/optim"]
    command = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *chosen]
    child(*command, timeout=3600, **_cut(name))
