"""Whatever is wrong with a sweep.yaml is one line: file, key, what was given, what is allowed."""

import os

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gbn.config.errors import ConfigError
from gbn.config.grid import load_grid, outline
from gbn.config.sweep_file import SweepFile

WHOLE = """
title: a test
base: [model=mlp]
settings:
  small: [model.width=0.25]
  large: [model.width=0.5]
arms:
  bn: [norm=bn]
  cvar: [norm=gbn_cvar]
controls: [cvar]
reference: bn
seeds: 3
targets: {small: [0.5]}
selected: {experiment: other, rule: area, top: 4}
scales:
  short: {base: [trainer.epochs=0.5], settings: [small], seeds: [7]}
"""


@pytest.fixture
def refusal(tmp_path):
    def refused(text, **options):
        folder = tmp_path / "trial"
        folder.mkdir(exist_ok=True)
        file = folder / "sweep.yaml"
        (file.write_bytes if isinstance(text, bytes) else file.write_text)(text)
        with pytest.raises(ConfigError) as caught:
            load_grid(folder, **options)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(str(file), "FILE")

    return refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "FILE holds nothing"),
        ("- a", "FILE holds a list"),
        ("3", "FILE holds a int"),
        ("a: [1", "FILE is not YAML"),
        ("a: 1\n\tb: 2", "FILE is not YAML"),
        ("a: &x [*x, *y]", "FILE is not YAML"),
        ("d: 2026-99-99", "FILE is not YAML"),
        (b"title: \xff\xfe", "FILE is not YAML"),
        ("seeds: 1\nseeds: 2", "the key 'seeds' appears twice"),
        ("title: x", "arms is missing"),
        (WHOLE.replace("reference: bn", ""), "reference is missing: give reference=..."),
        (WHOLE.replace("seeds: 3", ""), "seeds is missing"),
    ],
)
def test_a_file_that_is_none(refusal, text, words):
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seeds", "0", "seeds=0 is not allowed: input should be greater than or equal to 1"),
        ("seeds", "true", "seeds=True is not allowed"),
        ("seeds", "3.0", "seeds=3.0 is not allowed"),
        ("seeds", "1000000000", "seeds=1000000000 is not allowed"),
        ("seeds", "[]", "seeds=[] is not allowed"),
        ("seeds", "[1,1,-1]", "seeds.2=-1 is not allowed"),
        ("seeds", "[1,2,1]", "1 appears twice"),
        ("seeds", "[true]", "seeds.0=True is not allowed"),
        ("seeds", "{a: 1}", "seeds={'a': 1} is not allowed"),
        ("targets", "0.5", "targets=0.5 is not allowed"),
        ("targets", "[0.5, 0.5]", "0.5 appears twice"),
        ("targets", "[.inf]", "targets.0=inf is not allowed"),
        ("targets", "[true]", "targets.0=True is not allowed"),
        ("targets", "[half]", "targets.0='half' is not allowed"),
        ("targets", "{smal: [0.5]}", "unknown setting under targets in FILE: 'smal' (did you mean 'small'?)"),
        ("targets", "[2]", "'2' is no accuracy between 0 and 1"),
        ("arms", "{}", "arms={} is not allowed"),
        ("arms", "[bn]", "arms=['bn'] is not allowed"),
        ("arms", "{bn: }", "arms.bn=None is not allowed: input should be a valid list"),
        ("arms", "{bn: norm=bn}", "arms.bn='norm=bn' is not allowed: input should be a valid list"),
        ("arms", "{bn: [{norm: bn}]}", "arms.bn.0={'norm': 'bn'} is not allowed"),
        ("arms", "{1: [norm=bn]}", "input should be a valid string"),
        ("arms", "{bn: [], bn: [norm=bn]}", "the key 'bn' appears twice"),
        ("arms", "{bn: [norm=bn,gbn_cvar], cvar: []}", "only a pair or a mixture has controls"),
        ("base", "norm=bn", "base='norm=bn' is not allowed: input should be a valid list"),
        ("base", "['seed=range(0,3)']", "seed has several values, a run has one"),
        ("base", "[optimizer.lr=inf]", "optimizer.lr=inf is not allowed"),
        ("base", "[optimizer.lr=-1]", "(in arm 'bn' of setting 'small')"),
        ("settings", "[small]", "settings=['small'] is not allowed"),
        ("settings", "{small: 3}", "settings.small=3 is not allowed"),
        ("axes", "[x]", "axes=['x'] is not allowed"),
        ("axes", "{x: []}", "axes.x=[] is not allowed"),
        ("axes", "{x: [0.1, 0.1]}", "0.1 appears twice: name it once"),
        ("axes", "{x: {a: {b: c}}}", "axes.x.a={'b': 'c'} is not allowed"),
        (
            "arms",
            "{bn: [norm=bn], 'c_{norm.alpha}': [norm=gbn_cvar]}",
            "unknown axis in 'c_{norm.alpha}' in FILE",
        ),
        ("controls", "[cvar, cvar]", "cvar appears twice"),
        ("controls", "[cvr]", "did you mean 'cvar'?"),
        ("controls", "{cvar: bn}", "controls.cvar='bn' is not allowed"),
        ("controls", "3", "controls=3 is not allowed"),
        ("reference", "3", "reference=3 is not allowed"),
        ("reference", "[bn]", "reference=['bn'] is not allowed"),
        ("title", "[x]", "title=['x'] is not allowed"),
        ("measure", "val_acuracy", "did you mean 'val_accuracy'?"),
        ("measure", "3", "measure=3 is not allowed"),
        ("selected", "{experiment: other}", "selected.rule is missing"),
        (
            "selected",
            "{experiment: other, rule: best}",
            "selected.rule='best' is not allowed; allowed: 'area' or",
        ),
        ("selected", "{experiment: other, rule: area}", "selected.top belongs to selected.rule=area"),
        (
            "selected",
            "{experiment: other, rule: rate, tp: 3}",
            "unknown key 'selected.tp' (did you mean 'top'?)",
        ),
        ("cells", "{small: [bn]}", "cells.small=['bn'] is not allowed"),
        ("cells", "{small: {bn: lr}}", "cells.small.bn='lr' is not allowed"),
        ("scales", "[short]", "scales=['short'] is not allowed"),
        ("scales", "{short: 3}", "scales.short=3 is not allowed"),
        ("scales", "{short: {sedes: 3}}", "unknown key 'scales.short.sedes' (did you mean 'seeds'?)"),
        ("scales", "{short: {scales: {}}}", "unknown key 'scales.short.scales'"),
        ("scales", "{short: {seeds: 0}}", "scales.short.seeds=0 is not allowed"),
        ("scales", "{full: {seeds: 1}}", "the scale 'full' is reserved"),
        ("default_scale", "shrot", "did you mean 'short'?"),
        ("sedes", "3", "unknown key 'sedes' (did you mean 'seeds'?); allowed: arms, axes"),
    ],
)
def test_a_key_that_is_wrong(refusal, key, value, words):
    lines = WHOLE.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith(f"{key}:")), len(lines))
    end = start + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    message = refusal("\n".join([*lines[:start], f"{key}: {value}", *lines[end:]]))
    assert words in message
    if key != "base":  # what composition refuses names the arm
        assert "FILE" in message


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("settings: [smal]", "unknown setting in scale short of FILE: 'smal' (did you mean 'small'?)"),
        ("arms: [bn, cvr]", "unknown arm in scale short of FILE: 'cvr' (did you mean 'cvar'?)"),
        ("arms: [cvar]", "unknown reference in FILE: 'bn'"),
        ("arms: null", "FILE: arms=None is not allowed"),
        ("targets: [half]", "scales.short.targets.0='half'"),
    ],
)
def test_a_scale_that_is_wrong(refusal, preset, words):
    text = WHOLE.split("scales:")[0] + f"scales:\n  short: {{{preset}}}\n"
    assert words in refusal(text, scale="short")


def test_a_control_has_no_other_arm_of_its_name(refusal):
    text = WHOLE.replace("  cvar: [norm=gbn_cvar]", "  cvar: [norm=gbn_cvar]\n  bn_matched[cvar]: [norm=bn]")
    assert "'bn_matched[cvar]'" in refusal(text)


def test_an_experiment_that_is_no_file(tmp_path):
    for path in (tmp_path / "nosuch", tmp_path, "x" * 5000, tmp_path / "a" / "b" / "c"):
        with pytest.raises(ConfigError, match="unknown experiment") as caught:
            outline(path)
        assert "allowed: none" not in str(caught.value)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here that even root cannot read")
def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "sweep.yaml").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match=r"sweep\.yaml cannot be read: Input/output error"):
        outline(tmp_path)


def test_targets_may_be_written_without_a_point(tmp_path):
    text = WHOLE.replace("targets: {small: [0.5]}", "measure: kid_inception\ntargets: [5e-3, 4e-3]")
    (tmp_path / "sweep.yaml").write_text(text)
    assert outline(tmp_path).targets["small"] == [0.005, 0.004]


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["bn", "small", "norm=bn", "", "1e-3"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bn", "small", "rule", 1, None, True]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=12 * settings().max_examples, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(sorted(SweepFile.model_fields)), value=_ANYTHING, scaled=st.booleans())
def test_any_value_is_taken_or_refused(tmp_path, key, value, scaled):
    content = yaml.safe_load(WHOLE)
    (content["scales"]["short"] if scaled else content)[key] = value
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    for scale in (None, "short"):
        message = str(tmp_path)
        try:
            outline(tmp_path, scale)
        except ConfigError as error:
            message = str(error)
        assert len(message.splitlines()) == 1
        assert str(tmp_path) in message
