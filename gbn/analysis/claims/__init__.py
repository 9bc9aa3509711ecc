"""Claims as data, and the verdicts that code gives them.

``experiments/<name>/claims.yaml`` holds what a paper claims and the rule for its verdict (:mod:`schema`,
:mod:`files`), written before the runs that it judges (:mod:`dates`). :mod:`quantities` measures, :mod:`rules`
interprets a measurement, :mod:`judge` does so for every claim, :mod:`ledger` prints.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Claim": "schema",
    "Paper": "schema",
    "Verdict": "judge",
    "check_dates": "dates",
    "load_claims": "files",
    "load_papers": "files",
    "markdown": "ledger",
    "of_experiment": "ledger",
    "terminal": "ledger",
    "verdicts": "judge",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"gbn.analysis.claims.{_HOMES[name]}"), name)
    raise AttributeError(
        f"module 'gbn.analysis.claims' has no attribute {name!r}; it has {', '.join(_HOMES)}"
    )
