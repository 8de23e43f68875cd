"""Variants of a winner: what remains of it without each of its parts, measured on validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optevo import keys
from optevo.measurement.pool import Measurer, again_when_killed, form_of, kept_runs, processes
from optevo.optim.candidate import Candidate
from optevo.training.run import Run

if TYPE_CHECKING:
    import optuna

    from optevo.study.config import StudyConfig

FIRST_SEED = 2000  # neither a search's nor the final measurement's


def variants_config(config: StudyConfig, steps: int, n_seeds: int) -> StudyConfig:
    """The study's configuration with the budget of its variants, on the validation split.

    They have the rates that they are given: nothing is looked for again.
    """
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + n_seeds))
    update = {"steps": steps, "seeds": seeds, "split": "validation", "rates": None}
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update=update)})


def kept_variants(
    study: optuna.Study, budget: StudyConfig, variants: Mapping[str, Candidate]
) -> dict[str, tuple[Run, ...]] | None:
    """What the study has stored of its variants; None while a run is missing. `budget` as for measuring."""
    found = {}
    for name, candidate in variants.items():
        n_tasks, seeds = len(budget.evaluation.tasks), budget.evaluation.seeds
        runs = kept_runs(study, _prefix(budget), form_of(candidate), n_tasks, seeds)
        if runs is None:
            return None
        found[name] = runs
    return found


def measure_variants(
    study: optuna.Study,
    budget: StudyConfig,
    variants: Mapping[str, Candidate],
    *,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, tuple[Run, ...]]:
    """Train every variant on the study's tasks; runs that the study has stored are not repeated.

    Args:
        study: Where runs are kept.
        budget: From `variants_config`.
        variants: By name.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Returns:
        Runs task by task, seed by seed, by the variant's name.

    Raises:
        RunFailed: The processes were killed, again and again.
    """

    def once() -> dict[str, tuple[Run, ...]]:
        with processes(budget, devices, data_root) as pool:
            measurer = Measurer(study, budget, pool, _prefix(budget), progress)
            return measurer.measure(variants, budget.evaluation.seeds)

    return again_when_killed(once)


def _prefix(budget: StudyConfig) -> str:
    return f"{keys.ABLATION}{budget.evaluation.steps}:"
