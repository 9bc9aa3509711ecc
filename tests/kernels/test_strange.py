"""No tensor that a caller can make ends the process, or gives a number that it should not: examples by hypothesis."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gbn import kernels
from tests.kernels import strange
from tests.kernels.strange import ENTRANCES, FLOATING, FUSED, HOOKS, LEAVES, REFUSED, SERVED

pytestmark = pytest.mark.skipif(kernels.selected() != "numba", reason="the compiled kernels do not work here")

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
#: Seconds after which a child that gives no answer hangs: the first one may have to compile.
PATIENCE = 600


class Child:
    """A process that tries examples one after another, and another one when it has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def verdict(self, example: dict[str, Any]) -> str | None:
        """What is wrong with an example, or None."""
        if self.process is None or self.process.poll() is not None:
            self.process = self._started()
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(example) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
        answer = process.stdout.readline() if ready else ""
        if answer:
            return json.loads(answer)
        if not ready:
            process.kill()
        code = process.wait()
        return f"the process hangs, or died of {signal.Signals(-code).name if code < 0 else code}"

    def _started(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "ignore", str(Path(strange.__file__))]
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=ENVIRONMENT
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            pytest.exit(f"{' '.join(command)} does not start", returncode=1)
        return process

    def close(self) -> None:
        """End it: it has nothing to finish."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    one = Child()
    yield one
    one.close()


#: Vectors of less than, exactly and more than 16; planes of every kind; nothing.
CHANNELS = st.sampled_from([1, 2, 3, 16, 17])
SPATIAL = st.sampled_from([(), (1, 1), (5,), (4, 4), (7, 3), (2, 3, 3)])
ODD_SHAPES = st.sampled_from([(), (3,), (0, 3), (2, 0, 4), (0, 3, 2, 2), (3, 2, 0)])


@st.composite
def tensors(draw: st.DrawFn, dtypes: tuple[str, ...], off: tuple[int, ...], kinds: tuple[str, ...]) -> Any:
    """How one tensor is made: mostly well."""
    dtype = draw(st.sampled_from(dtypes))
    return {"kind": draw(st.sampled_from(kinds)), "dtype": dtype, "off": draw(st.sampled_from(off))}


@st.composite
def examples(draw: st.DrawFn, entrance: str) -> dict[str, Any]:
    """An example of this entrance, with at most two things that no kernel can serve."""
    dims_odd = draw(st.integers(0, 9)) == 0
    if dims_odd:
        shape = draw(ODD_SHAPES)
    else:
        spatial = () if entrance.startswith("fit") else draw(SPATIAL)
        shape = (draw(st.integers(2, 9)), draw(CHANNELS), *spatial)
    names = ["x", *(name.strip("?") for name in ENTRANCES[entrance] if name != "g")]
    names = [name for name in names if f"{name}?" not in ENTRANCES[entrance] or draw(st.booleans())]
    wide = entrance.startswith("fit") or ("evaluate" in entrance and "mean" in names)
    plain_dtypes = ("float32",) if wide else ("float32", "float32", *FLOATING)
    made = {name: draw(tensors(plain_dtypes, (0,), SERVED)) for name in names}
    if made.get("floor", {}).get("kind") == "zero":
        made["floor"]["kind"] = "plain"  # a component of one sample would have the variance 0
    faults = [] if dims_odd else draw(st.one_of(st.just([]), st.lists(st.sampled_from(names), max_size=2)))
    for name in faults:
        fault = draw(st.sampled_from(["kind", "dtype", "off"]))
        if fault == "kind":
            # freed memory ends a process where torch's own operations read it
            fused = entrance in FUSED and made["x"]["dtype"] != "float64"
            kinds = [kind for kind in REFUSED if fused or kind != "freed"]
            made[name]["kind"] = draw(st.sampled_from(kinds))
        elif fault == "dtype":
            made[name]["dtype"] = draw(st.sampled_from(["int64", "bool", "complex64"]))
        elif name != "x":
            # a weight of C - 1 = 1 numbers a component would be one of the other form
            signs = {"joint_weight": (-1,), "channel_weight": (1,)}.get(name, (-1, 1, 40))
            made[name]["off"] = draw(st.sampled_from(signs))
    if "g" in ENTRANCES[entrance]:
        made["g"] = draw(tensors(("float32", *FLOATING), (0,), (*SERVED, "sparse")))
    return {
        "entrance": entrance,
        "shape": shape,
        "tensors": made,
        "pair": draw(st.sampled_from(["std", "cvar", "range", "mad"])),
        "relu": draw(st.booleans()),
        "differentiated": draw(st.lists(st.sampled_from(LEAVES), unique=True)),
        "hooks": draw(st.sampled_from(["none", "none", *HOOKS])) if entrance in FUSED else "none",
        "values": draw(st.sampled_from(["normal", "normal", "normal", "constant", "nan", "inf", "1e38"])),
        "seed": draw(st.integers(0, 99)),
    }


@st.composite
def preconditioned(draw: st.DrawFn) -> dict[str, Any]:
    """An example of a layer whose gradients are preconditioned."""
    spatial = draw(st.sampled_from([(), (4, 4), (5, 3)]))
    x = draw(tensors(("float32", "float32", *FLOATING), (0, 0, 1, -1), (*SERVED, "meta", "sparse")))
    return {
        "entrance": "precondition",
        "shape": (draw(st.integers(1, 9)), draw(st.sampled_from([2, 3, 16, 33])), *spatial),
        "tensors": {"x": x},
        "gradients": draw(st.sampled_from(["plain", "transposed", "sliced", "negated", "zero", "offset"])),
        "seed": draw(st.integers(0, 99)),
    }


def try_examples(child: Child, strategy: st.SearchStrategy[dict[str, Any]], number: int) -> None:
    @settings(
        max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), derandomize=number < 100
    )
    @given(strategy)
    def right(example: dict[str, Any]) -> None:
        assert child.verdict(example) is None

    right()


STRATEGIES = {entrance: examples(entrance) for entrance in ENTRANCES} | {"precondition": preconditioned()}


@pytest.mark.parametrize("entrance", STRATEGIES)
def test_strange_tensors(entrance: str, child: Child) -> None:
    try_examples(child, STRATEGIES[entrance], 12)


@pytest.mark.long
@pytest.mark.parametrize("entrance", STRATEGIES)
def test_more_strange_tensors(entrance: str, child: Child) -> None:
    try_examples(child, STRATEGIES[entrance], 400)
