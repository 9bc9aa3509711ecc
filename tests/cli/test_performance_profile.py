import re
from pathlib import Path

import pytest

from gbn.analysis.profiles.table import read_selection
from gbn.cli.tables import profile_files

EXPERIMENTS = ("experiments/quick", "experiments/gbn_cifar10@small")


@pytest.mark.slow
def test_it_writes_the_profile_of_archived_runs(gbn, root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    status, out, _ = gbn("profile", *EXPERIMENTS, "--source", "archive", "--out", tmp_path)
    assert status == 0
    folder = tmp_path / "profiles"
    assert sorted(path.name for path in folder.iterdir()) == [f"profile.{e}" for e in ("csv", "md", "png")]
    assert read_selection(folder / "profile.md")["experiments"] == list(EXPERIMENTS)
    assert re.search(r"^\| bn +\| [01]\.\d{3} \[", out, re.MULTILINE)
    assert "gbn_cifar10-small cnn to 50 %" in out


def test_an_unknown_experiment_is_one_line(gbn, tmp_path):
    status, _, errors = gbn("profile", "experiments/nothing", "--results", tmp_path)
    assert status == 2
    assert errors.startswith("error: unknown experiment")
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_committed_profiles_are_what_the_archive_gives(root, monkeypatch):
    monkeypatch.chdir(root)
    for path in sorted(Path("results/profiles").glob("*.md")):
        texts, _ = profile_files(read_selection(path), "results")
        for suffix, text in texts.items():
            assert path.with_suffix(suffix).read_text() == text, f"{path.stem}{suffix} is stale"
