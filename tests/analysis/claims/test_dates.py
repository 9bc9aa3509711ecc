"""Rules are as old as they say, by git's history."""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from gbn.analysis.claims import check_dates, load_claims
from gbn.analysis.claims.dates import NoHistory
from gbn.store.archive import Archive

ROOT = Path(__file__).resolve().parents[3]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def at(hour):
    return datetime(2026, 11, 25, hour, tzinfo=UTC)


class Repository:
    """The world's experiments under git, with commits at hours of one day."""

    def __init__(self, world):
        self.world = world
        self.git("init", "-q")

    def git(self, *arguments, **environment):
        people = {f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", "-c", "commit.gpgsign=false", *arguments],
            cwd=self.world.experiments, env=os.environ | people | environment,
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout

    def commit(self, hour):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x", GIT_AUTHOR_DATE=at(hour).isoformat())

    def problems(self):
        dated = check_dates(load_claims(self.world.experiments), self.world.experiments)
        return {one.claim.id: one.problem for one in dated}


@pytest.fixture
def repository(world):
    return Repository(world)


@needs_git
class TestAgainstHistory:
    def test_a_rule_as_old_as_it_says(self, world, claim, repository):
        world.claims(claim(fixed=at(12)))
        repository.commit(12)
        world.claims(claim(fixed=at(12), wording="In other words."), claim(id="new", fixed=at(15)))
        repository.commit(15)
        assert repository.problems() == {"faster": None, "new": None}

    def test_a_rule_that_says_it_is_older_than_it_is(self, world, claim, repository):
        world.claims(claim(fixed=at(11)))
        repository.commit(12)
        assert repository.problems()["faster"] == (
            "fixed says 2026-11-25T11:00:00Z, but git has this rule since 2026-11-25T12:00:00Z only"
        )

    @pytest.mark.parametrize("change", [{"relevant": 1.05}, {"arm": "gbn_2"}, {"pairs": 4}, {"target": 0.8}])
    def test_a_rule_changed_later_is_a_new_rule(self, world, claim, repository, change):
        world.claims(claim(fixed=at(12)))
        repository.commit(12)
        world.claims(claim(change, fixed=at(12)))
        repository.commit(15)
        assert "since 2026-11-25T15:00:00Z only" in repository.problems()["faster"]

    def test_a_rule_changed_and_changed_back_is_as_old_as_its_return(self, world, claim, repository):
        for hour, pairs in ((10, 8), (12, 4), (14, 8)):
            world.claims(claim({"pairs": pairs}, fixed=at(10)))
            repository.commit(hour)
        assert "since 2026-11-25T14:00:00Z only" in repository.problems()["faster"]

    def test_another_curve_is_another_rule(self, world, claim, repository):
        world.claims(claim(fixed=at(12)))
        repository.commit(12)
        sweep = yaml.safe_load((world.experiments / "sim" / "sweep.yaml").read_text())
        world.sweep(sweep | {"title": "another title"})
        repository.commit(13)
        assert repository.problems()["faster"] is None
        world.sweep(sweep | {"measure": "val_accuracy_exact"})
        repository.commit(14)
        assert "since 2026-11-25T14:00:00Z only" in repository.problems()["faster"]

    def test_another_published_number_is_another_rule(self, world, claim, repository):
        for hour, high in ((12, 0.4), (14, 0.47)):
            number = {"low": 0.31, "high": high, "unit": "share"}
            rule = {"rule": "number", "quantity": "saving_to_maximum"}
            world.claims(claim(rule, without=("target", "relevant"), published=number, fixed=at(12)))
            repository.commit(hour)
        assert "since 2026-11-25T14:00:00Z only" in repository.problems()["faster"]

    def test_no_date_and_no_commit(self, world, claim, repository):
        world.claims(claim())
        repository.commit(12)
        world.claims(claim(), claim(id="new", fixed=at(23)))
        assert repository.problems() == {
            "faster": "no date is stated: add fixed: 2026-11-25T12:00:00Z",
            "new": "the rule, as it reads today, is not committed",
        }

    def test_a_shallow_clone_cannot_tell(self, world, claim, repository, tmp_path):
        world.claims(claim())
        repository.commit(12)
        repository.commit(13)
        shallow = tmp_path / "shallow"
        repository.git("clone", "-q", "--depth", "1", f"file://{world.experiments}", str(shallow))
        with pytest.raises(NoHistory, match="shallow clone"):
            check_dates(load_claims(shallow), shallow)


@needs_git
def test_without_a_repository_nothing_can_be_told(world, claim, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(world.experiments.parent))
    world.claims(claim())
    with pytest.raises(NoHistory, match="git rev-parse failed"):
        check_dates(load_claims(world.experiments), world.experiments)


@needs_git
def test_the_rules_of_this_repository_are_as_old_as_they_say():
    commits = {record.environment.get("commit") for record in Archive(ROOT / "results")}
    known = [one for one in commits if one and _in_history(one)]
    if not known:
        pytest.skip("the history was rewritten or is not here: git has no commit that an archived run names")
    try:
        dated = check_dates(load_claims(ROOT / "experiments"), ROOT / "experiments")
    except NoHistory as reason:
        pytest.skip(str(reason))
    problems = [f"{one.claim.id}: {one.problem}" for one in dated if one.problem and one.committed]
    assert problems == [], "after a rule was committed: python scripts/claims.py --stamp"


def _in_history(commit):
    asked = ["git", "merge-base", "--is-ancestor", commit, "HEAD"]
    return subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).returncode == 0
