"""Lines that verbs take and lines that they refuse, in the folder that test_wrong_lines.py makes."""

from gbn.cli import arguments
from gbn.config.seeds import seed_list

#: A line of each verb that is right but for what is added to it, in the folder of `world`.
RIGHT = {
    "archive": ["--runs", "*"],
    "bench gpu": ["--out", "new"],
    "cost": ["experiments/tiny"],
    "study variance": ["experiments/tiny", "--setting", "one", "--trajectory", "bn", "--exact", "bn"],
    "patients": ["experiments/tiny"],
    "profile": ["experiments/simulated"],
    "plot convergence": ["--runs", "*"],
    "plot layers": ["--runs", "*"],
    "plot samples": ["experiments/tiny"],
    "plot segmentation": ["experiments/tiny"],
    "report": ["--runs", "*"],
    "reproduce": ["experiments/tiny"],
    "sweep": ["experiments/tiny"],
    "select arms": ["experiments/simulated"],
    "select rates": ["experiments/simulated"],
    "table": ["--runs", "*"],
    "wandb": ["--runs", "*"],
    "watch": ["experiments/tiny"],
}
MEASURED = [
    ("--runs nosuch-*", "nosuch"),
    ("--runs * --reference nosuch", "nosuch"),
    ("--runs * --measure nosuch", "nosuch"),
    ("--runs * --measure val_dice", "val_dice"),
    ("--runs * --targets 0.5 7", "7"),
    ("--runs * --scale small", "--scale"),
    ("experiments/tiny --runs *", "exactly one"),
    ("experiments/tiny --reference bn", "--reference"),
    ("experiments/tiny --name mine", "--name"),
    ("experiments/nosuch", "nosuch"),
    ("experiments/tiny --scale nosuch", "nosuch"),
    ("", "give an experiment"),
]
PICTURED = [
    ("nosuch-run", "nosuch"),
    ("experiments/tiny --scale nosuch", "nosuch"),
    ("experiments/tiny --setting nosuch", "nosuch"),
    ("experiments/tiny --arms bn nosuch", "nosuch"),
    ("experiments/tiny --seed 77", "77"),
    ("experiments/tiny experiments/tiny", "one experiment"),
    ("RUN --setting one", "--setting"),
    ("RUN --arms bn", "--arms"),
    ("RUN --seed 0", "--seed"),
    ("RUN --scale small", "--scale"),
    ("experiments/tiny --results nosuch", "nosuch"),
]
RENDERED = [
    ("--render rows.csv", "rows.csv"),
    ("--render binary.csv", "binary.csv"),
    ("--render empty.csv", "empty.csv"),
]
#: Names that nothing has, and lines that contradict themselves, with what the error has to name.
WRONG = {
    "archive": [
        ("--runs nosuch-*", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny", "nothing found"),
        ("experiments/tiny --check", "experiments/tiny"),
        ("--retract nosuch --reason x", "nosuch"),
        ("--retract RUN", "--reason"),
        ("--retract RUN --reason ", "--reason"),
        ("--retract RUN --reason x --shard nosuch", "nosuch"),
        ("--retract RUN --reason x --dry-run", "--dry-run"),
        ("--runs * --reason x", "--reason"),
        ("--runs * --shard x", "--shard"),
        ("--check --label x", "--label"),
        ("--check --results empty", "empty"),
        ("--runs * --source archive", "--source"),
    ],
    "bench norm": [("--pairs std nosuch", "nosuch"), ("--pairs cvar[alpha=nan]", "alpha"), *RENDERED],
    "bench precondition": RENDERED,
    "bench train": [("--arms bn nosuch", "nosuch"), ("--arms gbn_cvar@nosuch", "nosuch"), *RENDERED],
    "claims": [
        ("--experiment nosuch", "nosuch"),
        ("--experiment tiny", "tiny"),
        ("--folder empty", "papers.yaml"),
        ("--write --experiment tiny", "--write"),
        ("--write --check-dates", "--write"),
        ("--check-dates --source store", "--source"),
    ],
    "cost": [
        ("experiments/tiny --settings one nosuch", "nosuch"),
        ("experiments/tiny --arms nosuch", "nosuch"),
        ("experiments/tiny --elsewhere", "--times"),
        ("experiments/tiny --results results", "--times"),
        ("experiments/tiny --render rows.csv", "rows.csv"),
        ("experiments/tiny --render binary.csv", "binary.csv"),
        ("experiments/tiny --render rows.csv --blocks 3", "--blocks"),
        ("experiments/tiny --blocks 1", "1"),
    ],
    "study variance": [
        ("experiments/tiny", "--setting"),
        ("experiments/tiny --setting nosuch", "nosuch"),
        ("experiments/tiny --setting one --arms nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory bn --exact nosuch", "nosuch"),
        ("experiments/tiny --setting one --trajectory bn --exact bn --seeds 77", "77"),
        ("experiments/tiny --render rows.csv", "give either"),
        ("--render rows.csv --layer x", "--layer"),
        ("--render rows.csv", "rows.csv"),
        ("--render binary.csv", "binary.csv"),
    ],
    "study hessian": [*RENDERED, ("--render rows.csv --seeds 1", "--seeds")],
    "patients": [("experiments/nosuch", "nosuch"), ("experiments/tiny --runs *", "--runs")],
    "profile": [
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny@nosuch", "nosuch"),
        ("experiments/simulated --arms nosuch", "nosuch"),
        ("experiments/simulated --measure nosuch", "nosuch"),
        ("experiments/simulated --measure val_dice", "val_dice"),
        ("experiments/simulated --r-max 1", "1"),
    ],
    "plot convergence": [
        *MEASURED,
        ("--runs * --matrix --linear", "--linear"),
        ("--runs * --matrix", "No matrix"),
    ],
    "plot layers": [
        *MEASURED,
        ("--runs * --quantities nosuch", "nosuch"),
        ("--runs * --layers nosuch", "layers"),
    ],
    "plot samples": [*PICTURED, ("experiments/tiny --images 9", "9"), ("RUN --at 5", "pictures")],
    "plot segmentation": [*PICTURED, ("experiments/tiny --setting one --overlay nosuch", "nosuch")],
    "report": MEASURED,
    "runs": [("nosuch-*", "nosuch"), ("nosuch-* --source archive", "nosuch")],
    "sweep": [("experiments/nosuch", "nosuch"), ("experiments/tiny seed=5", "--seeds")],
    "reproduce": [
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny --scale nosuch", "nosuch"),
        ("experiments/tiny --seeds 0,77", "77"),
        ("experiments/tiny nosuch=1", "nosuch"),
        ("experiments/tiny results_dir=elsewhere", "--results"),
        ("experiments/tiny ++results_dir=elsewhere", "--results"),
        ("experiments/tiny --results new results_dir=elsewhere", "--results"),
        ("experiments/tiny seed=5", "--seeds"),
        ("experiments/tiny experiment=mine", "experiment"),
        ("experiments/tiny norm=bn,gbn_cvar", "norm"),
    ],
    "select arms": [
        ("experiments/simulated --setting nosuch", "'nosuch': simulated has no settings"),
        ("experiments/tiny", "--setting"),
        ("experiments/simulated --without nosuch", "nosuch"),
        ("experiments/nosuch", "nosuch"),
    ],
    "select rates": [("experiments/nosuch", "nosuch"), ("experiments/tiny --scale nosuch", "nosuch")],
    "table": MEASURED,
    "wandb": [
        ("--runs nosuch-* --dry-run", "nosuch"),
        ("--runs nosuch-* --dry-run --from-archive", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("", "give an experiment"),
    ],
    "watch": [
        ("--runs nosuch-* --once", "nosuch"),
        ("experiments/nosuch", "nosuch"),
        ("experiments/tiny nosuch=1", "nosuch"),
        ("experiments/tiny results_dir=elsewhere", "--results"),
        ("experiments/tiny --seeds 77", "77"),
        ("experiments/tiny --measure nosuch", "nosuch"),
        ("--runs * --seeds 0", "--seeds"),
        ("--runs * --once --stay", "--stay"),
    ],
}

#: What would write into the results folder.
BLOCKED = (
    ("archive", "--runs *"),
    ("claims", "--write --folder experiments"),
    ("patients", "experiments/tiny"),
    ("profile", "experiments/simulated"),
    ("plot convergence", "--runs *"),
    ("plot layers", "--runs *"),
    ("plot samples", "experiments/tiny"),
    ("plot segmentation", "experiments/tiny"),
    ("report", "--runs *"),
    ("reproduce", "experiments/tiny"),
    ("select rates", "experiments/simulated --plot"),
    ("table", "--runs *"),
)
LONG = "x" * 300
#: What no numeric option takes.
NO_NUMBERS = (
    "",
    " ",
    "ten",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "-0.5",
    "0x10",
    "1,5",
    "9" * 400,
    "--",
    "NaN",
    "∞",
)
NO_OUTPUT_FOLDERS = ("", "file", "file/below", "dangling", "dangling/below", LONG, f"new/{LONG}", "/proc/gbn")
NO_OUTPUT_FILES = ("", "empty", "file/below", "dangling/below", LONG, "/proc/gbn/x", "empty/")
NO_INPUTS = ("", "nosuch", "dangling", LONG, "file/below")


def wrong_values(action):
    """What an option must refuse; None where it takes any text."""
    kind = action.type
    if isinstance(kind, arguments.Whole):
        return [*NO_NUMBERS, "1.5", "1e3", str(kind.least - 1), str(kind.most + 1)]
    if isinstance(kind, arguments.Number):
        return [*NO_NUMBERS, *([] if kind.zero else ["0", "-0.0"]), repr(kind.most * 2)]
    known = {
        arguments.duration: [*NO_NUMBERS, "0", "5d", "1e3", "9" * 20 + "h"],
        arguments.name: ["", " ", "..", ".hidden", "a/b", "/a", LONG, "a\nb"],
        arguments.output_folder: NO_OUTPUT_FOLDERS,
        arguments.output_file: NO_OUTPUT_FILES,
        arguments.existing_folder: [*NO_INPUTS, "file"],
        arguments.existing_file: [*NO_INPUTS, "empty"],
        seed_list: ["", "-1", "a", "1-", "5-4", "0,5-4", "0-999999999", "9" * 30, "1.5", "nan"],
    }
    if kind in known:
        return known[kind]
    if action.choices is not None:
        return ["nosuch", "", " ".join(action.choices), next(iter(action.choices)).upper() + "x"]
    if getattr(kind, "__name__", "") == "_shape":
        return ["", "4x4", "0x3x5x5", "4x3x5x5x5", "axbxcxd", "-1x3x5x5", "4x3x5xinf", "4x3x5x" + "9" * 30]
    assert kind is None, f"{action.option_strings}: no wrong value is known of {kind}"
    return None
