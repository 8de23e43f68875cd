"""A particle search's account: where particles were, what their mutations came to, how long they stood."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from example_studies import Loaded, evaluate, run, search
from particles import check, claims

from optevo import keys
from optevo.reporting.figures.particles import particle_steps
from optevo.reporting.page.report import write_report
from optevo.reporting.particles import particles, told
from optevo.samplers import sampler_of
from optevo.study.config import StudyConfig

pytestmark = pytest.mark.usefixtures("quiet_optuna")
SIZES = {"initial_size": 8, "n_particles": 3, "n_steps": 4, "n_mutations": 2, "n_attempts": 2}


def diverge(trial: optuna.Trial, settings: StudyConfig) -> float:
    """Pruned without a value."""
    space = settings.make_space()
    trial.set_user_attr(keys.CANONICAL, space.candidate(space.suggest(trial)).canonical())
    trial.set_user_attr(keys.RUNS, [run("digits", 0, -1.0, metric=None, loss=None, diverged_at=3)])
    raise optuna.TrialPruned


def sometimes(trial: optuna.Trial, settings: StudyConfig) -> float:
    """Every fourth trial diverges."""
    return (diverge if trial.number % 4 == 3 else evaluate)(trial, settings)


def swarm(objective=sometimes, n_trials: int | None = None) -> Loaded:
    return search(objective, n_trials, sampler={"kind": "particle", **SIZES})


@pytest.fixture(scope="module")
def found() -> Loaded:
    return swarm()


def test_positions_are_those_that_the_trials_tell(found: Loaded):
    study, config = found
    path = check(study, config.make_space().identity)
    assert sampler_of(study).positions(study) == [list(places.values()) for places in path]
    assert len(path) == 6


def test_every_mutation_is_counted_and_compared_with_its_parent(found: Loaded):
    study, config = found
    frame, tried = particles(study, config), claims(study)
    assert frame["generation"].tolist() == [2, 3, 4, 5]
    for row in frame.itertuples():
        children = [trial for claim, trial in tried.items() if claim[0] == row.generation]
        values = [
            (study.trials[keys.ours(child)[keys.PARENTS][0]].value, child.value)
            for child in children
            if child.state.name == "COMPLETE"
        ]
        assert (row.mutations, row.alive) == (len(children), len(values))
        assert row.better == sum(parent is not None and child > parent for parent, child in values)
        assert row.particles == 3
        assert 0 < row.forms <= 3
    n = frame.sum().astype(int)
    assert n["alive"] < n["mutations"]  # every fourth diverges
    assert 0 < n["better"] < n["compared"]
    text = told(frame)
    assert text.startswith(f"Of {n['mutations']} mutations {n['alive']} came to a value; of {n['compared']}")


def test_a_particle_whose_children_all_diverge_grows_old():
    def late(trial: optuna.Trial, settings: StudyConfig) -> float:
        generation = keys.ours(trial)[keys.GENERATION]
        return (diverge if generation in (2, 3, 5) else evaluate)(trial, settings)

    frame = particles(*swarm(late))
    assert frame["moved"].tolist() == [0, 0, 3, 0]
    assert frame["standing"].tolist() == [1, 2, 0, 1]
    assert frame["longest_standing"].tolist() == [1, 2, 2, 2]
    assert frame["mutations"].tolist() == [12, 12, 6, 12]
    assert "it stood still for 2 steps in a row at most" in told(frame)


def test_of_a_search_in_progress_only_finished_steps_are_told(found: Loaded):
    done = len([claim for claim in claims(found[0]) if claim[0] < 3])
    frame = particles(*swarm(n_trials=done + 1))
    assert frame["generation"].tolist() == [2]
    assert particle_steps(frame) is None
    assert particles(*swarm(n_trials=3)).empty


def test_samplers_that_follow_nobody_have_no_particles():
    assert particles(*search()).empty


def test_the_report_draws_the_steps(found: Loaded, tmp_path: Path):
    figure = particle_steps(particles(*found))
    assert figure is not None
    assert all(0 <= share <= 1 for line in figure.data for share in line.y)
    write_report([found], tmp_path / "report.html")
    assert "steps of a particle it moved" in (tmp_path / "report.html").read_text("utf-8")
