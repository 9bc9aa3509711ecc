"""The README is true: its commands compose, its Python runs, its links exist, its numbers come from the archive."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from gbn.cli.results import FILES, filled
from gbn.config.compose import compose
from gbn.config.sweeps import check_sweep

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CARDS = {path.stem: path.read_text() for path in sorted((ROOT / "experiments" / "methods").glob("*.md"))}
COMMANDS = [
    line
    for text in (README, *CARDS.values())
    for line in text.splitlines()
    if line.startswith("python train.py ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_training_command_composes(command):
    overrides = shlex.split(command, comments=True)[2:]
    if overrides[0] == "-m":
        assert len(check_sweep(overrides[1:])[0]) == 15
    elif overrides != ["--help"]:
        compose(overrides)


def test_there_are_commands_to_test():
    assert len(COMMANDS) >= 7


def test_python_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        namespace = {}
        exec(compile(block, "README.md", "exec"), namespace)
    layer = namespace["CenteredNorm"](4, act="relu", dim=2)
    x = namespace["torch"].randn(3, 4, 5, 5)
    assert layer(x).shape == x.shape
    assert layer(x).min() == 0


@pytest.mark.parametrize("card", CARDS)
def test_python_examples_of_the_cards_run(card):
    for block in re.findall(r"```python\n(.*?)```", CARDS[card], re.DOTALL):
        exec(compile(block, card, "exec"), {"__name__": card})


def test_the_row_and_the_file_of_the_example_are_a_norm_that_composes():
    from pydantic import TypeAdapter

    from gbn.config.norms import section
    from gbn.methods import Method

    (row,) = re.findall(r"^\+\s+(Method\(.*\)),$", README, re.MULTILINE)
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    schema = section(eval(row, {"Method": Method}))
    assert TypeAdapter(schema).validate_python(yaml.safe_load(block)).method == "centered"


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "results/README.md",
        *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("*/*.md")),
    ],
)
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / file).read_text()):
        if not target.startswith("http"):
            assert ((ROOT / file).parent / target).exists(), target


def test_generated_blocks_come_from_the_archive_and_the_benchmarks():
    for file in FILES:
        assert filled(file, ROOT) == (ROOT / file).read_text(), f"{file} is stale: run make tables"


def test_a_tampered_number_is_noticed(tmp_path):
    import shutil

    for folder in ("experiments", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for folder in ("archive", "benchmarks"):
        shutil.copytree(ROOT / "results" / folder, tmp_path / "results" / folder)
    shutil.copy(ROOT / "results" / "CLAIMS.md", tmp_path / "results")
    text = README.replace("| bn ", "| bn!", 1)
    assert text != README
    (tmp_path / "README.md").write_text(text)
    assert filled("README.md", tmp_path) == README
