"""The normalizers that have a name: what ``norm=gbn_cvar`` and ``norm_layer("gbn_cvar")`` both mean. Needs no torch.

``conf/norm`` has a file for each, with what a run needs beside (a revision, defaults written out to be overridden);
the tests hold the two together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gbn.risk.parameters import QUADRANGLE_PARAMETERS

__all__ = ["NAMED"]

#: Method and options by name, for names that are not a method's own at its defaults.
NAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        **{f"gbn_{quadrangle}": ("gbn", {"quadrangle": quadrangle}) for quadrangle in QUADRANGLE_PARAMETERS},
        "gbn_cvar_rescaled": ("gbn", {"quadrangle": "cvar", "rescaled": True}),
        "group": ("group", {"groups": 4}),
    }
)
