"""One self-contained HTML file per experiment: verdicts, tables, interactive curves, configurations, provenance.

:mod:`document` assembles the page from its parts: :mod:`answer` (the first paragraph), :mod:`protocol`,
:mod:`competence`, :mod:`claims`, :mod:`forest` (above the tables), :mod:`charts`, :mod:`configurations` and
:mod:`provenance`. Jinja templates under ``templates/`` hold the markup and escape all text; ``assets/`` holds style
and script. The file opens from disk, makes no network requests, and is the same, byte for byte, whenever it is made
from the same runs.
"""

from gbn.analysis.report.document import Sources, default_path, render, write

__all__ = ["Sources", "default_path", "render", "write"]
