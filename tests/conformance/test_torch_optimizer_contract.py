"""The contract of torch.optim.Optimizer, its cases named as in torch's own suite (test/test_optim.py)."""

from __future__ import annotations

import copy
import functools
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from strategies import genome, random_genome
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers

from optevo.optim import PRESETS, GenomeOptimizer, ReferenceOptimizer, TermGenome

# Every kernel, with and without bias correction and clipping.
GENOMES: dict[str, TermGenome] = {
    **PRESETS,
    "clipped": genome("GRAD", "MOMENTUM", gradient_clipping=True, clip_value=0.1),
    "unit": genome("UNIT_GRAD", lr=1e-3),
    "nesterov": genome("NESTEROV"),
    "adam without v": genome("ADAM_TERM", use_second_moment=False, bias_correction=True, lr=1e-3, eps=1e-4),
    "rms corrected": genome("RMS_NORM", bias_correction=True, lr=1e-3),
}
every_genome = pytest.mark.parametrize("g", GENOMES.values(), ids=GENOMES)
adamw = PRESETS["adamw"]

Make = Callable[..., torch.optim.Optimizer]


def eager(params: Any, g: TermGenome = adamw, **kwargs: Any) -> GenomeOptimizer:
    return GenomeOptimizer(params, g, compiled=False, **kwargs)


def torchs(params: Any, g: TermGenome = adamw, **kwargs: Any) -> torch.optim.AdamW:
    """torch.optim.AdamW as the preset has it: the yardstick for what a contract means."""
    settings = {"lr": g.lr, "betas": (g.beta1, g.beta2), "eps": g.eps, "weight_decay": g.weight_decay}
    return torch.optim.AdamW(params, **{**settings, **kwargs})


def parameters(
    *shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, device: Any = "cpu", seed: int = 0
) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(device, dtype))
        for s in shapes or ((3, 4), (4,), (2, 3, 2))
    ]


def feed(params: list[nn.Parameter], seed: int) -> None:
    """Gives every parameter the gradient of this seed."""
    rng = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng, dtype=torch.float64).to(p)


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range | int) -> list[Tensor]:
    for k in range(steps) if isinstance(steps, int) else steps:
        feed(params, k)
        optimizer.step()
    return values(params)


def values(params: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def assert_close(ours: list[Tensor], theirs: list[Tensor], rtol: float = 1e-11, atol: float = 1e-13) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_errors_on_wrong_parameters(make):
    with pytest.raises(TypeError, match="params argument"):
        make(torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])
    with pytest.raises(TypeError, match="can only optimize Tensors"):
        make([1.0])
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="non-leaf"):
        make([p * 2])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make([{"params": [p]}, {"params": [p]}])
    with pytest.warns(UserWarning, match="duplicate parameters"):
        make([p, p])


@pytest.mark.parametrize("lr", [-0.1, math.nan])
def test_errors_on_an_invalid_learning_rate(lr):
    with pytest.raises(ValueError, match=f"Invalid learning rate: {lr}"):
        eager(parameters(), lr=lr)


@pytest.mark.parametrize("decay", [-0.1, math.nan])
def test_errors_on_an_invalid_weight_decay(decay):
    with pytest.raises(ValueError, match=rf"(?i)invalid weight.decay.*{decay}"):
        eager(parameters(), weight_decay=decay)


def test_sparse_gradients_are_refused_in_words():
    p = nn.Parameter(torch.ones(4, 2))
    optimizer = eager([p])
    p.grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_complex_parameters_are_refused():
    with pytest.raises((ValueError, RuntimeError, TypeError), match=r"(?i)complex"):
        eager([nn.Parameter(torch.ones(3, dtype=torch.complex64))])


def test_a_refused_group_leaves_the_optimizer_as_it_was():
    params = parameters()
    optimizer = eager(params)
    for bad in (params, [nn.Parameter(torch.ones(3, dtype=torch.complex64))]):
        with pytest.raises((ValueError, RuntimeError, TypeError)):
            optimizer.add_param_group({"params": bad})
    assert len(optimizer.param_groups) == 1
    run(optimizer, params, 2)


# --- direction ------------------------------------------------------------------------------------


def descend(
    g: TermGenome, device: Any, dtype: torch.dtype, *, maximize: bool = False, chained: tuple[Any, ...] = ()
) -> tuple[float, float]:
    """torch's own toy: one linear layer in two groups, twenty steps; the loss before and after."""
    rng = torch.Generator().manual_seed(0)
    weight, bias = (
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(device, dtype))
        for s in ((10, 5), (10,))
    )
    x = torch.randn(5, generator=rng, dtype=torch.float64).to(device, dtype)
    optimizer = eager([{"params": [weight]}, {"params": [bias], "lr": g.lr / 2}], g, maximize=maximize)
    made = [make(optimizer) for make in chained]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(20):
        loss = optimizer.step(closure)
        for scheduler in made:
            if isinstance(scheduler, schedulers.ReduceLROnPlateau):
                scheduler.step(loss.detach())
            else:
                scheduler.step()
    return first, closure().item()


@every_genome
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forloop_goes_right_direction(g, dtype, device):
    before, after = descend(g, device, dtype)
    assert after < before
    before, after = descend(g, device, dtype, maximize=True)
    assert after > before


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 0.95**t),
    "StepLR": lambda o: schedulers.StepLR(o, step_size=5, gamma=0.5),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, milestones=[3, 9]),
    "LinearLR": lambda o: schedulers.LinearLR(o, start_factor=0.3, total_iters=4),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, factor=0.4, total_iters=4),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, total_iters=15, power=2.0),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=20),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, T_0=6),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=2e-3, total_steps=20),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, base_lr=1e-4, max_lr=1e-3, step_size_up=4),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.CosineAnnealingLR(o, T_max=15)], [5]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.5, total_iters=3), schedulers.ExponentialLR(o, gamma=0.9)]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0, threshold=1e6),
}


@every_genome
@pytest.mark.parametrize(
    "names",
    [("ExponentialLR", "ReduceLROnPlateau"), ("StepLR",), ("OneCycleLR",), ("SequentialLR",)],
    ids="+".join,
)
def test_param_group_with_lrscheduler_goes_right_direction(g, names):
    for maximize in (False, True):
        before, after = descend(
            g, "cpu", torch.float64, maximize=maximize, chained=tuple(SCHEDULERS[n] for n in names)
        )
        assert (after > before) == maximize


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_drives_it_exactly_as_it_drives_torchs_adamw(name):
    seen = []
    for make in (eager, torchs):
        params = parameters()
        optimizer = make(params)
        scheduler = SCHEDULERS[name](optimizer)
        rates = []
        for k in range(18):
            feed(params, k)
            optimizer.step()
            scheduler.step(1.0) if name == "ReduceLROnPlateau" else scheduler.step()
            rates.append((optimizer.param_groups[0]["lr"], *optimizer.param_groups[0]["betas"]))
        seen.append((rates, values(params)))
    assert seen[0][0] == seen[1][0]
    assert_close(seen[0][1], seen[1][1])


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_every_group_has_its_own_learning_rate_and_weight_decay(make):
    ours, theirs = parameters(), parameters()
    for params, build in ((ours, make), (theirs, torchs)):
        optimizer = build(
            [
                {"params": params[:1], "lr": 0.03},
                {"params": params[1:2], "weight_decay": 0.3},
                {"params": params[2:], "lr": 0.01, "weight_decay": 0.0},
            ]
        )
        run(optimizer, params, 6)
    assert_close(values(ours), values(theirs))


def test_every_group_has_its_own_betas_eps_and_direction():
    ours, theirs = parameters(), parameters()
    for params, build in ((ours, eager), (theirs, torchs)):
        optimizer = build(
            [
                {"params": params[:1], "betas": (0.5, 0.9)},
                {"params": params[1:2], "eps": 1e-2},
                {"params": params[2:], "maximize": True},
            ]
        )
        run(optimizer, params, 6)
    assert_close(values(ours), values(theirs))


def test_a_group_may_bring_the_coefficients_of_another_rule():
    sign = PRESETS["signsgd"].rule()
    six = (sign.grad, sign.momentum, sign.rms, sign.adam, sign.sign, sign.unit)
    params, alone = parameters(), parameters()
    optimizer = eager([{"params": params[:2]}, {"params": params[2:], "coefficients": six}])
    run(optimizer, params, 4)
    run(eager(alone), alone, 4)
    other = parameters()
    lone = eager(other, PRESETS["signsgd"], lr=adamw.lr, weight_decay=adamw.weight_decay)
    run(lone, other, 4)
    assert_equal(values(params), values(alone)[:2] + values(other)[2:])
    assert not optimizer.state.get(params[2])


def test_a_group_carries_everything_the_step_reads():
    group = eager(parameters(), GENOMES["clipped"]).param_groups[0]
    assert set(group) >= {
        "lr",
        "weight_decay",
        "betas",
        "eps",
        "coefficients",
        "bias_correction",
        "clip_value",
        "maximize",
    }
    assert len(group["coefficients"]) == 6
    assert group["clip_value"] == 0.1
    assert eager(parameters()).param_groups[0]["clip_value"] is None


def test_a_learning_rate_changed_between_steps_is_obeyed():
    params, torch_params = parameters(), parameters()
    ours, theirs = eager(params), torchs(torch_params)
    for k, lr in enumerate((0.1, 0.0, 1e-3)):
        ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = lr
        run(ours, params, range(k, k + 1))
        run(theirs, torch_params, range(k, k + 1))
        assert_close(values(params), values(torch_params))


def test_a_given_learning_rate_and_weight_decay_override_the_genomes():
    group = eager(parameters(), lr=0.5, weight_decay=0.25).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    group = eager(parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (adamw.lr, adamw.weight_decay)
    group = eager(parameters(), lr=0.0, weight_decay=0.0).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.0, 0.0)


@every_genome
def test_tensor_lr(g):
    plain, tensor = parameters(), parameters()
    run(eager(plain, g, lr=2.0**-10), plain, 4)
    lr = torch.tensor(2.0**-10)
    optimizer = eager(tensor, g, lr=lr)
    run(optimizer, tensor, 4)
    assert optimizer.param_groups[0]["lr"] is lr
    assert_close(values(tensor), values(plain), rtol=1e-6, atol=1e-9)


def test_a_scheduler_updates_a_tensor_lr_in_place():
    params = parameters()
    lr = torch.tensor(2.0**-10)
    optimizer = eager(params, lr=lr)
    scheduler = schedulers.ExponentialLR(optimizer, gamma=0.5)
    run(optimizer, params, 1)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr.item() == 2.0**-11


@every_genome
def test_a_group_may_be_added_after_steps_were_taken(g):
    params = parameters()
    optimizer = eager(params[:1], g)
    run(optimizer, params[:1], 3)
    optimizer.add_param_group({"params": params[1:], "lr": 0.5 * g.lr})
    for k in range(3, 6):
        feed(params, k)
        optimizer.step()
    late = parameters()[1:]
    alone = eager(late, g, lr=0.5 * g.lr)
    for k in range(3, 6):
        feed([*parameters()[:1], *late], k)
        alone.step()
    assert_equal(values(params)[1:], values(late))
    assert optimizer.param_groups[1]["coefficients"] == optimizer.param_groups[0]["coefficients"]


# --- gradients ------------------------------------------------------------------------------------


@every_genome
def test_a_parameter_without_gradient_is_skipped_and_its_step_not_counted(g):
    params, reference = parameters(), parameters()
    optimizer, plain = eager(params, g), ReferenceOptimizer(reference, g)
    for k in range(6):
        for ps, o in ((params, optimizer), (reference, plain)):
            feed(ps, k)
            if k % 2:
                ps[1].grad = None
            if k < 3:
                ps[2].grad = None
            before = values(ps)
            o.step()
            for p, was in zip(ps, before, strict=True):
                assert p.grad is not None or torch.equal(p, was)
    assert_close(values(params), values(reference))
    steps = [optimizer.state[p].get("step") for p in params]
    corrected = g.rule().bias_correction
    assert [None if s is None else int(s) for s in steps] == ([6, 3, 3] if corrected else [None] * 3)


def test_each_parameter_counts_its_own_steps_as_in_torchs_adamw():
    ours, theirs = parameters(), parameters()
    for params, optimizer in ((ours, eager(ours)), (theirs, torchs(theirs))):
        for k in range(6):
            feed(params, k)
            params[k % 3].grad = None
            optimizer.step()
    assert_close(values(ours), values(theirs))


@every_genome
def test_a_step_without_any_gradient_does_nothing(g):
    params = parameters()
    before = values(params)
    optimizer = eager(params, g)
    optimizer.step()
    assert_equal(values(params), before)
    assert not any(optimizer.state[p] for p in params)


@every_genome
def test_a_gradient_of_zero_is_a_gradient(g):
    """Weight decay acts and the step counts, unlike with no gradient."""
    params = parameters()
    before = values(params)
    optimizer = eager(params, g)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert_close(values(params), [w * (1 - g.lr * g.weight_decay) for w in before])


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_clears_every_gradient(set_to_none):
    params = parameters()
    optimizer = eager(params)
    feed(params, 0)
    optimizer.zero_grad(set_to_none=set_to_none)
    assert all(p.grad is None if set_to_none else not p.grad.any() for p in params)


@every_genome
def test_foreach_matches_forloop(g, device):
    fast, plain = parameters(device=device), parameters(device=device)
    run(eager(fast, g), fast, 7)
    run(ReferenceOptimizer(plain, g), plain, 7)
    assert_close(values(fast), values(plain))


@every_genome
def test_foreach_matches_forloop_in_float32(g, device):
    fast, plain = (parameters(dtype=torch.float32, device=device) for _ in range(2))
    run(eager(fast, g), fast, 7)
    run(ReferenceOptimizer(plain, g), plain, 7)
    assert_close(values(fast), values(plain), rtol=2e-5, atol=2e-6)


@every_genome
def test_mixed_dtypes_in_one_optimizer_step_as_in_one_each(g):
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    together = [parameters((4, 3), dtype=d, seed=3)[0] for d in dtypes]
    apart = [parameters((4, 3), dtype=d, seed=3)[0] for d in dtypes]
    optimizer, alone = eager(together, g), [eager([p], g) for p in apart]
    for k in range(4):
        for ps in (together, apart):
            for p in ps:
                feed([p], k)
        optimizer.step()
        for o in alone:
            o.step()
    assert_equal(values(together), values(apart))
    assert [p.dtype for p in together] == list(dtypes)


@every_genome
def test_bfloat16_parameters_follow_float32_ones(g):
    coarse, fine = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    for p in fine:
        p.data = p.data.float()
    run(eager(coarse, g), coarse, 3)
    run(eager(fine, g), fine, 3)
    assert_close([w.float() for w in values(coarse)], values(fine), rtol=0.05, atol=0.05)


SHAPES = {
    "transposed": lambda: torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).t(),
    "strided": lambda: torch.randn(4, 12, generator=torch.Generator().manual_seed(0))[:, ::2],
    "channels_last": lambda: torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
    "0-dim": lambda: torch.tensor(0.7),
    "empty": lambda: torch.empty(0),
    "empty with a shape": lambda: torch.empty(3, 0, 2),
    "one element": lambda: torch.tensor([0.3]),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_of_any_layout_step_as_contiguous_ones(shape, compiled):
    odd = nn.Parameter(SHAPES[shape]())
    plain = nn.Parameter(odd.detach().clone(memory_format=torch.contiguous_format))
    stride = odd.stride()
    g = genome("ADAM_TERM", "SIGN_GRAD", alphas=(1.0, 0.5), bias_correction=True)
    ours, theirs = GenomeOptimizer([odd], g, compiled=compiled), ReferenceOptimizer([plain], g)
    for k in range(3):
        feed([odd, plain], 0)
        gradient = torch.randn(plain.shape, generator=torch.Generator().manual_seed(k))
        # A gradient's strides need not be its parameter's: autograd's often are not.
        odd.grad = gradient.clone() if k % 2 else torch.empty_like(odd).copy_(gradient)
        plain.grad = gradient
        ours.step()
        theirs.step()
    torch.testing.assert_close(odd.detach(), plain.detach(), rtol=1e-5, atol=1e-6)
    assert odd.stride() == stride


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_an_empty_parameter_does_not_disturb_its_neighbours(compiled):
    params, alone = parameters((3,), (0,), ()), parameters((3,), (0,), ())
    run(GenomeOptimizer(params, adamw, compiled=compiled), params, 3)
    run(torchs(alone), alone, 3)
    assert_close(values(params), values(alone))


def test_an_expanded_gradient_is_read_and_not_written():
    p = nn.Parameter(torch.ones(3, 4))
    g = genome("GRAD", "MOMENTUM", gradient_clipping=True, clip_value=0.5)
    optimizer = eager([p], g, maximize=True)
    row = torch.tensor([1.0, -2.0, 0.25, 0.0])
    p.grad = row.expand(3, 4)
    optimizer.step()
    assert row.tolist() == [1.0, -2.0, 0.25, 0.0]
    assert torch.equal(p[0], p[2])


# --- closures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eager, functools.partial(ReferenceOptimizer, genome=adamw)])
def test_a_closure_runs_once_with_grad_and_its_loss_is_returned(make):
    (p,) = parameters((3,))
    optimizer = make([p])
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    expected = p.detach().square().sum().item()
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == expected
    assert calls == [True]
    assert optimizer.step() is None
    assert optimizer.step(lambda: 3.5) == 3.5


def test_a_step_records_no_graph():
    (p,) = parameters((3,))
    optimizer = eager([p])
    p.square().sum().backward()
    optimizer.step()
    assert p.is_leaf
    assert p.grad_fn is None
    assert not any(t.requires_grad for t in optimizer.state[p].values())


# --- state and checkpoints ------------------------------------------------------------------------


@every_genome
def test_there_is_no_state_that_the_rule_does_not_read(g):
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 2)
    rule = g.rule()
    expected = {"exp_avg": rule.reads_m, "exp_avg_sq": rule.reads_v, "step": rule.bias_correction}
    for p in params:
        assert set(optimizer.state[p]) == {key for key, read in expected.items() if read}
        assert all(
            t.shape == p.shape and t.dtype == p.dtype
            for key, t in optimizer.state[p].items()
            if key != "step"
        )


def test_the_step_count_is_a_float32_tensor_on_the_cpu(device):
    params = parameters(device=device)
    optimizer = eager(params)
    run(optimizer, params, 2)
    step = optimizer.state[params[0]]["step"]
    assert (step.dtype, step.device.type, step.item()) == (torch.float32, "cpu", 2.0)


@every_genome
def test_state_dict_deterministic(g, device):
    """torch's test: load into a fresh optimizer, go on, and both stay the same to the last bit."""
    params = parameters(device=device)
    optimizer = eager(params, g)
    run(optimizer, params, 4)
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    twin = eager(twins, g)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert_equal(run(optimizer, params, range(4, 9)), run(twin, twins, range(4, 9)))
    assert str(optimizer.state_dict()) == str(twin.state_dict())


@every_genome
def test_save_load_equality_with_weights_only(g):
    whole = parameters()
    expected = run(eager(whole, g), whole, 9)
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 4)
    loaded = through_a_file(optimizer.state_dict())
    resumed = eager(params, g)
    resumed.load_state_dict(loaded)
    assert_equal(run(resumed, params, range(4, 9)), expected)


def test_a_checkpoint_brings_its_rule_with_it():
    whole = parameters()
    expected = run(eager(whole), whole, 9)
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 4)
    resumed = eager(params, PRESETS["signsgd"])
    resumed.load_state_dict(through_a_file(optimizer.state_dict()))
    assert_equal(run(resumed, params, range(4, 9)), expected)


def test_a_checkpoint_of_another_size_is_refused():
    optimizer = eager(parameters())
    with pytest.raises(ValueError, match=r"parameter group.*size|match the size"):
        optimizer.load_state_dict(eager(parameters((2,))).state_dict())


def test_can_load_older_state_dict():
    """A checkpoint from before a group knew `maximize` loads, and steps."""
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 2)
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.pop("maximize")
    resumed = eager(params)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["maximize"] is False
    run(resumed, params, range(2, 3))


def test_load_nontensor_step():
    whole = parameters()
    expected = run(eager(whole), whole, 5)
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 3)
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        entry["step"] = float(entry["step"])
    resumed = eager(params)
    resumed.load_state_dict(state)
    assert_equal(run(resumed, params, range(3, 5)), expected)
    assert_equal([torch.as_tensor(resumed.state[params[0]]["step"])], [torch.tensor(5.0)])


def test_loading_into_bfloat16_parameters_keeps_the_step_float32():
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 300)
    coarse = [nn.Parameter(p.detach().bfloat16()) for p in params]
    loaded = eager(coarse)
    loaded.load_state_dict(through_a_file(optimizer.state_dict()))
    run(loaded, coarse, range(1))
    state = loaded.state[coarse[0]]
    assert (state["step"].dtype, state["step"].item()) == (torch.float32, 301.0)
    assert state["exp_avg"].dtype == torch.bfloat16


@pytest.mark.cuda
def test_state_dict_with_cuda_params():
    if not torch.cuda.is_available():
        pytest.skip("torch.cuda.is_available() is false on this machine")
    params = parameters()
    optimizer = eager(params)
    run(optimizer, params, 3)
    moved = [nn.Parameter(p.detach().cuda()) for p in params]
    loaded = eager(moved)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, params, range(3, 6))
    run(loaded, moved, range(3, 6))
    assert loaded.state[moved[0]]["exp_avg"].is_cuda
    assert_close([w.cpu() for w in values(moved)], values(params))


@pytest.mark.parametrize(("named_before", "named_after"), [(True, True), (True, False), (False, True)])
def test_can_load_from_to_named_state_dict(named_before, named_after):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    take = {True: model.named_parameters, False: model.parameters}
    optimizer = eager(take[named_before]())
    params = list(model.parameters())
    run(optimizer, params, 3)
    resumed = eager(take[named_after]())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if named_after:
        assert resumed.param_groups[0]["param_names"] == [n for n, _ in model.named_parameters()]
    twins = copy.deepcopy(params)
    twin = eager(twins)
    twin.load_state_dict(
        {
            **(state := copy.deepcopy(optimizer.state_dict())),
            "param_groups": [
                {k: v for k, v in g.items() if k != "param_names"} for g in state["param_groups"]
            ],
        }
    )
    assert_equal(run(resumed, params, range(3, 6)), run(twin, twins, range(3, 6)))


@every_genome
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"]
)
def test_a_copied_optimizer_goes_on_with_its_copied_parameters(g, clone):
    params = parameters()
    optimizer = eager(params, g)
    run(optimizer, params, 3)
    twin = clone(optimizer)
    twins = twin.param_groups[0]["params"]
    before = values(params)
    ours = run(twin, twins, range(3, 6))
    assert_equal(values(params), before)
    assert_equal(ours, run(optimizer, params, range(3, 6)))
    assert "exp_avg" not in str(repr(twin))


def test_its_repr_shows_the_groups():
    assert "lr" in repr(eager(parameters()))


# --- hooks, scaling, averaging --------------------------------------------------------------------


def test_step_hooks_run_before_and_after_each_step():
    params = parameters()
    optimizer = eager(params)
    seen = []
    first = optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("pre"))
    optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("post"))
    run(optimizer, params, 2)
    first.remove()
    run(optimizer, params, 1)
    assert seen == ["pre", "post", "pre", "post", "post"]


def test_state_dict_hooks_run():
    optimizer = eager(parameters())
    seen = []
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, state: seen.append("post"))
    optimizer.register_load_state_dict_pre_hook(lambda o, state: seen.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load post"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["pre", "post", "load pre", "load post"]


@every_genome
def test_a_grad_scaler_unscales_and_skips_overflows(g):
    torch.manual_seed(0)
    model, plain = nn.Linear(4, 2), nn.Linear(4, 2)
    plain.load_state_dict(model.state_dict())
    x = torch.randn(8, 4)
    scaled, unscaled = eager(model.parameters(), g), eager(plain.parameters(), g)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for k in range(4):
        scaled.zero_grad()
        loss = model(x).square().mean()
        scaler.scale(loss).backward()
        if k == 1:
            model.weight.grad[0, 0] = math.inf
        scaler.step(scaled)
        scaler.update()
        if k != 1:
            unscaled.zero_grad()
            plain(x).square().mean().backward()
            unscaled.step()
    assert scaler.get_scale() == 512.0
    assert_close(values(list(model.parameters())), values(list(plain.parameters())), rtol=1e-5, atol=1e-6)


def test_an_averaged_model_follows_the_training():
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = eager(model.parameters())
    swa = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    seen = []
    for k in range(3):
        seen.append(run(optimizer, list(model.parameters()), range(k, k + 1)))
        average.update_parameters(model)
        swa.step()
    means = [torch.stack(ws).mean(0) for ws in zip(*seen, strict=True)]
    assert_close(values(list(average.module.parameters())), means)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_gradient_norm_clipping_from_outside_works_before_it():
    params = parameters()
    optimizer = eager(params, genome("GRAD", lr=0.1), weight_decay=0.0)
    before = values(params)
    feed(params, 0)
    nn.utils.clip_grad_norm_(params, 0.01)
    optimizer.step()
    moved = torch.cat([(a - b).flatten() for a, b in zip(values(params), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-4)


def test_it_can_step_in_backward_hooks():
    """One optimizer a parameter, stepped as its gradient arrives: torch's memory-saving recipe."""
    torch.manual_seed(0)
    model, plain = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    plain.load_state_dict(model.state_dict())
    optimizers = {p: eager([p]) for p in model.parameters()}

    def step(p: nn.Parameter) -> None:
        optimizers[p].step()
        optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    whole = eager(plain.parameters())
    for k in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
        model(x).square().sum().backward()
        whole.zero_grad()
        plain(x).square().sum().backward()
        whole.step()
    assert_close(values(list(model.parameters())), values(list(plain.parameters())))


def test_frozen_and_thawed_parameters_are_welcome():
    params = parameters()
    params[0].requires_grad_(False)
    optimizer = eager(params)
    before = values(params)
    for p in params[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(params[0], before[0])
    params[0].requires_grad_(True)
    run(optimizer, params, 1)
    assert not torch.equal(params[0], before[0])


@pytest.mark.parametrize("seed", range(5))
def test_random_rules_keep_the_contract_through_a_checkpoint(seed):
    g = random_genome(seed)
    whole = parameters()
    optimizer, scheduler = g.build(whole, 12)
    for k in range(12):
        run(optimizer, whole, range(k, k + 1))
        scheduler.step()
    params = parameters()
    optimizer, scheduler = g.build(params, 12)
    for k in range(12):
        if k == 5:
            saved = through_a_file({"o": optimizer.state_dict(), "s": scheduler.state_dict()})
            optimizer, scheduler = g.build(params, 12)
            optimizer.load_state_dict(saved["o"])
            scheduler.load_state_dict(saved["s"])
        run(optimizer, params, range(k, k + 1))
        scheduler.step()
    assert_equal(values(params), values(whole))
