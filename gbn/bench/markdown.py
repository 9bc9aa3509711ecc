"""The summary of a CSV, made only from its rows, so that no number is ever typed."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from .environment import COLUMNS as ENVIRONMENT
from .goals import NORM, TRAIN, Goal, Row, disturbed, judge, percent
from .providers import COMPILED, REFERENCE
from .text import between, number, paragraph, table


def goal_lines(rows: Sequence[Row], goals: Sequence[Goal]) -> list[str]:
    """Return the goals with their verdicts, worst cases and by how much they are missed."""
    shown = []
    for verdict in judge(rows, goals):
        worst = f"{number(str(verdict.worst[0]))} at {verdict.worst[1]}" if verdict.values else "-"
        count = (
            f"{len(verdict.values) - len(verdict.missed)} of {len(verdict.values) + len(verdict.unmeasured)}"
        )
        details = verdict.by_how_much()
        outcome = f"met{'; ' * bool(details)}{details}" if verdict.met else f"**{details}**"
        shown.append([verdict.goal.text, verdict.group, count, worst, outcome])
    return table(["goal", "of", "cases met", "worst", "verdict"], shown)


def goal_overview(rows: Sequence[Row], goals: Sequence[Goal]) -> list[str]:
    """Return one row per goal: how many cases of its pairs or arms meet it, the median and the worst."""
    shown = []
    for goal in goals:
        verdicts = judge(rows, [goal])
        values = [
            (value, f"{verdict.group}, {case}") for verdict in verdicts for value, case in verdict.values
        ]
        if not values:
            continue
        ordered = sorted(values, reverse=goal.at_least)
        middle = median(value for value, _ in values)
        wanted = sum(len(verdict.values) + len(verdict.unmeasured) for verdict in verdicts)
        met = wanted - sum(len(verdict.missed) + len(verdict.unmeasured) for verdict in verdicts)
        worst = f"{number(str(ordered[-1][0]))} ({ordered[-1][1]})"
        shown.append([goal.text, f"{met} of {wanted}", number(str(middle)), worst])
    return table(["goal", "cases met", "median", "worst"], shown)


def made_from(csv_path: Path, script: str) -> list[str]:
    """Return the lines that state the source of the numbers."""
    command = f"python scripts/{script}.py --render {csv_path.name}"
    return paragraph(f"Made from `{csv_path.name}` by `{command}`; change no number here.")


def environment_lines(row: Row) -> list[str]:
    """Return the lines that describe the environment."""
    return [f"- {name.replace('_', ' ')}: {row[name]}" for name in ENVIRONMENT if row.get(name)]


def failures(rows: Sequence[Row], name: Callable[[Row], str]) -> list[str]:
    """Return the lines about what was not timed, and why."""
    lines = []
    for row in rows:
        if row["status"] == "ok":
            continue
        why = row["status"]
        if why == "gate failed":
            why += f" ({row['gate_where']}: error {number(row['gate_error'])} times its bound)"
        lines.append(f"- {name(row)}: {why}")
    return ["", "## Not timed", "", *lines] if lines else []


def notes(csv_path: Path) -> list[str]:
    """Return the hand-written notes of a file, ``<stem>.notes.md``: why a goal is missed."""
    path = csv_path.with_suffix(".notes.md")
    return (
        ["", "## Notes", "", *path.read_text(encoding="utf-8").strip().splitlines()] if path.is_file() else []
    )


def norm_summary(rows: Sequence[Row], csv_path: Path, cold: Sequence[Row] = ()) -> str:
    """Return the Markdown of a norm benchmark; ``cold`` holds the rows of its cold-start file."""
    first = rows[0]
    gpu = first["device"] == "cuda"
    lines = [
        f"# A norm layer's forward and backward on {first['device_kind']}, {first['date'][:10]}",
        "",
        *made_from(csv_path, "bench_norm"),
        "",
        f"![chart]({csv_path.with_suffix('.png').name})",
        "",
        "## Goals",
        "",
        *goal_lines(rows, NORM),
        "",
        "Ratios are time / time of BatchNorm, below 1 = faster, medians over rounds with 20/80 percentiles.",
        *_tables(rows),
        "",
        "## Whole networks",
        "",
        "All norm layers of one network, forward and backward, in ms a step (each timed alone, with ReLU).",
        "",
        *_networks(rows),
        "",
        "## Memory kept for the backward pass",
        "",
        "MB of distinct storages that autograd keeps: the layer's input and its output where ReLU keeps it, whoever",
        "else keeps them too. Parameters and buffers are not counted.",
        "",
        *_grid(
            rows,
            lambda row: f"{number(row['kept_mb'])} ({number(row['kept_ratio'])}x)" if row["kept_mb"] else "-",
        ),
        *failures(rows, lambda row: f"{row['shape']} {row['dtype']} {row['layout']} {row['provider']}"),
        *(_cold(cold) if cold else []),
        "",
        "## How it was measured",
        "",
        *paragraph(
            "- Training mode, activation included: nn.BatchNorm2d + nn.ReLU(inplace=True) against "
            "GeneralizedBatchNorm2d with act=relu; inputs near-Gaussian. Providers take turns in one process, "
            "round by round."
        ),
        *paragraph(
            "- A case is timed only after forward, S, D and every gradient of that very case have agreed with "
            "the float64 reference (`gbn/bench/gate.py` has the bounds)."
        ),
        *paragraph(
            f"- Inputs go round {_range(row['input_sets'] for row in rows)} sets, so that none is still in the "
            f"cache of {number(first['cache_mb'])} MB: each layer first reads its input from memory."
        ),
        *paragraph(
            "- The limit is five passes over memory (x in, y out; x and cotangent in, dx out) at "
            f"{number(first['bandwidth_gb_s'])} GB/s, the bandwidth of a large copy in the same run, read + "
            "write. What was read or written last can still be in the cache, so tensors that fit there may beat "
            "it; `copy_ms` in the CSV is a copy (two passes) of the same size, round the same sets."
        ),
        *_device_notes(rows, gpu),
        "",
        "## Environment",
        "",
        *environment_lines(first),
        *notes(csv_path),
    ]
    return "\n".join(lines) + "\n"


def _device_notes(rows: Sequence[Row], gpu: bool) -> list[str]:
    if gpu:
        return paragraph(
            "- Times are the GPU's own, by events, with the queue kept full; `host_ms` in the CSV is what the CPU "
            "needs to issue the work."
        )
    others = [float(row["others"]) for row in rows if row["others"]]
    share = percent(max(others)) if others else "unknown"
    count = sum(disturbed(row) for row in rows)
    kept = paragraph(
        f"- Allocator: {rows[0]['allocator']}. By default glibc returns tensors of 32 MB and more to the system at "
        "every free, and paging them in again would be most of the time of any layer."
    )
    return kept + paragraph(
        "- Blocks in which other processes used more than 5 % of the machine were repeated; the largest share "
        f"left is {share} ({count} of {len(others)} rows stayed above 5 %)."
    )


def _range(values: Iterable[str]) -> str:
    numbers = sorted({int(value) for value in values})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _providers(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["provider"] for row in rows))


def _grid(rows: Sequence[Row], cell: Callable[[Row], str]) -> list[str]:
    """Return a table with one row per case and one column per provider."""
    providers = _providers(rows)
    cases: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        cases.setdefault((row["shape"], row["dtype"], row["layout"]), {})[row["provider"]] = row
    body = [
        [" ".join(case), *(cell(found[name]) if name in found else "-" for name in providers)]
        for case, found in cases.items()
    ]
    return table(["case", *providers], body)


def _tables(rows: Sequence[Row]) -> list[str]:
    best = "ratio_best" if any(row["provider"] == COMPILED for row in rows) else "ratio"

    def time(row: Row) -> str:
        milliseconds = between(row, "median_ms", "p20_ms", "p80_ms")
        return milliseconds if not row["pair"] else between(row, best, f"{best}_p20", f"{best}_p80")

    against = f"the faster of `{REFERENCE}` and `{COMPILED}`" if best == "ratio_best" else f"`{REFERENCE}`"
    lines = [
        *("", "## Cases", "", f"BatchNorm in ms, the pairs as ratios to {against}.", ""),
        *_grid(rows, time),
        *("", "## Against the limit", "", "Time / limit of five passes over memory: 1 is the limit.", ""),
        *_grid(rows, lambda row: number(row["of_limit"])),
    ]
    if any(row["host_ms"] for row in rows):
        lines += ["", "## Issued by the CPU", "", "Milliseconds until forward and backward are queued.", ""]
        lines += _grid(rows, lambda row: number(row["host_ms"]))
    return lines


def _networks(rows: Sequence[Row]) -> list[str]:
    sums: dict[tuple[str, str, str], dict[str, float | None]] = {}
    for row in rows:
        for part in row["networks"].split():
            network, _, count = part.partition(":")
            total = sums.setdefault((network, row["dtype"], row["layout"]), {})
            before = total.get(row["provider"], 0.0)
            if before is None or not row["median_ms"]:
                total[row["provider"]] = None
            else:
                total[row["provider"]] = before + int(count) * float(row["median_ms"])
    providers = _providers(rows)
    body = []
    for key, total in sums.items():
        base = total.get(providers[0])
        cells = [" ".join(key)]
        for name in providers:
            value = total.get(name)
            cells.append(
                "-" if not value or not base else f"{number(str(value))} ({number(str(value / base))}x)"
            )
        body.append(cells)
    return table(["network", *providers], body) if body else ["No shape of a known network was measured."]


def _cold(rows: Sequence[Row]) -> list[str]:
    times = ("import_torch_s", "import_gbn_s", "first_step_s", "second_step_s")
    body = [[row["start"], row["implementation"], *(number(row[name]) for name in times)] for row in rows]
    header = [
        "start",
        "kernels",
        "import torch (s)",
        "import gbn.nn (s)",
        "first step (s)",
        "second step (s)",
    ]
    return [
        *("", "## Cold start", ""),
        *paragraph(
            "A small layer's forward and backward in fresh processes, the device being up; medians of "
            f"{rows[0]['repeats']}. Compiled kernels are kept on disk: the first process of a machine is "
            "`empty cache`, every later one `filled cache`."
        ),
        "",
        *table(header, body),
    ]


def train_summary(rows: Sequence[Row], csv_path: Path) -> str:
    """Return the Markdown of a training-step benchmark."""
    first = rows[0]
    body = [
        [
            *(row[name] for name in ("net", "batch", "precision", "layout", "mode", "arm")),
            between(row, "images_s", "p20", "p80"),
            between(row, "ratio", "ratio_p20", "ratio_p80"),
        ]
        for row in rows
    ]
    header = ["net", "batch", "precision", "layout", "mode", "arm", "images/s", "ratio to bn"]
    lines = [
        f"# A training step on {first['device_kind']}, {first['date'][:10]}",
        "",
        *made_from(csv_path, "bench_train"),
        "",
        *("## Goals", "", *goal_lines(rows, TRAIN), ""),
        *paragraph(
            "Forward, loss, backward, SGD with momentum on fixed random images; arms take turns in one process. "
            "Ratio: images/s of the arm over those of `bn` (torch's BatchNorm, then ReLU) in the same round and "
            "mode, above 1 = faster; medians with 20/80 percentiles. Before timing, every arm's first losses are "
            "finite and those of gbn_std are bn's to rounding."
        ),
        "",
        *table(header, body),
        *failures(
            rows, lambda row: f"{row['net']} {row['batch']} {row['precision']} {row['mode']} {row['arm']}"
        ),
        *("", "## Environment", "", *environment_lines(first), *notes(csv_path)),
    ]
    return "\n".join(lines) + "\n"
