"""The folders of the configuration and of experiments."""

from gbn.config.places import find_experiment, packaged


def test_an_experiment_is_found_by_path_or_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = str(packaged("experiments") / "quick")
    assert find_experiment("quick") == find_experiment("experiments/quick") == ours
    own = tmp_path / "experiments" / "quick"
    own.mkdir(parents=True)
    assert find_experiment("quick") == ours  # a folder without a grid is none
    (own / "sweep.yaml").write_text("")
    assert find_experiment("quick") == find_experiment("experiments/quick") == "experiments/quick"
    assert find_experiment(ours) == ours
    assert find_experiment("experiments/quick/sweep.yaml") == "experiments/quick/sweep.yaml"
    assert find_experiment("nosuch") == "nosuch"  # its reader says so
