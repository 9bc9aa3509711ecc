"""Configuration: what a run is made of, checked before anything heavy is imported.

Hydra composes the YAML files of ``conf/``; :mod:`gbn.config.schema` says what each key means and allows;
:mod:`gbn.config.compose` turns command-line overrides into a checked :class:`~gbn.config.schema.Config`;
:mod:`gbn.config.grid` turns an experiment's ``sweep.yaml`` into the list of its runs. None of them imports
torch.
"""
