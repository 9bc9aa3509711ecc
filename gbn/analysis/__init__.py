"""From runs on disk to tables and figures. Reads the store and the archive, never trains, never imports torch.

The subpackages in order; each uses only those above it:

* :mod:`runs`: what is compared with what (``plan``; ``derive`` for any set of runs), finished runs as rows
  (``rows``), and which of them a plan takes (``load``);
* :mod:`estimates`: numbers in, numbers out: time to a target, pairs, Holm's correction, power, resampling, survival;
* :mod:`comparison`: every number that a table, a plot or a claim uses: ``times``, ``figures``, ``evidence``;
* :mod:`tables` (Markdown, LaTeX, CSV) and :mod:`plots`;
* :mod:`claims` (verdicts), :mod:`profiles` (several experiments together) and :mod:`report` (one HTML file).

:mod:`results` does all of it for one experiment. :mod:`gbn.measures` defines the direction of each measure.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Comparison": "comparison.comparison",
    "Options": "comparison.comparison",
    "NothingFound": "runs.load",
    "Runs": "runs.load",
    "load_any": "runs.load",
    "load_grid_runs": "runs.load",
    "compare_with_archive": "results",
    "summary_text": "results",
    "write_results": "results",
    "differences": "tables.committed",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gbn.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gbn.analysis' has no attribute {name!r}; it has {', '.join(_HOMES)}")
