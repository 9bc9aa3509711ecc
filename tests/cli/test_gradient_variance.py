"""`gbn study variance` from a grid to its three files."""

import pytest

SWEEP = """
title: ways
base: [dataset=digits, model=cnn, model.width=0.125, trainer.epochs=0.1, trainer.batch_size=32, trainer.device=cpu]
arms:
  exact: [norm=gbn_cvar, norm.quantile_gradient=exact]
  window_centred: [norm=gbn_cvar]
  layer: [norm=layer]
  bn_reparam: [norm=bn_reparam, norm.matched_to=gbn_cvar]
reference: bn_reparam
seeds: 2
"""


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "ways"
    folder.mkdir()
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


@pytest.mark.slow
def test_measure_and_render(gbn, experiment, tmp_path):
    out = tmp_path / "out"
    common = (
        experiment,
        "--out",
        out,
        "--arms",
        "exact",
        "--at",
        "0",
        "1",
        "--batches",
        "4",
        "--sizes",
        "8",
        "16",
    )
    status, text, errors = gbn("study variance", *common)
    assert (status, errors) == (0, "")
    assert "seed 0: " in text
    assert "seed 1: " in text
    assert {path.name for path in out.iterdir()} == {"ways.csv", "ways.md", "ways.png"}
    table = (out / "ways.md").read_text()
    assert "## After 1 updates" in table
    assert "| layer " not in table  # not among --arms
    assert "variance of through S" in table
    (out / "ways.md").unlink()
    assert gbn("study variance", "--render", out / "ways.csv")[0] == 0
    assert (out / "ways.md").read_text() == table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trajectory", "window_centered"), "did you mean 'window_centred'"),
        (("--exact", "none"), "unknown arm 'none'"),
        (("--setting", "cnn"), "unknown setting 'cnn'"),
        (
            ("--layer", "head", "--arms", "exact", "--batches", "4", "--at", "0"),
            "no generalized normalizer at 'head'",
        ),
        (("--at", "99"), "choose from 0 to"),
    ],
)
def test_what_cannot_be_is_said(gbn, experiment, tmp_path, arguments, message):
    status, _, errors = gbn("study variance", experiment, "--out", tmp_path / "out", *arguments)
    assert status == 2
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_neither_or_both(gbn, experiment):
    assert gbn("study variance")[0] == 2
    assert gbn("study variance", experiment, "--render", "some.csv")[0] == 2
