"""A cheap evaluation for a generation that is only screened, and a full one for all others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from measuring import Inline
from optuna.trial import TrialState
from racing import Line, Scored, Slots, Workers, by_slot, chance
from sifting import Sift, sift

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.measurement.fresh_seeds import measure
from optevo.optim import PRESETS
from optevo.reporting.frames import best, curves, trials
from optevo.reporting.populations import generations
from optevo.reporting.progress import SearchProgress
from optevo.storage.counting import count, count_trials
from optevo.storage.opening import open_storage
from optevo.study.check import check_study
from optevo.study.config import StudyConfig, parse_config
from optevo.study.studies import best_trials, contenders, create_or_resume
from optevo.training.benches import make_bench

__all__ = ["sift"]
SIZES = {"population_size": 8, "n_generations": 4, "n_elites": 1}
FULL = {"tasks": ["digits", "mnist"], "steps": 20, "seeds": [0, 1], "gate": False}
CHEAP = {"tasks": ["digits"], "steps": 5, "seeds": [7, 8, 9]}
pytestmark = pytest.mark.usefixtures("sift")


def config(**evaluation: Any) -> StudyConfig:
    sampler = {"kind": "sift", **SIZES}
    chosen = {**FULL, "pruner": "none", "screening": CHEAP, **evaluation}
    return parse_config(
        {"name": "s", "seed": 3, "space": {"presets": []}, "sampler": sampler, "evaluation": chosen}, "test"
    )


def score(canonical: str, task: str, seed: int) -> float:
    """Screening seeds are above 6: their fitness is on a higher scale than all others."""
    return chance(canonical) / 2 + (0.5 if seed > 6 else 0.0)


class Sifting(Workers):
    """Workers whose sampler screens, on benches of both fidelities."""

    def __init__(self, config: StudyConfig, n: int = 1, **options: Any) -> None:
        def made(config: StudyConfig) -> Sift:
            sizes = {**SIZES, "group_size": config.evaluation.batch_candidates}
            return Sift(**sizes, seed=config.seed, space=Line(), max_failures=None, endless=False)

        super().__init__(config, n, score=score, make=made, **options)
        for bench in self.benches:
            cheap = config.screened()
            assert cheap is not None
            bench.screening = Scored(cheap, score)
            bench.screening.prefix = "screened "

    def complete(self) -> bool:
        table = self.studies[0].sampler.slot_table(self.studies[0])
        return table.generation >= SIZES["n_generations"]


def generation(slots: Slots, *numbers: int) -> list[dict[str, Any]]:
    return [slot for (g, _), slot in slots.items() if g in numbers]


def pairs(slot: dict[str, Any]) -> list[tuple[str, int]]:
    return [(run["task"], run["seed"]) for run in slot[keys.RUNS]]


@pytest.fixture
def played() -> Sifting:
    workers = Sifting(config())
    workers.play()
    return workers


def test_the_first_generation_is_screened_and_all_others_are_evaluated_in_full(played: Sifting):
    slots = by_slot(played.studies[0].trials)
    cheap = [("digits", 7), ("digits", 8), ("digits", 9)]
    assert all(pairs(slot) == cheap and slot[keys.SCREENED] for slot in generation(slots, 0))
    full = [("digits", 0), ("digits", 1), ("mnist", 0), ("mnist", 1)]
    assert all(sorted(pairs(slot)) == full for slot in generation(slots, 1, 2, 3))
    assert not any(keys.SCREENED in slot for slot in generation(slots, 1, 2, 3))


def test_a_trials_last_step_is_that_of_its_own_evaluation(played: Sifting):
    for trial in played.studies[0].trials:
        last = 3 * 5 if keys.ours(trial).get(keys.SCREENED) else 4 * 20
        assert max(trial.intermediate_values) == last


def test_nobody_takes_over_runs_of_the_other_evaluation(played: Sifting):
    of = {t.number: t for t in played.studies[0].trials}
    copies = [t for t in of.values() if keys.COPIED_FROM in keys.ours(t)]
    assert copies
    for trial in copies:
        source = of[keys.ours(trial)[keys.COPIED_FROM]]
        assert keys.SCREENED not in keys.ours(trial)
        assert keys.SCREENED not in keys.ours(source)
    screened = {keys.ours(t)[keys.CANONICAL] for t in of.values() if keys.ours(t).get(keys.SCREENED)}
    # Some are known from the screening, and were trained all the same.
    assert screened & {keys.ours(t)[keys.CANONICAL] for t in of.values() if keys.ours(t)[keys.GENERATION]}


def test_no_screened_trial_wins_where_there_is_a_full_one(played: Sifting):
    study = played.studies[0]
    highest = max(study.trials, key=lambda trial: trial.value or 0.0)
    assert keys.ours(highest)[keys.SCREENED]
    full = [t for t in study.trials if keys.SCREENED not in keys.ours(t)]
    winner = max(full, key=lambda trial: trial.value or 0.0)
    assert best_trials(study, 1)[0].value == winner.value
    assert {t.number for t in best_trials(study, 99)} <= {t.number for t in full}
    assert count(study).best == winner.value
    assert contenders(study.trials) == full


def test_before_the_first_full_one_the_screened_are_ranked():
    workers = Sifting(config())
    for _ in range(3):
        workers.ask(0)
        workers.finish(0)
    study = workers.studies[0]
    assert [t.value for t in best_trials(study, 3)] == sorted((t.value for t in study.trials), reverse=True)
    assert count(study).best == max(t.value for t in study.trials)


@pytest.mark.parametrize("n", [1, 3])
def test_racing_compares_with_trials_of_the_same_evaluation(n: int):
    workers = Sifting(config(pruner="racing"), n)
    slots = workers.play(random.Random(n))
    # By the screened fitness, which is half a point higher, nobody of generation 1 would be left.
    assert not [slot for slot in generation(slots, 0, 1) if slot["state"] == TrialState.PRUNED]
    assert [slot for slot in generation(slots, 2, 3) if slot["state"] == TrialState.PRUNED]


def test_individuals_and_fitness_do_not_depend_on_the_workers():
    racing = config(pruner="racing")
    assert Sifting(racing, 3).play(random.Random(5)) == Sifting(racing).play()


def test_a_group_is_screened_together():
    workers = Sifting(config(batch_candidates=4))
    slots = workers.play()
    assert all(slot[keys.SCREENED] for slot in generation(slots, 0))
    assert {len(stack) for stack in workers.benches[0].screening.stacks} == {4}
    assert all(pairs(slot)[0] == ("digits", 7) for slot in generation(slots, 0))


def test_each_evaluation_goes_by_the_costs_of_its_own_tasks():
    both = {**CHEAP, "tasks": ["digits", "mnist"], "seeds": [7]}
    costs = {"digits": 2, "mnist": 1, "screened digits": 1, "screened mnist": 2}
    slots = Sifting(config(screening=both, seeds=[0]), costs=costs).play()
    assert {tuple(task for task, _ in pairs(slot)) for slot in generation(slots, 0)} == {("digits", "mnist")}
    assert {tuple(task for task, _ in pairs(slot)) for slot in generation(slots, 1)} == {("mnist", "digits")}


def test_without_a_cheap_evaluation_a_generation_that_would_be_screened_is_evaluated_in_full():
    workers = Sifting(config())
    for bench in workers.benches:
        bench.screening = None
    slots = workers.play()
    assert {len(pairs(slot)) for slot in slots.values()} == {4}
    assert not any(keys.SCREENED in slot for slot in slots.values())


# With training


TINY = {
    "sampler": {"kind": "sift", "population_size": 3, "n_generations": 2, "n_elites": 1},
    "space": {"kind": "terms", "presets": ["adam", "sgd"]},
    "evaluation": {
        **{"tasks": ["digits"], "steps": 20, "seeds": [0], "batch_size": 32, "gate": False},
        "pruner": "none",
        "screening": {"steps": 10, "seeds": [1]},
    },
    "rerun": {"candidates": 1, "seeds": 2},
}


def trained(url: str, n_trials: int, name: str = "tiny", **evaluation: Any) -> optuna.Study:
    """The study of `TINY` in a database, with so many trials more; whoever does it has just begun."""
    chosen = parse_config({"name": name, **TINY, "evaluation": TINY["evaluation"] | evaluation}, "test")
    bench = make_bench(chosen, "cpu", Path())
    study = create_or_resume(chosen, open_storage(url, create=True), "cpu", bench.rehearse_all())
    study.optimize(Objective(bench, chosen.make_space()), n_trials=n_trials)
    return study


def test_a_study_of_two_evaluations_is_resumed_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{tmp_path / 'two.db'}"
    trained(url, 2)
    study = trained(url, 3)
    whole = trained(f"sqlite:///{tmp_path / 'whole.db'}", 5)
    assert by_slot(study.trials) == by_slot(whole.trials)
    assert [run["steps"] for t in study.trials for run in keys.ours(t)[keys.RUNS]] == [10, 10, 10, 20, 20]
    chosen = check_study(study)
    assert chosen is not None
    assert study.user_attrs[keys.COSTS].keys() == {"digits", "screened digits"}

    frame = trials(study, chosen)
    assert frame["screened"].tolist() == [True, True, True, False, False]
    top = best_trials(study, 1)[0]
    assert not keys.ours(top).get(keys.SCREENED)
    assert best(frame, 1)["number"].tolist() == [top.number]
    assert SearchProgress(study, chosen).best == top
    assert count(study) == count_trials(study.trials)  # by query, and of the trials
    assert count(study).best == top.value
    table = generations(study, chosen)
    assert table["screened"].tolist() == [True, False]
    assert table["best_so_far"].tolist() == table["best"].tolist()  # each evaluation's own
    shown = curves(study).groupby("trial")["step"].max()
    assert shown.tolist() == [9.5, 9.5, 9.5, 19.0, 19.0]  # the middle of the last tenth of 10, of 20 steps

    for attribute in ("asked", "lives"):
        monkeypatch.setattr(Inline, attribute, [] if attribute == "asked" else 99, raising=False)
    monkeypatch.setattr("optevo.measurement.pool.ProcessPoolExecutor", Inline)
    result = measure(study, chosen, devices=["cpu"], data_root=tmp_path)
    assert result.winner == top.number
    assert {run.steps for row in result.rows for run in row.runs} == {20}
    full = [trial for trial in study.trials if not keys.ours(trial).get(keys.SCREENED)]
    found = {keys.ours(trial)[keys.CANONICAL]: trial.value for trial in full}
    for row in result.rows[:-1]:  # presets, of whom only the screening may have told
        preset = chosen.make_space().candidate(chosen.make_space().presets()[row.name])
        assert row.search == found.get(preset.canonical())


def test_both_evaluations_tasks_are_rehearsed():
    batch = {"screening": {"batch_size": 5000}}
    chosen = parse_config({"name": "x", **TINY, "evaluation": TINY["evaluation"] | batch}, "test")
    with pytest.raises(UserError, match="batch_size is 5000"):
        make_bench(chosen, "cpu", Path()).rehearse_all()


def test_the_same_tasks_are_loaded_once():
    chosen = parse_config({"name": "x", **TINY}, "test")
    bench = make_bench(chosen, "cpu", Path())
    assert bench.screening is not None
    assert bench.screening.tasks is bench.tasks
    assert bench.screening.config.evaluation.steps == 10
    other = {"screening": {"tasks": [{"name": "digits", "options": {"network": "convnet", "width": 8}}]}}
    bench = make_bench(
        parse_config({"name": "x", **TINY, "evaluation": TINY["evaluation"] | other}, "test"), "cpu", Path()
    )
    assert bench.screening is not None
    assert bench.screening.tasks is not bench.tasks
    assert bench.screening.run(PRESETS["adam"], 0, 0).steps == 20
