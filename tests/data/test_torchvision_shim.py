"""torchvision can be imported beside any torch, and only when it is needed."""

import subprocess
import sys

import pytest
import torch

from gbn.data import torchvision_shim

PROGRAM = """
import sys
import gbn.data
gbn.data.load("digits")
assert not {"torchvision", "sklearn", "scipy"} & set(sys.modules), "imported too early"
from gbn.data.torchvision_shim import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision is sys.modules["torchvision"]
import torch
from torchvision.transforms import v2
assert v2.functional.hflip(torch.tensor([[[1, 2]]])).tolist() == [[[2, 1]]]
assert torchvision.models.resnet18(num_classes=3).fc.out_features == 3
assert torchvision.datasets.CIFAR10.url.startswith("https")
torch.ops.torchvision.nms  # declared or compiled, it is known now
print("fine")
"""


def test_a_fresh_process_imports_it_late_and_without_a_warning():
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)


def test_a_library_that_loads_is_left_to_torchvision(tmp_path, monkeypatch):
    (tmp_path / "_C.so").write_bytes(b"")
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    assert torchvision_shim._library_loads(tmp_path)
    assert loaded == [str(tmp_path / "_C.so")]


def test_a_library_that_does_not_load_or_is_absent(tmp_path):
    assert not torchvision_shim._library_loads(tmp_path)
    (tmp_path / "_C.so").write_bytes(b"no library")
    assert not torchvision_shim._library_loads(tmp_path)


def test_without_torchvision(monkeypatch):
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_shim.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"torchvision is not installed: pip install torchvision"):
        torchvision_shim.import_torchvision()


def test_torchs_compiler_is_not_imported_before_it_is_needed():
    """It costs over a second; afterwards it is there as if nothing had been put off."""
    code = """
import sys
from gbn.data.torchvision_shim import import_torchvision
torchvision = import_torchvision()
assert torchvision.datasets.CIFAR10 and torchvision.models.resnet18()
assert not any(name.startswith("torch._dynamo") for name in sys.modules), "imported at once"
assert isinstance(torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu"), bool)
import torch
assert torch._dynamo.utils.is_compile_supported is sys.modules["torch._dynamo.utils"].is_compile_supported
assert torch.compile(lambda x: x + 1, backend="eager", fullgraph=True)(torch.ones(1)) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_what_else_is_asked_of_the_compiler_meanwhile_is_the_real_one():
    code = """
from gbn.data import torchvision_shim as shim
with shim._compiler_put_off():
    from torch._dynamo import optimize
    from torch._dynamo.utils import counters
import torch._dynamo
assert optimize is torch._dynamo.optimize and counters is torch._dynamo.utils.counters
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
