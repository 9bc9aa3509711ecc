"""What is about preconditioning: the benchmark, the Hessians' condition numbers, the card's example."""

import csv
import re

import pytest
import torch

from gbn.studies import hessian as hessians
from tests.cli.calling import ROOT, call


def test_the_benchmark_times_arms_in_turns_and_renders_its_rows(tmp_path):
    arguments = [
        "--device",
        "cpu",
        "--threads",
        "1",
        "--nets",
        "mlp",
        "--width",
        "0.05",
        "--batch",
        "128",
        "1",
    ]
    quick = ["--blocks", "1", "--block-seconds", "0.02", "--out", str(tmp_path), "--allocator", "system"]
    assert call("bench precondition", *arguments, *quick, "--arms", "bnp") == 0
    (path,) = tmp_path.glob("precondition-*.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["batch"], row["arm"]) for row in rows] == [
        (b, a) for b in ("128", "1") for a in ("none", "bnp")
    ]
    assert all(float(row["step_ms"]) > 0 for row in rows)
    text = path.with_suffix(".md").read_text()
    assert len(re.findall("met|missed", text)) == 1
    path.with_suffix(".md").unlink()
    assert call("bench precondition", "--render", str(path)) == 0
    assert path.with_suffix(".md").read_text() == text


def test_a_unit_s_hessian_is_autograd_s():
    x = torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % 4
    model = hessians.network(5, 4, seed=1)
    for place, unit in ((0, 3), (2, 5), (4, 2)):
        found, h = hessians.unit_hessians(model, x, place)
        layer = model[place]
        weight, bias = layer.weight.detach(), layer.bias.detach()

        def loss(flat, weight=weight, bias=bias, unit=unit, h=h, place=place):
            w, b = weight.clone(), bias.clone()
            w[unit], b[unit] = flat[:-1], flat[-1]
            return torch.nn.functional.cross_entropy(model[place + 1 :](h @ w.T + b), y)

        at = torch.cat((weight[unit], bias[unit, None]))
        expected = torch.autograd.functional.hessian(loss, at)
        torch.testing.assert_close(found[unit], expected, rtol=1e-9, atol=1e-12)


def test_the_condition_number_of_p_h_is_that_of_the_product():
    h = torch.randn(60, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 3
    extended = torch.cat((h, torch.ones(60, 1, dtype=h.dtype)), 1)
    hessian = extended.T @ extended / 60
    matrix = hessians.preconditioner_matrix(h, fan_in_scale="none")
    values = torch.linalg.eigvals(matrix @ hessian).real
    assert hessians.condition(hessian, matrix) == pytest.approx(float(values.max() / values.min()), rel=1e-6)
    assert hessians.condition(hessian) > 20 * hessians.condition(hessian, matrix)


def test_the_committed_table_and_figure_come_from_the_committed_rows(tmp_path):
    source = ROOT / "results" / "preconditioning" / "hessian.csv"
    (tmp_path / "preconditioning").mkdir()
    path = tmp_path / "preconditioning" / "hessian.csv"
    path.write_text(source.read_text())
    assert call("study hessian", "--render", str(path)) == 0
    assert path.with_suffix(".md").read_text() == source.with_suffix(".md").read_text()
    assert (tmp_path / "figures" / "bnp-hessian.png").stat().st_size > 10_000


def test_the_card_s_example_runs():
    card = (ROOT / "experiments" / "methods" / "bnp.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    namespace = {}
    exec(compile(block, "bnp.md", "exec"), namespace)
    assert not any(module._forward_pre_hooks for module in namespace["model"].modules())
    assert all(parameter.isfinite().all() for parameter in namespace["model"].parameters())
