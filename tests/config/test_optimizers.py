"""The optimizer's section: a preconditioner has options and an identity of its own, and no run without it changes."""

import pytest

from gbn.config.compose import compose, resolve
from gbn.config.errors import ConfigError
from gbn.config.optimizers import BNPConfig
from gbn.store.identity import identity, run_id


def id_of(*overrides):
    config = compose([*overrides])
    return run_id(config.as_dict(), config.defaults())


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "nadam", "rmsprop"])
def test_a_run_without_preconditioning_has_no_trace_of_it_in_its_identity(optimizer):
    config = compose([f"optimizer={optimizer}"])
    assert config.optimizer.bnp is None
    kept = identity(config.as_dict(), config.defaults())["optimizer"]
    assert not {"precondition", "bnp"} & kept.keys()


def test_ids_from_before_there_was_preconditioning_are_unchanged():
    # Of archived runs; a change here would part them from their configurations.
    assert id_of() == "digits-cnn-bn-s0-69ed1fa180"
    assert id_of("optimizer.precondition=none") == id_of()


def test_a_preconditioned_run_has_an_id_of_its_own_with_its_revision_and_options():
    config = compose(["norm=none", "optimizer.precondition=bnp"])
    kept = identity(config.as_dict(), config.defaults())["optimizer"]
    assert kept["precondition"] == "bnp"
    assert kept["bnp"] == {"revision": 1}
    ids = [
        id_of("norm=none", "optimizer.precondition=bnp", *more)
        for more in ((), ("optimizer.bnp.rho=0.9",), ("optimizer.bnp.revision=2",), ("optimizer=adam",))
    ]
    assert len({*ids, id_of("norm=none")}) == 5
    assert ids[0].startswith("digits-cnn-none_bnp-s0-")
    assert id_of("norm=group", "optimizer.precondition=bnp").startswith("digits-cnn-group_bnp-s0-")


def test_the_yaml_file_says_the_schema_s_defaults():
    given = compose(["optimizer.precondition=bnp"]).optimizer.bnp
    assert given == BNPConfig(revision=given.revision)


def test_a_stored_configuration_is_read_again():
    for overrides in ((), ("optimizer.precondition=bnp", "optimizer.bnp.exclude=[head]")):
        config = compose([*overrides])
        assert resolve(config.as_dict()) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.precondition=bpn"], "did you mean 'bnp'"),
        (["optimizer.bnp.rho=0.9"], "optimizer.bnp.rho.*not used: add optimizer.precondition=bnp"),
        (["optimizer.precondition=bnp", "optimizer.bnp.roh=0.9"], "unknown key 'optimizer.bnp.roh'.*'rho'"),
        (["optimizer.precondition=bnp", "optimizer.bnp.rho=1.0"], "optimizer.bnp.rho=1.0 is not allowed"),
        (["optimizer.precondition=bnp", "optimizer.bnp.eps=-1.0"], "optimizer.bnp.eps=-1.0 is not allowed"),
        (["optimizer.precondition=bnp", "optimizer.bnp.statistics=patches"], "did you mean 'patch'"),
    ],
)
def test_wrong_values_are_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        compose(overrides)
    assert "\n" not in str(error.value)
