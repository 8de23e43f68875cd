"""What a few runs of a task with Adam tell: repeats, loss, score, speed and memory."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from optevo.optim.terms.presets import PRESETS
from optevo.tasks.base import Split, Task
from optevo.tasks.scoring import METRICS, canonical
from optevo.training.check_data import Finding
from optevo.training.run import Run

ADAM = PRESETS["adam"]
_BEST = {"accuracy": 1.0, "r2": 1.0, "-mse": 0.0, "-perplexity": -1.0}
_TRIED_BATCHES = 4
_SLOW_BATCHES = 0.5  # of a step's time
_CLEARLY = 0.9  # of its first tenth, a loss that has fallen clearly


def repeats(first: Run, second: Run, device: torch.device) -> Finding:
    """Whether two runs with one seed are equal, but for their seconds."""
    if first == second:
        return Finding("repeats", "ok", "two runs with one seed are equal to the last bit")
    where = "the scores" if first.losses == second.losses else "the losses"
    found = f"two runs with one seed differ in {where}"
    if device.type == "cuda":
        return Finding("repeats", "look", found, "some kernels sum in any order; see --device cpu")
    return Finding("repeats", "wrong", found, "keep nothing in the task from run to run, and use no clock")


def loss_falls(run: Run, steps: int) -> Finding:
    """Whether the training loss falls over a run."""
    if run.diverged_at is not None:
        found = f"diverged at step {run.diverged_at} of Adam with learning rate {ADAM.lr:g}"
        return Finding("loss", "wrong", found, "bring inputs and targets to about −1 to 1; see max_loss")
    losses = [loss for loss in run.losses if loss is not None]
    told = f"{losses[0]:.4g} → {losses[-1]:.4g} over {steps} steps of Adam"
    if len(losses) < 2 or losses[-1] < losses[0]:
        return Finding("loss", "ok", told)
    remedy = (
        "take more --steps; if it stays, see that loss() uses model and batch, and that inputs are scaled"
    )
    return Finding("loss", "wrong", f"does not fall: {told}", remedy)


def score_range(  # noqa: PLR0911  one a verdict
    task: Task, run: Run, untrained: Sequence[float], split: Split
) -> Finding:
    """Whether a score is finite, and higher for a trained network than for chance.

    Args:
        task: Whose it is.
        run: One that did not diverge.
        untrained: Two scores of one untrained network.
        split: What was scored.
    """
    start, end = untrained[0], run.metric
    if end is None or not math.isfinite(start):
        found = f"{start:g} of the untrained network, {'none' if end is None else f'{end:g}'} of the trained"
        return Finding("score", "wrong", found, "score() has to return a finite number")
    if untrained[0] != untrained[1]:
        found = f"of one and the same network, {untrained[0]:g} and {untrained[1]:g}"
        return Finding("score", "wrong", found, "score() has to draw nothing, and to score all of the split")
    named = None
    if type(task).score is Task.score:
        named = canonical("metric", task.metric, METRICS, type(task).__name__)
    chance, said = _chance(named, split, start)
    told = f"{start:.4g} untrained, {end:.4g} trained, {said}"
    if task.has_bonus and not (0 <= start <= 1 and 0 <= end <= 1):
        remedy = (
            "fitness adds up to 0.05 for a low loss to a score from 0 to 1: say bonus = False in the class"
        )
        return Finding("score", "wrong", told, remedy)
    losses = [loss for loss in run.losses if loss is not None]
    fallen = len(losses) > 1 and 0 < losses[-1] < _CLEARLY * losses[0]
    if named is None and fallen and end < start:
        remedy = "higher has to be better: return the negative of an error"
        return Finding("score", "wrong", f"falls while the loss falls: {told}", remedy)
    if named is not None and start >= _BEST[named]:
        remedy = "see that targets are no part of the inputs, and that they differ"
        return Finding("score", "wrong", f"perfect without training: {told}", remedy)
    if end <= chance:
        remedy = "take more --steps; if it stays, see that targets belong to their inputs"
        return Finding("score", "look", f"no better than chance: {told}", remedy)
    return Finding("score", "ok", told)


def _chance(metric: str | None, split: Split, untrained: float) -> tuple[float, str]:
    """What can be had without looking at inputs, and how it is called."""
    if metric == "accuracy" and not split.targets.is_floating_point():
        share = split.targets.flatten().unique(return_counts=True)[1].max().item() / split.targets.numel()
        return share, f"chance {share:.4g}, best 1"
    if metric == "r2":
        return 0.0, "chance 0, best 1"
    return untrained, "" if metric is None else f"best {_BEST[metric]:g}"


def speed(task: Task, split: Split, size: int, durations: Sequence[float]) -> Finding:
    """Steps a second, and how much of a step goes into its batch.

    Args:
        task: Which.
        split: What it trains on.
        size: Examples a batch.
        durations: Seconds of a run's steps, the first two for warming up.
    """
    steps = durations[2:] or durations[1:]
    if not steps:
        return Finding("speed", "ok", "unknown: take 2 steps at least")
    step = statistics.median(steps)
    batches = task.batches(split, size, torch.Generator(split.device).manual_seed(0))
    next(batches)
    start = time.perf_counter()
    for _ in range(_TRIED_BATCHES):
        next(batches)
    share = (time.perf_counter() - start) / _TRIED_BATCHES / step
    told = f"{1 / step:,.1f} steps a second, {min(share, 1):.0%} of it for the batches"
    if share > _SLOW_BATCHES:
        return Finding("speed", "look", told, "do in load() what does not change from epoch to epoch")
    return Finding("speed", "ok", told)


def memory(splits: Mapping[str, Split], model: nn.Module, device: torch.device) -> Finding:
    """What data, weights and all the rest take."""
    tensors = [one for split in splits.values() for one in (split.inputs, split.targets)]
    data = sum(one.numel() * one.element_size() for one in tensors)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if device.type == "cuda":
        peak, whose = torch.cuda.max_memory_allocated(device), "on the device"
    else:
        peak, whose = _peak(), "of the process, torch included"
    told = f"at most {peak / 2**20:,.0f} MiB {whose}" if peak else "unknown here"
    return Finding("memory", "ok", f"{told}; data {data / 2**20:,.1f}, weights {weights / 2**20:,.1f} MiB")


def _peak() -> int:
    """Bytes that the process has had at most; 0 where the system does not say."""
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
