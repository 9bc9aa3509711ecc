"""Committed figures, drawn again from what their PNGs say they were made from.

As tables do with their first line, a figure carries its source (:class:`gbn.plot_style.Picture`), so that everything
under ``results/figures/`` can be made again without a list kept by hand.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.plots import convergence, layers, matrix, rates, sensitivity
from gbn.analysis.runs.activations import layer_frame
from gbn.plot_style import Picture


def _layers(comparison: Comparison, source: Mapping[str, Any]) -> list[Picture]:
    choice = layers.Choice(tuple(source["quantities"]), tuple(source["layers"]))
    return layers.pictures(layer_frame(comparison.runs), comparison, choice)[0]


KINDS: Mapping[str, Callable[[Comparison, Mapping[str, Any]], list[Picture]]] = {
    "convergence": lambda comparison, source: convergence.pictures(comparison, source["linear"])[0],
    "sensitivity": lambda comparison, _: sensitivity.pictures(comparison)[0],
    "matrix": lambda comparison, _: matrix.pictures(comparison)[0],
    "rates": lambda comparison, _: rates.pictures(comparison),
    "layers": _layers,
}


def pictures(comparison: Comparison, source: Mapping[str, Any]) -> list[Picture]:
    """Return all pictures of one source, for example the convergence of every setting.

    Args:
        comparison: of :func:`gbn.analysis.tables.committed.comparison_of` the source.
        source: from :func:`gbn.plot_style.source_and_digest`.

    Raises:
        ValueError: the kind of figure is unknown.
    """
    if source.get("kind") not in KINDS:
        raise ValueError(f"no kind of figure {source.get('kind')!r}: allowed are {', '.join(KINDS)}")
    return KINDS[source["kind"]](comparison, source)
