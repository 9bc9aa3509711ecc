"""Generated command lines of train.py: wrong ones of every kind, valid ones, and any."""

from hypothesis import strategies as st

from gbn.config.overrides import groups
from tests.schema_keys import all_keys


@st.composite
def wrong_values(draw: st.DrawFn) -> list[str]:
    """A key with a value that it can't have, its context beside it."""
    key = draw(st.sampled_from([key for key in all_keys() if key.wrong()]))
    return [*key.context, f"{key.name}={draw(st.sampled_from(key.wrong()))}"]


@st.composite
def valid_lines(draw: st.DrawFn) -> list[str]:
    """A key with a value that it can have, its context beside it."""
    key = draw(st.sampled_from([key for key in all_keys() if key.valid() is not None]))
    values = key.valid()
    assert values is not None
    return [*key.context, f"{key.name}={draw(values)}"]


_WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=8)


def wrong_keys() -> st.SearchStrategy[list[str]]:
    """Keys and choices that there are not."""
    known = st.sampled_from([key.name for key in all_keys() if not key.name.startswith("norm.kwargs")])
    return st.one_of(
        known.map(lambda key: [f"{key}_x=1"]),
        known.map(lambda key: [f"+{key}_x=1"]),
        known.map(lambda key: [f"x{key}=1"]),
        known.map(lambda key: [f"{key}@pack=1"]),
        _WORDS.map(lambda word: [f"zz{word}=1"]),
        _WORDS.map(lambda word: [f"zz/{word}=1"]),
        st.tuples(st.sampled_from(sorted(groups())), _WORDS).map(lambda pair: [f"{pair[0]}=zz{pair[1]}"]),
        st.sampled_from(
            [[f"{key}.name=x"] for key in ("task", "dataset", "model", "norm", "optimizer", "schedule")]
        ),
    )


def wrong_grammar() -> st.SearchStrategy[list[str]]:
    """Lines that nobody can read."""
    ends = (
        "",
        "=",
        "=[1",
        "={a",
        "=a=b",
        "=#",
        "=~x",
        "='a",
        '="a',
        "=f(",
        "=f(1)",
        "=${",
        "=${nosuch}",
        "=???",
        "=a,,b",
    )
    return st.tuples(
        st.sampled_from(["seed", "optimizer.lr", "norm.eps", "trainer.epochs"]), st.sampled_from(ends)
    ).map(lambda pair: ["".join(pair)])


def wrong_options() -> st.SearchStrategy[list[str]]:
    """Options that there are not, or that have no use."""
    known = st.sampled_from([key.name for key in all_keys()])
    return st.one_of(
        known.map(lambda key: [f"--{key}=1"]),
        known.map(lambda key: [f"-{key}=1"] if key[0] not in "hcpmri" else [f"--{key}=2"]),
        known.map(lambda key: [f"--{key}", "1"]),
        _WORDS.map(lambda word: [f"--zz{word}"]),
        st.sampled_from(
            [
                *(
                    ["--cfg", "nosuch"],
                    ["--info", "nosuch"],
                    ["--package"],
                    ["--config-name", "x"],
                    ["-cn", "x"],
                ),
                *(["--config-dir", "x"], ["--config-path", "x"], ["--experimental-rerun", "x"]),
                *(["hydra=3"], ["hydra.mode=MULTIRUN"], ["hydra.run.dir=x"], ["hydra.nosuch=1"]),
                *(
                    ["hydra/launcher=nosuch"],
                    ["hydra.job=3"],
                    ["hydra.verbose=[1,{}]", "hydra.job.chdir=maybe"],
                ),
            ]
        ),
    )


def wrong_sweeps() -> st.SearchStrategy[list[str]]:
    """Sweeps without a run, without an end, with a value that is wrong."""
    empty = (
        "range(0,0)",
        "range(3,0)",
        "range(0,3,-1)",
        "range(0,3,0)",
        "choice()",
        "glob()",
        "interval()",
        "glob(*)",
    )
    endless = (
        "range(0,1e9)",
        "range(0,inf)",
        "range(0,1e400)",
        "range(nan,1)",
        "range(0,1,1e-30)",
        "interval(0,1)",
    )
    mixed = (
        "range(0,2),5",
        "choice(range(0,2),3)",
        "choice(choice(1,2),3)",
        "a,1",
        "0,-1",
        "0,1.5",
        "sort(0,x)",
    )
    wrong = st.sampled_from([*empty, *endless, *mixed, "range(a,b)", "range()", "nosuch(1,2)"])
    return st.one_of(
        wrong.map(lambda value: ["-m", f"seed={value}"]),
        wrong.map(lambda value: ["-m", "norm=bn,gbn_cvar", "launcher=parallel", f"seed={value}"]),
        st.sampled_from(
            ["norm=bn,nosuch", "norm=glob(zz*)", "launcher=local,parallel", "optimizer.lr=0.1,inf"]
        ).map(lambda one: ["-m", one]),
        st.just(["-m", "seed=range(0,200)", "optimizer.lr=range(0.1,1,0.01)"]),
    )


def unasked_sweeps() -> st.SearchStrategy[list[str]]:
    """Several values without -m."""
    values = (
        "seed=0,1",
        "norm=bn,gbn_cvar",
        "seed=range(0,3)",
        "norm=glob(gbn*)",
        "seed=choice(1)",
        "seed=interval(0,1)",
    )
    return st.sampled_from(values).map(lambda one: [one])


def wrong_lines() -> st.SearchStrategy[list[str]]:
    """Command lines of train.py, each wrong in one way."""
    return st.one_of(wrong_values(), wrong_keys(), wrong_grammar(), wrong_options(), wrong_sweeps())


def any_lines() -> st.SearchStrategy[list[str]]:
    """Command lines that may be anything, of the signs that mean something."""
    signs = st.text("abs=,.:;()[]{}'\"\\~@#$%&*+-?!/ |<>^0123456789üß\t", min_size=1, max_size=12)
    key = st.sampled_from([key.name for key in all_keys()])
    made = st.tuples(key, signs).map("=".join)
    return st.lists(st.one_of(signs, made), min_size=1, max_size=3)
