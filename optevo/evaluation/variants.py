"""Variants of a winner, measured side by side on validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optevo import keys
from optevo.evaluation.measuring import Measurer, again_when_killed, processes
from optevo.evaluation.runs import Run
from optevo.spaces import Candidate

if TYPE_CHECKING:
    import optuna

    from optevo.config import StudyConfig

FIRST_SEED = 2000  # neither a search's nor the final measurement's


def measure_variants(
    study: optuna.Study,
    config: StudyConfig,
    variants: Mapping[str, Candidate],
    *,
    steps: int,
    n_seeds: int,
    devices: Sequence[str],
    data_root: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, tuple[Run, ...]]:
    """Train every variant on the study's tasks; runs that the study has stored are not repeated.

    Args:
        study: Where runs are kept.
        config: Its configuration; scored is the validation split, whatever it selected on.
        variants: By name.
        steps: Mini-batches a run.
        n_seeds: Runs a task, of every variant with the same seeds.
        devices: Where to train, one a process.
        data_root: Where data sets lie.
        progress: Called with the number of runs done so far.

    Returns:
        Runs task by task, seed by seed, by the variant's name.

    Raises:
        RunFailed: The processes were killed, again and again.
    """
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + n_seeds))
    update = {"steps": steps, "seeds": seeds, "split": "validation"}
    budget = config.model_copy(update={"evaluation": config.evaluation.model_copy(update=update)})

    def once() -> dict[str, tuple[Run, ...]]:
        with processes(budget, devices, data_root) as pool:
            measurer = Measurer(study, budget, pool, f"{keys.ABLATION}{steps}", progress)
            return measurer.measure(variants, seeds)

    return again_when_killed(once)
