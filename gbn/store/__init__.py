"""Runs on disk: their ids, files and locks, and the committed archive. Never imports torch.

* :mod:`gbn.store.identity`: a configuration's run id;
* :mod:`gbn.store.record`: one run as read from disk;
* :mod:`gbn.store.records`: reading and writing ``results/runs/<run_id>/``;
* :mod:`gbn.store.finished`: consistency checks of a finished run's files;
* :mod:`gbn.store.files`: atomic replacement, and the digests that reveal damaged files;
* :mod:`gbn.store.locks`: one process per run;
* :mod:`gbn.measures`: what the keys of a curve measure, and in which direction they improve;
* :mod:`gbn.store.archive`: finished records in ``results/archive/`` (needs pyarrow, so it is not imported here).
"""

from gbn.store.files import StoreError
from gbn.store.identity import identity, run_id
from gbn.store.locks import LockedError, RunLock
from gbn.store.record import Record
from gbn.store.records import RunStore, RunWriter

__all__ = ["LockedError", "Record", "RunLock", "RunStore", "RunWriter", "StoreError", "identity", "run_id"]
