"""The bench that a study's tasks take: one that trains, or one for tasks that score by themselves.

Importing this does not import torch; the first task that trains brings it in.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from optevo.errors import UserError
from optevo.tasks import ScoredTask
from optevo.training.base import SCREENED, BaseBench, make_tasks
from optevo.training.scored import ScoredBench

if TYPE_CHECKING:
    from optevo.study.config import StudyConfig
    from optevo.tasks import Task

__all__ = ["BaseBench", "ScoredBench", "make_bench", "make_worker_bench"]


def make_bench(config: StudyConfig, device: str, data_root: Path) -> BaseBench:
    """The bench for a study's tasks: a `ScoredBench` where all score by themselves, else a `Bench`.

    Args:
        config: The study.
        device: Where to train; tasks that score by themselves do not care.
        data_root: Where data sets lie.

    Raises:
        UserError: A task or its data is missing or damaged, the device isn't there, or the study mixes tasks
            that train with tasks that score by themselves.
    """
    scored, trained = _by_kind(config)
    return _bench(config, scored, trained, device, data_root)


def make_worker_bench(config: StudyConfig, device: str, data_root: Path, sharing: int = 1) -> BaseBench:
    """The same in a process of its own: with one thread, and its part of the device's memory.

    Args:
        config: The study.
        device: As in `make_bench`.
        data_root: As in `make_bench`.
        sharing: Processes that share the device, a GPU. Default: 1.

    Raises:
        UserError: See `make_bench`.
    """
    scored, trained = _by_kind(config)
    if trained:
        import torch  # noqa: PLC0415  a scored study never needs it

        from optevo.training.devices import share_device  # noqa: PLC0415

        # Several one-thread processes beat a wide one, and sums come out the same for any number of them.
        torch.set_num_threads(1)
        share_device(device, sharing)
    return _bench(config, scored, trained, device, data_root)


def _by_kind(config: StudyConfig) -> tuple[list[ScoredTask], list[Task]]:
    """The study's tasks: those that score by themselves, those that train; one of the two is empty."""
    scored: list[ScoredTask] = []
    trained: list[Task] = []
    for task in make_tasks(config):
        if isinstance(task, ScoredTask):
            scored.append(task)
        else:
            trained.append(task)
    if scored and trained:
        raise UserError(
            f"evaluation.tasks: {scored[0].name!r} scores candidates by itself, {trained[0].name!r} trains "
            "them; a study has tasks of one kind"
        )
    return scored, trained


def _bench(
    config: StudyConfig, scored: list[ScoredTask], trained: list[Task], device: str, data_root: Path
) -> BaseBench:
    bench: BaseBench
    if scored:
        bench = ScoredBench(config, scored, data_root)
    else:
        from optevo.training.bench import Bench  # noqa: PLC0415  imports torch

        bench = Bench(config, device, data_root, trained)
    cheap = config.screened()
    if cheap is not None:
        if cheap.evaluation.tasks == config.evaluation.tasks:  # the data need not be there twice
            bench.screening = copy.copy(bench)
            bench.screening.config = cheap
        else:
            bench.screening = _bench(cheap, *_by_kind(cheap), device, data_root)
        bench.screening.prefix = SCREENED
    return bench
