"""Keys that a choice does not use, values without an end, numbers that are not finite: each is named."""

import pytest

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS
from tests.schema_keys import numbers


@pytest.mark.parametrize("key", numbers(), ids=lambda key: " ".join((*key.choices[-1:], key.name)))
def test_every_number_is_finite(key):
    for value in ("inf", "-inf", "nan", "1e400"):
        given = f"[{value},{value}]" if "list" in str(key.annotation) else value
        with pytest.raises(ConfigError, match=f"{key.name}.*is not allowed"):
            compose([*key.context, f"{key.name}={given}"])


def test_every_parameter_of_a_pair_is_finite():
    tables = {
        ("norm=gbn_", "norm"): QUADRANGLE_PARAMETERS,
        ("norm/statistic=", "norm.statistic"): STATISTIC_PARAMETERS,
        ("norm/deviation=", "norm.deviation"): DEVIATION_PARAMETERS,
    }
    cases = [
        (f"{choice}{name}", f"{section}.{key}", parameter)
        for (choice, section), table in tables.items()
        for name, parameters in table.items()
        for key, parameter in parameters.items()
    ]
    for choice, key, parameter in cases:
        for value in ("inf", "-inf", "nan") if "float" in parameter.type else ():
            given = f"[0.5,{value}]" if "list" in parameter.type else value
            choices = [choice] if choice.startswith("norm=") else ["norm=gbn", choice]
            with pytest.raises(ConfigError, match=r"is not allowed|must be finite"):
                compose([*choices, f"{key}={given}"])


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
        (["norm=bn", "norm.without_act=mean"], "has no effect on bn"),
        (["norm=bn", "norm.without_act=bn"], "has no effect on bn"),
        (["norm=iebn", "norm.without_act=mean"], "has no effect on iebn"),
        (["norm=bn", "norm.placement.roles=[stem]"], "norm.placement uses bn"),
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
        (["seed=???"], "seed"),
        (["results_dir=${nosuch}"], "results_dir: Interpolation key 'nosuch' not found"),
    ],
)
def test_what_would_not_end_or_not_be_read_is_named(overrides, words):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert words in str(caught.value)
    assert "constrained" not in str(caught.value)
