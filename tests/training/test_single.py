"""One run: reproducible, ended by divergence exactly where looking at every step would end it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tasks import Global, Scripted
from torch import Tensor, nn

from optevo.optim.terms.presets import PRESETS
from optevo.tasks import Split, Task, build, get_task
from optevo.training.precision import PRECISIONS
from optevo.training.run import Run
from optevo.training.single import LOOK_EVERY, train

STEPS = 60


class Still:
    """A candidate that changes nothing."""

    by_kind = False

    def build(self, params: Any, total_steps: int) -> Any:
        optimizer = torch.optim.SGD(params, lr=0.0)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def run(task: Task, candidate: Any = None, **options: Any) -> Run:
    options = {"seed": 0, "steps": STEPS, "batch_size": 8} | options
    return train(task, task.load(Path()), candidate or Still(), **options)


@pytest.fixture(scope="module")
def digits() -> tuple[Task, dict[str, Split]]:
    task = get_task("digits")
    return task, task.load(Path())


def on_digits(digits: tuple[Task, dict[str, Split]], name: str = "adam", **options: Any) -> Run:
    return train(*digits, PRESETS[name], **{"seed": 0, "steps": 40, **options})


def same(a: Run, b: Run) -> bool:
    return dataclasses.replace(a, seconds=0) == dataclasses.replace(b, seconds=0)


# Reproducible


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_seed_gives_the_same_run_to_the_last_bit(digits, name: str):
    assert same(on_digits(digits, name), on_digits(digits, name))


def test_another_seed_gives_another_run(digits):
    assert on_digits(digits).losses != on_digits(digits, seed=1).losses


def test_the_global_generator_changes_nothing(digits):
    torch.manual_seed(1)
    first = on_digits(digits)
    torch.manual_seed(2)
    torch.rand(7)
    assert same(first, on_digits(digits))


@pytest.mark.parametrize(
    "task", [Global(), Scripted({}), Scripted({3: math.nan})], ids=["user", "ours", "diverged"]
)
def test_the_global_generator_is_left_as_it_was(task: Task):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run(task)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_is_left_as_it_was_after_a_crash():
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError):
        run(Scripted({}, {2: RuntimeError("crash")}))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_users_task_that_reads_the_global_generator_is_reproducible():
    torch.manual_seed(1)
    first = run(Global(), PRESETS["adam"])
    torch.manual_seed(2)
    assert same(first, run(Global(), PRESETS["adam"]))
    assert first.losses != run(Global(), PRESETS["adam"], seed=1).losses


def test_watching_a_run_does_not_change_it(digits):
    seen: list[int] = []
    watched = on_digits(digits, on_point=lambda step, loss: seen.append(step), check=lambda: None)
    assert same(watched, on_digits(digits))
    assert seen


def test_a_run_that_is_ended_at_a_tenth_keeps_its_losses_and_has_no_score(digits):
    steps: list[int] = []
    whole = on_digits(digits, on_point=lambda step, loss: steps.append(step))
    asked: list[int] = []

    def on_point(step: int, loss: float) -> bool:
        asked.append(step)
        return step == steps[2]

    run = on_digits(digits, on_point=on_point)
    assert asked == steps[:3]
    assert (run.steps, run.losses) == (steps[2], whole.losses[:3])
    assert (run.metric, run.loss, run.diverged_at) == (None, None, None)
    assert run.unfinished
    assert not whole.unfinished


# What a run says


def test_a_run_says_what_was_measured():
    task = Scripted(lambda step: step / 10)
    measured = run(task)
    assert measured.task == "scripted"
    assert measured.steps == STEPS
    assert measured.metric == 0.5
    assert measured.loss == pytest.approx(sum(step / 10 for step in range(10, 60)) / 50, rel=1e-5)
    assert measured.diverged_at is None
    assert measured.seconds > 0


def test_a_run_shorter_than_fifty_steps_takes_the_mean_of_all_its_losses():
    assert run(Scripted(float), steps=5).loss == pytest.approx(2.0)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_split_that_was_asked_for_is_scored_and_no_other(split: str):
    task = Scripted({})
    run(task, split=split)
    assert [float(scored.inputs[0]) for scored in task.scored] == [{"validation": 1.0, "test": 2.0}[split]]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 10, 11, 37, 100, 101])
def test_the_learning_curve_is_the_mean_of_each_tenth(steps: int):
    points: list[tuple[int, float]] = []
    measured = run(
        Scripted(lambda step: step / 10), steps=steps, on_point=lambda step, loss: points.append((step, loss))
    )
    assert len(measured.losses) <= 10
    ends = [step for step, _ in points] + [steps]
    assert ends == sorted(set(ends))
    starts = [0, *ends[:-1]]
    assert measured.losses == pytest.approx([(a + b - 1) / 20 for a, b in zip(starts, ends, strict=True)])
    assert [loss for _, loss in points] == pytest.approx(list(measured.losses[:-1]))


@pytest.mark.parametrize("steps", [1, 2, 7, 24, 25, 26, 60])
def test_every_step_is_taken_and_checked(steps: int):
    task, checks = Scripted({}), []
    assert run(task, steps=steps, check=lambda: checks.append(1)).steps == steps
    assert task.calls == len(checks) == steps


def test_what_check_raises_ends_the_run():
    class Enough(Exception):
        pass

    times = itertools.count()

    def check() -> None:
        if next(times) == 7:
            raise Enough

    task = Scripted({})
    with pytest.raises(Enough):
        run(task, check=check)
    assert task.calls == 7


# Divergence


@settings(max_examples=60)
@given(
    st.integers(1, 80),
    st.dictionaries(
        st.integers(0, 79), st.sampled_from([math.nan, math.inf, -math.inf, 50.001, 1e30, 50.0, -3.0])
    ),
)
def test_divergence_is_seen_where_looking_at_every_step_would_see_it(steps: int, losses: dict[int, float]):
    bad = [s for s, loss in sorted(losses.items()) if s < steps and not (loss <= 50 and math.isfinite(loss))]
    task = Scripted(losses)
    measured = run(task, steps=steps)
    assert measured.diverged_at == (bad[0] if bad else None)
    if bad:
        assert measured.steps - bad[0] <= LOOK_EVERY
        assert task.calls == measured.steps
        assert (measured.fitness, measured.metric, measured.loss) == (-1.0, None, None)
        assert not task.scored


def test_a_loss_of_exactly_fifty_is_no_divergence():
    assert run(Scripted({10: 50.0})).diverged_at is None


def test_looking_now_and_then_wastes_few_steps():
    assert LOOK_EVERY <= 25


ZERO = ZeroDivisionError("float division by zero")
NUMERICAL = [
    FloatingPointError("underflow"),
    OverflowError("too large"),
    ZERO,
    torch.linalg.LinAlgError("singular"),
]


@pytest.mark.parametrize("error", NUMERICAL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", [0, 1, 30, STEPS - 1])
def test_a_numerical_error_is_divergence(error: Exception, step: int):
    measured = run(Scripted({}, {step: error}))
    assert measured.diverged_at == step
    assert measured.fitness == -1.0


@pytest.mark.parametrize("error", NUMERICAL, ids=lambda error: type(error).__name__)
def test_a_numerical_error_does_not_hide_an_earlier_divergence(error: Exception):
    assert run(Scripted({3: math.nan}, {5: error})).diverged_at == 3


def test_an_error_that_follows_a_divergence_is_divergence():
    # Distributions, asserts and look-ups choke on NaN; looking at every step would have ended the run before.
    assert run(Scripted({3: math.nan}, {5: ValueError("NaN in probs")})).diverged_at == 3


@pytest.mark.parametrize("error", [RuntimeError("shape"), MemoryError(), ValueError("x"), KeyError("y")])
def test_any_other_error_passes(error: Exception):
    with pytest.raises(type(error)):
        run(Scripted({}, {5: error}))


def test_an_error_of_whoever_watches_is_no_divergence():
    def watch(step: int, loss: float) -> None:
        raise ZeroDivisionError("a bug in the display")

    with pytest.raises(ZeroDivisionError):
        run(Scripted({}), on_point=watch)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_divergence(value: float):
    measured = run(Scripted({}, score=value))
    assert measured.fitness == -1.0
    assert measured.diverged_at is not None


def test_the_losses_of_a_diverged_run_are_numbers_that_json_knows():
    for losses in ({3: math.nan}, {3: math.inf}, {40: -math.inf}):
        assert all(loss is None or math.isfinite(loss) for loss in run(Scripted(losses)).losses)


@pytest.mark.parametrize("losses", [{3: math.nan}, {40: 99.0}])
def test_a_diverged_run_reports_no_point_from_its_divergence_on(losses: dict[int, float]):
    points: list[int] = []
    run(Scripted(losses), on_point=lambda step, loss: points.append(step))
    assert all(step <= min(losses) for step in points)


def test_a_real_optimizer_that_explodes_diverges(digits):
    wild = dataclasses.replace(PRESETS["sgd"], lr=0.1, alphas=(5.0,) * len(PRESETS["sgd"].terms))
    task, splits = digits
    loud: Callable[..., Tensor] = lambda model, batch: Task.loss(task, model, batch) * 1e6  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "loss", loud, raising=False)
        measured = train(task, splits, wild, seed=0, steps=40)
    assert measured.diverged_at is not None
    assert measured.fitness == -1.0


# Precision and speed


class Watched(Task):
    """A convolution on one-channel images; notes the types that it sees."""

    name = "watched"

    def __init__(self) -> None:
        self.seen: dict[str, set[Any]] = {}

    def note(self, **values: Any) -> None:
        for name, value in values.items():
            self.seen.setdefault(name, set()).add(value)

    def load(self, root: Path) -> dict[str, Split]:
        x = torch.arange(0, 64 * 16, dtype=torch.int32).remainder(251).to(torch.uint8).view(64, 1, 4, 4)
        return dict.fromkeys(("train", "validation", "test"), Split(x, torch.arange(64) % 2))

    def model(self, generator: torch.Generator) -> nn.Module:
        return build(
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)), generator
        )

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        assert isinstance(model, nn.Sequential)
        hidden = model[0](batch[0])
        self.note(training=hidden.dtype, last=hidden.is_contiguous(memory_format=torch.channels_last))
        self.note(weights=next(model.parameters()).dtype)
        return super().loss(model, batch)

    def score(self, model: nn.Module, split: Split) -> float:
        self.note(scoring=model(self.prepare(split.inputs)).dtype)
        return super().score(model, split)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_that_of_the_forward_pass_and_of_nothing_else(precision: str):
    task = Watched()
    with torch.autocast("cpu", torch.bfloat16):  # a caller's own
        run(task, PRESETS["adam"], precision=precision)
    expected = {getattr(torch, precision)}
    assert task.seen["training"] == task.seen["scoring"] == expected
    assert task.seen["weights"] == {torch.float32}


def test_activations_of_one_channel_images_are_channels_last():
    task = Watched()
    run(task)
    assert task.seen["last"] == {True}


def test_a_bfloat16_run_is_reproducible_and_not_the_float32_one(digits):
    half = on_digits(digits, precision="bfloat16")
    assert same(half, on_digits(digits, precision="bfloat16"))
    assert half.losses != on_digits(digits).losses
    assert half.losses == pytest.approx(on_digits(digits).losses, rel=0.05)


@pytest.mark.parametrize("precision", ["float16", "bf16", None])
def test_an_unknown_precision_is_refused(precision: Any):
    with pytest.raises(ValueError, match=f"precision must be one of float32, bfloat16, not {precision!r}"):
        run(Scripted({}), precision=precision)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep its memory")
def test_the_memory_of_freed_tensors_is_kept():
    import resource  # noqa: PLC0415 - not on Windows

    run(Scripted({}), steps=1)
    faults = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(4 * 2**20)  # 4,096 pages
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert statistics.median(faults) < 100


@pytest.mark.slow
def test_bfloat16_learns_fashion_as_float32_does(data_root: Path):
    task = get_task("fashion_mnist")
    splits = task.load(data_root)
    metrics = {
        precision: [
            train(task, splits, PRESETS["evolved"], seed=seed, steps=300, precision=precision).metric
            for seed in range(3)
        ]
        for precision in PRECISIONS
    }
    means = {precision: statistics.mean(values) for precision, values in metrics.items()}
    assert means["float32"] > 0.85
    assert abs(means["bfloat16"] - means["float32"]) < 0.01, metrics
