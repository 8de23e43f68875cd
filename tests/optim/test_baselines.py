"""The usual optimizers as baselines: what they are, the spaces, grids and study files around them."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from command_line import said, write
from optuna.distributions import FloatDistribution
from optuna.samplers import GridSampler
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState
from small_studies import config
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optevo import keys
from optevo.errors import UserError
from optevo.evaluation.objective import Objective
from optevo.optim.baselines.export import export_baseline
from optevo.optim.baselines.registry import BASELINES, SCHEDULES, TunedBaseline
from optevo.optim.muon import MuonAdamW
from optevo.samplers import SlotGridSampler
from optevo.spaces import SPACES, BaselineSpace
from optevo.storage.opening import open_storage
from optevo.study.config import StudyConfig, load_config, parse_config
from optevo.study.studies import create_or_resume, is_complete, load_study
from optevo.tasks.vision import Digits
from optevo.training.bench import Bench
from optevo.training.single import train

STUDIES = sorted((Path(__file__).parents[2] / "studies").rglob("*.toml"))
GRID = {"kind": "grid"}
SPACE = {"kind": "adamw", "lr": [1e-3, 1e-2, 1e-1], "weight_decay": [0.0, 1e-2]}
every_baseline = pytest.mark.parametrize("name", BASELINES)
exportable = pytest.mark.parametrize("name", sorted({*BASELINES} - {"sophia", "ademamix"}))
_count = itertools.count()


def tuned(
    name: str, lr: float | None = None, weight_decay: float | None = None, **more: Any
) -> TunedBaseline:
    baseline = BASELINES[name]
    middle = baseline.lr[len(baseline.lr) // 2] if lr is None else lr
    decay = baseline.weight_decay[-1] if weight_decay is None else weight_decay
    return TunedBaseline(name, middle, decay, **more)


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((6, 4), (4,), (3, 2, 2, 2))
    return [nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in shapes]


def stepped(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    steps: int = 5,
    after: Callable[[], object] = lambda: None,
    start: int = 0,
) -> list[torch.Tensor]:
    """The parameters after `steps` steps on fixed gradients, that `after` each of them something happens."""
    for step in range(start, start + steps):
        rng = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=rng).to(p.dtype)
        optimizer.step()
        after()
    return [p.detach().clone() for p in params]


def assert_same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], **tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# The optimizers


@every_baseline
def test_every_baseline_is_a_space(name: str):
    space = SPACES[name].make()
    assert isinstance(space, BaselineSpace)
    assert space.name == name
    assert space.grid() == {
        "lr": list(BASELINES[name].lr),
        "weight_decay": list(BASELINES[name].weight_decay),
    }


@pytest.mark.filterwarnings("ignore:Using backward")
@every_baseline
def test_every_baseline_learns_a_small_regression_with_one_of_its_learning_rates(name: str):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 5, generator=rng)
    targets = inputs @ torch.randn(5, 3, generator=rng) + 1
    reached = []
    for lr in BASELINES[name].lr:
        torch.manual_seed(0)  # Sophia's estimate draws from it
        model = nn.Linear(5, 3)
        optimizer, scheduler = tuned(name, lr, BASELINES[name].weight_decay[0]).build(model.parameters(), 100)
        every = getattr(optimizer, "graph_every", 0)
        losses = []
        for step in range(100):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(inputs), targets)
            loss.backward(create_graph=bool(every) and step % every == 0)
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        optimizer.zero_grad()
        reached.append(losses[-1] / losses[0])
    assert min(reached) < 0.8


BY_HAND: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, **a: torch.optim.SGD(p, momentum=0.9, nesterov=True, **a),
    "adam": lambda p, **a: torch.optim.Adam(p, betas=(0.9, 0.999), eps=1e-8, **a),
    "adamw": lambda p, **a: torch.optim.AdamW(p, betas=(0.9, 0.999), eps=1e-8, **a),
    "rmsprop": lambda p, **a: torch.optim.RMSprop(p, alpha=0.99, eps=1e-8, **a),
    "nadam": lambda p, **a: torch.optim.NAdam(p, decoupled_weight_decay=True, **a),
    "radam": lambda p, **a: torch.optim.RAdam(p, decoupled_weight_decay=True, **a),
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_baseline_of_torchs_steps_as_the_class_made_by_hand(name: str):
    ours, theirs = weights(), weights()
    optimizer, _ = tuned(name, 3e-2, 1e-1).build(ours, 10)
    other = BY_HAND[name](theirs, lr=3e-2, weight_decay=1e-1)
    assert_same(stepped(optimizer, ours), stepped(other, theirs), rtol=2e-6, atol=1e-7)


def test_an_option_of_a_study_file_reaches_the_optimizer():
    ours, theirs = weights(), weights()
    optimizer, _ = tuned("adamw", 3e-2, 1e-1, options={"betas": [0.5, 0.6], "eps": 0.1}).build(ours, 10)
    other = torch.optim.AdamW(theirs, lr=3e-2, betas=(0.5, 0.6), eps=0.1, weight_decay=1e-1)
    assert_same(stepped(optimizer, ours), stepped(other, theirs), rtol=2e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:Using backward")
@every_baseline
def test_weight_decay_is_coupled_as_the_baseline_says(name: str):
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer, _ = tuned(name, 0.1, 0.5).build(params, 10)
    sum((0 * p**2).sum() for p in params).backward(create_graph=name == "sophia")
    optimizer.step()
    optimizer.zero_grad()
    shrunk = [b * (1 - 0.1 * 0.5) for b in before]
    if BASELINES[name].decay == "decoupled":
        assert_same([p.detach() for p in params], shrunk, rtol=1e-6, atol=1e-7)
    else:
        assert BASELINES[name].decay == "L2"
        assert not torch.allclose(params[0].detach(), shrunk[0], rtol=1e-3)
        assert not torch.allclose(params[0].detach(), before[0])


def test_lion_makes_the_papers_update():
    """Chen et al., Symbolic Discovery of Optimization Algorithms, algorithm 2."""
    lr, decay, (beta1, beta2) = 3e-2, 1e-1, (0.9, 0.99)
    ours, theirs = weights(), [p.detach() for p in weights()]
    optimizer, _ = tuned("lion", lr, decay).build(ours, 10)
    stepped(optimizer, ours, steps=6)
    moments = [torch.zeros_like(w) for w in theirs]
    for step in range(6):
        rng = torch.Generator().manual_seed(step)
        for w, m in zip(theirs, moments, strict=True):
            g = torch.randn(w.shape, generator=rng)
            c = beta1 * m + (1 - beta1) * g
            w.sub_(lr * (torch.sign(c) + decay * w))
            m.mul_(beta2).add_((1 - beta2) * g)
    assert_same([p.detach() for p in ours], theirs, rtol=1e-5, atol=1e-6)


def test_muon_is_torchs_on_matrices_and_adamw_on_the_rest():
    ours, theirs = weights(), weights()
    optimizer, _ = tuned("muon", 3e-2, 1e-1).build(ours, 10)
    muon = torch.optim.Muon(
        [theirs[0]], lr=3e-2, weight_decay=1e-1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(theirs[1:], lr=3e-2, weight_decay=1e-1)
    stepped(optimizer, ours)
    stepped(muon, theirs[:1])
    for step in range(5):
        rng = torch.Generator().manual_seed(step)
        torch.randn(theirs[0].shape, generator=rng)
        for p in theirs[1:]:
            p.grad = torch.randn(p.shape, generator=rng)
        adamw.step()
    assert_same([p.detach() for p in ours], [p.detach() for p in theirs], rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("kept", [slice(0, 1), slice(1, 3)], ids=["matrices", "no matrices"])
def test_muon_takes_models_of_one_kind_of_weights(kept: slice):
    params = weights()[kept]
    before = [p.detach().clone() for p in params]
    after = stepped(MuonAdamW(params), params)
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_scheduler_moves_both_parts_of_muon():
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer = MuonAdamW(params, lr=0.1)
    scheduler = LambdaLR(optimizer, lambda step: 0.0 if step == 0 else 0.5)
    assert_same(stepped(optimizer, params, steps=2), before, rtol=0, atol=0)  # at lr 0 nothing moves
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]
    assert all(
        not torch.equal(a, b) for a, b in zip(stepped(optimizer, params, steps=1), before, strict=True)
    )


def test_muon_goes_on_from_a_saved_state_as_if_it_had_not_stopped():
    whole, first = weights(), weights()
    unbroken = stepped(MuonAdamW(whole, lr=0.1), whole, steps=6)
    optimizer = MuonAdamW(first, lr=0.1)
    stepped(optimizer, first, steps=3)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    saved = copy.deepcopy(optimizer.state_dict())
    restored = MuonAdamW(second, lr=0.7, weight_decay=0.9)
    scheduler = LambdaLR(restored, lambda step: 1.0)
    restored.load_state_dict(saved)
    again = stepped(restored, second, steps=3, start=3)
    assert_same(again, unbroken, rtol=0, atol=0)
    for group in restored.param_groups:  # what a scheduler sets is still what the parts read
        group["lr"] = 0.0
    assert_same(stepped(restored, second, steps=1), again, rtol=0, atol=0)
    assert scheduler.optimizer is restored


def test_muon_returns_the_closures_loss_and_trains_on_its_gradients():
    params = weights()
    optimizer = MuonAdamW(params, lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] == pytest.approx(sum((p.detach() ** 2).sum().item() for p in weights()), rel=1e-6)
    assert losses[0] > losses[1] > losses[2]


def test_muon_takes_one_group_as_torchs_optimizers_do():
    ours, theirs = weights(), weights()
    grouped, flat = MuonAdamW([{"params": ours}], lr=0.1), MuonAdamW(theirs, lr=0.1)
    assert_same(stepped(grouped, ours), stepped(flat, theirs), rtol=0, atol=0)


def test_a_group_that_muon_is_given_later_is_trained():
    optimizer, late = MuonAdamW(weights(), lr=0.1), weights()
    before = [p.detach().clone() for p in late]
    optimizer.add_param_group({"params": late})
    after = stepped(optimizer, late, steps=1)
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_a_copy_of_muon_trains_on():
    model = nn.Linear(3, 2)
    pair = copy.deepcopy((model, MuonAdamW(model.parameters(), lr=0.1)))
    before = pair[0].weight.detach().clone()
    stepped(pair[1], list(pair[0].parameters()), steps=1)
    assert not torch.equal(pair[0].weight, before)


def test_ademamixs_ramps_last_as_long_as_the_run():
    for total in (7, 300):
        optimizer, _ = tuned("ademamix").build(weights(), total)
        assert {group["t_alpha_beta3"] for group in optimizer.param_groups} == {total}


class Watched:
    """A candidate that notes at every step of its optimizer whether the gradients have a graph."""

    def __init__(self, candidate: TunedBaseline) -> None:
        self.candidate, self.graphs = candidate, []

    def build(self, params: Any, total_steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
        optimizer, scheduler = self.candidate.build(params, total_steps)
        optimizer.register_step_pre_hook(self.note)
        return optimizer, scheduler

    def note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        graphs = {grad.grad_fn is not None for grad in grads}
        assert len(graphs) == 1
        self.graphs.append(graphs.pop())


@pytest.fixture(scope="module")
def digits() -> tuple[Digits, dict[str, Any]]:
    task = Digits()
    return task, task.load(Path())


@every_baseline
def test_only_sophia_is_given_the_gradients_graph_and_every_tenth_step(digits, name: str):
    watched = Watched(tuned(name))
    run = train(*digits, watched, seed=0, steps=22)
    assert run.diverged_at is None
    assert watched.graphs == [name == "sophia" and step % 10 == 0 for step in range(22)]


def test_sophia_learns_digits(digits):
    run = train(*digits, tuned("sophia", 0.1, 1e-3), seed=0, steps=80)
    assert run.metric > 0.5
    assert run.losses[-1] < 0.7 * run.losses[0]


def test_sophias_runs_repeat(digits):
    first, second = (train(*digits, tuned("sophia"), seed=3, steps=15) for _ in range(2))
    assert (first.metric, first.losses) == (second.metric, second.losses)


# Schedules


@pytest.mark.parametrize("total", [1, 4, 5, 10, 37, 500, 1000])
def test_warmup_cosine_is_a_linear_warmup_times_half_a_cosine(total: int):
    factor = tuned("adam", schedule_name="warmup_cosine").schedule(total)
    warmup = round(0.1 * total)
    for step in range(total + 1):
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        expected = rise * 0.5 * (1 + math.cos(math.pi * step / total))
        assert factor(step) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert factor(total) == pytest.approx(0, abs=1e-15)


def test_without_a_schedule_the_rate_is_constant():
    factor = tuned("adam").schedule(50)
    assert {factor(step) for step in range(60)} == {1.0}


@pytest.mark.filterwarnings("ignore:Detected call of")  # a step without gradients would do no more
@pytest.mark.parametrize("schedule", SCHEDULES)
@every_baseline
def test_a_scheduler_drives_the_learning_rate(name: str, schedule: str):
    one, params = tuned(name, 0.02, schedule_name=schedule), weights()
    optimizer, scheduler = one.build(params, 20)
    assert isinstance(scheduler, LRScheduler)
    seen = []
    for _ in range(20):
        seen.append({group["lr"] for group in optimizer.param_groups})
        scheduler.step()
    assert seen == [{0.02 * one.schedule(20)(step)} for step in range(20)]


# Canonical forms


def test_canonical_forms_are_equal_only_for_the_same_optimizer_numbers_options_and_schedule():
    different = [TunedBaseline(name, 1e-2, 1e-3) for name in BASELINES]
    different += [TunedBaseline("adamw", lr, 1e-3) for lr in (1e-3, math.nextafter(1e-2, 1))]
    different += [TunedBaseline("adamw", 1e-2, decay) for decay in (0.0, math.nextafter(1e-3, 1))]
    different += [TunedBaseline("adamw", 1e-3, 1e-2)]
    different += [TunedBaseline("adamw", 1e-2, 1e-3, "warmup_cosine")]
    different += [
        TunedBaseline("adamw", 1e-2, 1e-3, options=options)
        for options in ({"eps": 1e-7}, {"betas": [0.8, 0.999]}, {"betas": [0.9, 0.99]})
    ]
    different += [TunedBaseline("sgd", 1e-2, 1e-3, options={"nesterov": False})]
    forms = [one.canonical() for one in different]
    assert len(set(forms)) == len(forms)


def test_the_same_optimizer_has_one_canonical_form():
    default = TunedBaseline("adamw", 1e-2, 1e-3)
    spelt = TunedBaseline("adamw", 1e-2, 1e-3, "none", {"eps": 1e-8, "betas": [0.9, 0.999]})
    assert default.canonical() == spelt.canonical()


# Spaces


@every_baseline
def test_draws_lie_in_the_distributions(name: str):
    space, rng = SPACES[name].make(), np.random.default_rng(0)
    for _ in range(200):
        drawn = space.sample(rng)
        assert drawn.keys() == space.distributions().keys()
        for key, distribution in space.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(drawn[key]))


def test_draws_are_log_uniform_above_zero_and_uniform_from_zero():
    space, rng = BaselineSpace("adam", lr=[1e-4, 1e-2], weight_decay=[0.0, 1.0]), np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(2000)]
    for key, middle in (("lr", 1e-3), ("weight_decay", 0.5)):
        assert np.mean([one[key] < middle for one in drawn]) == pytest.approx(0.5, abs=0.06)
    assert space.distributions() == {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "weight_decay": FloatDistribution(0.0, 1.0),
    }


def test_the_same_generator_draws_the_same():
    space = SPACES["lion"].make()
    assert space.sample(np.random.default_rng(5)) == space.sample(np.random.default_rng(5))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"lr": 1e-3},
        {"lr": -1e-3, "weight_decay": 0.0},
        {"lr": float("nan"), "weight_decay": 0.0},
        {"lr": 1e-3, "weight_decay": float("inf")},
        {"lr": "x", "weight_decay": 0.0},
        {"lr": True, "weight_decay": 0.0},
    ],
    ids=str,
)
def test_stored_parameters_that_are_missing_or_no_numbers_are_refused(params: dict[str, Any]):
    with pytest.raises(ValueError, match=r"lr|weight_decay"):
        SPACES["adam"].make().candidate(params)


def test_a_baselines_space_does_not_evolve():
    space, one = SPACES["adam"].make(), {"lr": 1e-3, "weight_decay": 0.0}
    with pytest.raises(TypeError, match="adam"):
        space.crossover(one, one, np.random.default_rng(0))
    with pytest.raises(TypeError, match="adam"):
        space.mutate(one, np.random.default_rng(0), 1.0)


# Grids, TPE and random search


def sweep(sampler: dict[str, Any] = GRID, seed: int = 3, **space: Any) -> StudyConfig:
    return config(sampler=sampler, seed=seed, space={**SPACE, **space}, evaluation__gate=False)


def create(one: StudyConfig, storage: BaseStorage | None = None) -> optuna.Study:
    return create_or_resume(one, storage or InMemoryStorage(), "cpu")


def describe(trial: optuna.Trial, one: StudyConfig) -> float:
    """A cheap objective that leaves what the real one does."""
    space = one.make_space()
    params = space.suggest(trial)
    trial.set_user_attr(keys.CANONICAL, space.candidate(params).canonical())
    return params["lr"] - params["weight_decay"]


def complete(study: optuna.Study, one: StudyConfig) -> list[tuple[float, float]]:
    """Work on the study until it is complete; the points that count, in the order of trials."""
    for _ in range(50):
        if is_complete(study):
            break
        study.optimize(lambda trial: describe(trial, one), n_trials=1)
    return points(study)


def points(study: optuna.Study, *states: TrialState) -> list[tuple[float, float]]:
    trials = study.get_trials(states=states or (TrialState.COMPLETE, TrialState.PRUNED))
    return [(trial.params["lr"], trial.params["weight_decay"]) for trial in trials]


EVERY = Counter(itertools.product(SPACE["lr"], SPACE["weight_decay"]))


def test_a_grid_evaluates_every_combination_once(url: str, quiet_optuna):
    one = sweep()
    study = create(one, open_storage(url, create=True))
    assert Counter(complete(study, one)) == EVERY
    assert one.n_trials == len(EVERY) == len(study.trials)


def test_two_interleaved_askers_share_a_grid(quiet_optuna):
    one, storage = sweep(), InMemoryStorage()
    create(one, storage)
    askers = [load_study(storage, one.name)[0] for _ in range(2)]
    while not is_complete(askers[0]):
        asked = [(study, study.ask()) for study in askers]
        for study, trial in reversed(asked):
            study.tell(trial, describe(trial, one))
    assert Counter(points(askers[1])) == EVERY


@pytest.mark.parametrize("described", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("interrupted", [False, True], ids=["failed", "interrupted"])
def test_a_point_that_failed_or_was_interrupted_is_evaluated_again(
    interrupted: bool, described: bool, quiet_optuna
):
    one, storage = sweep(), InMemoryStorage()
    study = create(one, storage)
    lost = []
    for _ in range(2):
        trial = study.ask()
        if described:
            describe(trial, one)
        else:
            trial.suggest_float("lr", 1e-3, 1e-1, log=True)
        if interrupted:
            trial.set_user_attr(keys.INTERRUPTED, True)
        study.tell(trial, state=TrialState.FAIL)
        lost.append((trial.user_attrs[keys.SLOT], trial.params["lr"]))
    assert Counter(complete(load_study(storage, one.name)[0], one)) == EVERY
    by_slot = {t.user_attrs[keys.SLOT]: t.params["lr"] for t in study.trials if t.state.name == "COMPLETE"}
    assert all(by_slot[slot] == lr for slot, lr in lost)


def test_a_grid_is_optunas_and_writes_what_optunas_writes(quiet_optuna):
    one = sweep()
    study = create(one)
    complete(study, one)
    theirs = SlotGridSampler(one.make_space().grid(), seed=one.seed)
    assert isinstance(theirs, GridSampler)
    grid = theirs._all_grids
    for trial in study.trials:
        attrs = trial.system_attrs
        assert attrs["search_space"] == {"lr": SPACE["lr"], "weight_decay": SPACE["weight_decay"]}
        assert attrs["grid_id"] == trial.user_attrs[keys.SLOT]
        assert grid[attrs["grid_id"]] == (trial.params["lr"], trial.params["weight_decay"])
        assert trial.user_attrs[keys.ORIGIN] == "GridSampler"  # as Optuna calls it
    assert theirs.is_exhausted(study)


def test_a_grids_order_depends_on_the_seed_alone(quiet_optuna):
    orders = []
    for seed in (3, 3, 4, 5):
        one = sweep(seed=seed)
        orders.append(complete(create(one), one))
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) > 1


def test_a_resumed_grid_goes_on_where_it_was(quiet_optuna):
    one, storage = sweep(), InMemoryStorage()
    unbroken = complete(create(one), one)
    create(one, storage).optimize(lambda trial: describe(trial, one), n_trials=3)
    assert complete(create(one, storage), one) == unbroken


@pytest.mark.parametrize("kind", ["tpe", "random"])
@pytest.mark.parametrize("decay", [[0.0, 0.1], [0.0], [0.01], [1e-4, 1e-2]], ids=str)
def test_tpe_and_random_search_a_baselines_space(kind: str, decay: list[float], quiet_optuna):
    one = sweep({"kind": kind, "n_trials": 13}, weight_decay=decay)
    study = create(one)
    found = complete(study, one)
    assert is_complete(study)
    assert len(found) == 13
    assert len({lr for lr, _ in found}) == 13
    assert all(1e-3 <= lr <= 1e-1 and min(decay) <= d <= max(decay) for lr, d in found)


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_search_of_a_baselines_space_is_the_seeds(kind: str, quiet_optuna):
    found = []
    for seed in (3, 3, 4):
        one = sweep({"kind": kind, "n_trials": 4}, seed=seed)
        found.append(complete(create(one), one))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("sampler", "together"),
    [(GRID, 1), (GRID, 3), ({"kind": "random", "n_trials": 3}, 2)],
    ids=["grid", "grid in groups", "random in groups"],
)
def test_a_sweep_is_trained_by_the_objective(sampler, together: int, quiet_optuna):
    """Or refused before it begins."""
    data = {
        "name": "one",
        "space": {"kind": "adamw", "lr": [1e-3, 1e-2], "weight_decay": [0.0]},
        "sampler": sampler,
        "evaluation": {"tasks": ["digits"], "steps": 3, "seeds": [0], "batch_candidates": together},
    }
    try:
        one = parse_config(data, "test")
    except UserError as error:
        assert together > 1
        assert "batch_candidates" in str(error)  # noqa: PT017
        return
    study, objective = create(one), Objective(Bench(one, "cpu", Path()), one.make_space())
    for _ in range(one.n_trials):
        if not is_complete(study):
            study.optimize(objective, n_trials=1, catch=(AssertionError,))
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    for trial in study.trials:
        assert trial.user_attrs[keys.FORMULA].startswith("adamw: ")
        assert trial.user_attrs[keys.TRAINED_STEPS] == 3


# Study files


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: str(path.relative_to(STUDIES[0].parents[1])))
def test_every_study_file_loads(file: Path):
    one = load_config(file)
    assert one.make_space().distributions()
    assert one.n_trials > 0


def test_the_study_files_have_names_of_their_own():
    names = Counter(load_config(file).name for file in STUDIES)
    assert {name for name, n in names.items() if n > 1} == set()


@every_baseline
def test_every_baseline_comes_with_a_study_file(name: str):
    file = Path(__file__).parents[2] / "studies" / "baselines" / f"{name}.toml"
    one = load_config(file)
    assert (one.space.kind, one.sampler.kind) == (name, "grid")
    assert (one.space.lr, one.space.weight_decay) == (BASELINES[name].lr, BASELINES[name].weight_decay)


SWEEP = """
name = "tiny"

[space]
kind = "adamw"
lr = [1e-3, 1e-2]
weight_decay = [0.0]

[sampler]
kind = "grid"

[evaluation]
tasks = ["digits"]
steps = 3
seeds = [0]
"""
OPTIONS = "weight_decay = [0.0]\n[space.options]\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"grid"', '"genetic"', ["sampler.kind", "terms", "adamw", "grid"]),
        ('"adamw"\nlr = [1e-3, 1e-2]\nweight_decay = [0.0]', '"terms"', ["sampler.kind", "grid", "baseline"]),
        ("weight_decay = [0.0]", OPTIONS + "beta = 0.9", ["options", "'beta'", "betas"]),
        ("weight_decay = [0.0]", OPTIONS + 'eps = "small"', ["options.eps = ", "small"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = true", ["options.eps", "rue", "1e-08"]),
        ("weight_decay = [0.0]", OPTIONS + "betas = 0.9", ["options.betas", "0.9"]),
        ("weight_decay = [0.0]", OPTIONS + "betas = [0.9]", ["options.betas", "[0.9]"]),
        ("weight_decay = [0.0]", OPTIONS + "eps = inf", ["options.eps = Infinity"]),
        ("weight_decay = [0.0]", OPTIONS + "fused = false", ["options", "fused"]),
        ("[1e-3, 1e-2]", "[]", ["space.lr = []"]),
        ("[1e-3, 1e-2]", "[1e-3, -0.5]", ["space.lr", "-0.5"]),
        ("[1e-3, 1e-2]", "[0.0]", ["space.lr", "0.0"]),
        ("[1e-3, 1e-2]", "[nan]", ["space.lr", "aN"]),
        ("[1e-3, 1e-2]", "[inf]", ["space.lr", "nfinity"]),
        ("[1e-3, 1e-2]", "0.01", ["space.lr", "0.01"]),
        ("[1e-3, 1e-2]", "[true]", ["space.lr", "true"]),
        ("[1e-3, 1e-2]", '["fast"]', ["space.lr", "fast"]),
        ("[1e-3, 1e-2]", "[0.001, 1e-3]", ["space.lr", "0.001", "twice"]),
        ("weight_decay = [0.0]", "weight_decay = [0.5, 0.5]", ["space.weight_decay", "0.5", "twice"]),
        ("weight_decay = [0.0]", "weight_decay = [-0.5]", ["space.weight_decay", "-0.5"]),
        ("weight_decay = [0.0]", "weight_decay = []", ["space.weight_decay = []"]),
        ("weight_decay = [0.0]", 'presets = ["adam"]', ["space.presets"]),
        ("weight_decay = [0.0]", 'schedule = "cosine"', ["space.schedule", "cosine", "warmup_cosine"]),
        ('"adamw"', '"adamx"', ["space.kind", "adamx", "adamw", "terms"]),
        ('"adamw"', '"baseline"', ["space.kind", "'baseline'", "adamw"]),
        ('"adamw"', "3", ["space.kind", "3", "adamw"]),
        ('kind = "grid"', 'kind = "grid"\nn_trials = 4', ["sampler.n_trials"]),
        ('kind = "grid"', 'kind = "brute"', ["sampler.kind", "brute", "grid"]),
    ],
)
def test_a_bad_sweep_is_refused_with_key_and_value(optevo, old: str, new: str, words: list[str]):
    assert old in SWEEP
    answer = optevo("run", write(SWEEP.replace(old, new)))
    said(answer, *words)
    assert "Assertion" not in answer.err
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", "momentum = 0.0"),  # Nesterov's needs some
        ("sgd", "momentum = -0.5"),
        ("adam", "betas = [0.9, 1.5]"),
        ("adamw", "eps = -1.0"),
        ("rmsprop", "alpha = -1.0"),
        ("nadam", "momentum_decay = -1.0"),
        ("radam", "betas = [1.0, 0.9]"),
        ("adafactor", "beta2_decay = 0.5"),
        ("muon", "momentum = -0.1"),
        ("muon", "betas = [0.9, 1.5]"),
        ("lion", "betas = [0.9, 1.5]"),
        ("sophia", "p = -1.0"),
        ("ademamix", "alpha = -1.0"),
    ],
)
def test_options_that_the_optimizer_refuses_are_found_before_anything_is_written(
    optevo, kind: str, options: str
):
    text = SWEEP.replace('"adamw"', f'"{kind}"').replace("weight_decay = [0.0]", OPTIONS + options)
    said(optevo("run", write(text)), "space.options", kind)
    assert [path.name for path in Path().iterdir()] == ["study.toml"]


@every_baseline
def test_a_baselines_own_numbers_pass_the_rehearsal(name: str):
    SPACES[name].make().rehearse()


@every_baseline
def test_a_stored_configuration_is_read_back_as_it_was(name: str):
    options = dict(list(BASELINES[name].options.items())[:1])
    for space in (
        {"kind": name},
        {"kind": name, "schedule": "warmup_cosine", "lr": [1], "weight_decay": [0], "options": options},
    ):
        one = config(space=space, sampler=GRID)
        again = parse_config(json.loads(json.dumps(one.to_dict())), "stored")
        assert again == one
        assert again.to_dict() == one.to_dict()
        assert again.fingerprint() == one.fingerprint()


def test_a_sweep_stores_the_values_it_was_begun_with():
    """So that it stays the same study when the defaults change."""
    plain = config(space={"kind": "adamw"}, sampler=GRID).to_dict()
    assert plain["space"] == {
        "kind": "adamw",
        "schedule": "none",
        "lr": list(BASELINES["adamw"].lr),
        "weight_decay": list(BASELINES["adamw"].weight_decay),
        "options": {},
    }


def test_a_terms_studys_fingerprint_is_that_of_before_baselines():
    assert config().to_dict()["space"] == {"kind": "terms", "presets": ["sgd", "adam"]}
    one = config(name="old", space={"kind": "terms", "presets": ["sgd", "adam"]})
    assert one.fingerprint() == "062e1a8a9c0868d0"  # computed by commit b355108


# Exported files


def load(source: str, folder: Path) -> ModuleType:
    path = folder / f"exported_{next(_count)}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@exportable
def test_an_exported_baseline_is_the_tuned_optimizer(name: str, tmp_path: Path):
    one = tuned(name, 0.0123456789, 0.0456)
    ours, theirs = weights(), weights()
    module = load(one.source("Tuned", {"study": "x"}), tmp_path)
    optimizer = module.Tuned(ours)
    assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {(one.lr, one.weight_decay)}
    # The file leaves torch's fused kernels out, which not every device has.
    assert_same(stepped(optimizer, ours), stepped(one.build(theirs, 9)[0], theirs), rtol=1e-5, atol=1e-7)


def test_an_exported_baseline_keeps_a_study_files_options_and_takes_others(tmp_path: Path):
    one = tuned("adamw", options={"betas": [0.5, 0.6]})
    module = load(one.source("Evolved", {}), tmp_path)
    assert module.Evolved(weights()).defaults["betas"] == (0.5, 0.6)
    assert module.Evolved(weights(), lr=1.0, betas=(0.1, 0.2)).defaults["betas"] == (0.1, 0.2)
    assert module.Evolved(weights(), lr=1.0).defaults["lr"] == 1.0


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 4, 30, 100])
def test_an_exported_baselines_schedule_is_its_own(schedule: str, total: int, tmp_path: Path):
    one = tuned("adamw", schedule_name=schedule)
    module = load(one.source("Evolved", {}), tmp_path)
    optimizer = module.Evolved(weights())
    scheduler = module.scheduler(optimizer, total)
    for step in range(total + 1):
        expected = one.lr * one.schedule(total)(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12, abs=1e-18)
        scheduler.step()


@pytest.mark.parametrize(
    ("name", "words"), [("sophia", "pytorch_optimizer.SophiaH"), ("ademamix", "pytorch_optimizer.AdEMAMix")]
)
def test_what_no_class_can_hold_is_refused_with_what_to_use(name: str, words: str):
    with pytest.raises(ValueError, match=words) as caught:
        export_baseline(tuned(name, 0.0125))
    assert "0.0125" in str(caught.value)


@pytest.mark.parametrize(
    "class_name", ["", "a b", "class", "1x", "x\n", "torch", "Optimizer", "super", "ｍath"]
)
def test_class_names_that_would_break_the_file_are_refused(class_name: str):
    with pytest.raises(ValueError, match="class_name"):
        export_baseline(tuned("lion"), class_name=class_name)


@pytest.mark.parametrize(
    "class_name", ["Adam", "AdamW", "pytorch_optimizer", "optevo", "OPTIONS", "LambdaLR"]
)
@pytest.mark.parametrize("name", ["adam", "lion", "muon"])
def test_a_class_name_that_is_taken_gives_a_file_that_works(name: str, class_name: str, tmp_path: Path):
    try:
        source = export_baseline(tuned(name), class_name=class_name)
    except ValueError:
        assert class_name in ("OPTIONS", "LambdaLR", "pytorch_optimizer", "optevo")
        return
    module, params = load(source, tmp_path), weights()
    optimizer = getattr(module, class_name)(params)
    module.scheduler(optimizer, 10)
    before = params[0].detach().clone()
    assert not torch.equal(stepped(optimizer, params, steps=1)[0], before)


@pytest.mark.parametrize("text", ['"""', "\\", "@LR@", "'''\nraise SystemExit", "\u202e", "\ud800"])
def test_provenance_is_data_whatever_it_holds(text: str, tmp_path: Path):
    source = export_baseline(tuned("adam"), provenance={text: text, "study": text})
    module = load(source, tmp_path)
    assert {text: text, "study": text} == module.PROVENANCE


def test_the_command_exports_a_sweeps_winner_and_says_what_to_use_where_it_cannot(optevo, quiet_optuna):
    storage = open_storage("sqlite:///optevo.db", create=True)
    for name in ("adamw", "sophia"):
        one = config(name=name, space={"kind": name, "lr": [0.0125], "weight_decay": [0.1]}, sampler=GRID)
        complete(create(one, storage), one)
    assert optevo("export", "0", "--study", "adamw", "--output", "winner.py").status == 0
    module = load(Path("winner.py").read_text(encoding="utf-8"), Path())
    assert module.Evolved(weights()).defaults["lr"] == 0.0125
    assert module.PROVENANCE["study"] == "adamw"
    said(optevo("export", "0", "--study", "sophia"), "SophiaH", "0.0125")
    assert not Path("evolved.py").exists()


def test_show_tells_a_sweeps_trial(optevo, quiet_optuna):
    one = sweep()
    study = create(one, open_storage("sqlite:///optevo.db", create=True))
    study.optimize(Objective(Bench(one, "cpu", Path()), one.make_space()), n_trials=1)
    answer = optevo("show", "0")
    assert answer.status == 0, answer
    for words in ("adamw: ", "decoupled", "constant rate", "digits, seed 0"):
        assert words in answer.out
