import dataclasses
import shutil

import pytest

from gbn.store import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

CONTROLS = {"gbn_fast": ["bn_matched[gbn_fast]", "bn_reparam[gbn_fast]"]}


def small_grid(**changes):
    """Four arms of known speed, eight seeds."""
    arms = {
        "bn": Arm(),
        "gbn_fast": Arm(speed=1.5, own_spread=0.03),
        "bn_matched[gbn_fast]": Arm(speed=1.25, own_spread=0.03),
        "bn_reparam[gbn_fast]": Arm(speed=1.25, own_spread=0.03),
    }
    return SimulatedGrid(**{"arms": arms, "controls": CONTROLS, **changes})


@pytest.fixture
def grid():
    return small_grid()


@pytest.fixture
def make_grid():
    return small_grid


@pytest.fixture
def results(tmp_path, grid):
    write_runs(grid.records(), tmp_path)
    return tmp_path


def recording(update, value, layers=("stem.norm", "body.norm", "last.norm")):
    return {
        "update": update,
        "revision": 1,
        "images": 8,
        "lr": 0.1,
        "layers": {
            name: {
                "active": [value - 0.1, value, value + 0.1],
                "deviation": [None, None, None],
                "dead": 0.25,
                "weight_norm": value * 10.0**depth,
            }
            for depth, name in enumerate(layers)
        },
    }


def write_recordings(grid, results, arms=("bn", "gbn_fast")):
    """Recordings for the runs of some arms: the active share is 0.3 + seed / 100 + update / 10,000."""
    for record in grid.records():
        norm = record.config["norm"]["name"]
        if norm in arms:
            lines = [
                recording(update, 0.3 + record.config["seed"] / 100 + update / 1e4)
                for update in (5, 100, 2000)
            ]
            shutil.rmtree(RunStore(results).path(record.run_id))
            write_runs([dataclasses.replace(record, read_layers=lambda lines=lines: lines)], results)


@pytest.fixture
def recorded(grid, results):
    """Results in which two arms of four have recordings of their layers."""
    write_recordings(grid, results)
    return results
