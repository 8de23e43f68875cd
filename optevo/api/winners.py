"""What comparisons and ablations start from: finished studies, their winners, and where to train."""

from __future__ import annotations

# ruff: noqa: PLC0415
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from optevo.errors import UserError
from optevo.live import make_console

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from optevo.measurement.fresh_seeds import Result
    from optevo.optim.candidate import Candidate
    from optevo.reporting.comparison import Entry
    from optevo.study.config import StudyConfig
    from optevo.training.run import Run

T = TypeVar("T")
Loaded = tuple["optuna.Study", "StudyConfig"]


class Machine:
    """Where to train; asked only once something has to be trained."""

    def __init__(
        self, workers: int | None, device: str, data_dir: str | Path | None, console: Console | None = None
    ) -> None:
        from optevo.tasks.roots import data_root

        self.console = console or make_console()
        self._workers, self._device = workers, device
        self.data_root = data_root(data_dir, needed=False)

    @property
    def devices(self) -> list[str]:
        from optevo.training.devices import worker_devices

        return worker_devices(self._device, self._workers)

    def check(self, study: optuna.Study, config: StudyConfig) -> None:
        """What is wrong with a task, its data or the installed versions is said before processes start."""
        from optevo.reporting.comparison import check_tasks
        from optevo.study.studies import check_environment
        from optevo.training.base import make_tasks
        from optevo.training.benches import make_bench
        from optevo.workers.supervisor import trying_tasks

        check_environment(study)
        check_tasks(config.name, [task.name for task in make_tasks(config)])
        with trying_tasks():
            data = make_bench(config, "cpu", self.data_root).identities()
        check_environment(study, data)

    def train(self, measure: Callable[..., T], what: str, n_runs: int) -> T:
        """What `measure` returns when it is given `progress`, with a line that says how far it is."""
        from optevo.reporting.progress import counting
        from optevo.workers.supervisor import terminable

        with terminable(), counting(self.console, what, n_runs) as progress:
            return measure(progress=progress)


def measured_entries(
    loaded: Sequence[Loaded],
    steps: int | None,
    seeds: int | None,
    again: bool,
    machine: Machine,
    *,
    budget: str = "steps",
) -> list[Entry]:
    """Every study with its winner, and how that did on the test split with one kind of budget."""
    from optevo.measurement.test_split import finished, measure_test_split, next_evaluation, plan, test_config
    from optevo.reporting.comparison import Entry, check_budgets

    ready = [(study, config, result_of(study, config, machine)) for study, config in loaded]
    winners = [(study, config, result.winner) for study, config, result in ready]
    number = next_evaluation(winners, budget) if again else 1
    plans = [
        plan(study, config, result.winner, steps=steps, n_seeds=seeds, number=number, budget=budget)
        for study, config, result in ready
    ]
    check_budgets([(c.name, one.steps, one.seeds) for (_, c, _), one in zip(ready, plans, strict=True)])
    evaluations = [finished(study, config, one) for (study, config, _), one in zip(ready, plans, strict=True)]
    missing = [
        (one, *each[:2]) for one, each, final in zip(plans, ready, evaluations, strict=True) if final is None
    ]
    for one, study, config in missing:  # all of them, before the first is read
        machine.check(study, test_config(config, one))
    if any(one.attempt > 1 for one, _, _ in missing):
        machine.console.print(
            "--again: a second reading of the test split is no test. Whatever was changed since the first "
            "was changed knowing it; the result carries a mark for good."
        )
    entries = []
    for (study, config, result), one, final in zip(ready, plans, evaluations, strict=True):
        if final is None:
            measure = functools.partial(
                measure_test_split, study, config, one, devices=machine.devices, data_root=machine.data_root
            )
            n_runs = len(one.seeds) * len(config.evaluation.tasks)
            measured = machine.train(measure, f"{study.study_name} on the test split", n_runs)
        entries.append(Entry(study, config, result, final or measured))
    return entries


def other_entries(entries: Sequence[Entry], budget: str) -> list[Entry]:
    """The same studies as they were measured with another budget; none where they do not all pair so."""
    from optevo.measurement.test_split import stored_evaluation
    from optevo.reporting.comparison import Entry, check_budgets

    found = []
    for entry in entries:
        final = stored_evaluation(entry.study, entry.config, budget)
        if final is None or final.trial != entry.result.winner:
            return []
        found.append(Entry(entry.study, entry.config, entry.result, final))
    try:
        check_budgets([(entry.test.study, entry.test.steps, entry.test.seeds) for entry in found])
    except UserError:
        return []
    return found


def measured_variants(
    study: optuna.Study, budget: StudyConfig, variants: Mapping[str, Candidate], machine: Machine
) -> dict[str, tuple[Run, ...]]:
    """A winner's variants with their runs, by name; measured now, as far as the study has not stored them."""
    from optevo.measurement.ablation import kept_variants, measure_variants

    runs = kept_variants(study, budget, variants)
    if runs is None:
        machine.check(study, budget)
        measure = functools.partial(
            measure_variants, study, budget, variants, devices=machine.devices, data_root=machine.data_root
        )
        n_runs = len(variants) * len(budget.evaluation.seeds) * len(budget.evaluation.tasks)
        runs = machine.train(measure, "variants on the validation split", n_runs)
    return runs


def load_complete(storage: str, names: Sequence[str]) -> list[Loaded]:
    """Studies whose search is over."""
    from optevo.storage.opening import open_storage
    from optevo.study.studies import is_complete, load_study

    opened = open_storage(storage)
    loaded = [load_study(opened, name) for name in names]
    for study, config in loaded:
        if not is_complete(study):
            raise UserError(
                f"study {config.name!r} is not complete: `optevo run` its file first, then compare its winner"
            )
    return loaded


def result_of(study: optuna.Study, config: StudyConfig, machine: Machine) -> Result:
    """How the study's best did on fresh seeds; measured now, where `run` was stopped before."""
    from optevo.measurement.fresh_seeds import planned_runs, stored_result
    from optevo.run import measure_best

    result = stored_result(study, config)
    if result is None and config.rerun.candidates == 0:
        raise UserError(
            f"study {config.name!r} names no winner: its file says [rerun] candidates = 0. Say 1 or more "
            "there, and `optevo run` it again: only its best are trained then"
        )
    if result is None:
        machine.check(study, config)
        measure = functools.partial(
            measure_best, study, config, devices=machine.devices, data_root=machine.data_root
        )
        result = machine.train(
            measure, f"the best of {study.study_name} on fresh seeds", planned_runs(study, config)
        )
    return result


def trained_winner(study: optuna.Study, config: StudyConfig, machine: Machine) -> Candidate:
    """A study's winner, at the learning rate that most of its runs on fresh seeds found, if they looked."""
    from optevo.reporting.rules import as_trained
    from optevo.training.run import found_rate

    result, space = result_of(study, config, machine), config.make_space()
    trial, runs = study.get_trials(deepcopy=False)[result.winner], result.rows[-1].runs
    if space.needs_rates and found_rate(runs) is None:
        raise UserError(
            f"study {config.name!r}: no run of its winner, trial {trial.number}, on fresh seeds found a "
            "learning rate: there is nothing to train its variants at"
        )
    return as_trained(space.candidate(trial.params), runs)


def tuned_adamw(storage: str, name: str | None, config: StudyConfig) -> Loaded | None:
    """The sweep that is named; else the fittest finished one with the study's tasks and steps."""
    from optevo.reporting.comparison import check_comparable
    from optevo.storage.opening import open_storage
    from optevo.study.studies import best_trials, is_complete, load_study, study_names

    if name is not None:
        ((study, sweep),) = load_complete(storage, [name])
        if sweep.space.kind != "adamw":
            raise UserError(f"--adamw {name!r} is a study of {sweep.space.kind}, not a sweep of adamw")
        check_comparable([config, sweep])
        return study, sweep
    opened = open_storage(storage)
    found: list[tuple[float, Loaded]] = []
    for other in study_names(opened):
        try:
            study, sweep = load_study(opened, other)
            check_comparable([config, sweep])
        except UserError:
            continue
        usable = (
            sweep.space.kind == "adamw"
            and sweep.rerun.candidates > 0
            and any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
            and sweep.evaluation.split == "validation"
        )
        usable = usable and sweep.evaluation.steps == config.evaluation.steps
        if usable and is_complete(study):
            found.append((best_trials(study, 1)[0].value or 0.0, (study, sweep)))
    return max(found, key=lambda one: one[0])[1] if found else None
