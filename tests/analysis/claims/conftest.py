"""A world with known truth: simulated runs, an experiments folder, and the verdicts that follow."""

import copy
from dataclasses import replace

import pytest
import yaml

from gbn.analysis.claims import verdicts
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

PAPERS = {
    "gbn": {
        "title": "A paper",
        "authors": "A. Author",
        "venue": "A venue 2019",
        "url": "https://example.org/gbn",
    },
    "other": {
        "title": "Another",
        "authors": "B. Author",
        "venue": "There 2020",
        "url": "https://example.org/other",
    },
}
RULE = {
    "rule": "direction",
    "quantity": "speedup_to_target",
    "target": 0.6,
    "unit": "updates",
    "arm": "gbn",
    "against": ["bn"],
    "controls": ["control"],
    "pairs": 8,
    "relevant": 1.1,
    "scale": "full",
}
CLAIM = {
    "id": "faster",
    "origin": "published",
    "paper": "gbn",
    "wording": "It is faster.",
    "source": {"url": "https://example.org/gbn", "read": "abstract"},
    "published": "not available",
    "conditions": "Ours.",
    "underspecified": {"alpha": "norm.alpha"},
    "verdict": RULE,
}
SWEEP = {
    "title": "simulated",
    "arms": {"bn": [], "gbn": [], "control": [], "gbn_2": []},
    "controls": {"gbn": ["control"]},
    "reference": "bn",
    "seeds": 8,
    "targets": [0.6, 0.8],
    "scales": {"small": {"seeds": 8}, "tiny": {"seeds": 8, "arms": ["bn", "gbn"]}},
}


class World:
    """An experiments folder with simulated runs."""

    def __init__(self, folder):
        self.experiments, self.results = folder / "experiments", folder / "results"
        self.grids = {}
        (self.experiments / "sim").mkdir(parents=True)
        (self.experiments / "papers.yaml").write_text(yaml.safe_dump(PAPERS, sort_keys=False))
        self.sweep(SWEEP)

    def sweep(self, spec):
        (self.experiments / "sim" / "sweep.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))

    def claims(self, *claims, experiment="sim"):
        (self.experiments / experiment).mkdir(exist_ok=True)
        path = self.experiments / experiment / "claims.yaml"
        path.write_text(yaml.safe_dump({"claims": list(claims)}, sort_keys=False))
        return path

    def runs(self, scale="full", *, machine=None, date=None, seeds=range(8), grid=None, **arms):
        """Simulate the arms of the grid (with `grid`'s changes) at a scale; those not given are never run."""
        named = {name: replace(arm, norm={"scale": scale}) for name, arm in arms.items()}
        every = {name: Arm(norm={"scale": scale}) for name in ("bn", "gbn", "control", "gbn_2")} | named
        self.grids[scale] = SimulatedGrid(
            every, name="sim", seeds=range(8), scale=None if scale == "full" else scale, **(grid or {})
        )
        records = [
            copy.deepcopy(record)
            for record in self.grids[scale].records(machine)
            if record.config["norm"]["name"] in arms and record.config["seed"] in seeds
        ]
        for record in records:
            if date is not None:
                record.summary["environment"]["date"] = date
                record.provenance[0]["date"] = date
        write_runs(records, self.results)

    def load(self, experiment, scale, wanted):
        grid = self.grids.get(scale) or SimulatedGrid(
            {name: Arm(norm={"scale": scale}) for name in ("bn", "gbn")}
        )
        return replace(grid, arms={name: arm for name, arm in grid.arms.items() if ("", name) in wanted})

    def judge(self, experiments=None, source="store"):
        return verdicts(self.results, source, experiments, self.experiments, self.load)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def claim():
    """A valid claim with changes: claim(id="x", rule={"pairs": 4})."""

    def make(rule=None, without=(), **changes):
        made = copy.deepcopy(CLAIM) | changes
        made["verdict"] = copy.deepcopy(RULE) | (rule or {})
        for name in without:
            del made["verdict"][name]
        return made

    return make
