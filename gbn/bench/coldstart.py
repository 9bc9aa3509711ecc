"""The cost of compiling in a fresh process, and whether a second process avoids it.

Starts: ``empty cache`` and ``filled cache`` of compiled kernels, ``reference`` (GBN_KERNELS=reference), and
``nn.BatchNorm2d + ReLU`` for comparison; each in its own processes, forward and backward of a small layer.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .environment import COLUMNS as ENVIRONMENT
from .names import ROOT
from .timing import spread

TIMES = ("import_torch_s", "import_gbn_s", "first_step_s", "second_step_s")
COLUMNS = ("start", "implementation", *TIMES, "repeats", *ENVIRONMENT)
STARTS = ("empty cache", "filled cache", "reference", "nn.BatchNorm2d + ReLU")
#: Environment variables for the caches of numba and Triton.
CACHES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR")
_CHILD = """
import json, sys, time
marks = [time.perf_counter()]
import torch
marks.append(time.perf_counter())
device, plain, threads = sys.argv[1], sys.argv[2] == "plain", int(sys.argv[3])
torch.set_num_threads(threads)
if not plain:
    import gbn.nn
marks.append(time.perf_counter())
x = torch.randn(8, 16, 8, 8, device=device, requires_grad=True)
g = torch.randn_like(x)
x.sum().backward()
if device == "cuda":
    torch.cuda.synchronize()
if plain:
    layer = torch.nn.Sequential(torch.nn.BatchNorm2d(16), torch.nn.ReLU(inplace=True)).to(device)
else:
    layer = gbn.nn.GeneralizedBatchNorm2d(16, quadrangle="cvar", act="relu").to(device)
steps = [time.perf_counter()]
for _ in range(2):
    layer(x).backward(g)
    if device == "cuda":
        torch.cuda.synchronize()
    steps.append(time.perf_counter())
used = "torch"
if not plain:
    from gbn import kernels
    used = kernels.implementation(x, layer.pair.statistic, layer.pair.deviation)
times = [marks[1] - marks[0], marks[2] - marks[1], steps[1] - steps[0], steps[2] - steps[1]]
print(json.dumps({"times": times, "implementation": used}))
"""


def measure(environment: Mapping[str, Any], repeats: int, root: Path = ROOT) -> list[dict[str, Any]]:
    """Return one row per start, with medians over ``repeats`` processes.

    Raises:
        RuntimeError: a process failed; the message has the last line of its error.
    """
    found: dict[str, list[dict[str, Any]]] = {start: [] for start in STARTS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for start in STARTS:
                found[start].append(_once(start, cache, environment, root))
    rows = []
    for start, results in found.items():
        columns = zip(*(one["times"] for one in results), strict=True)
        times = {name: spread(list(column)).median for name, column in zip(TIMES, columns, strict=True)}
        row = {"start": start, "implementation": results[0]["implementation"], "repeats": repeats}
        rows.append({**row, **times, **environment})
    return rows


def _once(start: str, cache: str, environment: Mapping[str, Any], root: Path) -> dict[str, Any]:
    variables = {key: value for key, value in os.environ.items() if key != "GBN_KERNELS"}
    variables |= dict.fromkeys(CACHES, cache)
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    if start == "reference":
        variables["GBN_KERNELS"] = "reference"
    kind = "plain" if start == STARTS[-1] else "layer"
    command = [sys.executable, "-c", _CHILD, environment["device"], kind, str(environment["threads"])]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"cold start, {start}: {last}")
    return json.loads(done.stdout.splitlines()[-1])
