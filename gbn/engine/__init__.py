"""The engine: from a checked configuration to a finished run on disk.

:func:`gbn.engine.run.run` is the entry point; torch is not imported until a run actually trains.
"""
