"""``gbn train``: one run or, with -m, a sweep, by Hydra's command line.

Overrides are checked before torch is imported: an invalid one is reported in one line with exit status 2.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.utils import get_original_cwd
from omegaconf import DictConfig

from gbn import cli
from gbn.config.compose import compose, resolve, search_working_folder
from gbn.config.errors import ConfigError
from gbn.config.messages import one_line
from gbn.config.overrides import refuse_two_folders, rewrite
from gbn.config.places import check_results, config_dir
from gbn.config.schema import Config
from gbn.config.sweeps import check_sweep
from gbn.engine.run import Outcome, run
from gbn.store.identity import run_id
from gbn.suggest import did_you_mean
from gbn.sweep.journal import Journal
from gbn.sweep.signals import StopSignals
from gbn.sweep.streams import outlive_readers
from gbn.sweep.train_all import Elsewhere, default_jobs, train_all
from gbn.tracking.service import kill_services


def train(result: cli.Parser) -> cli.Run:
    """Train one network with one normalizer or, with -m, a sweep; Hydra parses the command line.

    Examples:
        gbn train norm=gbn_cvar model=resnet dataset=cifar10
    """
    result.verbatim = True
    return _train


def _jobs(config: Config) -> int:
    if config.launcher.name == "local":
        return 1
    return default_jobs() if config.launcher.jobs == "auto" else config.launcher.jobs


def _end() -> None:
    """Exit at once on a second signal: the checkpoint on disk is complete at any moment."""
    show_cursor = b"\x1b[?25h" if sys.stdout.isatty() else b""
    kill_services(os.getpid())
    os.write(2, show_cursor + b"ended at once; the same command resumes from the last checkpoint\n")
    os._exit(130)


_signals = StopSignals(at_once=_end)
_elsewhere: Elsewhere | None = None  # for a sweep whose runs are trained in this process


def train_one(config: Config) -> None:
    """Train one run in this process."""
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
    """Wait for runs that other processes were training when the sweep reached them; train those left unfinished."""
    while elsewhere.runs:
        if _signals.asked:
            raise KeyboardInterrupt
        for _, config in elsewhere.left(announce=True):
            train_one(config)


def job(composed: DictConfig) -> None:
    """Train one run as composed by Hydra, which calls this in this process or in a launcher's."""
    os.chdir(get_original_cwd())  # with hydra.job.chdir, a relative results_dir would move
    try:
        config = resolve(composed)
    except ConfigError as error:
        journal = Journal.inherited()
        assert journal is not None
        journal.record(Outcome("a combination of the sweep", "failed", False, str(error)))
    else:
        train_one(config)


def _arguments() -> argparse.Namespace:
    """Parse Hydra's options and the overrides.

    Raises:
        ConfigError: an option does not exist, or is not used here.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; see gbn train --help")

    parser.error = refuse
    arguments, rest = parser.parse_known_intermixed_args()
    for option in rest:
        name = option.lstrip("-")
        if name.split("=")[0].split(".")[0] in Config.model_fields:
            refuse(
                f"unknown option {option!r}: a key has no dashes, write {name if '=' in name else f'{name}=...'}"
            )
        refuse(f"unknown option {option!r}{did_you_mean(option, parser._option_string_actions)}")
    for option in ("config_name", "config_path", "config_dir", "experimental_rerun"):
        if getattr(arguments, option):
            refuse(
                f"--{option.replace('_', '-')} has no use here: the configuration is the folder conf/, or what the "
                "variable GBN_CONF names"
            )
    return arguments


def _runs(arguments: argparse.Namespace, overrides: list[Override]) -> tuple[list[Config], dict[str, str]]:
    """Return the requested runs, and the errors of the invalid ones by their overrides.

    Raises:
        ConfigError: the command line is wrong; nothing has been written.
    """
    if not arguments.multirun:
        return [compose(arguments.overrides)], {}
    for one in overrides:
        if one.is_sweep_override() and one.key_or_group.split(".")[0] == "launcher":
            raise ConfigError(f"{one.key_or_group} has several values: a sweep has one launcher")
    configs, impossible = check_sweep(arguments.overrides)
    if configs[0].launcher.name == "parallel":
        for one in overrides:
            if one.key_or_group.replace("/", ".").startswith(("hydra.launcher", "hydra.sweeper")):
                raise ConfigError(
                    f"{one.key_or_group} does nothing beside launcher=parallel: leave one of them out"
                )
    return configs, impossible


def _by_hydra() -> None:
    """Let Hydra handle the command line.

    Raises:
        ConfigError: Hydra, or something that it was told to load, rejects one of its own keys.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise the exception instead of printing a traceback
    search_working_folder()
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(job)()
    except Exception as error:
        raise ConfigError(f"Hydra: {one_line(error)}") from error


def _train(args: argparse.Namespace) -> int:
    global _elsewhere
    outlive_readers()
    # Hydra reads sys.argv, and provenance records it.
    sys.argv = [sys.argv[0] if Path(sys.argv[0]).name == "train.py" else "gbn train", *args.words]
    arguments = _arguments()
    if arguments.shell_completion:
        _by_hydra()
        return 0
    refuse_two_folders(arguments.overrides)
    overrides = rewrite(arguments.overrides)
    flags = [argument for argument in sys.argv[1:] if argument not in arguments.overrides]
    sys.argv = [sys.argv[0], *flags, *(one.input_line or "" for one in overrides)]
    if arguments.help or arguments.hydra_help or arguments.cfg or arguments.info is not None:
        _by_hydra()
        return 0
    configs, impossible = _runs(arguments, overrides)
    check_results(configs[0].results_dir)
    parallel = arguments.multirun and configs[0].launcher.name == "parallel"
    by_hydra = not parallel and any(one.key_or_group.startswith("hydra") for one in overrides)
    runs = {run_id(config.as_dict(), config.defaults()): config for config in configs}
    total = len(configs if by_hydra else runs) + len(impossible)
    journal = Journal.begin(Path(configs[0].results_dir) / "sweeps", total)
    try:
        _elsewhere = Elsewhere() if arguments.multirun and not parallel else None
        if by_hydra:
            _by_hydra()  # composes again, and reports invalid combinations itself
        else:
            for combination, message in impossible.items():
                journal.record(Outcome(combination, "failed", False, message))
            if parallel:
                jobs = _jobs(configs[0])
                train_all(list(runs.items()), jobs=jobs, report=lambda one, *_: journal.record(one))
            else:
                for config in runs.values():
                    train_one(config)
        if _elsewhere is not None:
            wait_for(_elsewhere)
    except KeyboardInterrupt:
        journal.close()
        print("stopped; the same command resumes from here", file=sys.stderr)
        return 130
    return journal.close()
