"""A trial's optimizer as one Python file, and whether a study can have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optevo import __version__, keys
from optevo.errors import UserError
from optevo.measurement.fresh_seeds import stored_result
from optevo.reporting.rules import as_trained, hyperparameters, runs_of
from optevo.reporting.text import fresh
from optevo.training.run import found_rate

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig


def source_of(study: optuna.Study, config: StudyConfig, trial: FrozenTrial, class_name: str) -> str:
    """A trial's optimizer as a Python file, which says where it comes from.

    Args:
        study: The study.
        config: Its configuration.
        trial: One of its trials.
        class_name: What the file calls the optimizer.

    Raises:
        UserError: The trial ended before it had an optimizer, the class name is useless, or a class alone
            can't be the optimizer.
    """
    if keys.CANONICAL not in keys.ours(trial):
        raise UserError(f"trial {trial.number} has no optimizer to export: it is {trial.state.name}")
    evaluation = config.evaluation
    provenance = {
        "study": study.study_name,
        "trial": str(trial.number),
        "fitness in search": str(trial.value),
        "tasks": ", ".join(map(str, evaluation.tasks)),
        "split": evaluation.split,
        "steps": str(evaluation.steps),
        "seeds": ", ".join(map(str, evaluation.seeds)),
        "environment": str(study.user_attrs[keys.ENVIRONMENT]),
        "written by": f"optevo {__version__}",
    }
    result = stored_result(study, config)
    runs = runs_of(trial, result)
    if found_rate(runs) is not None:
        provenance["hyperparameters"] = str(hyperparameters(trial, runs))
    if result is not None and result.winner == trial.number:
        row = result.rows[-1]
        provenance["fitness on fresh seeds"] = f"{fresh(row)}, n = {len(row.by_seed)}"
    try:
        candidate = as_trained(config.make_space().candidate(trial.params), runs)
        return candidate.source(class_name, provenance)
    except ValueError as error:
        raise UserError(str(error)) from None


def check_exportable(config: StudyConfig) -> None:
    """Refuse to export what a class alone can't be, or what no study names, before a search for it begins.

    Raises:
        UserError: The study's optimizer wants to know more, or the study names no winner.
    """
    if config.rerun.candidates == 0:
        raise UserError(
            "--export: a study with [rerun] candidates = 0 names no winner; leave the option out and use "
            "`optevo export N`, with a trial's number"
        )
    reason = config.make_space().not_exportable()
    if reason is not None:
        raise UserError(f"--export: {reason}")
