"""A task tried with Adam for a few steps, and what is wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from optevo.errors import UserError
from optevo.optim import PRESETS
from optevo.tasks import ScoredTask
from optevo.tasks.base import Split, Task
from optevo.tasks.faults import users_code, users_number
from optevo.training.bench import load_splits, moved
from optevo.training.check_data import Digests, Finding, check_splits, digests
from optevo.training.check_runs import ADAM, loss_falls, memory, repeats, score_range, speed
from optevo.training.devices import resolve_device
from optevo.training.global_generators import GlobalGenerators
from optevo.training.precision import autocast
from optevo.training.rehearsal import rehearse
from optevo.training.run import Run
from optevo.training.single import train

_STOPPED = "mend it and check again: what comes after it was not looked at"
_DRAW = "draw from the generator that is given, or from torch.Generator().manual_seed(0), and sort listings"


def check_task(
    task: Task | ScoredTask,
    data_root: Path,
    *,
    device: str = "cpu",
    steps: int = 50,
    batch_size: int = 128,
    precision: str = "float32",
) -> list[Finding]:
    """Try a task, and say what is wrong with it and what to do.

    Args:
        task: Any; its data are read twice, and two runs are trained.
        data_root: Where data sets lie.
        device: Where to train. Default: "cpu".
        steps: Training steps of a run. Default: 50.
        batch_size: Examples a mini-batch; fewer where the task has fewer. Default: 128.
        precision: As in `optevo.training.single.train`. Default: "float32".

    Returns:
        Findings, in the order in which they were looked for.
    """
    found: list[Finding] = []
    with GlobalGenerators() as generators:
        if isinstance(task, ScoredTask):
            looked = _scored(task, data_root, steps, generators)
        else:
            budget = _Budget(resolve_device(device), steps, batch_size, precision)
            looked = _trained(task, data_root, budget, generators)
        try:
            for finding in looked:
                found.append(finding)
        except _Fault as fault:
            found.append(Finding(fault.check, "wrong", str(fault), _STOPPED))
    return [*found, *_touched(generators)]


@dataclasses.dataclass(frozen=True)
class _Budget:
    device: torch.device
    steps: int
    batch_size: int
    precision: str


class _Fault(Exception):
    """What keeps a check from going on."""

    def __init__(self, check: str, said: object) -> None:
        super().__init__(said)
        self.check = check


@contextlib.contextmanager
def _checking(check: str, task: Task | ScoredTask, what: str = "") -> Iterator[None]:
    """Faults within are of this check; with `what`, it is the task's own code that runs."""
    try:
        with users_code(f"task {task.name!r}: {what}", task) if what else contextlib.nullcontext():
            yield
    except UserError as error:
        raise _Fault(check, error) from error


def _touched(generators: GlobalGenerators) -> Iterator[Finding]:
    # Each run seeds torch's, for dropout that knows no other: it repeats, if nothing else draws in between.
    seeded = [one for one in generators.touched if one == ("loss()", "torch")]
    others = [one for one in generators.touched if one not in seeded]
    remedy = "draw from the generator that the method is given; in model(), optevo.tasks.build does so"
    for some in filter(None, (others, seeded)):
        told = "; ".join(f"{who} draws from or seeds {library}'s" for who, library in some)
        yield Finding("global generators", "wrong" if some is others else "look", told, remedy)
    if not generators.touched:
        yield Finding("global generators", "ok", "untouched")


def _trained(task: Task, data_root: Path, budget: _Budget, generators: GlobalGenerators) -> Iterator[Finding]:
    with _checking("load", task), generators.watched("load()", 1):
        splits = moved(task, load_splits(task, data_root), torch.device("cpu"))
        if empty := [name for name, split in splits.items() if not len(split)]:
            raise UserError(f"split {empty[0]!r} has no example")
    known = digests(splits)
    with _checking("load", task), generators.watched("load()", 2):
        again = digests(moved(task, load_splits(task, data_root), torch.device("cpu")))
    yield _same_data(known, again)
    del again
    yield from check_splits(splits, known, classes=_has_classes(splits))
    splits = moved(task, splits, budget.device)
    size = min(budget.batch_size, len(splits["train"]))
    if size < budget.batch_size:
        found = f"batches of {budget.batch_size} are asked for, split 'train' has {size} examples"
        yield Finding("batches", "look", found, f"say batch_size = {size} or less in [evaluation]")
    budget = dataclasses.replace(budget, batch_size=size)
    with _checking("first step", task):
        operations = rehearse(task, splits, batch_size=size, split="validation", precision=budget.precision)
    yield Finding("first step", "ok", f"{operations:,} floating-point operations forward, batches of {size}")
    yield from _generated(task, splits["train"], size, generators)
    with _checking("loss", task, "loss()"):
        model = task.model(torch.Generator().manual_seed(0)).to(budget.device)
        yield _gradients(task, model, splits["train"], budget, generators)
    with _checking("score", task, "score()"), autocast(budget.device, budget.precision):
        fresh = task.model(torch.Generator().manual_seed(0)).to(budget.device)
        scores = [_score(task, fresh, splits["validation"], seed, generators) for seed in (1, 2)]
    before = known["train"]
    runs, durations = [], list[float]()
    for seconds in (durations, list[float]()):
        with _checking("training", task, "training"):
            runs.append(_run(task, splits, budget, seconds))
    del known
    yield repeats(runs[0], runs[1], budget.device)
    if digests({"train": splits["train"]})["train"] != before:
        remedy = "change a copy in augment(), prepare() and loss(): inputs.clone()"
        yield Finding("load", "wrong", "training changed the examples of 'train' in place", remedy)
    yield loss_falls(runs[0], budget.steps)
    if not runs[0].diverged:
        yield score_range(task, runs[0], scores, splits["validation"])
    yield speed(task, splits["train"], size, durations)
    yield memory(splits, model, budget.device)


def _has_classes(splits: dict[str, Split]) -> bool:
    return all(not s.targets.is_floating_point() and s.targets.dim() == 1 for s in splits.values())


def _same_data(first: Digests, second: Digests) -> Finding:
    for name, parts in first.items():
        for what, ours, theirs in zip(("inputs", "targets"), parts, second.get(name, ([], [])), strict=True):
            if ours != theirs:
                order = " in another order" if sorted(ours) == sorted(theirs) else ""
                found = f"called twice, it returns other {what} for {name!r}{order}"
                return Finding("load", "wrong", found, _DRAW)
    return Finding("load", "ok", "the same examples when called twice")


def _generated(task: Task, split: Split, size: int, generators: GlobalGenerators) -> Iterator[Finding]:
    """Whether model and batches follow from their generators, and from nothing else."""

    def model(seed: int, world: int) -> dict[str, Tensor]:
        with generators.watched("model()", world):
            made = task.model(torch.Generator().manual_seed(seed))
        return {name: tensor for name, tensor in made.state_dict().items() if isinstance(tensor, Tensor)}

    def batches(seed: int, world: int) -> list[Tensor]:
        with generators.watched("batches()", world):
            generator = torch.Generator(split.device).manual_seed(seed)
            several = task.batches(split, size, generator)
            return [part.clone() for _ in range(3) for part in next(several)]

    with _checking("model", task, "model()"):
        ours, again, other = model(0, 1), model(0, 2), model(1, 1)
    shared = [name for name in ours if ours[name].numel() and ours[name].data_ptr() == again[name].data_ptr()]
    if shared:
        found = f"called twice, both networks share {shared[0]!r}"
        yield Finding("model", "wrong", found, "make a fresh network each time")
    elif not _equal([*ours.values()], [*again.values()]):
        remedy = "draw them from the generator, as optevo.tasks.build does for ordinary modules"
        yield Finding("model", "wrong", "other weights for one and the same seed", remedy)
    elif _equal([*ours.values()], [*other.values()]):
        remedy = "fine for trained weights; else draw them from the generator, as optevo.tasks.build does"
        yield Finding("model", "look", "the same weights for every seed", remedy)
    else:
        count = sum(tensor.numel() for tensor in ours.values())
        yield Finding("model", "ok", f"{count:,} numbers, which follow from the seed")
    with _checking("batches", task, "batches()"):
        first, repeated, others = batches(0, 1), batches(0, 2), batches(1, 1)
    if not _equal(first, repeated):
        yield Finding("batches", "wrong", "other batches for one and the same seed", _DRAW)
    elif _equal(first, others) and size < len(split):
        remedy = "draw the order from the generator that batches() is given"
        yield Finding("batches", "look", "the same batches for every seed", remedy)
    else:
        yield Finding("batches", "ok", "they follow from the seed")


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def _gradients(
    task: Task, model: nn.Module, split: Split, budget: _Budget, generators: GlobalGenerators
) -> Finding:
    generator = torch.Generator(split.device).manual_seed(0)
    batch = next(task.batches(split, budget.batch_size, generator))
    with generators.watched("loss()", 1):
        with autocast(budget.device, budget.precision):
            loss = task.loss(model, batch)
        loss.backward()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    without = [name for name, p in named if p.grad is None]
    if not named:
        return Finding("gradients", "wrong", "no parameter can be trained", "leave requires_grad as it is")
    if without:
        shown = ", ".join(without[:3]) + ", …" * (len(without) > 3)
        remedy = "fine for layers that the loss does not use; they are never trained"
        return Finding("gradients", "look", f"{len(without)} of {len(named)} get none: {shown}", remedy)
    return Finding("gradients", "ok", f"all {len(named)} parameters get one")


def _score(task: Task, model: nn.Module, split: Split, seed: int, generators: GlobalGenerators) -> float:
    with generators.watched("score()", seed):
        return users_number("it", task.score(model, split))


def _run(task: Task, splits: dict[str, Split], budget: _Budget, durations: list[float]) -> Run:
    at = [0.0]

    def check() -> None:
        now = time.perf_counter()
        durations.append(now - at[0])
        at[0] = now

    run = train(
        task,
        splits,
        ADAM,
        seed=0,
        steps=budget.steps,
        batch_size=budget.batch_size,
        precision=budget.precision,
        check=check,
    )
    return dataclasses.replace(run, seconds=0.0)


def _scored(task: ScoredTask, data_root: Path, steps: int, generators: GlobalGenerators) -> Iterator[Finding]:
    with _checking("load", task, "load()"), generators.watched("load()", 1):
        task.load(data_root)
    yield Finding("load", "ok", "nothing raised")
    scores: list[float | None] = []
    start = time.perf_counter()
    for world, candidate in ((1, ADAM), (2, ADAM), (1, PRESETS["sgd"])):
        with _checking("score", task, "score()"), generators.watched("score()", world):
            score = task.score(candidate, 0, steps)
            scores.append(None if score is None else users_number("it", score))
    seconds = (time.perf_counter() - start) / len(scores)
    adam, again, sgd = scores
    if repr(adam) != repr(again):  # of which NaN is equal to itself
        found, remedy = (
            f"of one candidate and one seed, {adam} and {again}",
            "draw from the seed that is given",
        )
        yield Finding("repeats", "wrong", found, remedy)
    else:
        yield Finding("repeats", "ok", "one candidate with one seed has one score")
    if adam is None or not math.isfinite(adam):
        found = f"Adam's is {adam}, which counts as diverged"
        yield Finding("score", "look", found, "return a finite number where the candidate did its work")
    elif adam == sgd:
        yield Finding("score", "look", f"{adam:g} for Adam and SGD", "see that score() uses the candidate")
    else:
        yield Finding("score", "ok", f"Adam {adam:g}, SGD {sgd}")
    yield Finding("speed", "ok", f"{seconds:.3g} s a score of {steps} steps")
