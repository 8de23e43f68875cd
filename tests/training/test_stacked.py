"""A stack of candidates against each of them trained alone: the same but for float32's rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_tasks import Blobs
from stacking import MIXED, STEPS, TASKS, alone, check, cnn, mlp, relus, together
from strategies import genome, random_genome
from torch import Tensor, nn
from torch.nn import functional as F

from optevo.optim.terms import stacked as stacked_terms
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.presets import PRESETS
from optevo.spaces import BaselineSpace, Space, TermSpace
from optevo.study.config import parse_config
from optevo.tasks import Split, Task, get_task
from optevo.training import bench, stacked
from optevo.training import single as training
from optevo.training.run import Run
from optevo.training.stacked import stacks, train_stacked

CPU = torch.device("cpu")
WILD = genome("GRAD", alphas=(5.0,), lr=1e-1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def curve(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every step's losses of the runs that follow, one tensor a run."""
    seen: list[Tensor] = []
    for module in (stacked, training):
        real = module.finish

        def finish(*, losses: Tensor, _real: Any = real, **more: Any) -> Run:
            seen.append(losses.clone())
            return _real(losses=losses, **more)

        monkeypatch.setattr(module, "finish", finish)
    return seen


# The same losses and the same scores


@pytest.mark.parametrize("kind", TASKS)
def test_a_stack_trains_as_its_members_do_alone(kind: str, monkeypatch: pytest.MonkeyPatch):
    task, seen = TASKS[kind](), curve(monkeypatch)
    stack = together(task, MIXED)
    single = alone(task, MIXED)
    check(task, stack, single)
    for k in range(len(MIXED)):
        torch.testing.assert_close(seen[k], seen[len(MIXED) + k], rtol=2e-3, atol=2e-3)
    assert len({run.losses for run in stack}) == len(MIXED)


@pytest.mark.parametrize("seed", range(4))
def test_any_genomes_go_into_one_stack(seed: int):
    task = get_task("digits")
    candidates = [random_genome(10 * seed + i) for i in range(6)]
    stack, single = together(task, candidates), alone(task, candidates)
    for run, other in zip(stack, single, strict=True):
        assert run.diverged_at == other.diverged_at
        if run.diverged_at is None:
            assert run.losses[:8] == pytest.approx(other.losses[:8], rel=0.02, abs=0.02)


def test_the_dense_path_is_that_of_vmap(monkeypatch: pytest.MonkeyPatch):
    task = get_task("digits")
    assert stacked.chain(task, task.model(torch.Generator())) is not None
    dense = together(task, MIXED)
    monkeypatch.setattr(stacked, "chain", lambda task, model: None)
    check(task, together(task, MIXED), dense)


@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_a_stack_is_the_same_again_to_the_last_bit(kind: str):
    task = TASKS[kind]()
    first, again = together(task, MIXED), together(task, MIXED)
    assert [(r.losses, r.metric, r.loss) for r in first] == [(r.losses, r.metric, r.loss) for r in again]


def test_a_stack_reads_no_global_generator_and_leaves_no_trace():
    task = Blobs(cnn)
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), together(task, MIXED[:3])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert [r.losses for r in together(task, MIXED[:3])] == [r.losses for r in first]


def test_each_is_scored_with_its_own_weights_and_statistics(monkeypatch: pytest.MonkeyPatch):
    states: list[dict[str, Tensor]] = []

    class Looking(Blobs):
        def score(self, model: nn.Module, split: Split) -> float:
            states.append(
                {name: t.clone() for name, t in model.state_dict().items() if t.is_floating_point()}
            )
            states[-1]["batches"] = model[1].num_batches_tracked.clone()
            return super().score(model, split)

    task = Looking(cnn)
    together(task, MIXED)
    alone(task, MIXED)
    n = len(MIXED)
    assert len(states) == 2 * n
    for k in range(n):
        assert int(states[k]["batches"]) == STEPS
        for name, value in states[n + k].items():
            torch.testing.assert_close(states[k][name], value, rtol=0.02, atol=2e-3)
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        assert len({tuple(state[name].flatten().tolist()) for state in states[:n]}) == n


# Divergence


def test_one_that_diverges_does_so_as_alone_and_disturbs_nobody():
    task = Blobs(relus, scale=10.0)
    good = [PRESETS["adam"], genome("SIGN_GRAD", lr=1e-5), genome("GRAD", lr=1e-5)]
    crowd = [good[0], WILD, good[1], WILD, good[2]]
    (expected,) = alone(task, [WILD], steps=60)
    assert expected.diverged_at is not None
    with_wild, without = together(task, crowd, steps=60), together(task, good, steps=60)
    for run in (with_wild[1], with_wild[3]):
        assert run.diverged_at == expected.diverged_at
        assert (run.fitness, run.metric, run.loss) == (-1.0, None, None)
    check(task, [with_wild[k] for k in (0, 2, 4)], without, tolerance=1e-4)


@pytest.mark.parametrize("kind", ["convolutions", "own loss with convolutions"])
def test_a_weight_of_nan_in_one_member_reaches_no_other(kind: str, monkeypatch: pytest.MonkeyPatch):
    task = TASKS[kind]()
    without = together(task, [MIXED[0], MIXED[0], MIXED[3]])
    real = stacked_terms._scalars

    def poisoned(candidate: TermGenome, *given: Any) -> Tensor:
        scalars = real(candidate, *given).clone()
        return scalars.fill_(math.nan) if candidate is WILD else scalars

    monkeypatch.setattr(stacked_terms, "_scalars", poisoned)
    stack = together(task, [MIXED[0], WILD, MIXED[3]])
    assert stack[1].diverged_at == 1  # the first loss is that of the initial weights
    check(task, [stack[0], stack[2]], [without[0], without[2]], tolerance=1e-4)


def test_where_all_diverge_the_stack_ends():
    task, steps = Blobs(relus, scale=100.0), []
    runs = together(task, [WILD, WILD], steps=500, check=lambda: steps.append(1))
    assert len(steps) <= 50
    assert [run.diverged_at for run in runs] == [runs[0].diverged_at] * 2
    assert all(run.steps == len(steps) for run in runs)


def test_a_score_that_is_not_finite_is_a_divergence_as_alone():
    class Nowhere(Blobs):
        def score(self, model: nn.Module, split: Split) -> float:
            return math.nan

    task = Nowhere(mlp)
    for run, other in zip(together(task, MIXED[:2]), alone(task, MIXED[:2]), strict=True):
        assert (run.diverged_at, run.fitness, run.metric) == (other.diverged_at, -1.0, None)


@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_those_that_are_ended_leave_the_stack_and_the_others_go_on(kind: str):
    task, seen = TASKS[kind](), list[tuple[int, int, float]]()

    def until(k: int, last: int) -> Callable[[int, float], bool]:
        def on_point(step: int, loss: float) -> bool:
            seen.append((k, step, loss))
            return step >= last

        return on_point

    whole, tenth = alone(task, MIXED[:3]), STEPS // 10
    points = [until(0, 2 * tenth), until(1, 3 * STEPS), until(2, 5 * tenth)]
    runs = together(task, MIXED[:3], on_points=points)
    check(task, [runs[1]], [whole[1]])
    for k, n in ((0, 2), (2, 5)):
        assert runs[k].unfinished
        assert (runs[k].steps, runs[k].metric, len(runs[k].losses)) == (n * tenth, None, n)
        assert runs[k].losses == pytest.approx(whole[k].losses[:n], rel=2e-3)
    for k, run in enumerate(runs):
        asked = [(step, loss) for i, step, loss in seen if i == k]
        assert asked == [((n + 1) * tenth, loss) for n, loss in enumerate(run.losses[:9])]


def test_where_all_are_ended_the_stack_ends():
    steps = list[int]()
    points = [lambda step, loss: True] * 2
    runs = together(Blobs(mlp), MIXED[:2], on_points=points, check=lambda: steps.append(1))
    assert [run.steps for run in runs] == [STEPS // 10] * 2 == [len(steps)] * 2


def test_what_check_raises_ends_the_stack():
    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together(Blobs(mlp), MIXED[:2], check=check)


# Precision


@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_a_stack_in_bfloat16_trains_as_its_members_do(kind: str):
    task = TASKS[kind]()
    stack, single = (how(task, MIXED, precision="bfloat16") for how in (together, alone))
    full = together(task, MIXED)
    for run, other, exact in zip(stack, single, full, strict=True):
        assert run.losses == pytest.approx(other.losses, rel=0.05, abs=0.05)
        assert run.losses != exact.losses


# Models that a user may write


def shared() -> nn.Module:
    layer = nn.Linear(12, 12)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), layer, nn.Tanh(), layer, nn.Linear(12, 4))


def no_flatten() -> nn.Module:
    return nn.Sequential(nn.Linear(36, 12), nn.GELU(), nn.Linear(12, 4))


def no_bias() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12, bias=False), nn.ReLU(), nn.Linear(12, 4))


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 4)
    )


class Spare(nn.Module):
    """A layer that the loss does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(36, 4), nn.Linear(5, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.used(inputs.flatten(1))


def frozen() -> nn.Module:
    model = mlp()
    model[1].requires_grad_(False)
    return model


class Scaled(nn.Sequential):
    """A Sequential that is more than the chain of its layers."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 0.1


def scaled() -> nn.Module:
    return Scaled(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 4))


def hooked() -> nn.Module:
    model = mlp()
    model[1].register_forward_hook(lambda module, inputs, output: output * 0.1)
    return model


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        pytest.param(scaled, (1, 6, 6), id="a Sequential with its own forward"),
        pytest.param(hooked, (1, 6, 6), id="a forward hook"),
        pytest.param(no_flatten, (36,), id="without a Flatten"),
        pytest.param(no_bias, (1, 6, 6), id="without a bias"),
        pytest.param(normed, (1, 6, 6), id="norms"),
        pytest.param(shared, (1, 6, 6), id="one layer twice"),
        pytest.param(Spare, (1, 6, 6), id="a layer that is not used"),
        pytest.param(frozen, (1, 6, 6), id="a frozen layer"),
    ],
)
def test_a_users_model_trains_in_a_stack_as_alone(make: Callable[[], nn.Module], shape: tuple[int, ...]):
    task = Blobs(make, shape)
    if stacks(task, CPU):  # what cannot be stacked is to be told apart, and is trained one by one
        check(task, together(task, MIXED[:4]), alone(task, MIXED[:4]))


def test_targets_that_are_probabilities_train_in_a_stack_as_alone():
    class Soft(Blobs):
        def batches(self, split: Split, batch_size: int, generator: torch.Generator) -> Iterator[Any]:
            for inputs, targets in super().batches(split, batch_size, generator):
                yield inputs, F.one_hot(targets, 4).float() * 0.9 + 0.025

    task = Soft(mlp)
    check(task, together(task, MIXED[:4]), alone(task, MIXED[:4]))


def test_targets_that_are_to_be_ignored_train_in_a_stack_as_alone():
    class Gaps(Blobs):
        def batches(self, split: Split, batch_size: int, generator: torch.Generator) -> Iterator[Any]:
            for inputs, targets in super().batches(split, batch_size, generator):
                yield inputs, torch.where(torch.arange(len(targets)) % 3 == 0, -100, targets)

    task = Gaps(mlp)
    check(task, together(task, MIXED[:4]), alone(task, MIXED[:4]))


# Who stacks


def test_dense_networks_stack_on_a_cpu_and_convolutions_do_not():
    assert stacks(get_task("digits"), CPU)
    assert not stacks(Blobs(cnn), CPU)
    assert not stacks(get_task("mnist"), CPU)
    assert stacks(Blobs(cnn), torch.device("cuda"))


@pytest.mark.parametrize(
    ("candidates", "space", "together"),
    [
        pytest.param(MIXED[:2], TermSpace(), True, id="two"),
        pytest.param(MIXED[:1], TermSpace(), False, id="one"),
        pytest.param(MIXED[:2], BaselineSpace("adam"), False, id="of a space that does not stack"),
    ],
)
def test_two_term_genomes_and_more_train_as_a_stack(
    candidates: list[Any], space: Space, together: bool, monkeypatch: pytest.MonkeyPatch
):
    evaluation = {"tasks": ["digits"], "steps": 3, "batch_candidates": 2}
    config = parse_config({"name": "s", "sampler": {"kind": "genetic"}, "evaluation": evaluation}, "test")
    stacked_sizes: list[int] = []

    def spy(task: Task, splits: Any, rules: Any, count: int, **options: Any) -> list[Run]:
        stacked_sizes.append(count)
        return train_stacked(task, splits, rules, count, **options)

    monkeypatch.setattr(bench, "train_stacked", spy)
    runs = bench.Bench(config, "cpu", Path()).run_together(candidates, 0, 3, lambda: None, space.stack)
    assert [run.steps for run in runs] == [3] * len(candidates)
    assert stacked_sizes == ([len(candidates)] if together else [])
