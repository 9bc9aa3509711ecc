"""`make tables`: every file of results/ has an origin, and what can be made again is what would be made."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from gbn.cli import VERBS
from gbn.cli import results as module
from gbn.plot_style import Picture, digest, save, source_and_digest
from tests.cli.calling import ROOT, call


@pytest.fixture
def results(monkeypatch):
    """The module, in the repository."""
    monkeypatch.chdir(ROOT)
    return module


@pytest.fixture
def tracked():
    """The committed files of results/, as paths below the root."""
    done = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the repository")
    return [Path(name) for name in done.stdout.decode().split("\0") if name]


def picture(height=1.0):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, height])
    return Picture("one", figure)


def test_every_committed_file_has_an_origin(results, tracked):
    assert len(tracked) > 150
    assert [file for file in tracked if results.part_of(file) is None] == []


def test_what_is_not_made_says_what_it_needs_and_every_part_has_a_file(results, tracked):
    for part in results.PARTS:
        assert (part.make is None) == bool(part.needs), part
        files = [Path("README.md"), *tracked]
        assert any(results.part_of(file) is part for file in files), f"no file comes from {part.by}"
        for verb in re.findall(r"gbn ((?:bench|study|select|plot) [a-z]+|(?!bench)[a-z]+)", part.by):
            assert verb in VERBS, verb


def test_a_file_that_nobody_answers_for_is_found(results):
    for file in ("results/tables/quick.tex", "results/figures/quick-updates.pdf", "results/notes.txt"):
        assert results.part_of(Path(file)) is None


def test_costs_are_of_experiments_that_there_are(tracked):
    """A file that a test left behind is none of ours."""
    known = {path.parent.name for path in (ROOT / "experiments").glob("*/sweep.yaml")}
    costs = [file.name for file in tracked if file.name.startswith("cost-")]
    assert costs
    assert [name for name in costs if name.split("-")[1] not in known] == []


def test_it_writes_what_is_stale_and_nothing_else(results, tmp_path, monkeypatch, capsys):
    made = {"fresh.md": "one\n", "stale.md": "two\n", "absent.md": "three\n", "stale.png": picture(2.0)}
    files = (*made, "fresh.png")
    part = results.Part(
        files,
        "hand",
        lambda _: iter([*((Path(a), b) for a, b in made.items()), (Path("fresh.png"), picture())]),
    )
    monkeypatch.setattr(results, "PARTS", (part,))
    (tmp_path / "fresh.md").write_text("one\n")
    (tmp_path / "stale.md").write_text("2\n")
    for name in ("fresh", "stale"):
        save([Picture(name, picture().figure)], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert results.write(tmp_path, check=True) == 1
    said = capsys.readouterr().out
    assert re.findall(r"(\S+): stale", said) == ["stale.md", "absent.md", "stale.png"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    assert results.write(tmp_path) == 0
    said = capsys.readouterr().out
    assert re.findall(r"(\S+): written", said) == ["stale.md", "absent.md", "stale.png"]
    assert re.findall(r"(\S+): unchanged", said) == ["fresh.md", "fresh.png"]
    assert (tmp_path / "absent.md").read_text() == "three\n"
    assert source_and_digest(tmp_path / "stale.png")[1] == digest(picture(2.0).figure)
    assert (tmp_path / "fresh.png").read_bytes() == before["fresh.png"]
    assert results.write(tmp_path, check=True) == 0


def test_what_nothing_makes_any_more_is_named(results, tmp_path, monkeypatch, capsys):
    part = results.Part(("*",), "gbn plot layers", lambda _: iter([(Path("old.png"), None)]))
    monkeypatch.setattr(results, "PARTS", (part,))
    for check in (True, False):
        assert results.write(tmp_path, check) == 1
        assert "old.png: nothing makes it any more; delete it" in capsys.readouterr().out


@pytest.fixture
def quick(tmp_path):
    """A root with the archive, and of the tables and figures those of experiments/quick."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "archive").symlink_to(ROOT / "results" / "archive")
    for folder in ("tables", "figures"):
        (tmp_path / "results" / folder).mkdir()
        for path in (ROOT / "results" / folder).glob("quick*"):
            shutil.copy(path, tmp_path / "results" / folder)
    return tmp_path


@pytest.mark.slow
def test_the_table_and_the_hero_of_the_readme_are_fresh_and_damage_is_mended(
    results, quick, monkeypatch, capsys
):
    monkeypatch.setattr(results, "PARTS", (results.COMPARED,))
    assert results.write(quick, check=True) == 0, capsys.readouterr().out
    table, hero = quick / "results/tables/quick.md", quick / "results/figures/quick-updates.png"
    text, drawn = table.read_text(), source_and_digest(hero)
    table.write_text(text.replace("98.99", "99.98", 1))
    save([Picture("quick-updates", picture().figure, source=drawn[0])], hero.parent)
    save([Picture("quick-typed", picture().figure)], hero.parent)
    capsys.readouterr()
    assert results.write(quick) == 1
    said = capsys.readouterr().out
    assert sorted(re.findall(r"(\S+): written", said)) == [
        "results/figures/quick-updates.png",
        "results/tables/quick.md",
    ]
    assert "results/figures/quick-typed.png: nothing makes it any more" in said
    assert table.read_text() == text
    assert source_and_digest(hero) == drawn


@pytest.mark.long
def test_everything_committed_is_what_would_be_made(results, capsys):
    assert call("results", "--check") == 0, capsys.readouterr().out


def test_the_list_says_what_each_file_needs(results, capsys):
    assert call("results", "--list") == 0
    said = capsys.readouterr().out
    assert "results/validation/*\n  by gbn study statistics\n  needs ten minutes of simulation" in said


def test_every_figure_that_is_made_again_carries_the_digest_of_its_data(results, tracked):
    figures = [file for file in tracked if file.suffix == ".png" and results.part_of(file).make is not None]
    assert len(figures) > 70
    assert [file for file in figures if source_and_digest(ROOT / file)[1] is None] == []
