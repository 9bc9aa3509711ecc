"""From runs on disk to tables and figures. Reads the store and the archive, never trains, never imports torch.

The way: :mod:`plan` (what is compared with what; :mod:`derive` for any set of runs) -> :mod:`load` (over
:mod:`columnar`, a cache of columns) -> :mod:`targets`, :mod:`qualities` and :mod:`statistics` (estimates),
:mod:`inference` (how sure they are) -> :mod:`compare` (every figure; :mod:`gbn.store.measures` says which way each
measure is better, :mod:`headings` how it is spoken of) -> :mod:`sections` and :mod:`tables` (Markdown, LaTeX, CSV),
:mod:`plots`, :mod:`report` (one HTML file), :mod:`claims` (verdicts). :mod:`effects` asks where a speed-up comes
from, :mod:`inside` what layers recorded, :mod:`profiles` puts several experiments together, :mod:`watching` looks
at a sweep while it runs. :mod:`results` does it all for an experiment, and :mod:`committed` makes committed tables
again. :mod:`simulate` makes runs whose truth is known,
and :mod:`options` has what scripts choose runs by.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Comparison": "compare",
    "Options": "compare",
    "NothingFound": "load",
    "Runs": "load",
    "load_any": "load",
    "load_grid_runs": "load",
    "compare_with_archive": "results",
    "summary_text": "results",
    "write_results": "results",
    "differences": "committed",
    "regenerate": "committed",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gbn.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gbn.analysis' has no attribute {name!r}; it has {', '.join(_HOMES)}")
