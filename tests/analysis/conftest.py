import pytest

from gbn.analysis.simulate import Arm, SimulatedGrid, write_runs

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
