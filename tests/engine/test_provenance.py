"""Where a run was made: what counts as a difference from the commit."""

import subprocess

import pytest

from gbn.engine.provenance import git_state


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
