"""What a genome does to weights: the oracle, torch's own optimizers, and three implementations held equal."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import ORACLE, TERMS, genome, genomes, oracle_genome, random_genome
from term_optimizers import COMPILED, EAGER, KERNELS, PATHS, random_gradients, weights_after
from torch import Tensor, nn

from optevo.optim import ReferenceOptimizer, TermGenome
from optevo.optim.terms.presets import PRESETS


def oracle_gradient(t: int, phase: float) -> list[float]:
    return [
        math.sin(1.3 * t + 0.7 * i + phase) * (1 + 0.1 * i) * 10.0 ** (((7 * i + t) % 5) - 3)
        for i in range(6)
    ]


def follow(
    make: Callable[..., torch.optim.Optimizer], case: dict[str, Any], dtype: torch.dtype
) -> dict[int, Tensor]:
    """An oracle case's weights after steps 1, 10 and 20."""
    g = oracle_genome(case)
    w = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64).to(dtype))
    optimizer = make([w], g)
    scheduler = g.scheduler(optimizer, case["total_steps"])
    seen = {}
    for t in range(20):
        gradient = torch.tensor(oracle_gradient(t, case["gradient_phase"]), dtype=torch.float64)
        w.grad = gradient.to(dtype)
        optimizer.step()
        scheduler.step()
        seen[t + 1] = w.detach().double().clone()
    return {k: seen[k] for k in (1, 10, 20)}


# --- the oracle -----------------------------------------------------------------------------------


def test_the_oracle_has_its_120_cases():
    assert len(ORACLE["cases"]) == 120


@pytest.mark.parametrize("path", PATHS)
def test_every_path_follows_the_published_trajectories(path):
    for case in ORACLE["cases"]:
        for step, w in follow(PATHS[path], case, torch.float64).items():
            expected = torch.tensor(case[f"w_step_{step}"], dtype=torch.float64)
            place = f"case {case['id']}, step {step}"
            torch.testing.assert_close(w, expected, rtol=1e-9, atol=0.0, msg=place)


def test_the_compiled_kernel_follows_the_published_trajectories_in_float32():
    for case in ORACLE["cases"]:
        for step, w in follow(COMPILED, case, torch.float32).items():
            expected = torch.tensor(case[f"w_step_{step}"], dtype=torch.float64)
            error = ((w - expected).abs() / expected.abs().clamp(min=1.0)).max()
            assert error <= 1e-4, f"case {case['id']}, step {step}"


# --- torch's own optimizers -----------------------------------------------------------------------


def mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    rng = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=dtype) * 0.4)
    return model


def train(make: Callable[..., torch.optim.Optimizer], steps: int = 50, dtype: torch.dtype = torch.float64):
    """A small MLP trained on a fixed regression, and its optimizer."""
    rng = torch.Generator().manual_seed(1)
    model = mlp(dtype)
    optimizer = make(model.parameters())
    for _ in range(steps):
        x = torch.randn(16, 5, generator=rng, dtype=dtype)
        loss = nn.functional.mse_loss(model(x), x[:, :3].sin())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, optimizer


def plain_adam(params, g: TermGenome):
    # Decoupled decay, as in the genome; torch's Adam adds the decay to the gradient instead.
    return torch.optim.AdamW(
        params, lr=g.lr, betas=(g.beta1, g.beta2), eps=g.eps, weight_decay=g.weight_decay
    )


class PlainRMSProp(torch.optim.Optimizer):
    """torch's RMSprop keeps eps outside the root too, but couples its weight decay."""

    def __init__(self, params, g: TermGenome) -> None:
        super().__init__(params, {"lr": g.lr})
        self.inner = torch.optim.RMSprop(self.param_groups[0]["params"], lr=g.lr, alpha=g.beta2, eps=g.eps)
        self.decay = 1 - g.lr * g.weight_decay

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.mul_(self.decay)
        self.inner.step()


class PlainSignSGD(torch.optim.Optimizer):
    def __init__(self, params, g: TermGenome) -> None:
        super().__init__(params, {"lr": g.lr * sum(g.alphas), "decay": 1 - g.lr * g.weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(group["decay"]).sub_(group["lr"] * p.grad.sign())


class PlainMomentum(torch.optim.Optimizer):
    """torch's SGD with damping 1 - beta, but for the first step, where torch does not damp."""

    def __init__(self, params, g: TermGenome) -> None:
        super().__init__(params, {"lr": g.lr, "beta": g.beta1, "decay": 1 - g.lr * g.weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].get("m", torch.zeros_like(p))
                self.state[p]["m"] = group["beta"] * m + (1 - group["beta"]) * p.grad
                p.mul_(group["decay"]).sub_(group["lr"] * self.state[p]["m"])


PLAIN = {
    "adam": plain_adam,
    "adamw": plain_adam,
    "rmsprop": PlainRMSProp,
    "signsgd": PlainSignSGD,
    "sgd": PlainMomentum,
}


@pytest.mark.parametrize("path", ["reference", "eager"])
@pytest.mark.parametrize("preset", PLAIN)
def test_a_preset_steps_as_the_optimizer_it_is_named_after(preset, path):
    g = PRESETS[preset]
    start = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(4, 6)
    gradients = random_gradients(0, (4, 6), 30, torch.float64)
    ours = weights_after(functools.partial(PATHS[path], genome=g), start, gradients)
    theirs = weights_after(lambda params: PLAIN[preset](params, g), start, gradients)
    for k, (our, their) in enumerate(zip(ours, theirs, strict=True), start=1):
        torch.testing.assert_close(our, their, rtol=1e-12, atol=1e-14, msg=lambda m, k=k: f"step {k}: {m}")


@pytest.mark.parametrize("preset", PLAIN)
def test_a_preset_trains_a_network_as_the_optimizer_it_is_named_after(preset):
    g = PRESETS[preset]
    ours, _ = train(functools.partial(EAGER, genome=g))
    theirs, _ = train(lambda params: PLAIN[preset](params, g))
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-11)


def test_the_adamw_preset_keeps_the_same_state_as_torchs_adamw():
    g = PRESETS["adamw"]
    _, ours = train(functools.partial(EAGER, genome=g))
    _, theirs = train(lambda params: plain_adam(params, g))
    mine, torchs = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert mine.keys() == torchs.keys()
    for index in mine:
        assert mine[index].keys() == torchs[index].keys()
        for key in mine[index]:
            torch.testing.assert_close(mine[index][key], torchs[index][key], rtol=1e-10, atol=1e-16)


def test_adam_without_weight_decay_is_torchs_adam():
    g = PRESETS["adam"]
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    gradients = random_gradients(3, (6,), 30, torch.float64)
    ours = weights_after(lambda p: g.optimizer(p, weight_decay=0.0, compiled=False), start, gradients)
    theirs = weights_after(lambda p: torch.optim.Adam(p, lr=g.lr), start, gradients)
    torch.testing.assert_close(ours[-1], theirs[-1], rtol=1e-12, atol=1e-14)


# --- three implementations, one optimizer ---------------------------------------------------------


@given(genomes(), st.integers(0, 10_000))
@example(genome("ADAM_TERM", use_second_moment=False, bias_correction=True), 0)
@example(genome("ADAM_TERM", "RMS_NORM", use_momentum=False, bias_correction=True), 1)
@example(genome("NESTEROV", gradient_clipping=True, clip_value=0.1, bias_correction=True), 2)
@example(genome("GRAD", "GRAD", alphas=(1.0, -1.0)), 3)
def test_the_eager_path_matches_the_reference(g, seed):
    start = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    gradients = random_gradients(seed, (3, 4), 8, torch.float64)
    fast = weights_after(functools.partial(EAGER, genome=g), start, gradients)
    plain = weights_after(functools.partial(ReferenceOptimizer, genome=g), start, gradients)
    for step, (a, b) in enumerate(zip(fast, plain, strict=True)):
        # Where g = 0 and no v is kept, m / eps is enormous: measure against the largest weight.
        torch.testing.assert_close(
            a, b, rtol=1e-9, atol=1e-11 * float(b.abs().max().clamp(min=1)), msg=f"step {step}"
        )


@settings(max_examples=40)
@given(genomes(), st.integers(0, 10_000))
def test_the_compiled_path_matches_the_reference(g, seed):
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    gradients = random_gradients(seed, (6,), 8, torch.float64)
    fast = weights_after(functools.partial(COMPILED, genome=g), start, gradients)
    plain = weights_after(functools.partial(ReferenceOptimizer, genome=g), start, gradients)
    for step, (a, b) in enumerate(zip(fast, plain, strict=True)):
        torch.testing.assert_close(
            a, b, rtol=1e-9, atol=1e-11 * float(b.abs().max().clamp(min=1)), msg=f"step {step}"
        )


@given(genomes(), st.randoms(use_true_random=False))
def test_genomes_of_one_canonical_form_follow_one_trajectory(g, rng):
    pairs = [*zip(g.terms, g.alphas, strict=True)]
    if len(pairs) < 4:
        pairs.append((rng.choice(TERMS), 0.0))
    rng.shuffle(pairs)
    terms, alphas = zip(*pairs, strict=True)
    twin = TermGenome(**{**g.to_dict(), "terms": terms, "alphas": alphas})
    assert twin.canonical() == g.canonical()
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    gradients = random_gradients(rng.randrange(1000), (6,), 6, torch.float64)
    ours = weights_after(functools.partial(EAGER, genome=g), start, gradients)[-1]
    theirs = weights_after(functools.partial(EAGER, genome=twin), start, gradients)[-1]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_zero_gradient_moves_nothing_but_by_weight_decay(kernel, path):
    g = KERNELS[kernel]
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    (w,) = weights_after(functools.partial(PATHS[path], genome=g), start, [torch.zeros(6)])
    torch.testing.assert_close(w, start * (1 - g.lr * g.weight_decay), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("path", PATHS)
def test_weight_decay_is_decoupled_and_comes_before_the_update(path):
    g = genome("GRAD", lr=0.1, weight_decay=0.01)
    (w,) = weights_after(functools.partial(PATHS[path], genome=g), torch.ones(6).double(), [torch.ones(6)])
    torch.testing.assert_close(
        w, torch.full((6,), 1 - 0.1 * 0.01 - 0.1, dtype=torch.float64), rtol=1e-14, atol=0.0
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_gradient_is_clipped_element_by_element_and_left_as_it_was(path):
    g = genome("GRAD", lr=0.1, gradient_clipping=True, clip_value=0.5)
    w = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    w.grad = torch.tensor([-3.0, -0.5, -0.25, 0.25, 0.5, 3.0], dtype=torch.float64)
    before = w.grad.clone()
    PATHS[path]([w], g).step()
    torch.testing.assert_close(w.detach(), -0.1 * before.clamp(-0.5, 0.5), rtol=1e-14, atol=0.0)
    assert torch.equal(w.grad, before)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_no_path_changes_the_gradient(path, maximize):
    w = nn.Parameter(torch.ones(6, dtype=torch.float64))
    w.grad = torch.linspace(-2, 2, 6, dtype=torch.float64)
    before = w.grad.clone()
    optimizer = PATHS[path]([w], PRESETS["adamw"], maximize=maximize)
    optimizer.step()
    optimizer.step()
    assert torch.equal(w.grad, before)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_maximize_is_minimizing_the_negated_gradient(kernel, path):
    g = KERNELS[kernel]
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    gradients = random_gradients(5, (6,), 4, torch.float64)
    up = weights_after(functools.partial(PATHS[path], genome=g, maximize=True), start, gradients)
    down = weights_after(functools.partial(PATHS[path], genome=g), start, [-x for x in gradients])
    assert torch.equal(up[-1], down[-1])


def test_the_same_seed_gives_the_same_weights_to_the_last_bit():
    g = random_genome(4)
    runs = [train(functools.partial(EAGER, genome=g), steps=10)[0] for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(runs[0].parameters(), runs[1].parameters(), strict=True))


# --- gradients that are not finite ----------------------------------------------------------------

WILD = torch.tensor([math.inf, -math.inf, math.nan, 0.0, 1.5, -2.5], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("path", PATHS)
def test_the_sign_of_an_infinite_gradient_is_finite(path, dtype):
    """A coefficient of zero is an absent term, not zero times infinity."""
    w = nn.Parameter(torch.zeros(6, dtype=dtype))
    w.grad = torch.tensor([math.inf, -math.inf, 1.0, -1.0, 0.0, 2.0], dtype=dtype)
    PATHS[path]([w], genome("SIGN_GRAD", lr=0.0625)).step()
    assert w.tolist() == [-0.0625, 0.0625, -0.0625, 0.0625, 0.0, -0.0625]


@pytest.mark.parametrize("path", PATHS)
def test_clipping_makes_an_infinite_gradient_finite(path):
    g = genome("GRAD", "ADAM_TERM", gradient_clipping=True, clip_value=0.5)
    w = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    w.grad = torch.tensor([math.inf, -math.inf, 1.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    PATHS[path]([w], g).step()
    assert w.isfinite().all()


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("term", TERMS)
def test_wild_gradients_come_out_alike_of_every_path(term, clipped):
    g = genome(term, alphas=(0.5,), gradient_clipping=clipped)
    start = torch.linspace(-1, 1, 6, dtype=torch.float64)
    gradients = [torch.ones(6), WILD, torch.ones(6)]
    seen = {
        name: weights_after(functools.partial(make, genome=g), start, gradients)
        for name, make in PATHS.items()
    }
    for k, (fast, kernel, plain) in enumerate(
        zip(seen["eager"], seen["compiled"], seen["reference"], strict=True)
    ):
        # Inf or NaN is a matter of association (lerp takes inf from inf), finite or not is not.
        finite = plain.isfinite()
        for w in (fast, kernel):
            assert torch.equal(w.isfinite(), finite), f"step {k}"
            torch.testing.assert_close(w[finite], plain[finite], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "terms", [("GRAD",), ("GRAD", "SIGN_GRAD"), ("MOMENTUM",), ("MOMENTUM", "SIGN_GRAD")]
)
@pytest.mark.parametrize("path", PATHS)
def test_an_infinite_gradient_makes_an_infinite_weight_where_nothing_is_divided(path, terms):
    """Absent divided terms do not turn it into NaN, as 0·∞ would."""
    make = functools.partial(PATHS[path], genome=genome(*terms, use_second_moment=False))
    (w,) = weights_after(make, torch.zeros(2).double(), [torch.tensor([math.inf, -math.inf])])
    assert w.tolist() == [-math.inf, math.inf]
