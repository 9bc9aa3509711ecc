"""Runs on disk: what a run is called, its files, its lock, and the committed archive. Never imports torch.

* :mod:`gbn.store.identity`: a configuration's run id;
* :mod:`gbn.store.records`: ``results/runs/<run_id>/`` read and written;
* :mod:`gbn.store.finished`: what a finished run's files must be, and agree in;
* :mod:`gbn.store.seals`: the digests by which damage is told from data;
* :mod:`gbn.store.locks`: one process a run;
* :mod:`gbn.measures`: what the keys of a curve measure, and which way is better;
* :mod:`gbn.store.archive`: finished records in ``results/archive/`` (needs pyarrow: not imported here).
"""

from gbn.store.files import StoreError
from gbn.store.identity import identity, run_id
from gbn.store.locks import LockedError, RunLock
from gbn.store.records import Record, RunStore, RunWriter

__all__ = ["LockedError", "Record", "RunLock", "RunStore", "RunWriter", "StoreError", "identity", "run_id"]
