"""Overrides become a checked configuration; whatever is wrong is one line that says what is allowed."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from gbn.config.compose import compose, resolve
from gbn.config.errors import ConfigError
from gbn.config.places import config_dir
from gbn.config.schema import Config
from gbn.methods import CONTROLS, METHODS
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS
from gbn.store.identity import run_id


def id_of(*overrides):
    config = compose(overrides)
    return run_id(config.as_dict(), config.defaults())


def test_the_documented_commands_compose():
    card = compose(["norm=gbn_cvar", "model=resnet", "dataset=cifar10"])
    assert (card.norm.quadrangle, card.norm.parameters["alpha"]) == ("cvar", 0.75)
    assert (card.model.name, card.model.depth, card.dataset.name) == ("resnet", 20, "cifar10")
    free = compose(
        [
            "norm=gbn",
            "norm/statistic=quantile",
            "norm.statistic.alpha=0.6",
            "norm/deviation=cvar",
            "norm.deviation.alpha=0.75",
        ]
    )
    assert free.norm.statistic["name"] == "quantile"
    assert (free.norm.statistic["alpha"], free.norm.deviation["alpha"]) == (0.6, 0.75)
    moved = compose(
        ["results_dir=elsewhere", "seed=3", "trainer.epochs=2", "optimizer.lr=0.1", "dataset.root=d"]
    )
    assert (moved.results_dir, moved.seed, moved.trainer.epochs) == ("elsewhere", 3, 2.0)
    assert (moved.optimizer.lr, moved.dataset.root) == (0.1, "d")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["norm=gbn_cvr"], ["'gbn_cvr'", "did you mean 'gbn_cvar'", "bn_reparam"]),
        (["nrm=bn"], ["'nrm'", "did you mean 'norm'", "optimizer"]),
        (["norm=gbn_cvar", "norm.alhpa=0.5"], ["norm.alhpa", "did you mean 'alpha'", "quantile_gradient"]),
        (["norm=gbn_cvar", "norm.alpha=1.5"], ["alpha=1.5", "between 0 and 1"]),
        (["norm=gbn_cvar", "norm.quantile_gradient=centered"], ["quantile_gradient", "window_centred"]),
        (["norm=bn", "norm.alpha=0.5"], ["norm.alpha", "allowed for bn: eps, momentum"]),
        (["norm=gbn_mixed_cvar", "norm.weights=[0.5, 0.6]"], ["weights", "sum to 1"]),
        (["norm=gbn", "norm.statistic.alpa=0.3"], ["norm.statistic.alpa", "did you mean 'alpha'"]),
        (["norm=gbn", "norm/statistic=media"], ["did you mean 'median'"]),
        (["norm=bn_reparam", "norm.matched_to=bn"], ["norm.matched_to", "gbn_cvar"]),
        (["norm=bn", "norm.matched_to=gbn_cvar"], ["matched_to belongs to the controls", "norm=bn_reparam"]),
        (["norm=custom"], ["norm._target_=their.module.Layer"]),
        (["norm=group", "norm.groups=0"], ["norm.groups=0", "greater than or equal to 1"]),
        (["norm=bn", "norm.groups=2"], ["norm.groups belongs to norm=group"]),
        (["norm=gbn_cvar", "norm.without_act=none"], ["norm.without_act='none'", "'same', 'bn' or 'mean'"]),
        (["norm=bn", "norm.components=5"], ["norm.components belongs to norm=mixture", "not to bn"]),
        (["norm=mixture", "norm.components=0"], ["norm.components=0", "greater than or equal to 1"]),
        (["norm=mixture", "norm.mixture=joined"], ["norm.mixture='joined'", "did you mean 'joint'"]),
        (["norm=mixture", "norm.subset=2"], ["norm.subset=2 is fewer samples than norm.components=3"]),
        (["norm=mixture", "norm.alpha=0.6"], ["norm.alpha", "allowed for mixture: eps, momentum"]),
        (
            ["norm=bn_matched", "norm.matched_to=mixture", "norm.rescaled=true"],
            ["norm.rescaled belongs to norm=gbn_...", "norm.matched_to=mixture"],
        ),
        (["norm=bn", "norm.instance_enhancement=true"], ["norm=gbn_... or iebn, not to bn"]),
        (["norm=iebn", "norm.instance_enhancement=[sten]"], ["'sten'", "did you mean 'stem'"]),
        (["norm=iebn", "norm.instance_enhancement=false"], ["without it use norm=bn"]),
        (["norm=gbn_cvar", "norm.gate_bias=2.0"], ["norm.instance_enhancement, which is off"]),
        (["norm=iebn", "norm.alpha=0.6"], ["norm.alpha", "allowed for iebn: quadrangle, eps"]),
        (["norm.placement.roles=[stem,bdy]"], ["'bdy'", "did you mean 'body'"]),
        (["optimizer.lrr=3"], ["optimizer.lrr", "did you mean 'lr'", "momentum"]),
        (["optimizer.lr=fast"], ["optimizer.lr='fast'", "number"]),
        (["optimizer.lr=0"], ["optimizer.lr=0", "greater than 0"]),
        (["optimizer.momentum=0"], ["nesterov=true needs momentum > 0"]),
        (["optimizer.beta1=0.3"], ["optimizer.beta1", "allowed in optimizer", "nesterov"]),
        (["model=resnet", "model.depth=21"], ["6n+2"]),
        (["model=resnet", "model.shortcut=C"], ["model.shortcut='C'", "'A' or 'B'"]),
        (["model=lenet"], ["model=lenet needs images of at least 16x16", "digits has 8x8"]),
        (["norm=instance"], ["a single value per channel", "norm=layer or group"]),
        (["trainer.epochs=-1"], ["trainer.epochs=-1", "greater than 0"]),
        (["trainer.evaluation.pts=3"], ["trainer.evaluation.pts", "did you mean 'points'"]),
        (["trainer.device=gpu"], ["trainer.device='gpu'", "'auto', 'cpu' or 'cuda'"]),
        (["trainer.device=cpu", "trainer.precision=fp16"], ["fp16 needs a GPU"]),
        (["trainer.batch_size=600", "dataset.subset=500"], ["batch_size=600", "dataset.subset=500"]),
        (["seed=1.5"], ["seed=1.5", "integer"]),
        (["seed=-1"], ["seed=-1"]),
        (["seed"], ["cannot read the override 'seed'"]),
    ],
)
def test_an_error_is_one_line_that_says_what_is_allowed(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_every_choice_of_every_group_composes():
    """Each YAML file alone satisfies the schema (with what it cannot do without)."""
    needed = {"lenet": ["dataset=mnist"], "vgg": ["dataset=cifar10"], "instance": ["model=resnet"]}
    needed |= {"dcgan": ["task=generation"]}
    needed |= {name: ["task=segmentation"] for name in ("unet", "cardiac", "sunnybrook")}
    for group in (
        "task",
        "dataset",
        "model",
        "norm",
        "optimizer",
        "schedule",
        "trainer",
        "tracker",
        "launcher",
    ):
        for file in (config_dir() / group).glob("*.yaml"):
            own = (
                [f"{group}._target_=their.module.Thing"]
                if file.stem == "custom"
                else needed.get(file.stem, [])
            )
            config = compose([f"{group}={file.stem}", *own])
            assert Config.model_validate(config.as_dict()) == config, file  # what is stored reads back


def test_the_groups_cover_the_registries():
    """A statistic, deviation or quadrangle that is registered can be chosen in the configuration, and back."""

    def names(folder):
        return {file.stem for file in (config_dir() / folder).glob("*.yaml")}

    assert names("norm/statistic") == set(STATISTIC_PARAMETERS)
    assert names("norm/deviation") == set(DEVIATION_PARAMETERS)
    assert {f"gbn_{name}" for name in QUADRANGLE_PARAMETERS} <= names("norm")
    assert set(METHODS) <= names("norm")


def test_no_file_repeats_a_default_of_the_registry():
    """One truth in one place: a file holds what its name fixes, and leaves the rest to gbn.risk and gbn.methods."""
    known = {
        key for table in (STATISTIC_PARAMETERS, DEVIATION_PARAMETERS) for row in table.values() for key in row
    }
    for file in (config_dir() / "norm").rglob("*.yaml"):
        given = OmegaConf.to_container(OmegaConf.load(file))
        assert not known & given.keys(), file
        options = METHODS[given["method"]].options if "method" in given else {}
        for key in options.keys() & given.keys():
            assert options[key].needed or given[key] != options[key].default, (file, key)


def test_a_control_takes_the_parameters_of_its_pair():
    control = compose(["norm=bn_reparam", "norm.matched_to=gbn_cvar", "norm.alpha=0.6"])
    assert control.norm.options()["matched_to"] == {"quadrangle": "cvar", "alpha": 0.6}
    assert compose(["norm=bn_matched"]).norm.parameters["alpha"] == 0.75  # gbn_cvar.yaml's own
    free = compose(["norm=bn_matched", "norm.matched_to=gbn", "norm/statistic=median", "norm/deviation=std"])
    assert free.norm.options()["matched_to"]["deviation"] == {"name": "std"}


def test_instance_enhancement_reaches_layer_controls_and_ids():
    gate = {"instance_enhancement": ["stem", "body", "branch_end"], "gate_bias": -1.0}
    assert compose(["norm=iebn"]).norm.options().items() >= gate.items()
    assert id_of("norm=iebn", "norm.instance_enhancement=true") == id_of("norm=iebn")
    control = compose(["norm=bn_matched", "norm.matched_to=iebn"])
    assert control.norm.options()["matched_to"] == {"quadrangle": "std", **gate}
    enhanced = compose(["norm=bn_reparam", "norm.matched_to=gbn_cvar", "norm.instance_enhancement=true"])
    assert enhanced.norm.options()["matched_to"] == {"quadrangle": "cvar", "alpha": 0.75, **gate}
    for pair in ("gbn_cvar", "gbn_mad"):
        assert id_of(f"norm={pair}", "norm.instance_enhancement=false") == id_of(f"norm={pair}")
        assert id_of(f"norm={pair}", "norm.instance_enhancement=true") != id_of(f"norm={pair}")
    assert "-iebn-" in id_of("norm=iebn")
    assert "-bn_reparam_iebn-" in id_of("norm=bn_reparam", "norm.matched_to=iebn")
    assert "-gbn_mad_ie-" in id_of("norm=gbn_mad", "norm.instance_enhancement=true")


def test_one_control_serves_every_way_of_the_gradient():
    """k and c don't depend on the way of the gradient, except for `smoothed`, which changes the statistic."""
    control = ["norm=bn_reparam", "norm.matched_to=gbn_cvar"]
    assert id_of(*control, "norm.quantile_gradient=exact") == id_of(*control)
    assert id_of(*control, "norm.quantile_gradient=smoothed") != id_of(*control)


def test_identity_ignores_where_and_how_visibly():
    assert id_of("tracker=none", "results_dir=x", "trainer.progress=quiet", "dataset.root=y") == id_of()
    assert id_of("launcher=parallel", "experiment=e", "trainer.threads=1") == id_of()
    assert (
        id_of("trainer.record.layers=true", "trainer.record.points=3", "trainer.record.images=64") == id_of()
    )
    for changed in ("seed=1", "optimizer.lr=0.1", "norm.eps=1e-3", "model.width=0.5", "dataset.revision=2"):
        assert id_of(changed) != id_of(), changed


def test_a_default_written_out_changes_no_id():
    assert id_of("norm.eps=1e-5", "trainer.precision=fp32", "norm.placement.otherwise=bn") == id_of()
    assert id_of("optimizer.momentum=0.9", "optimizer.lr=0.05", "trainer.epochs=10") == id_of()


def test_ids_of_known_configurations_stay():
    """Golden ids: a change here orphans every archived run, and needs a raised revision and a reason."""
    assert id_of() == "digits-cnn-bn-s0-69ed1fa180"
    assert (
        id_of("norm=gbn_cvar", "model=resnet", "dataset=cifar10", "seed=4")
        == "cifar10-resnet-gbn_cvar_0.75-s4-1a5e4348ed"
    )


def test_an_entry_point_is_a_choice_of_norm(monkeypatch):
    point = type("EntryPoint", (), {"name": "theirs", "value": "their.module:Layer"})
    monkeypatch.setattr("gbn.targets.entry_points", lambda group: [point])
    config = compose(["norm=theirs"])
    assert (config.norm.method, config.norm.target) == ("custom", "their.module:Layer")


def test_a_damaged_store_is_told_from_a_wrong_command():
    with pytest.raises(ConfigError, match="norm"):
        resolve({"seed": 0})


def test_configuration_never_imports_torch():
    code = "import sys, gbn.config.grid; gbn.config.grid.compose(['norm=gbn_cvar']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_one_run_for_every_gradient_of_its_pair(control: str) -> None:
    """It depends on the pair's values only."""
    plain = (f"norm={control}", "norm.matched_to=gbn_cvar", "norm.alpha=0.6")
    assert f"-{control}_gbn_cvar_0.6-" in id_of(*plain)
    assert id_of(*plain, "norm.quantile_gradient=exact") == id_of(*plain)
    assert id_of(*plain, "norm.quantile_gradient=smoothed") != id_of(*plain)


def test_a_pair_that_starts_at_batchnorms_function() -> None:
    assert id_of("norm=gbn_mad", "norm.start=own") == id_of("norm=gbn_mad")
    assert "-gbn_mad_start_bn_measured-" in id_of("norm=gbn_mad", "norm.start=bn_measured")
    assert compose(["norm=gbn_mad", "norm.start=bn"]).norm.options()["start"] == "bn"
    for norm in ("bn", "iebn", "bn_measured_reparam", "mixture"):
        with pytest.raises(ConfigError, match=r"norm\.start belongs to norm=gbn_\.\.\."):
            compose([f"norm={norm}", "norm.start=bn"])


def test_a_mixture_and_its_controls() -> None:
    options = compose(["norm=mixture", "norm.components=5"]).norm.options()
    assert (options["components"], options["mixture"], options["warm_start"]) == (5, "joint", True)
    control = compose(["norm=bn_reparam", "norm.matched_to=mixture", "norm.components=5"]).norm.options()
    assert control["matched_to"]["method"] == "mixture"
    assert control["matched_to"]["components"] == 5
    assert "warm_start" not in control["matched_to"]
    # What is the layer's alone names no other run of its control.
    plain = ("norm=bn_reparam", "norm.matched_to=mixture")
    assert id_of(*plain, "norm.warm_start=false", "norm.posterior_gradient=true") == id_of(*plain)
    assert id_of(*plain, "norm.em_steps=1") != id_of(*plain)
    assert "-bn_reparam_mixture-" in id_of(*plain)
    assert "-mixture_k5_per_channel-" in id_of(
        "norm=mixture", "norm.components=5", "norm.mixture=per_channel"
    )


def test_the_working_folder_s_own_groups_come_before_the_package_s(tmp_path, monkeypatch):
    for file, text in {
        "norm/mine.yaml": "name: mine\nmethod: gbn\nrevision: 1\nquadrangle: cvar\nalpha: 0.6\n",
        "model/mlp.yaml": "name: mlp\nrevision: 1\nwidth: 0.5\ndepth: 2\n",
    }.items():
        path = tmp_path / "conf" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = compose(["model=mlp"])
    monkeypatch.chdir(tmp_path)
    config = compose(["norm=mine", "model=mlp"])
    assert (config.norm.alpha, config.model.depth) == (0.6, 2)
    assert compose(["norm=bn_reparam", "norm.matched_to=mine"]).norm.alpha == 0.6
    assert compose(["model=cnn"]).model.name == "cnn"  # the package's
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        compose(["norm=mien"])
    monkeypatch.setenv("GBN_CONF", str(config_dir()))  # then that folder alone
    assert compose(["model=mlp"]) == before
