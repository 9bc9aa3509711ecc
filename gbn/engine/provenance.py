"""Provenance of a segment of a run: commit, versions, device, threads, data. Never part of a run's identity."""

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
    """Return the model name of the GPU, or of the CPU as the system reports it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _of_linux() or _of_macos() or platform.processor() or platform.machine()


def _of_linux() -> str | None:
    """Return the processor's name in /proc/cpuinfo; on Arm, which has none, the implementer and part."""
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
    """Return the processor's name from sysctl, such as "Apple M2", which ``platform`` shortens to "arm"."""
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
    """Return the checkout's commit and the hash of the uncommitted changes (None without changes, or without git).

    Untracked files that git does not ignore count: a new module or configuration can change a number.

    Args:
        package: folder of the package in the checkout, beside ``conf`` and ``train.py``; None means this one. One
            that was installed into an environment inside another repository has no commit.
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

    if not git("ls-files", "--", "."):
        return {"commit": None, "dirty": None}
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
    """Return the versions of the packages that can affect a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # includes the build ("+cpu", "+cu130"), unlike some metadata
    return found


def process_age() -> float | None:
    """Return the seconds since this process began; None if the system does not report it (no /proc)."""
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
    """Return the provenance entry of a segment that begins at update `start`."""
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
