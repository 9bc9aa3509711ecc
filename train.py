"""Train one network with one normalizer, or with -m a sweep of them.

    python train.py norm=gbn_cvar model=resnet dataset=cifar10
    python train.py -m norm=bn,bn_matched,gbn_cvar 'seed=range(0,5)'
    python train.py --help

Overrides are checked before anything heavy is imported: a wrong one is one line and exit status 2.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from gbn.config.compose import check_sweep, compose, resolve, rewrite
from gbn.config.errors import ConfigError
from gbn.config.schema import Config
from gbn.engine.journal import Journal
from gbn.engine.run import Outcome, run
from gbn.engine.sweep import default_jobs

_signals: list[int] = []


def _jobs(value: Any) -> int:
    return default_jobs() if value == "auto" else int(value)


def _stop(number: int, _: Any) -> None:
    _signals.append(number)


OmegaConf.register_new_resolver("gbn_jobs", _jobs, replace=True)


def train(config: Config) -> None:
    """One run, in this process."""
    for name in (signal.SIGINT, signal.SIGTERM):  # a second signal while saving changes nothing
        signal.signal(name, _stop)
    journal = Journal.inherited()
    assert journal is not None
    if _signals:
        return
    parallel = config.launcher.name == "parallel"
    journal.record(
        run(config, jobs=_jobs(config.launcher.jobs) if parallel else 1, stop=lambda: bool(_signals))
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(composed: DictConfig) -> None:
    """One run of a sweep, in this process; Hydra calls it."""
    try:
        config = resolve(composed)
    except ConfigError as error:
        journal = Journal.inherited()
        assert journal is not None
        journal.record(Outcome("a combination of the sweep", "failed", False, str(error)))
    else:
        train(config)


def main() -> int:
    """Check the command line, hand it to Hydra, and sum up; the exit status."""
    arguments, _ = get_args_parser().parse_known_args()
    trains = not (arguments.help or arguments.hydra_help or arguments.cfg or arguments.info is not None)
    trains = trains and not arguments.shell_completion
    try:
        overrides = rewrite(arguments.overrides)
        flags = [argument for argument in sys.argv[1:] if argument not in arguments.overrides]
        sys.argv = [sys.argv[0], *flags, *(one.input_line or "" for one in overrides)]
        if not trains:
            job()
            return 0
        count = check_sweep(arguments.overrides) if arguments.multirun else 1
        swept = [one.key_or_group for one in overrides if one.is_sweep_override()]
        if swept and not arguments.multirun:
            raise ConfigError(
                f"{swept[0]} has several values: a sweep needs -m, as in train.py -m {swept[0]}=..."
            )
        plain = [one.input_line or "" for one in overrides if not one.is_sweep_override()]
        config = compose(plain)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    journal = Journal.begin(Path(config.results_dir) / "sweeps", count)
    try:
        if flags or any(one.key_or_group.startswith("hydra") for one in overrides):
            job()
        else:  # Hydra would compose the same configuration twice more
            train(config)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return journal.close()


if __name__ == "__main__":
    sys.exit(main())
