"""Where a segment of a run was made: commit, versions, device, threads, data. Never part of a run's identity."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_CPUINFO = Path("/proc/cpuinfo")
_PACKAGES = ("gbn", "torch", "torchvision", "numpy", "triton", "numba", "hydra-core", "wandb")


def device_kind(device: torch.device) -> str:
    """The device's model name: the GPU's, or the CPU's as the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _of_linux() or _of_macos() or platform.processor() or platform.machine()


def _of_linux() -> str | None:
    """The processor's name in /proc/cpuinfo; on Arm, which has none there, the numbers of maker and design."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))
    }
    if "model name" in fields:
        return fields["model name"]
    if "CPU part" in fields:
        return f"{platform.machine()} {fields.get('CPU implementer', '')}/{fields['CPU part']}"
    return None


def _of_macos() -> str | None:
    """As in "Apple M2": the processor's name in sysctl, which ``platform`` cuts to "arm"."""
    if sys.platform != "darwin":
        return None
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True, encoding="utf-8")
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


@functools.cache
def git_state(package: Path | None = None) -> dict[str, str | None]:
    """The checkout's commit, and the hash of what differs from it (None where nothing does, or without git).

    Files that git neither tracks nor ignores count: a new module or configuration can change a number.

    Args:
        package: folder of the package in the checkout, beside ``conf`` and ``train.py``; None: this one.
    """
    folder = package or Path(__file__).resolve().parents[1]
    places = (".", "../conf", "../train.py")

    def git(*arguments: str) -> bytes:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return b""
        return done.stdout

    commit = git("rev-parse", "HEAD").decode().strip()
    difference = git("diff", "HEAD", "--", *places)
    for name in git("ls-files", "--others", "--exclude-standard", "-z", "--", *places).split(b"\0"):
        path = folder / os.fsdecode(name)
        if name and path.is_file():
            difference += name + b"\0" + path.read_bytes()
    return {
        "commit": commit or None,
        "dirty": hashlib.sha256(difference).hexdigest()[:12] if difference else None,
    }


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of the packages whose version can matter to a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # with its build ("+cpu", "+cu130"), which the metadata may lack
    return found


def process_age() -> float | None:
    """Seconds since this process began; None where the system does not tell (no /proc)."""
    try:
        ticks = int(
            Path("/proc/self/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rsplit(")", 1)[1]
            .split()[19]
        )
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def provenance(device: torch.device, *, start: int, kernels: str, data_digest: str) -> dict[str, Any]:
    """The entry of one segment, beginning at update `start`."""
    entry: dict[str, Any] = {
        "start_update": start,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.type,
        "device_kind": device_kind(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "kernels": kernels,
        "data_digest": data_digest,
        "versions": package_versions(),
        **git_state(),
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    if device.type == "cuda":
        entry |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return entry
