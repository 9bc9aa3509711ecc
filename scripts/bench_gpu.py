"""`make gpu`: GPU tests and both benchmarks, each with a time limit, everything in one folder.

    python scripts/bench_gpu.py --out DIR [--seconds 840] [--parts tests norm train]

A part that fails or runs out of time does not stop the others, but the exit status is 1. There are at most eight
files: gpu.log and those of the benchmarks. Time that a part leaves over goes to the next one.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package is not installed there

from gbn import cli  # noqa: E402
from gbn.arguments import Number, output_folder  # noqa: E402

#: part -> (share of the remaining time when it begins, command); benchmarks get a budget that ends earlier.
PARTS: dict[str, tuple[float, list[str]]] = {
    "tests": (
        0.3,
        [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "gpu",
            "tests/kernels",
            "tests/nn",
            "tests/risk",
        ],
    ),
    "norm": (0.68, ["scripts/bench_norm.py", "--device", "cuda", "--cold-repeats", "1"]),
    "train": (1.0, ["scripts/bench_train.py", "--device", "cuda"]),
}
RESERVE = 45.0  # seconds that a case begun within the budget may still take


def run_part(name: str, share: float, command: list[str], seconds: float, out: Path) -> str:
    """Run one part, with its output to the terminal and the log; return how it ended."""
    limit = share * seconds
    if name != "tests":
        command = [*command, "--out", str(out), "--budget", f"{max(1.0, limit - RESERVE):.0f}"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with open(out / "gpu.log", "a", encoding="utf-8") as log:
        log.write(f"\n== {name}: python {' '.join(command)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"out of time after {limit:.0f} s"
    return "ok" if status == 0 else f"exit status {status}"


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__, statuses={1: "a part failed or ran out of time"})
    add = result.add_argument
    what = "output folder, created if it is missing"
    add("--out", type=output_folder, required=True, metavar="DIR", help=what)
    add(
        "--seconds",
        type=Number(),
        default=840.0,
        metavar="N",
        help="seconds for all parts together (default 840)",
    )
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    return result


def run(arguments: argparse.Namespace) -> int:
    """Run all parts; return 1 if one failed."""
    look = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", look], check=False).returncode:
        raise ValueError(
            f"{sys.executable} sees no GPU through torch; name one that does: GPU_PYTHON=python3"
        )
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + arguments.seconds
    results = {}
    for position, name in enumerate(arguments.parts):
        share, command = PARTS[name]
        share = 1.0 if position == len(arguments.parts) - 1 else share
        began = time.monotonic()
        results[name] = run_part(name, share, command, end - began, out)
        print(f"{name}: {results[name]} ({time.monotonic() - began:.0f} s)", flush=True)
    with open(out / "gpu.log", "a", encoding="utf-8") as log:
        log.write("\n" + "\n".join(f"{name}: {result}" for name, result in results.items()) + "\n")
    print((out / "gpu.log").read_text(encoding="utf-8")[-6000:])
    return int(any(result != "ok" for result in results.values()))


if __name__ == "__main__":
    cli.main(parser, run)
