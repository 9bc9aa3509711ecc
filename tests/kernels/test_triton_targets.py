"""Every Triton kernel compiles for the GPUs of three generations, as the launchers launch it, without a GPU.

tests/kernels/compile_launches.py compiles, in a child process: a failed assertion in LLVM ends the process. It tells
what each kernel needs, which has to be there on the GPU it was compiled for.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import platform
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gbn import risk
from gbn.risk.parameters import QUADRANGLE_PARAMETERS
from tests.kernels.fused import FUSED

if importlib.util.find_spec("triton") is None:
    pytest.skip(
        f"needs triton, which has no wheel for {platform.system()} on {platform.machine()} or is not installed",
        allow_module_level=True,
    )

KERNELS = {"apply", "draw", "edges", "gradient", "merge", "reduce", "scan", "settle"}
#: Bytes of shared memory that a block may have: CUDA C++ Programming Guide, technical specifications per compute
#: capability.
SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
#: Of all three: registers of a multiprocessor, which a block may have all of; threads of a block.
REGISTERS, THREADS = 1 << 16, 1024
#: One size for each way through the kernels: a program a channel; brackets with what the cache keeps; brackets with
#: windows found while y is written (over 32 MiB).
WAYS = ([16, 64, 28, 28], [64, 64, 28, 28], [352, 64, 28, 28])
#: By pair, what chooses one of its gradients.
MODES = {
    name: [{"quantile_gradient": mode} for mode in risk.GRADIENT_MODES]
    if "quantile_gradient" in QUADRANGLE_PARAMETERS[name]
    else [{}]
    for name in FUSED
}
CHOICES = [
    {"arch": arch, "columns": columns, "dtype": dtype, "shape": shape, "relu": relu}
    for shape, columns, dtype, relu, arch in itertools.product(
        WAYS, (False, True), ("float32", "bfloat16", "float16"), (False, True), SHARED
    )
]
EVERYTHING = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
#: Each pair in two of its modes and some of the 108 choices; or, for hours, all in all. Where torch measures, kernels
#: are the same at any size.
_some = random.Random(0)
CASES = [
    {"pair": name} | mode | choice
    for name, modes in MODES.items()
    for every in [list(itertools.product(modes, CHOICES if name == "std" or modes[0] else CHOICES[:36]))]
    for mode, choice in (every if EVERYTHING else _some.sample(every, min(2, len(modes))))
]
#: Sizes of 1 are constants to the compiler; few channels make narrow tiles, odd ones addresses without alignment.
ODD = [
    {"arch": 80, "dtype": "bfloat16", "pair": "cvar", "shape": [1, 5], "relu": True},
    {"arch": 90, "dtype": "float16", "pair": "std", "shape": [1, 1, 1, 1], "bias": None},
    {"arch": 100, "dtype": "float32", "pair": "mad", "shape": [20_001, 1], "weight": None},
    {"arch": 80, "dtype": "bfloat16", "pair": "cvar", "shape": [20_000, 2], "weight": "bfloat16"},
    {"arch": 90, "dtype": "float16", "pair": "std", "shape": [1, 37, 151, 149], "weight": None, "bias": None},
]


def compiled(cases: list[dict[str, Any]], cache: Path, seconds: float = 600) -> list[dict[str, Any]]:
    """What became of each kernel that these cases launch."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("compile_launches.py")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        env=environment,
        timeout=seconds,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{done.returncode} after {lines[-1:]}:\n{done.stderr[-3000:]}"
    return [told for told in map(json.loads, lines) if "registers" in told]


def assert_runnable(kernels: list[dict[str, Any]]) -> None:
    """Each would be launched: what Triton and the driver refuse is a block that asks for more than there is."""
    for told in kernels:
        assert told["shared"] <= SHARED[told["arch"]], told
        assert told["threads"] <= THREADS, told
        assert told["threads"] * told["registers"] <= REGISTERS, told


def test_kernels_compile_for_each_generation(tmp_path: Path) -> None:
    """All kernels, each generation: the ones of a small input, of a large one, and of two passes over it."""
    cases = [
        {"arch": 80, "pair": "std", "shape": WAYS[0], "dtype": "float16", "columns": True, "relu": True},
        {"arch": 90, "pair": "cvar", "shape": WAYS[1], "dtype": "float32", "quantile_gradient": "exact"},
        {
            "arch": 100,
            "pair": "worst_case",
            "shape": WAYS[0],
            "dtype": "bfloat16",
            "quantile_gradient": "exact",
        },
    ]
    kernels = compiled(cases, tmp_path)
    assert_runnable(kernels)
    assert {told["kernel"] for told in kernels} == KERNELS
    assert {told["arch"] for told in kernels} == set(SHARED)


@pytest.mark.long
@pytest.mark.parametrize("arch", SHARED)
def test_every_pair_compiles(arch: int, tmp_path: Path) -> None:
    cases = [case for case in CASES if case["arch"] == arch]
    kernels = compiled(cases, tmp_path, seconds=24 * 3600 if EVERYTHING else 600)
    assert {told["kernel"] for told in kernels} == KERNELS
    assert_runnable(kernels)


@pytest.mark.long
def test_odd_sizes_compile(tmp_path: Path) -> None:
    assert_runnable(compiled(ODD, tmp_path))


@pytest.mark.long
def test_a_pass_keeps_its_numbers_in_registers(tmp_path: Path) -> None:
    """A thread of the scan owns a column of the tile, in either layout, and nothing else.

    Where it held a bit of every column, hundreds of bytes to a kilobyte and more of them did not fit, and threads
    waited for one another at each step. A few are the assembler's own affair.
    """
    shared = {"arch": 90, "pair": "range", "shape": WAYS[2]}
    cases = [shared | {"dtype": "bfloat16"}, shared | {"dtype": "float32", "columns": True}]
    scans = [told for told in compiled(cases, tmp_path) if told["kernel"] == "scan"]
    assert len(scans) == 4
    assert max(told["stack"] for told in scans) <= 64, scans


@pytest.mark.long
def test_what_takes_a_process_with_it_is_told(tmp_path: Path) -> None:
    """A kernel that does not compile fails the test by its name, with what the compiler said."""
    with pytest.raises(AssertionError, match=r"after \['\{\"kernel\": \"settle\".*(?s:.*)sm_7"):
        compiled([{"arch": 7, "pair": "std", "shape": [8, 3], "dtype": "float32"}], tmp_path)
