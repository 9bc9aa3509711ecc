"""Plans read off a set of runs: a preconditioner is a method, though the optimizer's section holds it."""

from gbn.analysis.runs.load import load_any
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs


class Preconditioned(SimulatedGrid):
    """Arms that end in `_bnp` are those without it, preconditioned."""

    def identity(self, setting, arm, seed):
        identity = super().identity(setting, arm, seed)
        identity["optimizer"] = {"name": "sgd", "revision": 1, "lr": 0.1}
        identity["norm"]["name"] = arm.removesuffix("_bnp")
        if arm.endswith("_bnp"):
            identity["optimizer"] |= {"precondition": "bnp", "bnp": {"revision": 1}}
        return identity


def test_preconditioned_runs_are_arms_beside_the_others(tmp_path):
    grid = Preconditioned(
        arms={"bn": Arm(), "none": Arm(), "none_bnp": Arm(), "group_bnp": Arm()}, seeds=range(2)
    )
    write_runs(grid.records(), tmp_path)
    assert all("-none_bnp-" in run_id for run_id in grid.cells[2].run_ids.values())
    plan = load_any(["*"], tmp_path).plan
    assert plan.settings == [""]
    assert set(plan.arms("")) == {"bn", "none", "none_bnp", "group_bnp"}
    found = {entry.run_id for entry in plan.entries if entry.arm == "none_bnp"}
    assert found == set(grid.cells[2].run_ids.values())
