"""Data-parallel training by two processes: parameters, and what is measured on the first batch, agree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gbn.nn import MixtureReparametrizedBatchNorm2d
from gbn.nn.replicas import mean_over_replicas

# A script, since a spawned process can't import a test's module. It has every normalizer of the shared suite.
_ONE_PROCESS = """
import datetime, importlib.util, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from gbn.nn import MixtureMatchedBatchNorm2d, MixtureReparametrizedBatchNorm2d

rank, folder, cases_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
spec = importlib.util.spec_from_file_location("cases", cases_file)
cases = sys.modules["cases"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
batches = torch.load(f"{folder}/batches.pt")[rank]
found = {}
for case in cases.registered():
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Conv2d(6, 6, 1), case.layer(6)), broadcast_buffers=False)
    for x in batches:
        model.zero_grad()
        model(x).square().sin().sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.01 * parameter.grad)
    measured = ("gain", "shift", "scale", "measured_batches")
    kept = {name: value for name, value in model.named_buffers() if name.endswith(measured)}
    found[case.name] = dict(model.named_parameters()) | kept
# Without DistributedDataParallel, which may still run around another part; and an empty share of the first batch.
layer = MixtureReparametrizedBatchNorm2d(6)
layer(batches[0])
empty = MixtureMatchedBatchNorm2d(6)
empty(batches[0][: 0 if rank else None])
found["plain"], found["empty"] = layer.state_dict(), {"weight": empty.weight}
nothing = MixtureMatchedBatchNorm2d(6)
nothing(batches[0][:0])
assert (nothing.weight == 1).all() and not nothing.measured_batches
torch.save(found, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_parameters_and_measured_gains_agree(tmp_path: Path) -> None:
    make = torch.Generator().manual_seed(0)
    batches = [
        [torch.randn(8, 6, 4, 4, generator=make).mul(1 + 2 * rank).exp() for _ in range(2)] for rank in (0, 1)
    ]
    batches[1] = [x[:5] for x in batches[1]]  # a smaller share
    torch.save(batches, tmp_path / "batches.pt")
    script = [sys.executable, "-c", _ONE_PROCESS]
    cases = str(Path(__file__).with_name("cases.py"))
    processes = [
        subprocess.Popen([*script, str(rank), str(tmp_path), cases], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert len(first) > 50
    for case in first:
        for name in first[case].keys() & second[case].keys() - {"running_mean", "running_var"}:
            assert torch.equal(first[case][name], second[case][name]), (case, name)
    # The gain is that of the whole batch, each process's share of it with a mixture of its own.
    gains = []
    for shares in batches:
        alone = MixtureReparametrizedBatchNorm2d(6)
        alone(shares[0])
        gains.append(alone.matched_gain)
    assert (gains[0] - gains[1]).abs().max() > 0.01
    expected = ((8 * gains[0].square() + 5 * gains[1].square()) / 13).sqrt()
    torch.testing.assert_close(first["plain"]["matched_gain"], expected)
    torch.testing.assert_close(first["empty"]["weight"], gains[0])


def test_one_process_agrees_with_itself() -> None:
    values = torch.randn(3)
    assert mean_over_replicas(values, 5) is values
