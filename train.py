"""Train one network with one normalizer, or with -m a sweep of them.

    python train.py norm=gbn_cvar model=resnet dataset=cifar10
    python train.py -m norm=bn,bn_matched,gbn_cvar 'seed=range(0,5)'
    python train.py --help

Overrides are checked before anything heavy is imported: a wrong one is one line and exit status 2.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is a run: Ctrl-C ends it without a traceback

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gbn.config.compose import check_sweep, compose, expand, resolve, rewrite
from gbn.config.errors import ConfigError
from gbn.config.schema import Config
from gbn.engine.journal import Journal
from gbn.engine.run import Outcome, run
from gbn.engine.service import kill_services
from gbn.engine.signals import StopSignals
from gbn.engine.streams import outlive_readers
from gbn.engine.sweep import Elsewhere, default_jobs, train_all
from gbn.store.identity import run_id


def _jobs(config: Config) -> int:
    if config.launcher.name == "local":
        return 1
    return default_jobs() if config.launcher.jobs == "auto" else config.launcher.jobs


def _end() -> None:
    """A second signal: the checkpoint on disk is whole at any moment, and nothing else is waited for."""
    show_cursor = b"\x1b[?25h" if sys.stdout.isatty() else b""
    kill_services(os.getpid())
    os.write(2, show_cursor + b"ended at once; the same command goes on from the last checkpoint\n")
    os._exit(130)


_signals = StopSignals(at_once=_end)
_elsewhere: Elsewhere | None = None  # of a sweep whose runs are trained in this process


def train(config: Config) -> None:
    """One run, in this process."""
    journal = Journal.inherited()
    assert journal is not None
    _signals.listen()
    if _signals.asked:
        raise KeyboardInterrupt
    outcome = run(config, jobs=_jobs(config), stop=lambda: _signals.asked)
    if outcome.status == "locked" and _elsewhere is not None:
        _elsewhere.runs[outcome.run_id] = config
    else:
        journal.record(outcome)


def wait_for(elsewhere: Elsewhere) -> None:
    """Train, or find done, what other processes were at when a sweep came to it."""
    while elsewhere.runs:
        if _signals.asked:
            raise KeyboardInterrupt
        for _, config in elsewhere.left(announce=True):
            train(config)


def combinations(overrides: list[str]) -> Iterator[Config | Outcome]:
    """The runs of a sweep in turn, an outcome in the place of a combination that is impossible."""
    for combination in expand(overrides):
        try:
            yield compose(combination)
        except ConfigError as error:
            yield Outcome("a combination of the sweep", "failed", False, str(error))


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(composed: DictConfig) -> None:
    """One run of a sweep that is not parallel, in this process; Hydra calls it."""
    # Under hydra.job.chdir=true Hydra has gone elsewhere: relative folders are meant as where the command was given.
    os.chdir(HydraConfig.get().runtime.cwd)
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
    global _elsewhere
    outlive_readers()
    arguments, _ = get_args_parser().parse_known_intermixed_args()
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
        parallel = arguments.multirun and config.launcher.name == "parallel"
        for one in overrides:
            key = one.key_or_group
            if one.is_sweep_override() and key.split(".")[0] == "launcher":
                raise ConfigError(f"{key} has several values: a sweep has one launcher")
            if parallel and key.replace("/", ".").startswith(("hydra.launcher", "hydra.sweeper")):
                raise ConfigError(f"{key} does nothing beside launcher=parallel: leave one of them out")
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # For what it adds only: otherwise it would compose every configuration twice more, and write files of its own.
    by_hydra = not parallel and (
        any(flag not in ("-m", "--multirun") for flag in flags)
        or any(one.key_or_group.startswith("hydra") for one in overrides)
    )
    found = list(combinations(arguments.overrides)) if parallel else []
    impossible = [one for one in found if isinstance(one, Outcome)]
    configs = {run_id(one.as_dict(), one.defaults()): one for one in found if isinstance(one, Config)}
    journal = Journal.begin(
        Path(config.results_dir) / "sweeps", len(configs) + len(impossible) if parallel else count
    )
    for outcome in impossible:
        journal.record(outcome)
    try:
        if parallel:
            train_all(list(configs.items()), jobs=_jobs(config), report=lambda one, *_: journal.record(one))
        elif not arguments.multirun:
            job() if by_hydra else train(config)
        else:
            _elsewhere = Elsewhere()
            if by_hydra:
                job()
            else:
                for each in combinations(arguments.overrides):
                    journal.record(each) if isinstance(each, Outcome) else train(each)
            wait_for(_elsewhere)
    except KeyboardInterrupt:
        journal.close()
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return journal.close()


if __name__ == "__main__":
    sys.exit(main())
