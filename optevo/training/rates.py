"""A run that first looks for its learning rate by short trials, then trains once with the best.

Source: the fitness of arXiv 2404.06679. All trials have the weights, the batches and the schedule's horizon
of the whole run, so that they lie at the schedule's beginning. Defaults of all numbers:
`optevo.study.evaluation.RatesConfig`.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optevo.tasks.base import Split, Task
from optevo.tasks.faults import users_number
from optevo.training.fitness import DIVERGED, tenths, usable
from optevo.training.precision import autocast
from optevo.training.run import Run
from optevo.training.single import Fit, fitted, isolated, mean_losses, scored_weights, tenth_losses

if TYPE_CHECKING:
    from optevo.optim.candidate import Candidate
    from optevo.study.evaluation import RatesConfig


def train_with_rates(
    task: Task,
    splits: Mapping[str, Split],
    candidate: Candidate,
    rates: RatesConfig,
    *,
    seed: int,
    steps: int,
    batch_size: int = 128,
    split: str = "validation",
    precision: str = "float32",
    on_point: Callable[[int, float], None] = lambda step, loss: None,
    check: Callable[[], None] = lambda: None,
) -> Run:
    """Choose a rate, train a fresh model with it and score that after every epoch; the best score counts.

    A trial's score is its best training score of an epoch: the share of right answers among the epoch's
    batches as they come, in training mode, where the model returns class scores (N, C) and targets are int64
    class numbers (N,); else exp(−mean training loss). An epoch is a fixed number of steps.

    Args:
        task: What to train.
        splits: Its data, all on the device to train on.
        candidate: One that takes a rate, see `Candidate.at_rate`.
        rates: Which rates, and when to stop; a trial is never longer than the run.
        seed: Of the run. Trials and run have the same initial weights and batches.
        steps: Mini-batches of the whole run, for which the schedules are.
        batch_size: Examples a mini-batch. Default: 128.
        split: Which part gives the metric. Where it is not "validation", the epoch is chosen on that, and
            the model of that epoch is scored once, at the end. Default: "validation".
        precision: As in `optevo.training.single.train`. Default: "float32".
        on_point: Called as there, of the whole run; its steps are counted after those of all trials.
        check: Called every step; what it raises ends the run.

    Returns:
        The run: its fitness is the metric, its loss the training loss of the best epoch, `lr` the rate. One
        that is stopped has what it came to before. It has no score where all `first` rates stay below
        `first_threshold`, the best of all below `threshold`, or no epoch of the whole run came to its end.
    """
    start, device = time.perf_counter(), splits["train"].device
    setting: dict[str, Any] = {"seed": seed, "steps": steps, "batch_size": batch_size}
    setting |= {"precision": precision, "check": check}
    lr, reason, before = _chosen(task, splits["train"], candidate, rates, setting)
    if reason is not None:
        failed = Run(task.name, seed, DIVERGED, None, None, (), before, 0.0, before, failure=reason)
        return dataclasses.replace(failed, seconds=time.perf_counter() - start)
    train = _TrainingScore(task, steps, device)
    best = _BestEpoch(task, splits["validation"], precision, keeps=split != "validation")
    tens, ends = tenths(steps), _ends(steps, rates.full_epochs)
    most = rates.trial_steps(steps)

    def on_mark(fit: Fit) -> bool:
        if fit.taken in ends:
            i = ends.index(fit.taken)
            first = ends[i - 1] if i else 0
            best.see(fit, first)
            if i + 1 >= rates.full_patience and train.of(fit, first) < rates.threshold:
                return True
        if fit.taken in tens and fit.taken < steps:
            on_point(most + fit.taken, mean_losses(fit.losses, tens[: tens.index(fit.taken) + 1])[-1])
        return False

    with isolated(task.name, seed, device):
        fit = fitted(
            task,
            splits["train"],
            candidate.at_rate(lr),
            marks=sorted({*tens, *ends}),
            on_mark=on_mark,
            loss=train.loss,
            **setting,
        )
        metric = best.metric if split == "validation" else best.measured_on(fit.model, splits[split])
    at = fit.taken if fit.diverged_at is None else fit.diverged_at
    return Run(
        task=task.name,
        seed=seed,
        fitness=DIVERGED if metric is None else metric,
        metric=metric,
        loss=None if metric is None else best.loss,
        losses=tenth_losses(fit.losses, fit.taken),
        steps=before + fit.taken,
        seconds=time.perf_counter() - start,
        diverged_at=before + at if metric is None else None,
        lr=lr,
    )


def _ends(steps: int, epochs: int) -> list[int]:
    """The steps after which so many epochs of a run end, but for those without a step."""
    return sorted({round(steps * i / epochs) for i in range(1, epochs + 1)} - {0})


def _chosen(
    task: Task, split: Split, candidate: Candidate, rates: RatesConfig, setting: Mapping[str, Any]
) -> tuple[float, str | None, int]:
    """The best rate, why it is no good or None, and the steps that the trials took."""
    scores, steps = dict[float, float](), 0
    for group, least in ((rates.first, rates.first_threshold), (rates.more, rates.threshold)):
        for lr in group:
            scores[lr], taken = _trial(task, split, candidate.at_rate(lr), rates=rates, setting=setting)
            steps += taken
        lr = max(scores, key=scores.__getitem__)  # the first of equals
        if scores[lr] < least:
            tried = ", ".join(f"{one:g}" for one in scores)
            reason = f"best training score {scores[lr]:.4f}, at rate {lr:g} of {tried}; below {least:g}"
            return lr, reason, steps
    return lr, None, steps


def _trial(
    task: Task, split: Split, candidate: Candidate, *, rates: RatesConfig, setting: Mapping[str, Any]
) -> tuple[float, int]:
    """A trial's score, 0 where it came to the end of no epoch, and the steps that it took."""
    steps, scores = setting["steps"], list[float]()
    ends = sorted({min(i * rates.epoch_steps, steps) for i in range(1, rates.epochs + 1)})
    train = _TrainingScore(task, steps, split.device)

    def on_mark(fit: Fit) -> bool:
        scores.append(train.of(fit, ends[len(scores) - 1] if scores else 0))
        return len(scores) >= rates.patience and scores[-1] < rates.first_threshold

    with isolated(task.name, setting["seed"], split.device):
        fit = fitted(
            task, split, candidate, marks=ends, on_mark=on_mark, last=ends[-1], loss=train.loss, **setting
        )
    return max(scores, default=0.0), fit.taken


class _TrainingScore:
    """How right a model is on its training batches, kept on the device until it is asked for.

    Args:
        task: Whose loss is taken.
        steps: Of the whole run.
        device: Of the data.
    """

    def __init__(self, task: Task, steps: int, device: torch.device) -> None:
        self.task, self.classifies = task, True
        self.right = torch.zeros(steps, device=device)
        self.sizes: list[int] = []

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The task's loss; what the model returned for it is counted."""
        seen: list[Any] = []
        hook = model.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
        try:
            loss = self.task.loss(model, batch)
        finally:
            hook.remove()
        outputs: Any = seen[-1] if seen else None
        targets = batch[1]
        if not (self.classifies and _are_classes(outputs, targets)):
            self.classifies = False
            return loss
        self.right[len(self.sizes)] = (outputs.detach().argmax(dim=1) == targets).sum()
        self.sizes.append(len(targets))
        return loss

    def of(self, fit: Fit, start: int) -> float:
        """The score of the steps from `start` to the last."""
        if self.classifies:
            return float(self.right[start : fit.taken].sum()) / sum(self.sizes[start : fit.taken])
        return float((-fit.losses[start : fit.taken].mean()).exp())


def _are_classes(outputs: Any, targets: Any) -> bool:
    """Whether outputs are class scores (N, C) for class numbers (N,)."""
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and outputs.dim() == 2
        and targets.dtype == torch.int64
        and targets.shape == outputs.shape[:1]
    )


class _BestEpoch:
    """The epoch with the best metric on validation data.

    Args:
        task: Which scores.
        split: The validation data.
        precision: As in `train_with_rates`.
        keeps: Whether the model of that epoch is asked for.
    """

    def __init__(self, task: Task, split: Split, precision: str, *, keeps: bool) -> None:
        self.task, self.split, self.precision, self.keeps = task, split, precision, keeps
        self.metric: float | None = None
        self.loss: float | None = None  # mean training loss of that epoch
        self._state: dict[str, Any] = {}

    def see(self, fit: Fit, start: int) -> None:
        """An epoch has ended that began after step `start`."""
        with scored_weights(fit.optimizer):
            metric = self._score(fit.model, self.split)
            if metric is not None and (self.metric is None or metric > self.metric):
                self.metric, self.loss = metric, float(fit.losses[start : fit.taken].mean())
                if self.keeps:
                    self._state = copy.deepcopy(fit.model.state_dict())

    def measured_on(self, model: nn.Module, split: Split) -> float | None:
        """The metric of that epoch's model on another split; None where there was no such epoch."""
        if self.metric is None:
            return None
        model.load_state_dict(self._state)
        return self._score(model, split)

    def _score(self, model: nn.Module, split: Split) -> float | None:
        with autocast(split.device, self.precision):
            metric = users_number(f"task {self.task.name!r}: score()", self.task.score(model, split))
        return metric if usable(metric) else None
