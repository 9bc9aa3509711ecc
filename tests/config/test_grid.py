"""An experiment's grid: cells, controls, scales, seed-major order, run ids shared between experiments."""

import pytest

from gbn.analysis.runs.plan import plan_of_grid
from gbn.config.errors import ConfigError
from gbn.config.grid import load_grid, outline
from gbn.config.places import config_dir

SWEEP = """
title: a test
base: [model=mlp, trainer.epochs=1]
settings:
  small: [model.width=0.25]
  large: [model.width=0.5]
arms:
  bn: [norm=bn]
  cvar_60: [norm=gbn_cvar, norm.alpha=0.6]
controls: [cvar_60]
reference: bn
seeds: 3
targets: {small: [0.5]}
scales:
  short: {base: [trainer.epochs=0.5], settings: [small], seeds: [7]}
  bare: {arms: [bn]}
"""


@pytest.fixture
def write(tmp_path):
    def make(text=SWEEP, name="trial"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "sweep.yaml").write_text(text)
        return folder

    return make


def test_controls_follow_their_arm_with_its_parameters(write):
    grid = load_grid(write())
    labels = [cell.label for cell in grid.cells if cell.setting == "small"]
    assert labels == ["bn", "cvar_60", "bn_matched[cvar_60]", "bn_reparam[cvar_60]"]
    assert grid.controls == {"cvar_60": ["bn_matched[cvar_60]", "bn_reparam[cvar_60]"]}
    control = next(cell for cell in grid.cells if cell.label == "bn_reparam[cvar_60]")
    assert (control.config["norm"]["method"], control.config["norm"]["alpha"]) == ("bn_reparam", 0.6)
    assert grid.targets == {"small": [0.5], "large": []}


def test_a_sweep_may_choose_which_controls_its_arms_get(write):
    text = SWEEP.replace("\narms:", "\ncontrol_methods: [bn_measured_reparam, bn_tracking]\narms:", 1)
    grid = load_grid(write(text))
    assert grid.controls == {"cvar_60": ["bn_measured_reparam[cvar_60]", "bn_tracking[cvar_60]"]}
    control = next(cell for cell in grid.cells if cell.label == "bn_tracking[cvar_60]")
    assert (control.config["norm"]["method"], control.config["norm"]["alpha"]) == ("bn_tracking", 0.6)
    with pytest.raises(ConfigError, match=r"did you mean 'bn_tracking'\?"):
        load_grid(write(text.replace("bn_tracking", "bn_trackin")))


def test_runs_are_seed_major_so_that_pairs_are_whole_whenever_it_stops(write):
    grid = load_grid(write())
    ids = grid.run_ids()
    assert len(ids) == len(set(ids)) == 2 * 4 * 3
    assert [f"-s{seed}-" in one for seed in range(3) for one in ids[8 * seed : 8 * seed + 8]] == [True] * 24
    assert [one for one, _ in grid.configs()] == ids
    assert [config.seed for _, config in grid.configs()] == [0] * 8 + [1] * 8 + [2] * 8


def test_a_run_that_stands_in_several_cells_is_named_once(write):
    text = SWEEP.replace("\narms:", "\narms:\n  plain: [norm=bn, model.width=0.5]")
    grid = load_grid(write(text))
    runs = {(cell.setting, cell.label): cell.run_ids[0] for cell in grid.cells}
    assert runs["small", "plain"] == runs["large", "plain"] == runs["large", "bn"] != runs["small", "bn"]
    ids = grid.run_ids()
    assert len(ids) == len(set(ids)) == (2 * 5 - 2) * 3
    assert [one for one, _ in grid.configs()] == ids


def test_a_scale_extends_the_base_selects_settings_and_replaces_the_rest(write):
    folder = write()
    short = load_grid(folder, "short")
    assert (short.settings, short.seeds, short.scale) == (["small"], [7], "short")
    assert {cell.config["trainer"]["epochs"] for cell in short.cells} == {0.5}
    assert [cell.label for cell in load_grid(folder, "bare").cells] == ["bn", "bn"]


def test_two_experiments_that_name_the_same_run_share_it(write):
    one, other = (
        load_grid(write()),
        load_grid(write(name="another"), extra=["results_dir=x", "experiment=another"]),
    )
    assert one.run_ids() == other.run_ids()


def test_a_folder_of_results_is_named_once(write):
    with pytest.raises(ConfigError, match="results_dir is given more than once, as x and y: give it once"):
        load_grid(write(), extra=["results_dir=x", "tracker=none", "results_dir=y"])
    assert load_grid(write(), extra=["results_dir=a,b (1)"]).cells[0].config["results_dir"] == "a,b (1)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds: 3", "sedes: 3", "did you mean 'seeds'"),
        ("reference: bn", "reference: nb", "'nb'"),
        ("controls: [cvar_60]", "controls: [cvar_61]", "did you mean 'cvar_60'"),
        ("controls: [cvar_60]", "controls: [bn]", "only a pair or a mixture has controls"),
        ("norm.alpha=0.6", "norm.alpha=6", "between 0 and 1"),
    ],
)
def test_a_wrong_file_is_one_line(write, old, new, words):
    with pytest.raises(ConfigError, match=words):
        load_grid(write(SWEEP.replace(old, new)))


def test_a_missing_experiment_or_scale_names_those_that_exist(write, tmp_path):
    write()
    with pytest.raises(ConfigError, match="trial"):
        load_grid(tmp_path / "trail")
    with pytest.raises(ConfigError, match="did you mean 'short'"):
        load_grid(tmp_path / "trial", "shrot")


def test_controls_may_be_arms_of_their_own_and_the_measure_is_the_grids(write):
    text = SWEEP.replace("controls: [cvar_60]", "controls: {cvar_60: [bn]}\nmeasure: val_accuracy_exact")
    grid = load_grid(write(text))
    assert grid.controls == {"cvar_60": ["bn"]}
    assert [cell.label for cell in grid.cells if cell.setting == "small"] == ["bn", "cvar_60"]
    assert grid.measure == "val_accuracy_exact"
    assert load_grid(write(text), "bare").controls == {}
    with pytest.raises(ConfigError, match="bn_other"):
        load_grid(write(text.replace("[bn]}", "[bn_other]}")))


def test_an_outline_names_what_the_grid_holds_without_composing_it(write, monkeypatch):
    from gbn.config import grid as module

    path = write()
    whole = load_grid(path)
    monkeypatch.setattr(module, "compose", None)  # nothing may be composed
    of = module.outline(path)
    assert list(of.settings) == whole.settings
    assert list(of.arms) == list(dict.fromkeys(cell.label for cell in whole.cells))
    assert (of.seeds, of.targets, of.controls) == (whole.seeds, whole.targets, whole.controls)


def test_some_cells_of_a_grid_are_those_of_the_whole(write):
    path = write()
    whole = load_grid(path)
    wanted = {(cell.setting, cell.label) for cell in whole.cells[1:3]}
    assert load_grid(path, only=wanted).cells == whole.cells[1:3]


AXES = """
base: [model=mlp, trainer.epochs=1]
axes:
  part: {one: [model.width=0.25], two: [model.width=0.5, model.depth=2]}
  optimizer.lr: [0.1, 1e-2]
  norm.alpha: {"60": 0.6, "75": 0.75}
settings:
  "{part}_lr_{optimizer.lr}": []
  plain: [optimizer.lr=1.0]
arms:
  bn: [norm=bn]
  "cvar_{norm.alpha}": [norm=gbn_cvar]
controls: ["cvar_{norm.alpha}"]
reference: bn
seeds: 1
targets: {"{part}_lr_{optimizer.lr}": [0.5], plain: [0.6]}
scales:
  few: {axes: {part: [two], optimizer.lr: [0.4]}}
  one: {settings: ["one_lr_{optimizer.lr}"], arms: [bn, cvar_75]}
"""


def test_axes_spell_out_names_and_overrides(write):
    grid = load_grid(write(AXES))
    assert grid.settings == ["one_lr_0.1", "one_lr_1e-2", "two_lr_0.1", "two_lr_1e-2", "plain"]
    assert grid.levels["two_lr_1e-2"] == {"part": "two", "optimizer.lr": "1e-2"}
    assert "plain" not in grid.levels
    assert (grid.targets["two_lr_0.1"], grid.targets["plain"]) == ([0.5], [0.6])
    assert list(grid.controls) == ["cvar_60", "cvar_75"]
    cell = next(one for one in grid.cells if (one.setting, one.label) == ("two_lr_1e-2", "cvar_75"))
    assert (cell.config["model"]["width"], cell.config["model"]["depth"]) == (0.5, 2)
    assert (cell.config["optimizer"]["lr"], cell.config["norm"]["alpha"]) == (0.01, 0.75)


def test_a_scale_selects_levels_of_axes(write):
    few = load_grid(write(AXES), "few")
    assert (few.settings, few.levels["two_lr_0.4"]["optimizer.lr"]) == (["two_lr_0.4", "plain"], "0.4")
    assert few.cells[0].config["optimizer"]["lr"] == 0.4
    one = outline(write(AXES), "one")
    assert list(one.settings) == list(one.levels) == ["one_lr_0.1", "one_lr_1e-2"]
    assert (list(one.arms)[:2], list(one.controls)) == (["bn", "cvar_75"], ["cvar_75"])
    with pytest.raises(
        ConfigError, match=r"unknown level of the axis part in .*: 'three'; allowed: one, two"
    ):
        outline(write(AXES.replace("part: [two]", "part: [three]")), "few")
    with pytest.raises(ConfigError, match="'cvar_75' appears twice under arms"):
        outline(write(AXES.replace("  bn: [norm=bn]", "  bn: [norm=bn]\n  cvar_75: [norm=gbn_cvar]")))


def test_full_is_the_grid_as_it_stands(write):
    folder = write(SWEEP + "default_scale: bare\n")
    assert load_grid(folder, only=()).scale == "bare"
    full = load_grid(folder, "full", only={("small", "cvar_60")})
    assert (full.scale, len(full.cells)) == (None, 1)


def test_a_cell_has_overrides_of_its_own(write):
    folder = write(SWEEP + "cells: {small: {bn: [optimizer.lr=0.3]}}\n")
    rates = {(cell.setting, cell.label): cell.config["optimizer"]["lr"] for cell in load_grid(folder).cells}
    assert rates.pop(("small", "bn")) == 0.3
    assert set(rates.values()) == {0.05}
    plain = load_grid(write(name="plain"))
    changed = set(load_grid(folder).run_ids()) ^ set(plain.run_ids())
    assert len(changed) == 2 * 3


@pytest.mark.parametrize(
    ("cells", "message"),
    [("{smal: {bn: []}}", "setting under cells"), ("{small: {bnn: []}}", "arm of small under cells")],
)
def test_cells_that_the_grid_has_not_are_named(write, cells, message):
    with pytest.raises(ConfigError, match=message):
        load_grid(write(f"{SWEEP}cells: {cells}\n"))


MIXTURES = """
title: mixtures
base: [model=mlp, trainer.epochs=1]
arms:
  bn: [norm=bn]
  mixture: [norm=mixture]
  mixture_k5: [norm=mixture, norm.components=5, "norm.placement.pattern=['*.1']", norm.placement.otherwise=bn]
  iebn: [norm=iebn]
controls: [mixture, mixture_k5, iebn]
reference: bn
seeds: 2
"""


def test_a_mixture_has_controls_with_its_options_and_its_placement(write):
    of = outline(write(MIXTURES))
    for kind in ("bn_matched", "bn_reparam"):
        assert of.arms[f"{kind}[mixture]"] == [f"norm={kind}", "norm.matched_to=mixture"]
        assert of.arms[f"{kind}[mixture_k5]"] == [
            *(f"norm={kind}", "norm.matched_to=mixture", "norm.components=5"),
            *("norm.placement.pattern=['*.1']", "norm.placement.otherwise=bn"),
        ]
    assert of.controls["mixture_k5"] == ["bn_matched[mixture_k5]", "bn_reparam[mixture_k5]"]


@pytest.mark.skipif(not (config_dir() / "norm" / "mixture.yaml").exists(), reason="there is no norm=mixture")
def test_the_controls_of_a_mixture_compose(write):
    grid = load_grid(write(MIXTURES))
    norms = {cell.label: cell.config["norm"] for cell in grid.cells}
    for kind in ("bn_matched", "bn_reparam"):
        control, arm = norms[f"{kind}[mixture_k5]"], norms["mixture_k5"]
        assert (control["method"], control["matched_to"]) == (kind, "mixture")
        assert control["components"] == arm["components"] == 5
        assert control["placement"] == arm["placement"]
    assert len({run_id for cell in grid.cells for run_id in cell.run_ids.values()}) == 2 * len(grid.cells)


@pytest.mark.parametrize(
    ("measure", "targets", "words"),
    [
        ("val_acuracy", "[0.5]", "unknown measure 'val_acuracy'.*did you mean 'val_accuracy'"),
        ("val_accuracy", "[50]", "'50' is no accuracy between 0 and 1"),
        ("val_accuracy", "[half]", "targets.0='half' is not allowed"),
        ("kid_own_1a2b3c4d", "[-1]", "'-1' is no target of kid_own_1a2b3c4d"),
    ],
)
def test_a_measure_and_its_targets_are_checked(write, measure, targets, words):
    text = SWEEP.replace("targets: {small: [0.5]}", f"measure: {measure}\ntargets: {targets}")
    with pytest.raises(ConfigError, match=words):
        load_grid(write(text))


def test_a_measure_may_be_one_of_which_lower_is_better(write):
    text = SWEEP.replace("targets: {small: [0.5]}", "measure: fid_inception\ntargets: [60, 40]")
    grid = load_grid(write(text))
    assert (grid.measure, grid.targets["small"]) == ("fid_inception", [60, 40])
    assert plan_of_grid(grid).targets["small"] == (60, 40)
