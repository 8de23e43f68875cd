"""What people do with any Optuna sampler: enqueue, fix, visualize, and Optuna's command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from optuna import visualization
from optuna.cli import main
from optuna.samplers import PartialFixedSampler

from optevo.samplers import GeneticSampler, ParticleSampler, populations

pytestmark = [
    pytest.mark.usefixtures("quiet_optuna"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
SAMPLERS = {
    "genetic": lambda: GeneticSampler(population_size=6, n_elites=2, seed=0),
    "particle": lambda: ParticleSampler(initial_size=6, n_particles=2, n_mutations=2, seed=0),
}


@pytest.fixture(params=SAMPLERS)
def sampler(request: pytest.FixtureRequest) -> optuna.samplers.BaseSampler:
    return SAMPLERS[request.param]()


def objective(trial: optuna.Trial) -> float:
    x, kind = trial.suggest_float("x", -5, 5), trial.suggest_categorical("kind", ["a", "b"])
    trial.report(x**2, 0)
    if trial.number == 5:
        raise optuna.TrialPruned
    return x**2 + trial.suggest_int("n", 1, 4) + (kind == "a")


def test_enqueued_trials_hold_slots_and_become_parents(sampler: optuna.samplers.BaseSampler):
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({"x": 0.0, "kind": "b", "n": 1}, user_attrs={"mine": True})
    study.enqueue_trial({"x": 0.5})
    study.optimize(objective, n_trials=14)
    first, second = study.trials[:2]
    assert first.params == {"x": 0.0, "kind": "b", "n": 1}
    assert first.user_attrs == {"mine": True}
    assert second.params["x"] == 0.5
    best = populations(study)[0][0]
    assert best.number == study.best_trial.number == 0


def test_a_fixed_parameter_stays_and_the_others_are_bred(sampler: optuna.samplers.BaseSampler):
    study = optuna.create_study(sampler=PartialFixedSampler({"n": 2}, sampler))
    study.optimize(objective, n_trials=14)
    assert {trial.params["n"] for trial in study.trials if "n" in trial.params} == {2}
    assert len({trial.params["x"] for trial in study.trials}) > 8


@pytest.mark.parametrize(
    "plot",
    [
        visualization.plot_optimization_history,
        visualization.plot_parallel_coordinate,
        visualization.plot_slice,
        visualization.plot_contour,
        visualization.plot_rank,
        visualization.plot_edf,
        visualization.plot_timeline,
        visualization.plot_intermediate_values,
        visualization.plot_param_importances,
    ],
    ids=lambda plot: plot.__name__,
)
def test_optuna_draws_a_study(plot, drawn: optuna.Study):
    figure = plot(drawn)
    assert figure.data
    assert json.loads(figure.to_json())["data"]


@pytest.fixture(scope="module")
def drawn() -> optuna.Study:
    study = optuna.create_study(sampler=SAMPLERS["genetic"]())
    study.optimize(objective, n_trials=14)
    return study


def test_optuna_draws_a_front():
    sampler = GeneticSampler(population_size=6, n_elites=2, seed=0)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    study.optimize(lambda trial: (x := trial.suggest_float("x", 0, 1), x), n_trials=10)
    assert sum(len(trace.x) for trace in visualization.plot_pareto_front(study).data) == 10
    assert visualization.plot_hypervolume_history(study, [2.0, -1.0]).data


def test_optunas_command_line_reads_a_study_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    study = optuna.create_study(study_name="ours", storage=url, sampler=SAMPLERS["genetic"]())
    study.optimize(objective, n_trials=7)

    monkeypatch.setattr("optuna.cli._set_verbosity", lambda args: None)  # of the root logger, for good

    def optuna_says(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["optuna", words[0], "--storage", url, *words[1:]])
        assert main() in (None, 0)
        out = capsys.readouterr().out
        return json.loads(out) if out.lstrip().startswith(("[", "{")) else out

    (row,) = optuna_says("studies", "-f", "json")
    assert (row["name"], row["n_trials"]) == ("ours", 7)
    assert len(optuna_says("trials", "--study-name", "ours", "-f", "json")) == 7
    best = optuna_says("best-trial", "--study-name", "ours", "-f", "json")
    assert best["number"] == study.best_trial.number
    space = {"x": {"name": "FloatDistribution", "attributes": {"low": -5.0, "high": 5.0}}}
    asked = optuna_says("ask", "--study-name", "ours", "--search-space", json.dumps(space), "-f", "json")
    optuna_says("tell", "--study-name", "ours", "--trial-number", str(asked["number"]), "--values", "0.25")
    study.optimize(objective, n_trials=6)  # a trial without a slot is none of a generation's
    assert study.trials[7].value == 0.25
    assert len(populations(study)[0]) == 6
