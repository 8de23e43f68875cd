"""A running search as its lines and its table tell of it, and a trial in words."""

from __future__ import annotations

import dataclasses
import io

import optuna
import pytest
from example_studies import Loaded, evaluate, example, fail, grid, prune, run, search, tamper
from optuna.trial import TrialState, create_trial
from rich.console import Console

from optevo import keys
from optevo.measurement.fresh_seeds import Result, Row
from optevo.reporting.progress import SearchProgress, counting
from optevo.reporting.text import TEST_MARK, result_markdown, result_table, trial_lines
from optevo.samplers.slots import claimed
from optevo.training.run import Run

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def go_on(loaded: Loaded, n: int, objective=evaluate) -> None:
    study, config = loaded
    study.optimize(lambda trial: objective(trial, config), n_trials=n, catch=RuntimeError)


def shown(progress: SearchProgress) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(progress.table())
    return captured.get()


def best(loaded: Loaded) -> str:
    return f"{loaded[0].best_value:.4f}"


def test_each_generation_is_told_once_with_its_best_and_mean():
    loaded = search(n_trials=0)
    progress = SearchProgress(*loaded)
    go_on(loaded, 5)
    assert progress.lines() == []
    go_on(loaded, 1)
    (line,) = progress.lines()
    values = [trial.value for trial in loaded[0].trials]
    assert line.startswith(f"generation 0/2  best {max(values):.4f}  mean {sum(values) / 6:.4f}  Δ = ")
    go_on(loaded, 4)
    assert [line[:16] for line in progress.lines()] == ["generation 1/2  "]
    assert progress.lines() == []


@pytest.mark.parametrize(("encoding", "spinner"), [("utf-8", "⠋"), ("ascii", "-")])
def test_what_counts_runs_says_of_how_many_whatever_the_study_is_called(encoding: str, spinner: str):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, force_terminal=True, width=80)
    with counting(console, "[/red] \x1b", 12) as tell:
        tell(3)
    file.flush()
    text = file.buffer.getvalue().decode(encoding)
    assert "[/red] \\x1b: 3 of 12 runs done" in text
    assert spinner in text
    assert "\x1b:" not in text


def test_what_ended_before_is_not_told():
    loaded = search(n_trials=6, failures=1)
    assert SearchProgress(*loaded).lines() == []


def test_a_failure_is_told_once_by_its_last_line():
    loaded = search(n_trials=0)
    progress = SearchProgress(*loaded)
    go_on(loaded, 1, fail)
    assert progress.lines() == ["trial 0 failed: RuntimeError: no <b>luck</b>"]
    assert progress.lines() == []


def test_a_slot_that_is_tried_again_is_told_once_with_attempt_and_reason():
    loaded = search(n_trials=0)
    progress = SearchProgress(*loaded)
    go_on(loaded, 1, fail)
    go_on(loaded, 1, interrupted)
    first, second = map(claimed, loaded[0].get_trials())
    assert first is not None
    assert second is not None
    assert not [line for line in progress.lines() if "tried again" in line]
    for _ in range(6):  # the whole generation
        loaded[0].ask()
    assert sorted(progress.lines()) == sorted(
        f"slot {slot.index} of generation 0 is tried again, attempt 2: trial {number} {why}"
        for number, slot, why in (
            (0, first, "failed: RuntimeError: no <b>luck</b>"),
            (1, second, "was interrupted"),
        )
    )
    assert progress.lines() == []


def interrupted(trial: optuna.Trial, config) -> float:
    trial.set_user_attr(keys.INTERRUPTED, True)
    raise RuntimeError


def test_a_generation_without_any_fitness_is_told_as_such():
    loaded = search(n_trials=0)
    progress = SearchProgress(*loaded)

    def end(trial: optuna.Trial, config) -> float:
        raise optuna.TrialPruned

    go_on(loaded, 6, end)
    assert progress.lines() == ["generation 0: every trial failed"]


def test_a_silent_search_gives_a_sign_of_life(monkeypatch: pytest.MonkeyPatch):
    loaded = grid()
    monkeypatch.setattr("optevo.reporting.progress._LINE_SECONDS", -1.0)
    (line,) = SearchProgress(*loaded).lines()
    assert line == f"trial 6/6, best {best(loaded)}, time left unknown yet"


def test_the_table_says_how_far_the_search_is():
    loaded = search(n_trials=8, failures=1)
    text = shown(SearchProgress(*loaded))
    for said in ("generation", "1 of 2", "8 of 14, 2 pruned, 0 running, 1 failed", best(loaded), "best rule"):
        assert said in text
    assert "last failure" in text
    assert "split" not in text


@pytest.mark.parametrize("state", ["grid", "random", "tpe"])
def test_a_search_without_generations_shows_none(state: str):
    assert "generation" not in shown(SearchProgress(*example(state)))


def test_time_left_is_what_the_trials_since_the_start_took(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("optevo.reporting.progress.time.monotonic", lambda: clock[0])
    loaded = search(n_trials=4)
    progress = SearchProgress(*loaded)
    go_on(loaded, 2)
    clock[0] = 900.0
    assert "15 min 00 s, 1 h 00 min left" in shown(progress)  # eight more at 450 s


def test_a_search_that_sees_the_test_split_says_so_in_table_and_trial():
    study, config = search(n_trials=1, evaluation={"tasks": ["digits"], "split": "test"})
    assert TEST_MARK[:40] in shown(SearchProgress(study, config))
    assert f"  {TEST_MARK}" in trial_lines(study, config, study.trials[0])


def test_a_trial_in_words_tells_its_rule_origin_and_runs():
    study, config = search()
    first, child = study.trials[1], study.trials[13]
    lines = trial_lines(study, config, first)
    assert lines[0] == f"trial 1 of study 'one': COMPLETE, fitness {first.value:.4f}"
    assert lines[1].startswith("  Δ = ")
    assert "  generation 0, slot 1, preset adam" in lines
    assert sum(", seed " in line and "metric" in line for line in lines) == 4
    parents = " and ".join(map(str, keys.ours(child)[keys.PARENTS]))
    assert any(line.endswith(f"of trials {parents}") for line in trial_lines(study, config, child))


def test_a_pruned_and_a_failed_trial_say_why():
    study, config = search(prune, n_trials=1)
    lines = trial_lines(study, config, study.trials[0])
    assert "  pruned: diverged: digits, seed 0, step 3" in lines
    assert any("diverged at step 3" in line for line in lines)
    study, config = search(n_trials=0, failures=1)
    assert trial_lines(study, config, study.trials[0])[-1] == "    RuntimeError: no <b>luck</b>"


@pytest.mark.parametrize(
    ("user", "system", "said"),
    [
        ({}, {keys.LOST: "its machine is gone"}, "its machine is gone"),
        ({}, {}, "its process was lost"),
        ({keys.INTERRUPTED: True}, {}, "interrupted"),
        ({keys.SURPLUS: True}, {}, "surplus: every slot was taken"),
    ],
)
def test_a_trial_that_does_not_count_says_why(user: dict, system: dict, said: str):
    study, config = example("one trial")
    trial = create_trial(state=TrialState.FAIL, user_attrs=user, system_attrs=system)
    assert trial_lines(study, config, trial)[-1] == f"  not counted: {said}"


def test_runs_taken_over_from_another_trial_are_told():
    study, config = search(n_trials=1)
    tamper(study, 0, keys.COPIED_FROM, 7)
    tamper(study, 0, keys.COPIED_RUNS, 3)
    last = trial_lines(study, config, study.trials[0])[-1]
    assert last == "  3 of 4 runs taken over from trial 7, the same optimizer"


@pytest.mark.parametrize(("steps", "said"), [(0, "all runs taken over"), (6, "1 of 1 runs taken over")])
def test_a_run_within_which_a_trial_lost_the_race_is_told(steps: int, said: str):
    study, config = search(n_trials=1)
    ended = {**run("digits", 3, 0.0), "metric": None, "loss": None, "losses": [2.0], "steps": 6}
    changes = {keys.UNFINISHED: ended, keys.COPIED_FROM: 7, keys.COPIED_RUNS: 1, keys.TRAINED_STEPS: steps}
    for key, value in changes.items():
        tamper(study, 0, key, value)
    tamper(study, 0, keys.RUNS, keys.ours(study.trials[0])[keys.RUNS][:1])
    lines = trial_lines(study, config, study.trials[0])
    assert any(line.startswith("  digits, seed 3: ended after 6 steps, ") for line in lines)
    assert lines[-1].startswith(f"  {said} from trial 7")


def test_a_result_in_a_terminal_and_in_a_note_has_the_same_cells():
    runs = tuple(Run(**{**run("digits", seed, 0.9), "losses": ()}) for seed in (7, 8))
    diverged = tuple(dataclasses.replace(one, metric=None) for one in runs)
    result = Result(4, (Row("adam", None, diverged), Row("trial 4", 0.8, runs)))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(result_table(result))
    for text in (captured.get(), result_markdown(result)):
        for said in ("2 fresh seeds", "adam", "diverged", "trial 4", "0.8000", "0.9000 ± 0.0000"):
            assert said in text
