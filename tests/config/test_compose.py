"""Overrides become a checked configuration; whatever is wrong is one line that says what is allowed."""

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from gbn.config.compose import compose, resolve
from gbn.config.errors import ConfigError
from gbn.config.norms import METHODS
from gbn.config.places import config_dir
from gbn.config.schema import Config
from gbn.config.sweeps import check_sweep, expand
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
        (["norm=gbn_cvar", "norm.quantile_gradient=centred"], ["quantile_gradient", "window_centred"]),
        (["norm=bn", "norm.alpha=0.5"], ["norm.alpha", "allowed for bn: eps, momentum"]),
        (["norm=gbn_mixed_cvar", "norm.weights=[0.5, 0.6]"], ["weights", "sum to 1"]),
        (["norm=gbn", "norm.statistic.alpa=0.3"], ["norm.statistic.alpa", "did you mean 'alpha'"]),
        (["norm=gbn", "norm/statistic=media"], ["did you mean 'median'"]),
        (["norm=bn_reparam", "norm.matched_to=bn"], ["norm.matched_to", "gbn_cvar"]),
        (["norm=bn", "norm.matched_to=gbn_cvar"], ["matched_to belongs to bn_matched and bn_reparam"]),
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
        (["norm=instance"], ["a single value a channel", "norm=layer or group"]),
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
    needed = {"custom": ["norm._target_=their.module.Layer"]}
    needed |= {"lenet": ["dataset=mnist"], "vgg": ["dataset=cifar10"], "instance": ["model=resnet"]}
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
            config = compose([f"{group}={file.stem}", *needed.get(file.stem, [])])
            assert Config.model_validate(config.as_dict()) == config, file  # what is stored reads back


def test_the_groups_cover_the_registries():
    """A statistic, deviation or quadrangle that is registered can be chosen in the configuration, and back."""

    def names(folder):
        return {file.stem for file in (config_dir() / folder).glob("*.yaml")}

    assert names("norm/statistic") == set(STATISTIC_PARAMETERS)
    assert names("norm/deviation") == set(DEVIATION_PARAMETERS)
    assert {f"gbn_{name}" for name in QUADRANGLE_PARAMETERS} <= names("norm")
    assert set(METHODS) <= names("norm")


def test_yaml_files_spell_out_the_defaults_of_the_registry():
    """What a file shows is what the registry would take: one truth, visible in two places."""
    for name, parameters in QUADRANGLE_PARAMETERS.items():
        given = OmegaConf.to_container(OmegaConf.load(config_dir() / "norm" / f"gbn_{name}.yaml"))
        for key, parameter in parameters.items():
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            assert given[key] == default, (name, key)


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


def test_sweeps_expand_in_order_and_are_checked_before_they_start():
    runs = expand(["norm=bn,gbn_cvar", "seed=range(0,3)"])
    assert runs[:2] == [["norm=bn", "++seed=0"], ["norm=bn", "++seed=1"]]
    assert len(check_sweep(["norm=bn,gbn_cvar", "seed=range(0,3)"])[0]) == len(runs) == 6
    with pytest.raises(ConfigError, match="did you mean 'gbn_mad'"):
        check_sweep(["norm=bn,gbn_md", "seed=0"])
    for wrong in (
        ["optimizer.lr=0.1,-1"],
        ["seed=0,-1"],
        ["seed=range(0,3)", "norm=bn,group", "norm.alpha=1"],
    ):
        with pytest.raises(ConfigError, match=r"optimizer\.lr=-1|seed=-1|norm\.alpha"):
            check_sweep(wrong)


def test_a_combination_is_impossible_where_each_of_its_values_is_possible_elsewhere():
    configs, impossible = check_sweep(["model=lenet,cnn", "dataset=digits,mnist"])
    assert [(one.model.name, one.dataset.name) for one in configs] == [
        *(("lenet", "mnist"), ("cnn", "digits"), ("cnn", "mnist"))
    ]
    assert list(impossible) == ["model=lenet dataset=digits"]
    with pytest.raises(ConfigError, match="model=lenet needs images"):
        check_sweep(["model=lenet,cnn", "dataset=digits"])


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        ("choice(1,2)", [1, 2]),
        ("sort(3,1,2)", [1, 2, 3]),
        ("sort(range(0,3),reverse=true)", [2, 1, 0]),
        ("range(3)", [0, 1, 2]),
        ("range(3,0,-1)", [3, 2, 1]),
        ("tag(a,choice(1,2))", [1, 2]),
        ("1,1", [1, 1]),
    ],
)
def test_the_functions_of_sweeps_work(value, seeds):
    assert [config.seed for config in check_sweep([f"seed={value}"])[0]] == seeds


def test_glob_chooses_among_the_files_of_a_group():
    names = [config.norm.name for config in check_sweep(["norm=glob(gbn_*range*)"])[0]]
    assert names == ["gbn_lower_range", "gbn_range", "gbn_upper_range"]
    assert sorted(config.seed for config in check_sweep(["seed=shuffle(1,2,3)"])[0]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["norm=bn", "norm._target_=os.system"], "norm._target_ belongs to norm=custom, not to bn"),
        (["norm=bn", "norm/statistic=mean"], "norm.statistic belongs to norm=gbn and its controls"),
        (["norm=bn", "norm/deviation=std"], "norm.deviation belongs to"),
        (["norm=bn", "norm.quadrangle=cvar"], "norm.quadrangle belongs to"),
        (["norm=bn", "norm.kwargs.a=1"], "norm.kwargs belongs to norm=custom"),
        (["norm=bn", "norm.rescaled=true"], "norm.rescaled belongs to"),
        (["norm=bn", "norm.samples=64"], "norm.samples belongs to"),
        (["norm=bn", "norm.without_act=mean"], "changes nothing of bn"),
        (["norm=bn", "norm.without_act=bn"], "changes nothing of bn"),
        (["norm=iebn", "norm.without_act=mean"], "changes nothing of iebn"),
        (["norm=bn", "norm.placement.roles=[stem]"], "norm.placement puts bn"),
        (["norm=gbn_cvar", "norm.placement.otherwise=none"], "needs norm.placement.roles or pattern"),
        (["norm=gbn_cvar", "norm.placement.roles=[]"], "norm.placement.roles=[] is not allowed"),
        (["norm=layer", "norm.momentum=0.2"], "norm.momentum belongs to norms with statistics"),
        (["norm=none", "norm.eps=0.1"], "norm.eps belongs to"),
        (["norm=custom", "norm._target_=a.B", "norm.eps=0.1"], "norm.eps belongs to"),
        (
            ["norm=bn_matched", "norm.matched_to=mixture", "norm.instance_enhancement=true"],
            "not to bn_matched with norm.matched_to=mixture",
        ),
        (["norm.name=other"], "norm.name follows from the choice of norm"),
        (["norm={name:other}"], "norm.name follows from the choice of norm"),
        (["dataset.name=mnist"], "write dataset=..."),
        (["norm=gbn", "norm.statistic.name=mean"], "write norm/statistic=..."),
        (
            ["task=generation", "trainer.evaluation.test_every=2"],
            "test_every belongs to tasks with a test set",
        ),
        (
            ["task=segmentation", "dataset.augment=none", "dataset.warp.zoom=0.1"],
            "dataset.warp.zoom belongs to affine warps",
        ),
        (["task=segmentation", "dataset.augment=affine", "dataset.warp.sigma=9"], "belongs to elastic warps"),
    ],
)
def test_a_key_that_a_choice_does_not_use_is_an_error(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert words in str(caught.value)


def test_what_a_norm_uses_is_what_its_layers_take():
    """The schema's table of keys, which needs no torch, and the registry of layers say the same."""
    from gbn.config.norms import _USED_BY, CONTROLS
    from gbn.nn.methods import METHODS as REGISTRY

    for name, method in REGISTRY.items():
        if name in METHODS:
            used = {key for keys, methods, _ in _USED_BY if name in methods for key in keys}
            pairs = {key for table in QUADRANGLE_PARAMETERS.values() for key in table} | {
                "quadrangle",
                "bias",
            }
            if name in CONTROLS:  # what they are matched to holds these
                pairs |= {"statistic", "deviation", "instance_enhancement", "gate_bias"}
            assert used - pairs == method.options - pairs, name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.evaluation.test_every=1e-12"], "asks for 1e+13 looks at the test set"),
        (["trainer.epochs=1e300"], "less than or equal to 1000000"),
        (["trainer.evaluation.points=1000000000"], "less than or equal to 1000000"),
        (["model=mlp", "model.depth=1000000000"], "less than or equal to 10000"),
        (
            ["trainer.threads=0"],
            "trainer.threads=0 is not allowed: input should be greater than or equal to 1, or 'auto'",
        ),
        (
            ["task=segmentation", "dataset.patients=[1]"],
            "dataset.patients.0=1 is not allowed: input should be a valid string",
        ),
        (["norm=custom", "norm._target_=a.B", "norm.kwargs.a=[1,inf]"], "norm.kwargs.a.1=inf is not allowed"),
        (["optimizer.lr=0.1,0.2"], "optimizer.lr has several values, a run has one"),
        (["results_dir=a", "results_dir=b"], "results_dir is given more than once, as a and b"),
        (["seed=???"], "seed"),
        (["results_dir=${nosuch}"], "results_dir: Interpolation key 'nosuch' not found"),
    ],
)
def test_what_would_not_end_or_not_be_read_is_named(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert words in str(caught.value)
    assert "constrained" not in str(caught.value)


def test_an_entry_point_is_a_choice_of_norm(monkeypatch):
    point = type("EntryPoint", (), {"name": "theirs", "value": "their.module:Layer"})
    monkeypatch.setattr("gbn.config.overrides.entry_points", lambda group: [point])
    config = compose(["norm=theirs"])
    assert (config.norm.method, config.norm.target) == ("custom", "their.module:Layer")


def test_a_damaged_store_is_told_from_a_wrong_command():
    with pytest.raises(ConfigError, match="norm"):
        resolve({"seed": 0})


def test_configuration_never_imports_torch():
    code = "import sys, gbn.config.grid; gbn.config.grid.compose(['norm=gbn_cvar']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


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
