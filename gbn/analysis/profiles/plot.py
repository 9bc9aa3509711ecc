"""The figure of performance profiles: one step line per arm, the share of tasks within tau times the best time."""

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gbn.analysis.looks import looks_of
from gbn.analysis.profiles.score import Profile
from gbn.analysis.profiles.tasks import Tasks
from gbn.plot_style import DPI, RC, WIDTH

HEIGHT = 3.6  # inches


def draw(tasks: Tasks, profiles: Sequence[Profile], r_max: float) -> Figure:
    """Draw rho against tau from 1 to `r_max`, with the score after each arm's name."""
    with mpl.rc_context(dict(RC)):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        axes = figure.subplots()
        looks = looks_of([one.arm for one in profiles], tasks.reference, {})
        for one in sorted(profiles, key=lambda one: one.score.value_low):  # the best on top
            steps = [1.0, *sorted(r for r in one.ratios if 1 < r <= r_max), r_max]
            axes.step(
                steps,
                [one.rho(tau) for tau in steps],
                where="post",
                **looks[one.arm].line,
                linewidth=1.4,
                label=f"{one.arm}  {one.score.value_low:.2f}",
            )
        axes.set_xlim(1, r_max)
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.set_ylabel("tasks within τ times the best (%)")
        axes.set_xlabel(f"τ: {tasks.unit} to the target / those of the best arm")
        axes.grid(True, color="0.92", linewidth=0.5)
        longest = max(len(one.arm) for one in profiles) + 6
        figure.subplots_adjust(left=0.07, right=1 - (0.55 + 0.054 * longest) / WIDTH, top=0.9, bottom=0.3)
        lines, names = axes.get_legend_handles_labels()
        # Lines end together if all arms missed the same tasks, so names at their ends would be ambiguous.
        axes.legend(
            lines[::-1], names[::-1], title="arm, score", alignment="left", loc="upper left",
            bbox_to_anchor=(1.01, 1.03), frameon=False, fontsize=7, title_fontsize=7, handlelength=2.6,
        )  # fmt: skip
        settings = ", ".join(dict.fromkeys(one.name for one in tasks.settings))
        figure.text(0.02, 0.97, "Performance profiles", fontsize=9.5, fontweight="bold", va="top")
        caption = (
            f"{len(tasks.names)} tasks: every fixed target of {settings}. An arm's time is its median over seeds, a "
            f"miss as infinity. Behind the names: the score, the integral from 1 to {r_max:g} divided by "
            f"{r_max - 1:g} (Dahl et al. 2023). A line that ends below 100 % missed tasks, or took longer than shown."
        )
        figure.text(
            0.02, 0.02, "\n".join(textwrap.wrap(caption, 130)), fontsize=6.8, color="0.3", va="bottom"
        )
        return figure
