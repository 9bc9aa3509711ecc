"""Where a run was made: what counts as a difference from the commit."""

import platform
import subprocess

import pytest
import torch

from gbn.engine import provenance
from gbn.engine.provenance import device_kind, git_state


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    for name in ("gbn/layer.py", "conf/norm.yaml", "train.py", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    return tmp_path


def state(checkout):
    git_state.cache_clear()
    return git_state(checkout / "gbn")


def test_a_clean_checkout_is_its_commit(checkout):
    found = state(checkout)
    assert len(found["commit"]) == 40
    assert found["dirty"] is None


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("gbn/layer.py", True),
        ("gbn/new.py", True),
        ("conf/norm.yaml", True),
        ("conf/new/own.yaml", True),
        ("train.py", True),
        ("README.md", False),
        ("notes.txt", False),
        ("gbn/layer.pyc", False),
    ],
)
def test_changes_that_can_change_a_number_count(checkout, name, counts):
    path = checkout / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("2\n")
    first = state(checkout)["dirty"]
    path.write_text("3\n")
    second = state(checkout)["dirty"]
    assert (first is not None, first != second) == (counts, counts)


def test_without_git_nothing_is_known(tmp_path):
    (tmp_path / "gbn").mkdir()
    assert state(tmp_path) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("cpuinfo", "kind"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: Another\n", "AMD EPYC"),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", "aarch64 0x41/0xd40"),
        ("processor\t: 0\n", "what the system says"),
        (None, "what the system says"),
    ],
)
def test_processors_are_told_apart_wherever_the_system_can(tmp_path, monkeypatch, cpuinfo, kind):
    monkeypatch.setattr(provenance, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "processor", lambda: "what the system says")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    assert device_kind(torch.device("cpu")) == kind


@pytest.mark.parametrize(("answer", "kind"), [("Apple M2\n", "Apple M2"), (None, "arm")])
def test_macos_names_its_processor_in_sysctl(tmp_path, monkeypatch, answer, kind):
    def sysctl(command, **_):
        if answer is None:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, answer)

    monkeypatch.setattr(provenance, "_CPUINFO", tmp_path / "none")
    monkeypatch.setattr(provenance.sys, "platform", "darwin")
    monkeypatch.setattr(provenance.subprocess, "run", sysctl)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert device_kind(torch.device("cpu")) == kind


def test_a_package_installed_inside_another_repository_has_no_commit(checkout):
    installed = checkout / "env" / "gbn"
    installed.mkdir(parents=True)
    (installed / "layer.py").write_text("1\n")
    git_state.cache_clear()
    assert git_state(installed) == {"commit": None, "dirty": None}
