"""The condition number of a layer's Hessian with and without batch normalization preconditioning, during training.

    python scripts/hessian_condition.py
    python scripts/hessian_condition.py --render results/preconditioning/hessian.csv

A fully connected ReLU network is trained on MNIST images averaged down to 7x7, without normalization and with plain
SGD, once as it is and once preconditioned. At some states the Hessian of the loss over 2,000 training images is
computed in float64 for the weights and bias of each unit: H, and P H, where P is the matrix by which preconditioning
multiplies gradients. The condition number only counts eigenvalues above 1e-12 times the largest. Writes
hessian.csv and .md into results/preconditioning and the figure results/figures/bnp-hessian.png, made from the CSV.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import cli
from gbn.arguments import Whole, existing_file, output_folder, usable_folder

if TYPE_CHECKING:
    from gbn.plot_style import Picture

STATES = (0, 10, 30, 100, 300)
COLUMNS = ("trained", "seed", "update", "loss", "layer", "unit", "plain", "preconditioned")
MADE = ("device_kind", "torch", "commit", "date")


def medians(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int], tuple[float, float, float]]:
    """Return (trained, layer, update) -> medians over units and seeds: both condition numbers and their ratio."""
    found: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    for row in rows:
        key = (row["trained"], int(row["layer"]), int(row["update"]))
        found.setdefault(key, []).append((float(row["plain"]), float(row["preconditioned"])))
    return {
        key: (
            statistics.median(plain for plain, _ in pairs),
            statistics.median(after for _, after in pairs),
            statistics.median(plain / after for plain, after in pairs),
        )
        for key, pairs in found.items()
    }


def summary(rows: Sequence[dict[str, Any]], origin: Sequence[str]) -> str:
    """Return the table, from the CSV's rows."""
    lines = [
        "# Condition numbers of Hessians, with and without preconditioning",
        "",
        "Made from `hessian.csv` by `python scripts/hessian_condition.py --render "
        "results/preconditioning/hessian.csv`; change no number here. What is measured: the head of that script.",
        "Medians over the units of a layer and over seeds; the last column is the median of the units' own ratios.",
        "",
        "| trained by | layer | update | H | P H | H / P H |",
        "|---|---|---|---|---|---|",
    ]
    for (trained, layer, update), (plain, after, ratio) in sorted(medians(rows).items()):
        lines.append(f"| {trained} | {layer} | {update} | {plain:.3g} | {after:.3g} | {ratio:.3g} |")
    return "\n".join([*lines, "", *origin, ""])


def picture(rows: Sequence[dict[str, Any]]) -> "Picture":
    """Left: each unit of the first layer and of the others at the start; right: medians along training."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from gbn.plot_style import COLORS, DPI, RC, WIDTH, Picture

    at_start = [row for row in rows if int(row["update"]) == 0 and row["trained"] == "none"]
    table = medians(rows)
    layers = sorted({layer for _, layer, _ in table})
    with mpl.rc_context(dict(RC)):
        figure = Figure(figsize=(WIDTH, 0.42 * WIDTH), dpi=DPI, layout="constrained")
        units, course = figure.subplots(1, 2, width_ratios=(1, 1.25))
        for layer, marker in zip(layers, "os^", strict=False):
            points = [
                (float(r["plain"]), float(r["preconditioned"])) for r in at_start if int(r["layer"]) == layer
            ]
            units.plot(
                *zip(*points, strict=True),
                marker,
                ms=3,
                alpha=0.6,
                color=COLORS[layer],
                label=f"layer {layer}",
                linestyle="none",
            )
        highest = max(float(row["plain"]) for row in at_start)
        units.plot([1, highest], [1, highest], color="0.5", linewidth=0.8)
        units.set(xscale="log", yscale="log", xlabel="condition number of H", ylabel="of P H")
        units.set_title("a point a unit, at the start; line: no change", fontsize=7)
        units.legend(frameon=False, fontsize=6.5)
        updates = sorted({update for _, _, update in table})
        for layer in layers:
            for trained, style in (("none", "-"), ("bnp", "--")):
                for which in (0, 1):
                    course.plot(
                        [max(update, 3) for update in updates],  # 0 does not fit on a logarithmic axis
                        [table[trained, layer, update][which] for update in updates],
                        linestyle=style,
                        marker="o" if which == 0 else "x",
                        ms=3,
                        linewidth=1,
                        color=COLORS[layer],
                    )
        course.set(xscale="log", yscale="log", xlabel="update (0 is drawn at 3)", ylabel="median over units")
        course.set_title("along training: solid without, dashed with preconditioning", fontsize=7)
        for marker, name in (("o", "H"), ("x", "P H")):
            course.plot([], [], marker=marker, ms=3, color="0.3", linestyle="none", label=name)
        course.legend(frameon=False, fontsize=6.5, loc=(0.02, 0.62))
        return Picture("bnp-hessian", figure)


def made(path: Path) -> "tuple[str, Picture]":
    """Table and figure of a CSV."""
    from gbn.bench.environment import read_rows

    rows = read_rows(path, needs=[*COLUMNS, *MADE])
    origin = [f"- {key.replace('_', ' ')}: {rows[0][key]}" for key in MADE]
    return summary(rows, origin), picture(rows)


def parser() -> cli.Parser:
    """Return the command-line parser."""
    result = cli.Parser(__doc__)
    add = result.add_argument
    add("--seeds", type=Whole(most=1000), default=2, metavar="N", help="number of networks (default 2)")
    add(
        "--images",
        type=Whole(2),
        default=2000,
        metavar="N",
        help="number of images in the loss (default 2000)",
    )
    what = "updates to measure at"
    add("--states", type=Whole(0), nargs="+", default=list(STATES), metavar="UPDATE", help=what)
    what = "folder for preconditioning/ and figures/ (default: results)"
    add("--out", type=output_folder, default="results", metavar="DIR", help=what)
    add("--render", type=existing_file, metavar="CSV", help="only regenerate table and figure")
    return result


def run(args: argparse.Namespace) -> int:
    """Measure, write, render."""
    cli.alone(args, "--render")
    path = (args.render or args.out / "preconditioning" / "hessian.csv").absolute()
    figures = path.parents[1] / "figures"
    for folder in (path.parent, figures):
        usable_folder(folder)
    from gbn.bench.environment import environment, write_rows
    from gbn.plot_style import save
    from gbn.store.files import write_atomically

    if args.render is None:
        import torch

        from gbn.bench.hessian import measure

        rows = measure(range(args.seeds), args.images, sorted(args.states))
        known = environment(torch.device("cpu"), "system")
        write_rows(path, [row | {key: known[key] for key in MADE} for row in rows], [*COLUMNS, *MADE])
    text, drawn = made(path)
    save([drawn], figures)
    write_atomically(path.with_suffix(".md"), text)
    print(path)
    return 0


if __name__ == "__main__":
    cli.main(parser, run)
