"""The recipes of CONTRIBUTING.md work: each is followed in a copy of the repository, and its command run there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_run import SMALL

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(
    part.split("\n", 1)
    for part in re.split(r"^### ", TEXT.partition("## Six recipes")[2], flags=re.MULTILINE)[1:]
)
#: What a run of the tests needs; results is large and, but for its README, beside the point.
COPIED = ("gbn", "conf", "experiments", "scripts", "tests", "train.py", "pyproject.toml", "README.md")


def fenced(text: str) -> list[tuple[str, str, str]]:
    """(language, file, content) of each block."""
    return re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str, str]]:
    """Those that name a file."""
    return [one for one in fenced(text) if one[1]]


def commands(text: str) -> list[str]:
    """The lines of those without a language."""
    return [line for language, _, content in fenced(text) if not language for line in content.splitlines()]


def follow(text: str, root: Path) -> None:
    """Do in ``root`` what the blocks say."""
    for language, file, content in blocks(text):
        path = root / file
        if language != "diff":
            assert not path.exists(), f"{file} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            continue
        lines = content.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -\n")
        new = "".join(line[1:] for line in lines if line[0] in " +\n")
        before = path.read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{file} has these lines {before.count(old)} times:\n{old}"
        path.write_text(before.replace(old, new), encoding="utf-8")


def readme_recipe() -> str:
    """The README's layer, its row and its file, as blocks of their own."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (layer,) = (one for one in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "CenteredNorm" in one)
    (row,) = re.findall(r"```diff gbn/methods.py\n.*?```\n", readme, re.DOTALL)
    (file,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    return f"```python gbn/nn/centered.py\n{layer}```\n\n{row}\n```yaml conf/norm/centered.yaml\n{file}```\n"


def complete(recipe: str) -> str:
    return (readme_recipe() if recipe == "A norm" else "") + RECIPES[recipe]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", ".hypothesis")
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path / name)
    shutil.copytree(ROOT / "results" / "features", tmp_path / "results" / "features")
    return tmp_path


def run_in(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=root, env=environment, timeout=1800, check=False
    )


def test_there_are_six() -> None:
    assert list(RECIPES) == [
        *("A norm", "A statistic or a deviation", "A network", "A data set", "A section of a table"),
        "An experiment",
    ]
    assert all(commands(text) for text in RECIPES.values())


def test_what_it_names_is_there() -> None:
    new = {file for recipe in RECIPES for language, file, _ in blocks(complete(recipe)) if language != "diff"}
    named = set(re.findall(r"`((?:gbn|conf|tests|experiments|scripts)/[\w./]*)`", TEXT))
    named |= set(re.findall(r"\]\((\w+\.md)", TEXT)) | {file for _, file, _ in blocks(TEXT)}
    assert len(named) > 15
    for file in named - new:
        assert (ROOT / file).exists(), file
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", TEXT)) <= set(targets)


@pytest.mark.slow
def test_all_recipes_fit_together(copy: Path) -> None:
    """Every block applies, and what it adds can be chosen in one run."""
    for recipe in RECIPES:
        follow(complete(recipe), copy)
    short = [one for one in SMALL if not one.startswith("model")]
    own = [*short, "dataset=stripes", "model=pooled", "results_dir=own"]
    code = (
        "from gbn.config.compose import compose; from gbn.engine.run import run\n"
        f"done = [run(compose([*{own}, f'norm={{norm}}'])) for norm in ('centered', 'gbn_quartic')]\n"
        "assert all(one.status == 'finished' for one in done), done"
    )
    done = run_in(copy, [sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_recipe_passes_its_own_command(recipe: str, copy: Path) -> None:
    follow(complete(recipe), copy)
    for command in commands(RECIPES[recipe]):
        words = shlex.split(command.replace("/tmp/mine", str(copy / "mine")))
        if "pytest" in words:
            words += ["-q", "--tb=short", "-p", "no:cacheprovider"]
        assert words[0] == "python"
        done = run_in(copy, [sys.executable, *words[1:]])
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        if "pytest" in words:
            assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= 2, done.stdout[-1000:]
