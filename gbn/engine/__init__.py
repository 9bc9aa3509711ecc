"""The engine: from a checked configuration to a finished run on disk.

:func:`gbn.engine.run.run` is the way in; importing it loads no torch until a run really trains.
"""
