"""Compile what the Triton kernels' launchers launch, for GPUs that need not be here.

    echo '[{"arch": 90, "pair": "cvar", "shape": [8, 3, 7, 7], "dtype": "float32"}]' | python compile_launches.py

The launchers run on CPU tensors, whose values nobody looks at; where Triton would ask its driver which GPU it has, it
is told one, and where it would launch, it only compiles: signatures, alignments and constants are those of a launch.
A line of JSON names each kernel before it is compiled, which may take the process with it; another tells what came of
it. What was compiled already is not compiled again.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gbn import risk
from gbn.kernels import triton as gpu
from gbn.kernels.backend import Arguments
from gbn.kernels.plan import lower


class AbsentGPU(DriverBase):  # type: ignore[misc]
    """What Triton asks of a driver before it launches."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch  # what is compiled is remembered by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        raise NotImplementedError

    def get_benchmarker(self) -> Any:
        raise NotImplementedError

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError


def used(cubin: bytes) -> dict[str, int]:
    """A thread's registers, and its bytes of stack: what did not fit into them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = dict(re.findall(r"\b(REG|STACK):(\d+)", told))
    return {"registers": int(found["REG"]), "stack": int(found["STACK"])}


def compile_only() -> None:
    """Let every launch from now on compile, tell of it, and go no further."""
    launch, translate = JITFunction.run, JITFunction._do_compile

    def run(self: Any, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        return launch(self, *args, warmup=True, **kwargs)

    def told(self: Any, key: str, signature: Any, device: int, constants: Any, *rest: Any) -> Any:
        about = {"kernel": self.fn.__name__, "arch": device, "constants": repr(list(constants.values()))}
        print(json.dumps(about), flush=True)
        kernel = translate(self, key, signature, device, constants, *rest)
        about |= {"shared": kernel.metadata.shared, "threads": 32 * kernel.metadata.num_warps}
        print(json.dumps(about | used(kernel.asm["cubin"])), flush=True)
        return kernel

    JITFunction.run, JITFunction._do_compile = run, told


def step(
    arch: int,
    pair: str,
    shape: list[int],
    dtype: str,
    columns: bool = False,
    relu: bool = False,
    weight: str | None = "float32",
    bias: str | None = "float32",
    **parameters: Any,
) -> None:
    """A forward and a backward pass on an input of this shape, as on a GPU of this architecture."""
    driver.set_active(AbsentGPU(arch))
    kind = getattr(torch, dtype)
    x = torch.empty((shape[0], *shape[2:], shape[1]) if columns else shape, dtype=kind)
    x = x.movedim(-1, 1) if columns else x
    if x.numel() < 1 << 20:
        x.normal_()  # what is not fused is computed
    gain, shift = (
        None if t is None else torch.ones(shape[1], dtype=getattr(torch, t)) for t in (weight, bias)
    )
    chosen = risk.quadrangle(pair, **parameters)
    plan = lower(chosen.S, chosen.D, x.numel() // x.shape[1])
    of = Arguments(x, gain, shift, None, plan, 1e-5, relu)
    y, kept = gpu.forward(of)
    gpu.backward(y, of, kept, True)


if __name__ == "__main__":
    compile_only()
    for case in json.load(sys.stdin):
        step(**case)
