"""One trial: a candidate trained on every task with every seed, and what the storage keeps of it."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.archive import Archive
from optevo.evaluation.audit import audit, is_audited
from optevo.evaluation.candidate_runs import CandidateRuns
from optevo.evaluation.curve import Pruned, make_curve
from optevo.evaluation.faults import Interrupted, machines_fault
from optevo.evaluation.giving_up import given_up_for, unmade
from optevo.evaluation.within_runs import margins
from optevo.liveness.processes import OwnProcess
from optevo.optuna_private import add_together, stored_trial, written_together
from optevo.samplers import sampler_of
from optevo.samplers.individuals import split
from optevo.samplers.slots import Slot, claimed
from optevo.spaces import Candidate, Params, Space
from optevo.training.run import as_stored, by_task

if TYPE_CHECKING:
    from optevo.training.base import BaseBench
    from optevo.training.run import Run

logger = logging.getLogger(__name__)

_TRACEBACK_CHARS = 8000


class Objective:
    """Callable on an Optuna trial: suggests a candidate, trains it, records everything, returns its fitness.

    A trial ends early, as pruned, where its rule cannot descend or a run diverges, and has no value then;
    where it is behind in the race; or where the study's own pruner says so. Runs that an earlier generation
    has already made of the same canonical form are taken over. Any other exception fails the trial, with the
    traceback in its attributes; where `MAX_FAILURES` have failed so, `MAX_LOSSES` processes were lost, or
    `MAX_ATTEMPTS` trials ended in any way, the next trial in the slot is pruned without training, has no
    value either and names them. A process that a task forks ends where it leaves the task.

    With `batch_candidates`, the trial trains together with the other slots of its group, and adds their
    trials to the study, finished.

    Args:
        bench: What to train on.
        space: Where candidates come from.
        check: Called every training step; raise `Interrupted` from it to give the trial up.
    """

    def __init__(self, bench: BaseBench, space: Space, check: Callable[[], None] = lambda: None) -> None:
        self.bench, self.space, self.check = bench, space, check
        self._state: StudyState | None = None

    def __call__(self, trial: optuna.Trial) -> float:
        try:
            return self._evaluate(trial)
        except optuna.TrialPruned:
            raise
        except (Interrupted, UserError):  # not the genome's fault
            trial.set_user_attr(keys.INTERRUPTED, True)
            raise
        except (Exception, SystemExit) as error:
            try:
                self.check()  # what a task raises while its worker is being stopped says nothing
            except Interrupted:
                trial.set_user_attr(keys.INTERRUPTED, True)
                raise
            trial.set_user_attr(keys.ERROR, traceback.format_exc()[-_TRACEBACK_CHARS:])
            if isinstance(error, SystemExit):  # from a user's task: it ends the trial, not the search
                raise RuntimeError(f"the task called sys.exit({error})") from error
            raise

    def _evaluate(self, trial: optuna.Trial) -> float:
        start = time.perf_counter()
        state = self._open(trial.study)
        generation = _slot(trial).generation
        fidelity = state.fidelity(generation)
        given_up, attempts = given_up_for(trial, _slot(trial))
        with written_together(trial.study):
            params = self.space.suggest(trial)
            try:
                candidates, making = self._made([params])
                description = _description(candidates[0], fidelity)
            except Exception as error:
                if given_up is None or machines_fault(error):
                    raise
                raise unmade(_slot(trial), given_up) from error
            for key, value in description.items():
                trial.set_user_attr(key, value)
        # A gate that raises is among what a slot is given up for.
        (entry,) = self._enter(state, candidates, generation, making, asked=given_up is None)
        if given_up is not None and not entry.member.ended:
            trial.set_user_attr(keys.ATTEMPTS, attempts)
            entry.member.fail(given_up)
            seconds = time.perf_counter() - start
        elif self.bench.config.evaluation.batch_candidates > 1:
            seconds = self._train_group(state, trial, entry)
        else:
            self._train(trial, entry)
            seconds = time.perf_counter() - start
        self._audit(entry, _slot(trial))
        member = entry.member
        assert member.value is not None
        with written_together(trial.study, with_state=True):
            for key, value in self._outcome(entry, seconds).items():
                trial.set_user_attr(key, value)
            trial.report(_reported(member.value), step=fidelity.last_step)
        if member.verdict is not None:
            raise optuna.TrialPruned(member.verdict)
        return member.value

    def _open(self, study: optuna.Study) -> StudyState:
        if self._state is None or self._state.study is not study:
            costs, cheap = study.user_attrs.get(keys.COSTS, {}), self.bench.screening
            full, screening = Fidelity(self.bench, self.bench.order(costs)), None
            archive = Archive(study)
            if cheap is not None:
                screening = Fidelity(cheap, cheap.order(costs), screened=True)
                archive = Archive(study, sampler_of(study).screens)
            self._state = StudyState(study, archive, full, screening)
        return self._state

    def _made(self, points: Sequence[Params]) -> tuple[list[Candidate], float]:
        """Candidates, and the seconds that making one took; of equations, that is where they are tried."""
        since = time.perf_counter()
        candidates = [self.space.candidate(params) for params in points]
        return candidates, (time.perf_counter() - since) / max(1, len(points))

    def _enter(
        self,
        state: StudyState,
        candidates: Sequence[Candidate],
        generation: int,
        making: float,
        *,
        asked: bool = True,
    ) -> list[_Entry]:
        """Candidates at the start of their runs, as far as what is known carries them; `making` is of one.

        The gate is asked where the study has one, unless `asked` is False.
        """
        fidelity = state.fidelity(generation)
        config, n_runs = fidelity.bench.config.evaluation, len(fidelity.order)
        since, entries = time.perf_counter(), []
        reasons = self.space.gates(candidates) if config.gate and asked else [None] * len(candidates)
        asking = (time.perf_counter() - since) / max(1, len(candidates))
        for candidate, reason in zip(candidates, reasons, strict=True):
            record = state.archive.record(candidate.canonical(), generation)
            member = CandidateRuns(candidate, n_runs)
            if record is not None:
                member.known, member.known_unfinished = record.runs, record.unfinished
            if config.pruner in ("racing", "racing_within_runs"):
                race = state.archive.race(generation, n_runs)
                member.thresholds, member.lowest = race.thresholds, race.lowest
                if config.pruner == "racing_within_runs":
                    member.highest_losses = race.highest_losses
                    member.margins = margins(candidate.schedule(config.steps), config.steps)
            if config.gate:
                member.enter(reason, making + asking)
            member.take_known()
            entries.append(_Entry(member, record.number if record else None, fidelity))
        return entries

    def _train(self, trial: optuna.Trial, entry: _Entry) -> None:
        member, bench, order = entry.member, entry.fidelity.bench, entry.fidelity.order
        curve = make_curve(trial, bench.config, len(order))
        try:
            for run in member.runs if member.verdict is None else []:
                curve.after(run)
            while not member.ended:
                task, seed = order[len(member.runs)]
                # A loss that says nothing of fitness is no point of its curve.
                published = getattr(bench.tasks[task][0], "has_bonus", True)
                within, watch = curve.within if published else lambda step, loss: None, member.watch()
                with OwnProcess() as process:
                    on_point = process.guard(lambda *point, w=within, race=watch: w(*point) or race(*point))
                    check = process.guard(self.check)
                    run = bench.run(member.candidate, task, seed, on_point=on_point, check=check)
                member.add(run)
                if not member.ended:
                    curve.after(run)
        except Pruned as pruned:
            if not member.ended:  # all copied: there is nothing left to save
                member.stop(str(pruned))

    def _run_all(
        self, training: list[CandidateRuns], own: CandidateRuns, bench: BaseBench, task: int, seed: int
    ) -> list[Run | None]:
        """A run each. Where the stack raises, each alone; None for another's that raises: it will lead."""
        try:
            candidates = [one.candidate for one in training]
            with OwnProcess() as process:
                options: dict[str, Any] = {}
                if own.highest_losses:
                    options["on_points"] = [process.guard(one.watch()) for one in training]
                check = process.guard(self.check)
                return [*bench.run_together(candidates, task, seed, check, self.space.stack, **options)]
        except Exception as error:
            if machines_fault(error):
                raise
            logger.warning("a stack failed, its members train one by one", exc_info=True)
        return [self._run_alone(one, own, bench, task, seed) for one in training]

    def _run_alone(
        self, member: CandidateRuns, own: CandidateRuns, bench: BaseBench, task: int, seed: int
    ) -> Run | None:
        try:
            with OwnProcess() as process:
                on_point, check = process.guard(member.watch()), process.guard(self.check)
                return bench.run(member.candidate, task, seed, on_point=on_point, check=check)
        except Exception as error:
            if member is own or machines_fault(error):
                raise
            logger.warning("a member of the group failed; its slot is evaluated on its own", exc_info=True)
            return None

    def _enter_others(
        self, state: StudyState, others: Mapping[Slot, Params], generation: int
    ) -> dict[Slot, _Entry]:
        """The others of a group at the start of their runs, without those of which that raises: they lead."""
        try:
            candidates, making = self._made(list(others.values()))
            return dict(zip(others, self._enter(state, candidates, generation, making), strict=True))
        except Exception as error:
            if machines_fault(error):
                raise
            if len(others) == 1:
                logger.warning(
                    "a member of the group failed; its slot is evaluated on its own", exc_info=True
                )
                return {}
        alone = (self._enter_others(state, {slot: params}, generation) for slot, params in others.items())
        return {slot: entry for found in alone for slot, entry in found.items()}

    def _train_group(self, state: StudyState, trial: optuna.Trial, own: _Entry) -> float:
        """Train the trial's whole group and record the others' outcomes; returns seconds a member.

        Those whose slot has been decided run along: so the stack, and with it every last bit, is the same
        after a kill.
        """
        start = time.perf_counter()
        study, sampler = state.study, sampler_of(state.study)
        frozen = stored_trial(study, trial)
        slot = claimed(frozen)
        assert slot is not None
        members = sampler.group(study, slot)
        others = {other: params for other, params in members.items() if other != slot}
        entries = self._enter_others(state, others, slot.generation)
        stack = [
            own.member if other == slot else entries[other].member
            for other in members
            if other == slot or other in entries
        ]
        bench = own.fidelity.bench
        for i, (task, seed) in enumerate(own.fidelity.order):
            training = [member for member in stack if not member.ended and len(member.runs) == i]
            if training:
                for member, run in zip(
                    training, self._run_all(training, own.member, bench, task, seed), strict=True
                ):
                    if run is not None:
                        member.add(run)
        seconds = (time.perf_counter() - start) / len(stack)
        for other, entry in entries.items():
            self._audit(entry, other)
        if stored_trial(study, trial).state.is_finished():
            raise optuna.exceptions.UpdateFinishedTrialError("the group was given to another worker")
        table, found = sampler.slot_table(study), []
        for other, entry in entries.items():
            member = entry.member
            if member.value is None or table.decided(other):
                continue
            user, system = sampler.attributes(other, sampler.lineage(study, other))
            space = self.space.distributions()
            suggested, dormant = split(members[other], space)
            finished = optuna.trial.create_trial(
                state=TrialState.COMPLETE if member.verdict is None else TrialState.PRUNED,
                value=member.value if math.isfinite(member.value) else None,
                params=suggested,
                distributions={name: space[name] for name in suggested},
                user_attrs={
                    **user,
                    **_description(member.candidate, entry.fidelity),
                    **self._outcome(entry, seconds),
                },
                system_attrs={**system, keys.DORMANT: dormant} if dormant else system,
                intermediate_values={entry.fidelity.last_step: _reported(member.value)},
            )
            finished.datetime_start = frozen.datetime_start
            found.append(finished)
        add_together(study, found)
        return seconds

    def _audit(self, entry: _Entry, slot: Slot) -> None:
        """Train what the gate refused all the same, where it was drawn for that; it stays refused."""
        fidelity = entry.fidelity
        if entry.member.refused and is_audited(fidelity.bench.config, slot):
            entry.member.audit = audit(entry.member.candidate, fidelity.bench, fidelity.order, self.check)

    def _outcome(self, entry: _Entry, seconds: float) -> dict[str, Any]:
        """What a trial keeps of how it went."""
        member, evaluation = entry.member, entry.fidelity.bench.config.evaluation
        attrs: dict[str, Any] = {
            keys.RUNS: [as_stored(run) for run in member.runs],
            keys.TRAINED_STEPS: sum(run.steps for run in member.trained),
            keys.SECONDS: seconds,
        }
        if evaluation.gate_audit and member.gate_seconds is not None:
            attrs[keys.GATE_SECONDS] = member.gate_seconds
        if member.audit is not None:
            attrs |= {keys.AUDIT: member.audit, keys.SECONDS: seconds + member.audit["seconds"]}
        for task, values in by_task(member.runs).items():
            if all(map(math.isfinite, values)):
                attrs[keys.FITNESS_PREFIX + task] = sum(values) / len(values)
        if member.runs and member.runs[-1].diverged_at is not None:
            before = (len(member.runs) - 1) * evaluation.run_steps
            if evaluation.budget == "flops":  # runs are as long as their candidate is cheap
                before = sum(run.steps for run in member.runs[:-1])
            attrs[keys.DIVERGED_AT] = before + member.runs[-1].diverged_at
        if member.verdict is not None:
            attrs[keys.PRUNED_BY] = member.verdict
        if member.unfinished is not None:
            attrs[keys.UNFINISHED] = as_stored(member.unfinished)
        if member.copied or member.unfinished is member.known_unfinished is not None:
            attrs |= {keys.COPIED_FROM: entry.source, keys.COPIED_RUNS: member.copied}
        return attrs


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """The full evaluation of a study, or its cheap one."""

    bench: BaseBench
    order: list[tuple[int, int]]  # (task, seed) of a trial's runs
    screened: bool = False

    @property
    def last_step(self) -> int:
        """Of a trial's curve."""
        return len(self.order) * self.bench.config.evaluation.run_steps


@dataclasses.dataclass(frozen=True)
class StudyState:
    """What the objective keeps of a study from trial to trial."""

    study: optuna.Study
    archive: Archive
    full: Fidelity
    screening: Fidelity | None = None

    def fidelity(self, generation: int) -> Fidelity:
        """How trials of a generation are evaluated."""
        if self.screening is not None and sampler_of(self.study).screens(generation):
            return self.screening
        return self.full


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A candidate's runs, the earlier trial that those it knew already are from, and how it is evaluated."""

    member: CandidateRuns
    source: int | None
    fidelity: Fidelity


def _slot(trial: optuna.Trial) -> Slot:
    slot = sampler_of(trial.study).slot(trial.study, trial)
    assert slot is not None
    return slot


def _reported(value: float) -> float:
    """The last point of a trial, which Optuna takes for the value of a pruned one: NaN for none."""
    return value if math.isfinite(value) else math.nan


def _description(candidate: Candidate, fidelity: Fidelity) -> dict[str, Any]:
    return {
        keys.FORMULA: candidate.formula(),
        keys.HYPERPARAMETERS: candidate.describe(),
        keys.CANONICAL: candidate.canonical(),
        **({keys.SCREENED: True} if fidelity.screened else {}),
    }
