"""`gbn wandb` against a server in memory with W&B's rules: one run an id, no step twice or backwards."""

from copy import deepcopy
from types import SimpleNamespace

import pytest

from gbn.store.archive import Archive
from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs

GRID = SimulatedGrid({"bn": Arm(), "gbn_cvar": Arm(speed=1.5)}, seeds=range(2), points=10)
IDS = [record.run_id for record in GRID.records()]


class Server:
    """What is on it, and how it can be broken."""

    def __init__(self):
        self.runs = {}
        self.questions = 0
        self.uploads = []
        self.entity = "me"
        self.refuses = None  # raised by the next connection
        self.silent = False  # it answers no question
        self.dies_after = None  # points that it takes before the network is gone

    def at(self, run_id, entity="me", project="gbn"):
        return self.runs[f"{entity}/{project}/{run_id}"]


class Client:
    """A run being written."""

    def __init__(self, server, kept):
        self.server, self.kept = server, kept
        self.starting_step = kept["history"][-1][0] + 1 if kept["history"] else 0
        self.summary = kept["summary"]

    def define_metric(self, name, **_):
        self.kept["metrics"].append(name)

    def log(self, values, step):
        assert step >= self.starting_step, f"W&B takes no step {step} before {self.starting_step}"
        if self.server.dies_after is not None:
            if self.server.dies_after == 0:
                raise ConnectionError("the network is gone\nand more")
            self.server.dies_after -= 1
        self.kept["history"].append((step, values))

    def finish(self, exit_code):
        self.kept["state"] = "failed" if exit_code else "finished"


@pytest.fixture
def server(monkeypatch):
    import wandb
    from wandb.apis.public.runs import RunNotFoundError
    from wandb.errors import CommError

    server = Server()

    class Api:
        def __init__(self, timeout):
            if server.refuses:
                raise server.refuses
            self.default_entity = server.entity

        def run(self, path):
            server.questions += 1
            if server.silent:
                raise CommError("no answer", TimeoutError("no answer"))
            if path not in server.runs:
                missing = RunNotFoundError(f"Could not find run {path}")
                raise CommError(str(missing), missing)
            kept = server.runs[path]
            return SimpleNamespace(
                state=kept["state"],
                summary_metrics=dict(kept["summary"]),
                historyLineCount=len(kept["history"]),
                lastHistoryStep=kept["history"][-1][0] if kept["history"] else -1,
            )

    def init(*, entity, project, id, resume, mode, **described):
        assert (resume, mode) == ("allow", "online")
        fresh = {"history": [], "summary": {}, "state": "running", "metrics": []}
        kept = server.runs.setdefault(f"{entity}/{project}/{id}", fresh)
        kept["described"] = {key: described[key] for key in ("name", "group", "job_type", "tags", "config")}
        server.uploads.append(id)
        return Client(server, kept)

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    for name in ("WANDB_SILENT", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, "true")  # the script sets them where they are not: undone after the test
    return server


@pytest.fixture
def results(tmp_path):
    write_runs(GRID.records(), tmp_path)
    return tmp_path


def steps(server, run_id):
    return [step for step, _ in server.at(run_id)["history"]]


def test_each_run_is_uploaded_once(gbn, server, results):
    status, out, err = gbn("wandb", "--runs", "*", "--results", results)
    assert (status, err) == (0, "")
    assert "4 runs to me/gbn" in out
    assert "4 uploaded" in out
    for record in GRID.records():
        mirror = server.at(record.run_id)
        assert steps(server, record.run_id) == [point["update"] for point in record.curve]
        assert mirror["summary"]["status"] == "finished"
        assert mirror["state"] == "finished"
    groups = {server.at(run_id)["described"]["group"] for run_id in IDS}
    assert len(groups) == 2  # an arm is a group of its seeds

    asked = server.questions
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 0
    assert out.splitlines()[-1] == "4 complete"
    assert server.questions == asked  # the ledger saves asking

    (results / "wandb" / "synced.json").unlink()
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results)
    assert out.splitlines()[-1] == "4 complete"
    assert server.questions == asked + 4
    assert server.uploads == sorted(IDS)  # nothing twice


def test_an_upload_that_is_broken_off_goes_on(gbn, server, results):
    server.dies_after = 14  # in the middle of the second run
    status, out, err = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 1
    assert "failed: the network is gone" in out
    assert "and more" not in out
    assert "1 of 4 runs are left" in err
    server.dies_after = None
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 0
    assert "(the rest was there)" in out
    for record in GRID.records():
        assert steps(server, record.run_id) == [point["update"] for point in record.curve]


def test_no_answer_is_not_taken_for_absence(gbn, server, results):
    server.silent = True
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 1
    assert "failed: no answer" in out
    assert server.uploads == []


def test_a_dry_run_changes_nothing(gbn, server, results):
    gbn("wandb", "--runs", IDS[0], "--results", results)
    before = deepcopy(server.runs)
    ledger = (results / "wandb" / "synced.json").read_text()
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results, "--dry-run")
    assert status == 0
    assert out.splitlines()[-1] == "1 complete, 3 to upload"
    assert server.runs == before
    assert server.uploads == [IDS[0]]
    assert (results / "wandb" / "synced.json").read_text() == ledger


def test_other_numbers_under_the_same_id_are_left_and_told(gbn, server, results):
    gbn("wandb", "--runs", IDS[0], "--results", results)
    mirror = server.at(IDS[0])
    mirror["summary"]["curve_digest"] = "of another curve"
    (results / "wandb" / "synced.json").unlink()
    history = list(mirror["history"])
    status, out, _ = gbn("wandb", "--runs", IDS[0], "--results", results)
    assert status == 1
    assert "other numbers" in out
    assert mirror["history"] == history


def test_unfinished_runs_on_request(gbn, server, results):
    record = GRID.record("", "bn", 0)
    store = RunStore(results)
    (store.path(record.run_id) / "summary.json").unlink()
    from gbn.config.compose import compose

    with store.writer(record.run_id) as writer:
        writer.write_config(compose(["model=mlp", "norm=bn"]).as_dict())
        writer.truncate(4)
    status, out, _ = gbn("wandb", "--runs", record.run_id, "--results", results)
    assert (status, server.runs) == (0, {})
    assert "--unfinished" in out
    gbn("wandb", "--runs", record.run_id, "--results", results, "--unfinished")
    assert len(steps(server, record.run_id)) == 4
    assert "curve_digest" not in server.at(record.run_id)["summary"]
    # Done since then: the rest follows.
    with store.writer(record.run_id) as writer:
        writer.write_config(record.config)
        for point in record.curve[4:]:
            writer.append(point)
        writer.write_summary(record.summary)
    gbn("wandb", "--runs", record.run_id, "--results", results)
    assert steps(server, record.run_id) == [point["update"] for point in record.curve]
    assert server.at(record.run_id)["summary"]["status"] == "finished"


def test_an_experiment_tags_its_runs(gbn, server, results, monkeypatch):
    monkeypatch.setattr("gbn.config.grid.load_grid", lambda path, scale=None: GRID)
    options = ("experiments/simulated", "--results", results, "--entity", "team", "--project", "p")
    status, _, _ = gbn("wandb", *options)
    assert status == 0
    assert {server.at(i, "team", "p")["described"]["tags"][0] for i in IDS} == {"simulated"}


def test_archived_records_do_as_well(gbn, server, results):
    Archive(results).add(RunStore(results), "x")
    import shutil

    shutil.rmtree(results / "runs")
    status, out, _ = gbn("wandb", "--runs", "*", "--results", results, "--from-archive")
    assert status == 0, out
    for record in GRID.records():
        assert steps(server, record.run_id) == [point["update"] for point in record.curve]
        assert server.at(record.run_id)["described"]["config"]["norm"]["name"] in ("bn", "gbn_cvar")


def test_without_a_login_or_a_network_one_line_says_what_to_do(gbn, server, results, monkeypatch, tmp_path):
    server.refuses = TimeoutError("no answer\nfrom anywhere")
    status, _, err = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "no answer" in err
    server.refuses, server.entity = None, None
    status, _, err = gbn("wandb", "--runs", "*", "--results", results)
    assert (status, "--entity" in err) == (2, True)
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    status, _, err = gbn("wandb", "--runs", "*", "--results", results)
    assert status == 2
    assert "wandb login" in err
    assert len(err.splitlines()) == 1


def test_a_pattern_that_fits_nothing_is_an_error(gbn, server, results):
    status, _, err = gbn("wandb", "--runs", "none-*", "--results", results)
    assert status == 2
    assert "no run fits" in err
