"""The page: every part's data rendered by the template, with style, script and plotly.js in one file."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.looks import looks_of_plan
from gbn.analysis.report import answer, competence, configurations, forest, protocol, provenance
from gbn.analysis.report.charts import embedded, payload
from gbn.analysis.report.claims import claims_of
from gbn.analysis.tables import formats
from gbn.analysis.tables.section import Section
from gbn.analysis.tables.sections import sections
from gbn.store.files import write_atomically
from gbn.store.record import Record

_ASSETS = files("gbn.analysis.report") / "assets"
STYLES = ("base.css", "parts.css", "print.css")
SCRIPTS = ("page.js", "arms.js", "charts.js", "convergence.js", "more.js")


@dataclass
class Sources:
    """The sources of a report.

    Attributes:
        comparison: the figures.
        experiment: the folder of the experiment; None for any set of runs.
    """

    comparison: Comparison
    experiment: str | Path | None = None

    @cached_property
    def records(self) -> dict[str, Record]:
        """The records of the plan's runs."""
        return provenance.records_of(self.comparison.runs, self.results_dir)

    @property
    def results_dir(self) -> Path:
        """The folder with ``runs/`` and ``archive/``."""
        return self.comparison.runs.results_dir or Path("results")

    @property
    def experiments(self) -> Path:
        """The folder of all experiments."""
        return Path(self.experiment).parent if self.experiment else Path("experiments")


def default_path(comparison: Comparison) -> Path:
    """Return the default path of a report: in ``reports/`` next to the tables of the same source."""
    from gbn.analysis.results import output_folder

    runs = comparison.runs
    return output_folder(runs.results_dir or "results", runs.source) / "reports" / f"{runs.plan.name}.html"


def write(sources: Sources, path: str | Path) -> Path:
    """Write the report and return its path."""
    path = Path(path)
    text = render(sources)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def render(sources: Sources) -> str:
    """Return the whole file. The same runs give the same text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("gbn.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = {
        **_context(sources),
        "style": Markup(_assets(STYLES)),
        "script": Markup(_assets(SCRIPTS)),
        "plotly": Markup(get_plotlyjs()),
        "markdown": lambda text: Markup(protocol.html(text)),
    }
    return environment.get_template("report.html").render(context)


def command(comparison: Comparison) -> str:
    """Return the command that regenerates the report in a repository with the same runs."""
    options, selection = comparison.options, comparison.runs.plan.selection
    words = ["gbn", "report"]
    words += ["--runs", *selection["runs"]] if "runs" in selection else [str(selection.get("experiment"))]
    named = {**{key: selection.get(key) for key in ("scale", "reference")}, "measure": options.measure}
    words += [word for key, value in named.items() if value for word in (f"--{key}", value)]
    if selection.get("targets"):
        words += ["--targets", *(f"{target:g}" for target in selection["targets"])]
    words += ["--first-hit"] if options.interpolation == "first" else []
    words += ["--source", comparison.runs.source] if comparison.runs.source != "store" else []
    return shlex.join(words)


def _assets(names: tuple[str, ...]) -> str:
    return "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


def _context(sources: Sources) -> dict[str, Any]:
    comparison = sources.comparison
    runs, plan = comparison.runs, comparison.runs.plan
    readme = protocol.readme(sources.experiment)
    settings = [
        _setting(comparison, sources.records, name) for name in plan.settings if comparison.runs.arms(name)
    ]
    arms = list(dict.fromkeys(arm for part in settings for arm in comparison.runs.arms(part.name)))
    looks = looks_of_plan(plan)
    data = payload(comparison, {arm: looks[arm] for arm in arms})
    known = competence.archived(sources.experiments, sources.results_dir)
    verdicts, refused = claims_of(sources.results_dir, runs.source, sources.experiment)
    return {
        "plan": plan,
        "reference": plan.reference,
        "question": protocol.question(readme),
        "readme": readme,
        "answers": answer.answers(comparison),
        "counts": answer.counts(comparison),
        "planned": len(runs.runs),
        "settings": settings,
        "empty_settings": [name for name in plan.settings if not comparison.runs.arms(name)],
        "baselines": competence.baselines(runs, comparison.figures, sources.records, known),
        "field": competence.field(sources.experiments),
        "verdicts": verdicts,
        "refused": refused,
        "explanation": formats.explanation(comparison),
        "footnotes": formats.footnotes(comparison),
        "facts": provenance.facts(runs, sources.records),
        "failures": provenance.failures(runs, sources.records),
        "absent": provenance.absent(runs),
        "newest": provenance.newest(sources.records),
        "command": command(comparison),
        "versions": versions(),
        "measure": comparison.measured.key,
        "data": data,
        "embedded": embedded(data),
    }


@dataclass(frozen=True)
class SettingPage:
    """The part of the page for one setting."""

    name: str
    tables: tuple[Section, ...]
    forest_arms: tuple[tuple[str, str], ...]  # (arm, the arm it controls for or "")
    panels: tuple[forest.Panel, ...]
    configurations: tuple[configurations.Configuration, ...]


def _setting(comparison: Comparison, records: Mapping[str, Record], name: str) -> SettingPage:
    of = {control: arm for arm, inner in comparison.runs.plan.controls.items() for control in inner}
    return SettingPage(
        name=name,
        tables=tuple(sections(comparison, name)),
        forest_arms=tuple((arm, of.get(arm, "")) for arm in forest.arms_of(comparison, name)),
        panels=tuple(forest.panels(comparison, name)),
        configurations=tuple(configurations.configurations(comparison, records, name)),
    )


def versions() -> dict[str, str]:
    """Return the versions of the software that made the page."""
    from importlib.metadata import version

    return {name: version(name) for name in ("gbn", "plotly", "numpy", "pandas", "scipy")}
