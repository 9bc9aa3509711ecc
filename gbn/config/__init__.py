"""Configuration of a run, checked before anything heavy is imported.

Hydra composes the YAML files of ``conf/``; :mod:`gbn.config.schema` defines the meaning and values of each key;
:mod:`gbn.config.compose` turns command-line overrides into a checked :class:`~gbn.config.schema.Config`;
:mod:`gbn.config.grid` turns an experiment's ``sweep.yaml`` into the list of its runs. None of them imports
torch.
"""
