"""The named normalizers: what ``norm=gbn_cvar`` and ``norm_layer("gbn_cvar")`` both mean. Needs no torch.

``conf/norm`` has a file for each, with the further settings of a run (a revision, and defaults written out so that
they can be overridden); the tests keep the two consistent.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gbn.risk.parameters import QUADRANGLE_PARAMETERS

__all__ = ["NAMED"]

#: Method and options by name, for names other than that of a method at its defaults.
NAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        **{f"gbn_{quadrangle}": ("gbn", {"quadrangle": quadrangle}) for quadrangle in QUADRANGLE_PARAMETERS},
        "gbn_cvar_rescaled": ("gbn", {"quadrangle": "cvar", "rescaled": True}),
        "group": ("group", {"groups": 4}),
    }
)
