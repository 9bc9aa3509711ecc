"""``gbn bench``: timings of layers, of training steps, and of the laboratory's own commands."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.bench import names
from gbn.cli.arguments import Number, Whole, duration, existing_file, existing_folder, output_folder

if TYPE_CHECKING:
    import torch

    from gbn.plot_style import Picture

RESULTS = "results/benchmarks"
#: Of the preconditioned training step: at most so many times the plain one, at this batch size.
GOAL, AT_BATCH = 1.1, 128


def norm(result: cli.Parser) -> cli.Run:
    """Time forward and backward of a norm layer with its ReLU, against nn.BatchNorm2d and memory bandwidth.

    A case whose result or gradients differ from the float64 reference is not timed, and the exit status is 1. Writes
    norm-<device>-<date>.csv with one row per case and provider, a summary (.md) and a chart (.png) made from it, and
    coldstart-<device>-<date>.csv. The text of norm-<device>-<date>.notes.md is included in the summary.

    Examples:
        gbn bench norm                                 # default shapes: std, mad, cvar, iebn, mixture
        gbn bench norm --pairs all --networks resnet20
        gbn bench norm --pairs cvar 'cvar[exact]' --shapes 128x64x32x32 --kernels auto reference
        gbn bench norm --cold-start                    # only the cost of compiling in a fresh process
        gbn bench norm --render results/benchmarks/norm-<device>-<date>.csv
    """
    _add_timing(result)
    add = result.add_argument
    add("--networks", nargs="+", choices=names.NETWORKS, help="networks whose norm layers are timed")
    add("--batch", type=Whole(), default=128, metavar="N", help="batch size (default 128)")
    add("--shapes", nargs="+", type=_shape, default=[], metavar="NxCxHxW", help="further shapes")
    add("--dtypes", nargs="+", choices=names.DTYPES)
    add("--layouts", nargs="+", choices=names.LAYOUTS)
    what = "names, name[exact], iebn[name], mixture, mixture[5], mixture[per_channel], or all"
    add("--pairs", nargs="+", default=list(names.DEFAULT_PAIRS), metavar="PAIR", help=what)
    add("--kernels", nargs="+", choices=("auto", "reference"), default=["auto"])
    add("--compiled", action=argparse.BooleanOptionalAction, help="time compiled BatchNorm too")
    add("--cold-start", action="store_true", help="measure only the cold start")
    what = "fresh processes of each kind; 0 for none (default 3)"
    add("--cold-repeats", type=Whole(0, 1000), default=3, metavar="N", help=what)
    return _norm


def _norm(args: argparse.Namespace) -> int:
    cli.alone(args, "--render")
    if args.render:
        return render(args.render, norm_files)
    from gbn.bench import cases, measure, providers, timing

    pairs = cases.pair_names(args.pairs)
    device, known = set_up(args)
    if args.cold_start:
        print(_cold_start(args, known))
        return 0
    gpu = device.type == "cuda"
    networks = args.networks
    if networks is None:
        networks = () if args.shapes else cases.DEFAULT_NETWORKS[device.type]
    todo = cases.cases_of(
        networks,
        args.batch,
        args.dtypes or (["bfloat16", "float32"] if gpu else ["float32"]),
        args.layouts or (["channels_last"] if gpu else ["contiguous"]),
        args.shapes,
    )
    arms = providers.providers_of(pairs, args.kernels, gpu if args.compiled is None else args.compiled)
    timings = Timings("norm", known, args, measure.COLUMNS, "median_ms")
    machine = measure.Machine(device, timing.bandwidth(device), timing.cache_size(device), known)

    for case in filter(timings.allows, todo):
        found = measure.rows_of(case, arms, machine, args.blocks, args.block_seconds)
        timings.add(found)
        shown = [f"{row['provider']} {row.get('ratio', float('nan')):.2f}" for row in found[1:]]
        print(f"{case}: {found[0].get('median_ms', float('nan')):.3f} ms, x {', '.join(shown)}", flush=True)
    if args.cold_repeats and timings.allows("cold start"):
        print(_cold_start(args, known))
    return timings.end(norm_files)


def norm_files(path: Path) -> "dict[str, str | Picture]":
    """Return the summary and the chart of a CSV, by suffix."""
    from gbn.bench import chart, markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("provider", "median_ms"))
    cold = path.with_name(path.name.replace("norm-", "coldstart-", 1))
    cold_rows = read_rows(cold) if cold != path and cold.is_file() else []
    return {".md": markdown.norm_summary(rows, path, cold_rows), ".png": chart.picture(rows, path.stem)}


def _cold_start(args: argparse.Namespace, known: dict[str, Any]) -> Path:
    """Measure the cold start and write its file."""
    from gbn.bench import coldstart
    from gbn.bench.environment import file_name, write_rows

    path: Path = args.out / file_name("coldstart", known)
    write_rows(path, coldstart.measure(known, args.cold_repeats), coldstart.COLUMNS)
    return path


def _shape(text: str) -> tuple[int, int, int, int]:
    """Parse ``NxCxHxW``, for example 128x64x32x32, as four integers."""
    parts = text.lower().split("x")
    if len(parts) != 4 or not all(re.fullmatch("0*[1-9][0-9]{0,8}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape: give NxCxHxW, for example 128x64x32x32")
    n, c, h, w = map(int, parts)
    return n, c, h, w


def train(result: cli.Parser) -> cli.Run:
    """Time training steps with BatchNorm and with generalized batch normalization: images/s, paired.

    Arms take turns, step by step, in one process. An arm whose first losses are not finite, or a gbn_std whose losses
    differ from BatchNorm's, is not timed, and the exit status is 1. Writes train-<device>-<date>.csv with one row per
    arm, and a summary (.md) made from it, which includes the text of train-<device>-<date>.notes.md.

    Examples:
        gbn bench train                                # CPU: cnn, resnet20; GPU: resnet18
        gbn bench train --nets cnn --width 0.25 --arms bn gbn_cvar gbn_cvar@reference
        gbn bench train --precision bfloat16 --layout channels_last --compile
        gbn bench train --render results/benchmarks/train-<device>-<date>.csv
    """
    _add_timing(result)
    add = result.add_argument
    add("--nets", nargs="+", choices=list(names.SMALL))
    add("--width", type=Number(most=100), default=1.0, metavar="FACTOR", help="multiplies the channels")
    add("--batch", type=Whole(), nargs="+", default=[128], metavar="N", help="batch size (default 128)")
    what = "bn first; gbn_<pair>, iebn, mixture, each also with @reference"
    add("--arms", nargs="+", default=list(names.DEFAULT_ARMS), metavar="ARM", help=what)
    add("--precision", nargs="+", choices=names.PRECISIONS, help="float32, or autocast")
    add("--layout", choices=names.LAYOUTS)
    add("--compile", action=argparse.BooleanOptionalAction, help="time compiled networks too")
    add("--steps", type=Whole(), metavar="N", help="updates between clock readings (default 1; 5 on a GPU)")
    return _train


def _train(args: argparse.Namespace) -> int:
    cli.alone(args, "--render")
    if args.render:
        return render(args.render, train_files)
    from gbn.bench import training

    arms = list(dict.fromkeys([names.BASE, *args.arms]))
    for arm in arms:
        training.parse_arm(arm)
    device, known = set_up(args)
    gpu = device.type == "cuda"
    compiled = gpu if args.compile is None else args.compile
    settings = [
        training.Setting(net, args.width, batch, precision, layout, mode)
        for mode in ([False, True] if compiled else [False])
        for net in args.nets or (["resnet18"] if gpu else ["cnn", "resnet20"])
        for batch in args.batch
        for precision in args.precision or (["bfloat16", "float32"] if gpu else ["float32"])
        for layout in [args.layout or ("channels_last" if gpu else "contiguous")]
    ]
    steps = args.steps or (5 if gpu else 1)
    timings = Timings("train", known, args, training.COLUMNS, "images_s")
    for setting in filter(timings.allows, settings):
        rows = training.rows_of(
            *(setting, arms, device, known),
            steps=steps, blocks=args.blocks, block_seconds=args.block_seconds,
        )  # fmt: skip
        timings.add(rows)
        for row in rows:
            where = f"{row['net']} {row['batch']} {row['precision']} {row['mode']} {row['arm']}"
            speed = f"{row.get('images_s', float('nan')):.0f} images/s"
            print(f"{where}: {speed}, ratio {row.get('ratio', float('nan')):.3f}", flush=True)
    return timings.end(train_files)


def train_files(path: Path) -> "dict[str, str | Picture]":
    """Return the summary of a CSV, by suffix."""
    from gbn.bench import markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("arm", "images_s", "precision"))
    return {".md": markdown.train_summary(rows, path)}


def precondition(result: cli.Parser) -> cli.Run:
    """Time training steps with and without batch normalization preconditioning: milliseconds, paired.

    Arms take turns, step by step, in one process: `none` is the plain step of the network without normalization,
    `bnp` is preconditioned, and `bnp_patch` has a mean and variance for each tap of a kernel. An arm whose losses are
    not finite, or whose first loss differs from the plain step's, is not timed, and the exit status is 1. Goal at
    batch 128: at most 1.1 times the plain step. Writes precondition-<device>-<date>.csv, one row per arm, and a
    summary (.md).

    Examples:
        gbn bench precondition                         # mlp and cnn at batch 128, 6, 2 and 1
        gbn bench precondition --nets mlp --batch 128 --width 0.25
        gbn bench precondition --render results/benchmarks/precondition-<device>-<date>.csv
    """
    _add_timing(result)
    add = result.add_argument
    add("--nets", nargs="+", choices=list(names.PRECONDITIONED_IMAGES), default=["mlp", "cnn"])
    add("--width", type=Number(most=100), default=1.0, metavar="FACTOR", help="multiplies the channels")
    what = "batch sizes (default: 128, 6, 2 and 1)"
    add("--batch", type=Whole(), nargs="+", default=[128, 6, 2, 1], metavar="N", help=what)
    arms = list(names.PRECONDITIONED_ARMS)
    add("--arms", nargs="+", choices=arms, default=arms)
    return _precondition


def _precondition(args: argparse.Namespace) -> int:
    cli.alone(args, "--render")
    if args.render:
        return render(args.render, precondition_files)
    from gbn.bench.precondition import COLUMNS, Setting, rows_of

    arms = list(dict.fromkeys(["none", *args.arms]))
    device, known = set_up(args)

    timings = Timings("precondition", known, args, COLUMNS, "step_ms")
    settings = [Setting(net, args.width, batch) for net in args.nets for batch in args.batch]
    for setting in filter(timings.allows, settings):
        rows = rows_of(setting, arms, device, known, args)
        timings.add(rows)
        for row in rows:
            shown = f"{row.get('step_ms', float('nan')):.3g} ms, ratio {row.get('ratio', float('nan')):.3f}"
            print(f"{row['net']} {row['batch']} {row['arm']}: {shown}", flush=True)
    return timings.end(precondition_files)


def precondition_files(path: Path) -> "dict[str, str | Picture]":
    """Return the summary of a CSV, by suffix."""
    from gbn.bench import markdown
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=("arm", "step_ms", "width"), lacks=("precision",))
    lines = ["# A training step with and without preconditioning", ""]
    lines += [*markdown.made_from(path, "bench_precondition"), ""]
    lines += ["Median with 20/80 percentiles; the ratio is of a round's steps, to the plain step.", ""]
    lines += ["| network | width | batch | arm | step (ms) | ratio | goal |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        head = f"| {row['net']} | {row['width']} | {row['batch']} | {row['arm']} |"
        if row["status"] != "ok" or not row["ratio"]:
            lines.append(f"{head} {row['status']} | | |")
            continue
        judged = row["arm"] == "bnp" and int(row["batch"]) == AT_BATCH
        met = "met" if float(row["ratio"]) <= GOAL else f"**missed: {GOAL}**"
        lines.append(
            f"{head} {float(row['step_ms']):.3g} ({float(row['p20']):.3g} to {float(row['p80']):.3g}) | "
            f"{float(row['ratio']):.3f} ({float(row['ratio_p20']):.3f} to {float(row['ratio_p80']):.3f}) | "
            f"{met if judged else ''} |"
        )
    return {".md": "\n".join([*lines, "", *markdown.environment_lines(rows[0]), ""])}


def startup(result: cli.Parser) -> cli.Run:
    """Time from the command to the end of the first training update, in fresh processes (CIFAR-10, W&B offline).

    Writes startup-<device>-<date>.csv. The goal is under 3 s beyond importing torch.

    Examples:
        gbn bench startup
        gbn bench startup --repeats 3
    """
    add = result.add_argument
    add("--repeats", type=Whole(most=1000), default=7, metavar="N", help="fresh processes (default 7)")
    what = "output folder (default: results/benchmarks)"
    add("--out", type=output_folder, default=RESULTS, metavar="DIR", help=what)
    return _startup


def _startup(args: argparse.Namespace) -> int:
    from gbn.bench import startup
    from gbn.bench.environment import file_name, write_rows

    rows = startup.measure(args.repeats)
    path = args.out / file_name("startup", rows[0])
    write_rows(path, rows, rows[0])
    beyond = sorted(row["beyond_torch_s"] for row in rows)
    median, spread = beyond[len(beyond) // 2], f"{beyond[0]:.2f} to {beyond[-1]:.2f}"
    print(f"first update after importing torch: median {median:.2f} s ({spread})")
    print(path)
    return 0


def analysis(result: cli.Parser) -> cli.Run:
    """Time and weigh a table from the command to the written file, for stores of many simulated runs.

    Each table is made in a fresh process, all on two cores. Writes analysis-<device>-<date>.csv. The goal, for 10,000
    runs: a table in under 15 s and 1 GB. A store of 10,000 runs takes 800 MB under --folder.

    Examples:
        gbn bench analysis                             # 40, 1,000, 10,000 and 20,000 runs of 200 evaluations
        gbn bench analysis --runs 1000 --repeats 1
    """
    add = result.add_argument
    what = "sizes of the stores, at least 16 (two arms of eight seeds)"
    add(
        "--runs",
        type=Whole(16, 10**6),
        nargs="+",
        default=[40, 1_000, 10_000, 20_000],
        metavar="N",
        help=what,
    )
    what = "tables of each store (default 3)"
    add("--repeats", type=Whole(most=1000), default=3, metavar="N", help=what)
    add("--folder", type=existing_folder, metavar="DIR", help="folder for the stores (default: the system's)")
    what = "output folder (default: results/benchmarks)"
    add("--out", type=output_folder, default=RESULTS, metavar="DIR", help=what)
    return _analysis


def _analysis(args: argparse.Namespace) -> int:
    from gbn.bench.analysis import measure

    rows = measure(args.runs, args.folder, args.repeats)
    # Imported only now: a child's peak memory would include that of a parent that loaded torch.
    import torch

    from gbn.bench.environment import environment, file_name, write_rows

    found = environment(torch.device("cpu"), "system")
    where = {key: found[key] for key in ("device_kind", "python", "commit", "dirty", "date")}
    path = args.out / file_name("analysis", found)
    write_rows(path, [row | where for row in rows], [*rows[0], *where])
    print(path)
    return 0


#: part of ``gbn bench gpu`` -> (share of the remaining time when it begins, command).
PARTS: dict[str, tuple[float, str]] = {
    "tests": (0.3, "-m pytest -q -p no:cacheprovider -m gpu tests/kernels tests/nn tests/risk"),
    "norm": (0.68, "-m gbn bench norm --device cuda --cold-repeats 1"),
    "train": (1.0, "-m gbn bench train --device cuda"),
}
RESERVE = 45.0  # seconds that a case begun within the budget may still take


def gpu(result: cli.Parser) -> cli.Run:
    """Run the GPU tests and both benchmarks, each with a time limit, with everything in one folder.

    A part that fails or runs out of time does not stop the others, but the exit status is 1. There are at most eight
    files: gpu.log and those of the benchmarks. Time that a part leaves over goes to the next one. Needs a checkout,
    and of installed packages only torch, numba, pandas and pytest.

    Examples:
        gbn bench gpu --out /tmp/gpu
        make gpu OUT=/tmp/gpu
    """
    result.statuses |= {1: "a part failed or ran out of time"}
    add = result.add_argument
    what = "output folder, created if it is missing"
    add("--out", type=output_folder, required=True, metavar="DIR", help=what)
    what = "seconds for all parts together (default 840)"
    add("--seconds", type=Number(), default=840.0, metavar="N", help=what)
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    return _gpu


def _gpu(args: argparse.Namespace) -> int:
    look = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", look], check=False).returncode:
        raise ValueError(
            f"{sys.executable} sees no GPU through torch; name one that does: GPU_PYTHON=python3"
        )
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    results = {}
    for position, name in enumerate(args.parts):
        began = time.monotonic()
        share = 1.0 if position == len(args.parts) - 1 else PARTS[name][0]
        results[name] = _run_part(name, share * (end - began), out)
        print(f"{name}: {results[name]} ({time.monotonic() - began:.0f} s)", flush=True)
    with open(out / "gpu.log", "a", encoding="utf-8") as log:
        log.write("\n" + "\n".join(f"{name}: {result}" for name, result in results.items()) + "\n")
    print((out / "gpu.log").read_text(encoding="utf-8")[-6000:])
    return int(any(result != "ok" for result in results.values()))


def _run_part(name: str, limit: float, out: Path) -> str:
    """Run one part, with its output to the log; return how it ended."""
    command = PARTS[name][1].split()
    if name != "tests":  # the benchmarks end a little earlier by themselves
        command += ["--out", str(out), "--budget", f"{max(1.0, limit - RESERVE):.0f}"]
    variables = {**os.environ, "PYTHONPATH": str(names.ROOT), "PYTHONUNBUFFERED": "1"}
    with open(out / "gpu.log", "a", encoding="utf-8") as log:
        log.write(f"\n== {name}: python {' '.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=names.ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"out of time after {limit:.0f} s"
    return "ok" if status == 0 else f"exit status {status}"


def _add_timing(result: cli.Parser) -> None:
    """Add the options and the statuses that all timings of layers and steps have."""
    result.statuses |= {
        1: "an arm or case was not timed, as standard error says",
        3: "the budget ended first; standard error names what was left out",
    }
    add = result.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: the GPU if there is one")
    threads = min(2, os.cpu_count() or 1)
    add("--threads", type=Whole(most=1024), default=threads, metavar="N", help="on the CPU (default 2)")
    add_blocks(result, 3, 0.6)
    what = "keep freed memory, or return it to the system"
    add("--allocator", choices=("keep", "system"), default="keep", help=what)
    add_files(result, "only regenerate the summary of this file")


def add_blocks(made: cli.Parser, blocks: int, seconds: float, least: int = 1) -> None:
    """Add the options for the duration of the timing."""
    add = made.add_argument
    what = f"blocks of rounds (default {blocks})"
    add("--blocks", type=Whole(least, 10**6), default=blocks, metavar="N", help=what)
    what = f"seconds per block (default {seconds:g})"
    add("--block-seconds", type=Number(zero=True), default=seconds, metavar="SECONDS", help=what)
    add("--budget", type=duration, metavar="TIME", help="begin nothing after this time: 90s, 20m or 2h")


def add_files(made: cli.Parser, render: str) -> None:
    """Add the options for the output folder and the file to render again."""
    what = "output folder (default: results/benchmarks)"
    made.add_argument("--out", type=output_folder, default=RESULTS, metavar="DIR", help=what)
    made.add_argument("--render", type=existing_file, metavar="CSV", help=render)


def set_up(arguments: argparse.Namespace) -> "tuple[torch.device, dict[str, Any]]":
    """Set threads and allocator; return the device and the environment."""
    import torch

    from gbn.bench.environment import environment, pick_device
    from gbn.bench.timing import keep_memory

    device = pick_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    allocator = "cuda caching" if device.type == "cuda" else "system"
    if device.type == "cpu" and arguments.allocator == "keep":
        allocator = keep_memory()
    return device, environment(device, allocator)


class Timings:
    """The rows of one file, written after each case, so that a kill loses no finished case.

    Args:
        kind: the beginning of the file's name.
        known: the environment, as :func:`gbn.bench.environment.environment` returns it.
        args: with ``out``, the folder, and ``budget``, the seconds after which no case begins (None: no limit).
        columns: of the file.
        measured: the column of the timing; without a number in any row there is no file.

    Attributes:
        path: the file.
        left_out: the cases for which there was no time.
    """

    def __init__(
        self,
        kind: str,
        known: dict[str, Any],
        args: argparse.Namespace,
        columns: Iterable[str],
        measured: str,
    ) -> None:
        self._end = None if args.budget is None else time.monotonic() + args.budget
        from gbn.bench.environment import file_name

        self.path: Path = args.out / file_name(kind, known)
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self._columns, self._measured = tuple(columns), measured

    def allows(self, case: object) -> bool:
        """Return whether there is time for a case; if not, it is left out."""
        if self._end is None or time.monotonic() < self._end:
            return True
        self.left_out.append(str(case))
        return False

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add the rows of a case and write the file."""
        from gbn.bench.environment import write_rows

        self.rows += rows
        if self.timed:
            write_rows(self.path, self.rows, self._columns)

    @property
    def timed(self) -> bool:
        """Whether any row has a timing, and so whether there is a file."""
        return any(row.get(self._measured) is not None for row in self.rows)

    def end(self, files: Callable[[Path], "Mapping[str, str | Picture]"]) -> int:
        """Render the file; return the exit status: 1 if a row was not timed, 3 if a case was left out."""
        if self.timed:
            render(self.path, files)
            print(self.path)
        bad = [row for row in self.rows if row["status"] != "ok"]
        for row in bad:
            what = row.get("provider") or row.get("arm")
            where = row.get("shape") or row.get("net")
            why = row["status"]
            if row.get("gate_error") is not None and why == "gate failed":
                why += f", {row['gate_where']}: error {row['gate_error']:.3g} times its bound"
            print(f"{what} at {where}: {why}", file=sys.stderr)
        return self.status(bool(bad))

    def status(self, bad: bool) -> int:
        """Return the exit status, and name the cases that were left out."""
        if self.left_out:
            print(f"out of time, left out: {'; '.join(self.left_out)}", file=sys.stderr)
        return 1 if bad else 3 if self.left_out else int(not self.rows)


def render(path: Path, files: Callable[[Path], "Mapping[str, str | Picture]"]) -> int:
    """Write what is made from a CSV, beside it; return the exit status."""
    from gbn.bench.environment import write
    from gbn.plot_style import png

    for suffix, content in files(path).items():
        write(path.with_suffix(suffix), content.encode() if isinstance(content, str) else png(content))
    return 0
