"""`gbn cost` times whole updates of a grid's arms in turns. No timing is judged."""

import importlib
import math
from types import SimpleNamespace

import pytest
import torch

from gbn.analysis.comparison import cost
from gbn.config.grid import load_grid
from gbn.engine.checkpoint import load_checkpoint
from gbn.engine.run import run
from gbn.store.records import RunStore
from tests.cli.calling import call


@pytest.fixture
def tool(monkeypatch):
    """Its modules, on a machine that may be busy."""
    found = SimpleNamespace(
        **{name: importlib.import_module(f"gbn.bench.{name}") for name in ("steps", "timing")}
    )
    monkeypatch.setattr(found.timing, "TRIES", 1)
    monkeypatch.setattr(found.steps, "LIMIT", math.inf)
    return found


@pytest.fixture
def experiment(tmp_path):
    """Digits, a small net, three arms of which one needs more than one value a channel."""
    folder = tmp_path / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "sweep.yaml").write_text(
        "title: tiny\n"
        "base: [dataset=digits, dataset.subset=64, model=mlp, trainer.epochs=1, trainer.batch_size=32,\n"
        "       trainer.evaluation.images=32, trainer.evaluation.calibration_images=32, schedule=one_cycle]\n"
        "arms:\n"
        "  bn: [norm=bn]\n"
        "  gbn_cvar: [norm=gbn_cvar]\n"
        "reference: bn\n"
        "seeds: 2\n"
        "targets: [0.5]\n"
    )
    return folder


QUICK = ("--device", "cpu", "--threads", "1", "--blocks", "2", "--block-seconds", "0")


@pytest.mark.slow
def test_it_writes_what_the_analysis_reads(tool, experiment, tmp_path, capsys):
    status = call("cost", str(experiment), *QUICK, "--out", str(tmp_path))
    (path,) = tmp_path.glob("cost-tiny-*.csv")
    costs = cost.read(path)
    grid = load_grid(experiment)
    assert status == 0
    assert costs.experiment == "tiny"
    assert costs.threads == 1
    assert costs.run_ids == {("", cell.label): cell.run_ids[0] for cell in grid.cells}
    assert {arm: set(blocks) for (_, arm), blocks in costs.seconds.items()} == {
        "bn": {0, 1},
        "gbn_cvar": {0, 1},
    }
    ratio = cost.ratio(costs, "", "gbn_cvar", "bn")
    assert ratio.n == 2
    assert "1 (reference)" in capsys.readouterr().out
    assert call("cost", str(experiment), "--render", str(path)) == 0
    assert f"gbn_cvar{'':33}" in capsys.readouterr().out.replace("  gbn", "gbn")


def test_busy_blocks_are_not_reported_as_costs(tool, experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool.steps, "LIMIT", -1.0)  # any machine is too busy
    assert call("cost", str(experiment), *QUICK, "--out", str(tmp_path)) == 1
    (path,) = tmp_path.glob("cost-tiny-*.csv")
    costs = cost.read(path)
    assert not costs.seconds
    assert costs.dropped == {"busy": 4}
    assert "not counted: 4 rows, busy" in capsys.readouterr().out


def test_its_updates_are_those_of_a_run(tool, experiment, tmp_path):
    """As many updates as the run has leave the run's weights, bit for bit."""
    grid = load_grid(experiment, extra=[f"results_dir={tmp_path}", "tracker.mode=disabled"])
    timing = tool.steps.SettingTiming(grid, "", grid.cells, torch.device("cpu"), updates=1)
    _, config = next(iter(grid.configs()))
    outcome = run(config)
    trainer = timing._trainer(timing.configs["bn"])
    while trainer.step < trainer.total:
        timing._advance(trainer)
    weights = load_checkpoint(RunStore(tmp_path).path(outcome.run_id) / "checkpoint.pt", torch.device("cpu"))[
        "model"
    ]
    assert trainer.step == 2
    call("cost", str(experiment), *QUICK, "--out", str(tmp_path))
    (path,) = tmp_path.glob("cost-tiny-*.csv")
    assert cost.read(path).machine == RunStore(tmp_path).load(outcome.run_id).machine
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.slow
def test_times_with_the_runs_that_are_there(tool, experiment, tmp_path, capsys):
    grid = load_grid(experiment, extra=[f"results_dir={tmp_path}", "tracker.mode=disabled"])
    for _, config in grid.configs():
        assert run(config).ok
    asked = ("--times", "store", "--results", str(tmp_path))
    assert call("cost", str(experiment), *QUICK, "--out", str(tmp_path), *asked) == 0
    (path,) = tmp_path.glob("cost-tiny-*.csv")
    printed = capsys.readouterr().out
    assert "Time = updates x cost of an update" in printed
    assert "A forecast" not in printed
    kind = cost.read(path).machine.partition(",")[0]
    path.write_text(path.read_text().replace(kind, "Another CPU"))
    with pytest.raises(ValueError, match=r"timed on Another CPU.*--elsewhere"):
        call("cost", str(experiment), "--render", str(path), *asked)
    assert call("cost", str(experiment), "--render", str(path), *asked, "--elsewhere") == 0
    assert "A forecast, not a measurement" in capsys.readouterr().out


def test_a_schedule_is_not_left_behind(tool, experiment):
    """A run of two updates is timed over many: it begins again, so that no rate is negative."""
    grid = load_grid(experiment)
    timing = tool.steps.SettingTiming(grid, "", grid.cells, torch.device("cpu"), updates=3)
    rows = timing.block(0, 0.0)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    trainer = timing._trainers["bn"]
    assert trainer.step <= trainer.total == 2
    assert 0 < trainer.updates.rate <= trainer.config.optimizer.lr
    first = id(trainer.model)
    timing.block(1, 0.0)
    assert id(timing._trainers["bn"].model) != first  # each block has its own


def test_an_arm_that_cannot_train_says_so_and_stops_no_other(tool, experiment, tmp_path):
    text = (experiment / "sweep.yaml").read_text().replace("trainer.batch_size=32", "trainer.batch_size=1")
    (experiment / "sweep.yaml").write_text(text.replace("gbn_cvar: [norm=gbn_cvar]", "layer: [norm=layer]"))
    assert call("cost", str(experiment), *QUICK, "--out", str(tmp_path)) == 1
    (path,) = tmp_path.glob("cost-tiny-*.csv")
    costs = cost.read(path)
    assert list(costs.seconds) == [("", "layer")]
    assert sum(costs.dropped.values()) == 2
    assert all("more than 1 value per channel" in status for status in costs.dropped)


def test_wrong_names_are_one_line(tool, experiment):
    with pytest.raises(ValueError, match="arm of tiny"):
        call("cost", str(experiment), "--arms", "gbn_cva")
    with pytest.raises(ValueError, match="setting of tiny"):
        call("cost", str(experiment), "--settings", "big")
    with pytest.raises(ValueError, match="from 2 to"):
        call("cost", str(experiment), "--blocks", "1")


def test_the_reference_is_always_timed(tool, experiment):
    grid = load_grid(experiment)
    assert [cell.label for cell in tool.steps.chosen(grid, None, ["gbn_cvar"])[""]] == ["bn", "gbn_cvar"]


def test_turns_remove_a_machine_that_slows_down(tool):
    """A clock on which every call takes longer than the last: block by block the ratio stays what it is."""
    now = 0.01

    def clock(step, round_, name):
        nonlocal now
        now *= 1.01
        took = now * {"bn": 1.0, "gbn": 1.25}[name]
        return took, took

    steps = {name: tool.timing.Step(lambda _: None) for name in ("bn", "gbn")}
    ratios = []
    for _ in range(6):
        samples = tool.timing.interleave(steps, clock, blocks=1, block_seconds=0, least=10, exclusive=False)
        ratios.append(
            tool.timing.spread(samples.seconds["gbn"]).median
            / tool.timing.spread(samples.seconds["bn"]).median
        )
    assert now > 0.02  # the machine became more than twice as slow
    assert all(ratio == pytest.approx(1.25, rel=0.015) for ratio in ratios)
