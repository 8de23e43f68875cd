"""A slot in which trial after trial fails counts −1, with every traceback kept, and the search goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_studies import GENETIC, RANDOM, TPE, config, create

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.faults import Interrupted
from optevo.evaluation.giving_up import MAX_ATTEMPTS, MAX_FAILURES, MAX_LOSSES
from optevo.evaluation.objective import Objective
from optevo.liveness.lost import GONE, fail
from optevo.spaces import Candidate, Params, TermSpace
from optevo.study.studies import counted, is_complete
from optevo.tasks import ScoredTask
from optevo.training.scored import ScoredBench

BAD = (1, 2)  # the slot whose genome brings the task down


class Fragile(ScoredTask):
    """Scores by the learning rate; raises, or takes its process along, on one genome."""

    name = "fragile"

    def __init__(self, bad: Callable[[Candidate], bool], fault: Callable[[], None]) -> None:
        self.bad, self.fault = bad, fault

    def score(self, candidate: Candidate, seed: int, steps: int) -> float:
        if self.bad(candidate):
            self.fault()
        return 1.0 - candidate.lr


class ProcessLost(BaseException):
    """Goes through everything, as a SIGKILL does."""


def boom() -> None:
    raise ZeroDivisionError("no such luck")


def lose() -> None:
    raise ProcessLost


def search(fault: Callable[[], None], sampler: dict[str, object], bad: tuple[int, int]) -> optuna.Study:
    """The whole search; the genome of slot `bad` is told by its canonical form."""
    changes = {"sampler": sampler, "evaluation__gate": False}
    study = create(InMemoryStorage(), **changes)
    form: list[str] = []
    task = Fragile(lambda candidate: [candidate.canonical()] == form, fault)
    objective = Objective(ScoredBench(config(**changes), [task], Path()), config().make_space())

    def evaluate(trial: optuna.Trial) -> float:
        if not form and (keys.ours(trial)[keys.GENERATION], keys.ours(trial)[keys.SLOT]) == bad:
            form.append(config().make_space().candidate(config().make_space().suggest(trial)).canonical())
        return objective(trial)

    for _ in range(200):
        if is_complete(study):
            return study
        try:
            study.optimize(evaluate, n_trials=1, catch=(Exception,))
        except ProcessLost as lost:
            why = "stands still (SIGSTOP)" if isinstance(lost, ProcessFrozen) else GONE
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                fail(study, trial, f"process 4711 {why}")
    pytest.fail("the search does not end")


def in_slot(study: optuna.Study, slot: tuple[int, int]) -> list[optuna.trial.FrozenTrial]:
    return [
        t for t in study.trials if (keys.ours(t).get(keys.GENERATION), keys.ours(t).get(keys.SLOT)) == slot
    ]


@pytest.mark.parametrize(
    ("sampler", "bad"), [(GENETIC, BAD), (RANDOM, (0, 5)), (TPE, (0, 5))], ids=["genetic", "random", "tpe"]
)
def test_three_exceptions_end_a_slot_without_a_value_and_with_their_tracebacks(
    sampler: dict[str, object], bad: tuple[int, int]
):
    study = search(boom, sampler, bad)
    *failed, last = in_slot(study, bad)
    assert len(failed) == MAX_FAILURES
    assert all("ZeroDivisionError: no such luck" in keys.ours(trial)[keys.ERROR] for trial in failed)
    assert {str(trial.params) for trial in failed} == {str(last.params)}
    assert (last.state, last.value) == (TrialState.PRUNED, None)
    assert keys.ours(last)[keys.ATTEMPTS] == [trial.number for trial in failed]
    assert keys.ours(last)[keys.PRUNED_BY] == "failed 3 times: ZeroDivisionError: no such luck"
    assert counted(study) == config(sampler=sampler).n_trials


def test_a_gate_that_raises_ends_its_slot_too():
    class Strict(TermSpace):
        def gates(self, candidates: Sequence[Candidate]) -> list[str | None]:
            if candidates[0].canonical() == self.candidate(self.presets()["sgd"]).canonical():
                boom()
            return [None for _ in candidates]

    few = {"sampler": {"kind": "random", "n_trials": 2}}
    study, task = create(InMemoryStorage(), **few), Fragile(lambda candidate: False, boom)
    objective = Objective(ScoredBench(config(**few), [task], Path()), Strict())
    study.optimize(objective, n_trials=MAX_FAILURES + 2, catch=(ZeroDivisionError,))
    assert is_complete(study)
    *failed, last = in_slot(study, (0, 0))
    assert [trial.state for trial in failed] == [TrialState.FAIL] * MAX_FAILURES
    assert (last.state, last.value) == (TrialState.PRUNED, None)
    assert keys.ours(last)[keys.PRUNED_BY] == "failed 3 times: ZeroDivisionError: no such luck"


def test_an_optimizer_that_cannot_be_made_ends_the_search_and_says_so():
    class Broken(TermSpace):
        def candidate(self, params: Params) -> Candidate:
            made = super().candidate(params)
            if params == self.presets()["sgd"]:
                boom()
            return made

    few = {"sampler": {"kind": "random", "n_trials": 2}}
    study, task = create(InMemoryStorage(), **few), Fragile(lambda candidate: False, boom)
    objective = Objective(ScoredBench(config(**few), [task], Path()), Broken())
    study.optimize(objective, n_trials=MAX_FAILURES + 1, catch=(ZeroDivisionError,))
    assert [trial.state for trial in in_slot(study, (0, 0))] == [TrialState.FAIL] * MAX_FAILURES
    with pytest.raises(UserError, match="slot 0 of generation 0 failed 3 times: ZeroDivisionError") as raised:
        study.optimize(objective, n_trials=10, catch=(ZeroDivisionError,))
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert keys.ours(study.trials[-1])[keys.INTERRUPTED]
    # Once the space is mended, the slot is given up and the search ends.
    objective = Objective(objective.bench, TermSpace())
    study.optimize(objective, n_trials=1)
    assert is_complete(study)


def test_it_is_a_member_that_ranks_last():
    study = search(boom, GENETIC, BAD)
    last = in_slot(study, BAD)[-1]
    assert study.sampler.slot_table(study).populations[BAD[0]][-1].number == last.number


def test_a_genome_that_loses_its_process_every_time_is_given_up_too():
    study = search(lose, GENETIC, BAD)
    *lost, last = in_slot(study, BAD)
    assert len(lost) == MAX_LOSSES
    assert (last.state, last.value) == (TrialState.PRUNED, None)
    assert "10 processes were lost" in keys.ours(last)[keys.PRUNED_BY]


def interrupt() -> None:
    raise Interrupted("and again")


def freeze() -> None:
    raise ProcessFrozen


class ProcessFrozen(ProcessLost):
    """Its trial is taken over, while it lives."""


@pytest.mark.parametrize(
    ("fault", "why"),
    [(interrupt, "was interrupted"), (freeze, "lost its worker (process 4711 stands still (SIGSTOP))")],
    ids=["interrupted", "standing still"],
)
def test_a_slot_is_not_tried_for_ever_whatever_ends_its_trials(
    fault: Callable[[], None], why: str, caplog: pytest.LogCaptureFixture
):
    study = search(fault, GENETIC, BAD)
    *ended, last = in_slot(study, BAD)
    assert len(ended) == MAX_ATTEMPTS
    assert (last.state, last.value) == (TrialState.PRUNED, None)
    assert keys.ours(last)[keys.ATTEMPTS] == [trial.number for trial in ended]
    assert keys.ours(last)[keys.PRUNED_BY] == (
        f"{MAX_ATTEMPTS} trials came to nothing, the last: trial {ended[-1].number} {why}"
    )
    told = [line for line in caplog.messages if "is tried again" in line]
    assert told[0] == f"slot 2 of generation 1 is tried again, attempt 2: trial {ended[0].number} {why}"
    assert len(told) == MAX_ATTEMPTS - 1
