"""Which runs stand behind a table: absences, mixtures of machines and seeds, sources, any set of runs."""

import pytest

from gbn.analysis.runs.load import NothingFound, load_any, load_grid_runs
from gbn.store import RunStore
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, Machine, write_runs

GPU = Machine(device_kind="Simulated GPU")


def only(grid, arms=None, seeds=None, machine=None):
    """The records of some arms and seeds of a grid."""
    return [
        record
        for record in grid.records(machine)
        if (arms is None or record.config["norm"]["name"] in arms)
        and (seeds is None or record.config["seed"] in seeds)
    ]


def test_a_complete_grid_has_no_notes(grid, results):
    runs = load_grid_runs(grid, results)
    assert runs.notes == []
    assert len(runs.runs) == 32
    assert set(runs.runs.status) == {"finished"}
    assert runs.runs["last"].notna().all()
    own = runs.curves.query("arm == 'bn' and seed == 3")
    assert own["update"].tolist() == [point["update"] for point in grid.record("", "bn", 3).curve]
    assert list(runs.usable("", "bn").seed) == list(range(8))


def test_nothing_found_says_where_and_what_to_do(grid, tmp_path):
    with pytest.raises(
        NothingFound, match=r"not one finished run of simulated in the run store of .*gbn reproduce"
    ):
        load_grid_runs(grid, tmp_path)
    with RunStore(tmp_path).writer(grid.cells[0].run_ids[0]) as writer:
        writer.append({"update": 1})
    with pytest.raises(NothingFound, match=r"\(1 interrupted\)"):
        load_grid_runs(grid, tmp_path)
    Archive(tmp_path).add(grid.records(), "x")
    with pytest.raises(NothingFound, match=r"the archive holds 32: add --source archive"):
        load_grid_runs(grid, tmp_path)


def test_what_is_missing_is_named(grid, tmp_path):
    write_runs([r for r in only(grid) if r.run_id != grid.cells[1].run_ids[5]], tmp_path)
    with pytest.raises(ZeroDivisionError), RunStore(tmp_path).writer(grid.cells[1].run_ids[5]):
        raise ZeroDivisionError
    notes = load_grid_runs(grid, tmp_path).notes
    assert notes[0] == "gbn_fast: failed: seeds 5."
    assert (
        "unequal seeds (bn 8, gbn_fast 7, bn_matched[gbn_fast] 8, bn_reparam[gbn_fast] 8; 7 shared by all)"
        in notes[1]
    )


def test_seeds_may_be_unequal_and_that_is_said(grid, tmp_path):
    write_runs(
        only(grid, arms=["bn"], seeds=range(4)) + only(grid, arms=["gbn_fast"], seeds=range(2, 8)), tmp_path
    )
    notes = load_grid_runs(grid, tmp_path).notes
    assert "bn: missing: seeds 4, 5, 6, 7." in notes
    assert any("unequal seeds (bn 4, gbn_fast 6; 2 shared by all)" in note for note in notes)


def test_diverged_runs_are_named_and_usable(make_grid, tmp_path):
    grid = make_grid(arms={"bn": Arm(), "gbn_wild": Arm(diverges_at=300)}, controls={}, seeds=range(3))
    write_runs(grid.records(), tmp_path)
    runs = load_grid_runs(grid, tmp_path)
    assert "gbn_wild: diverged: seeds 0, 1, 2." in runs.notes
    assert len(runs.usable("", "gbn_wild")) == 3
    assert runs.usable("", "gbn_wild")["last"].isna().all()


def test_a_pair_is_never_made_of_two_devices(grid, tmp_path):
    write_runs(only(grid, arms=["bn", "gbn_fast"], seeds=[0]), tmp_path)
    write_runs(only(grid, arms=["bn_matched[gbn_fast]"], seeds=[0], machine=GPU), tmp_path)
    write_runs(only(grid, seeds=[1], machine=GPU), tmp_path)
    runs = load_grid_runs(grid, tmp_path)
    left_out = runs.runs[runs.runs.status == "left out"]
    assert list(left_out.arm) == ["bn_matched[gbn_fast]"]
    assert any(
        note.startswith("Mixed devices: left out") and "bn_matched[gbn_fast] seed 0 (Simulated GPU" in note
        for note in runs.notes
    )
    assert any(
        "mixed devices: pairs pooled over 2 machines for updates, seconds not compared" in n
        for n in runs.notes
    )


def test_a_run_resumed_on_another_device_is_of_neither(grid):
    record = grid.record("", "bn", 0)
    record.provenance[:] = [{"device_kind": "Simulated GPU"}, {"device_kind": "Simulated CPU"}]
    assert record.machine == "Simulated GPU then Simulated CPU, torch 2.13.0, kernels reference"


def test_the_same_run_on_two_machines_counts_once(grid, tmp_path):
    archive = Archive(tmp_path)
    archive.add(only(grid), "cpu")
    archive.add(only(grid, seeds=[0, 1], machine=GPU), "gpu")
    runs = load_grid_runs(grid, tmp_path, "archive")
    assert set(runs.runs.machine) == {"Simulated CPU, torch 2.13.0, kernels reference"}
    assert any(
        note.startswith("8 records of the same runs on other machines were not used") for note in runs.notes
    )


def test_sources(grid, results):
    Archive(results).add(RunStore(results), "x")
    assert set(load_grid_runs(grid, results, "archive").runs.source) == {"archive"}
    assert set(load_grid_runs(grid, results, "both").runs.source) == {"store"}
    with pytest.raises(ValueError, match="allowed are store, archive, both"):
        load_grid_runs(grid, results, "cloud")


def test_store_and_archive_complete_each_other(grid, tmp_path):
    write_runs(only(grid, seeds=range(4)), tmp_path)
    Archive(tmp_path).add(only(grid, seeds=range(4, 8)), "x")
    runs = load_grid_runs(grid, tmp_path, "both")
    assert runs.notes == []
    assert set(runs.runs[runs.runs.seed < 4].source) == {"store"}
    assert set(runs.runs[runs.runs.seed >= 4].source) == {"archive"}


def test_archive_and_store_give_the_same_frames(grid, results):
    Archive(results).add(RunStore(results), "x")
    store, archive = load_grid_runs(grid, results), load_grid_runs(grid, results, "archive")
    same = [column for column in store.runs.columns if column != "source"]
    assert store.runs[same].equals(archive.runs[same])
    assert store.curves.sort_index(axis=1).equals(archive.curves.sort_index(axis=1))


def test_a_reference_that_is_no_arm_is_an_error(make_grid, tmp_path):
    with pytest.raises(ValueError, match="reference 'gone' is not among its arms"):
        load_grid_runs(make_grid(reference="gone"), tmp_path)


def test_targets_by_hand_are_noted(grid, results):
    runs = load_grid_runs(grid, results, targets=[0.7, 0.3])
    assert runs.plan.targets == {"": (0.3, 0.7)}
    assert any("given by hand" in note for note in runs.notes)
    assert runs.plan.selection["targets"] == [0.3, 0.7]


class TestAnySet:
    def test_arms_and_controls_are_read_off_the_configurations(self, make_grid, tmp_path):
        pair = {"quadrangle": "cvar", "alpha": 0.75}
        arms = {
            "bn": Arm(),
            "gbn_cvar": Arm(norm={**pair, "method": "gbn"}),
            "bn_matched": Arm(norm={**pair, "method": "bn_matched", "matched_to": "gbn_cvar"}),
        }
        grid = make_grid(arms=arms, controls={}, seeds=range(2))
        write_runs(grid.records(), tmp_path)
        runs = load_any(["simulated-*"], tmp_path)
        assert runs.plan.arms("") == ["bn", "gbn_cvar_0.75", "bn_matched_gbn_cvar_0.75"]
        assert runs.plan.controls == {"gbn_cvar_0.75": ("bn_matched_gbn_cvar_0.75",)}
        assert runs.plan.reference == "bn"
        assert any("no grid fixed them" in note for note in runs.notes)
        assert any("Targets were chosen from these runs" in note for note in runs.notes)
        assert runs.plan.targets[""][-1] <= 0.9

    def test_equal_labels_are_told_apart_by_what_differs(self, make_grid, tmp_path):
        arms = {
            "bn": Arm(),
            "a": Arm(norm={"name": "gbn_x", "eps": 0.1}),
            "b": Arm(norm={"name": "gbn_x", "eps": 0.2}),
        }
        grid = make_grid(arms=arms, controls={}, seeds=[0])
        write_runs(grid.records(), tmp_path)
        assert load_any(["*"], tmp_path).plan.arms("") == ["bn", "gbn_x eps=0.1", "gbn_x eps=0.2"]

    def test_revisions_are_never_paired_and_that_is_said(self, make_grid, tmp_path):
        arms = {
            "bn": Arm(),
            "old": Arm(norm={"name": "gbn_x"}),
            "new": Arm(norm={"name": "gbn_x", "revision": 2}),
        }
        grid = make_grid(arms=arms, controls={}, seeds=[0])
        write_runs(grid.records(), tmp_path)
        runs = load_any(["*"], tmp_path)
        assert runs.plan.arms("") == ["bn", "gbn_x revision=1", "gbn_x revision=2"]
        assert (
            "Mixed revisions: runs of different revisions (norm.revision 1 and 2) are arms of their own, since a "
            "pair must be homogeneous."
        ) in runs.notes

    def test_one_revision_is_no_mixture(self, grid, results):
        assert not any("Mixed revisions" in note for note in load_any(["*"], results).notes)

    def test_models_make_settings(self, make_grid, tmp_path):
        grid = make_grid(settings=("cnn", "resnet"), seeds=[0])
        write_runs(grid.records(), tmp_path)
        assert load_any(["*"], tmp_path).plan.settings == ["cnn", "resnet"]

    def test_ids_patterns_and_paths(self, grid, results):
        run_id = grid.cells[0].run_ids[0]
        for given in (run_id, f"results/runs/{run_id}/", run_id[:-4] + "*"):
            assert list(load_any([given], results).runs.run_id) == [run_id]

    def test_what_fits_nothing_is_named(self, results):
        with pytest.raises(NothingFound, match="no run fits 'cifar10-"):
            load_any(["cifar10-*"], results)

    def test_without_a_reference_it_asks_for_one(self, make_grid, tmp_path):
        arms = {"a": Arm(), "b": Arm()}
        grid = make_grid(arms=arms, controls={}, seeds=[0], reference="a")
        write_runs(grid.records(), tmp_path)
        with pytest.raises(ValueError, match=r"no arm uses bn: choose .* --reference; arms: a, b"):
            load_any(["*"], tmp_path)
        assert load_any(["*"], tmp_path, reference="b").plan.reference == "b"
        with pytest.raises(ValueError, match="--reference c: no such arm"):
            load_any(["*"], tmp_path, reference="c")

    def test_unfinished_runs_alone_are_nothing(self, grid, tmp_path):
        with RunStore(tmp_path).writer(grid.cells[0].run_ids[0]) as writer:
            writer.append({"update": 1})
        with pytest.raises(ValueError, match="none of these runs is finished"):
            load_any(["*"], tmp_path)
