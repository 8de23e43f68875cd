"""The compiled path: what is compiled, how often, and what a kernel without guards must still see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from strategies import genome, random_genome
from term_optimizers import COMPILED, EAGER, KERNELS, random_gradients
from torch import nn

from optevo.optim import GenomeOptimizer, TermGenome
from optevo.optim.terms import kernels
from optevo.optim.terms.presets import PRESETS


@pytest.fixture
def graphs() -> Callable[[], int]:
    """How many graphs dynamo has compiled since the test began."""
    from torch._dynamo.utils import counters  # noqa: PLC0415

    before = counters["stats"]["unique_graphs"]
    return lambda: counters["stats"]["unique_graphs"] - before


def one_step(g: TermGenome, make: Callable[..., torch.optim.Optimizer] = COMPILED, **kwargs: Any) -> None:
    w = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
    optimizer = make([w], g, **kwargs)
    for gradient in random_gradients(0, (6,), 3, torch.float64):
        w.grad = gradient
        optimizer.step()


def test_compiled_really_compiles(graphs):
    torch._dynamo.reset()
    one_step(genome("GRAD"))
    assert graphs() >= 1


def test_no_genome_is_compiled_for_itself(graphs):
    """The coefficients are inputs: one kernel for each set of moments, with and without clipping."""
    torch._dynamo.reset()
    flags = [(c, b) for c in (False, True) for b in (False, True)]
    for g in KERNELS.values():
        for clipped, corrected in flags:
            fields = {"gradient_clipping": clipped, "bias_correction": corrected}
            one_step(TermGenome(**{**g.to_dict(), **fields}))
    warm = graphs()
    for seed in range(60):
        one_step(random_genome(seed))
    assert graphs() == warm


@pytest.mark.parametrize("clipped", [False, True])
def test_the_kernels_are_no_more_than_four_and_four_that_clip(graphs, clipped):
    torch._dynamo.reset()
    for seed in range(60):
        one_step(random_genome(seed, gradient_clipping=clipped))
    assert 1 <= graphs() <= (8 if clipped else 4)  # where only the sign is read, nothing is clipped


def test_a_changing_learning_rate_compiles_nothing(graphs):
    g = PRESETS["adamw"]
    one_step(g)
    warm = graphs()
    w = nn.Parameter(torch.ones(6, dtype=torch.float64))
    optimizer = COMPILED([w], g)
    for k in range(6):
        optimizer.param_groups[0]["lr"] = 1e-3 / (k + 1)
        optimizer.param_groups[0]["betas"] = (0.9 - k / 100, 0.999)
        w.grad = torch.ones_like(w)
        optimizer.step()
    assert graphs() == warm


def test_gradients_that_were_one_tensor_may_be_two_later():
    # Without guards, a kernel compiled for a shared gradient would go on using the first for both.
    first, second = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    optimizer = COMPILED(
        [first, second], TermGenome(terms=("GRAD",), alphas=(1.0,), lr=0.1, weight_decay=0.0)
    )
    first.grad = second.grad = torch.ones_like(first)
    optimizer.step()
    first.grad, second.grad = torch.ones_like(first), torch.full_like(second, 5.0)
    optimizer.step()
    torch.testing.assert_close(first.detach(), torch.full_like(first, -0.2))
    torch.testing.assert_close(second.detach(), torch.full_like(second, -0.6))


def test_a_step_at_rate_zero_moves_the_moments_of_a_clipping_genome():
    g = TermGenome(terms=("ADAM_TERM",), alphas=(1.0,), lr=1e-3, gradient_clipping=True, clip_value=0.5)
    moments = []
    for make in (COMPILED, lambda p, g: GenomeOptimizer(p, g, compiled=False)):
        w = nn.Parameter(torch.ones(4, dtype=torch.float64))
        optimizer = make([w], g)
        optimizer.param_groups[0]["lr"] = 0.0
        w.grad = torch.ones_like(w)
        optimizer.step()
        moments.append((optimizer.state[w]["exp_avg"], optimizer.state[w]["exp_avg_sq"]))
    torch.testing.assert_close(*moments)
    assert moments[0][0].min() > 0


def test_layouts_are_counted_an_optimizer_so_that_a_run_depends_on_no_other(monkeypatch):
    compiled = []
    monkeypatch.setattr(kernels, "pays", lambda params: True)
    monkeypatch.setattr(
        kernels, "compiled_update", lambda params, *rest, layout: compiled.append(len(params[0]))
    )
    sizes = list(range(1, 3 + kernels._MOST_LAYOUTS))
    for size in sizes:  # one after the other, as a worker meets the networks of many tasks
        w = nn.Parameter(torch.ones(size))
        w.grad = torch.ones(size)
        GenomeOptimizer([w], PRESETS["adamw"]).step()
    assert compiled == sizes
    compiled.clear()
    weights = [nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = GenomeOptimizer(weights, PRESETS["adamw"])
    for w in weights:  # gradients that come and go
        optimizer.zero_grad()
        w.grad = torch.ones_like(w)
        optimizer.step()
    assert compiled == sizes[: kernels._MOST_LAYOUTS]


def test_a_small_model_is_not_worth_compiling(graphs):
    one_step(PRESETS["adamw"], GenomeOptimizer)
    one_step(PRESETS["adamw"], GenomeOptimizer, compiled=None)
    assert graphs() == 0


def test_the_compiled_path_serves_mixed_groups_as_the_eager_one_does():
    g = random_genome(1, terms=("ADAM_TERM", "SIGN_GRAD"), use_momentum=True, use_second_moment=True)
    runs = []
    for make in (EAGER, COMPILED):
        rng = torch.Generator().manual_seed(0)
        params = [
            nn.Parameter(torch.randn(6, generator=rng, dtype=d)) for d in (torch.float64, torch.float32) * 2
        ]
        optimizer = make(
            [{"params": params[:2]}, {"params": params[2:], "lr": 0.5 * g.lr, "weight_decay": 0.1}], g
        )
        for _ in range(4):
            for p in params:
                p.grad = torch.randn(6, generator=rng, dtype=p.dtype)
            optimizer.step()
        runs.append([p.detach() for p in params])
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_compiled_step_is_seen_by_autograd():
    w = nn.Parameter(torch.ones(6))
    loss = (w * w).sum()
    w.grad = torch.ones(6)
    COMPILED([w], PRESETS["adamw"]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_frozen_parameter_shares_the_kernel_of_a_trained_one():
    g, results = PRESETS["adamw"], []
    for trained in (True, False, True):
        w = nn.Parameter(torch.ones(5), requires_grad=trained)
        w.grad = torch.linspace(-1, 1, 5)
        COMPILED([w], g).step()
        results.append(w.detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_moments_of_another_memory_layout_are_compiled_for_anew():
    """A checkpoint brings its own strides, and a kernel has no guards but the layout."""
    g, results = PRESETS["adamw"], []
    for make in (EAGER, COMPILED):
        w = nn.Parameter(torch.linspace(-1, 1, 24).reshape(1, 4, 2, 3))
        optimizer = make([w], g)
        for k in range(4):
            w.grad = torch.linspace(-1, 2, 24).reshape(w.shape) + k
            optimizer.step()
            if k == 1:
                state = optimizer.state[w]
                state["exp_avg"] = state["exp_avg"].to(memory_format=torch.channels_last)
        results.append(w.detach())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_a_process_may_compile_for_many_models_of_different_shapes():
    """Dynamo gives up on a function after eight variants; a long study must not hit that."""
    g = PRESETS["adamw"]
    for k in range(1, 13):
        runs = []
        for make in (EAGER, COMPILED):
            rng = torch.Generator().manual_seed(k)
            params = [nn.Parameter(torch.randn(3 + j, k, generator=rng)) for j in range(k % 5 + 1)]
            optimizer = make(params, g)
            for _ in range(3):
                for p in params:
                    p.grad = torch.randn(p.shape, generator=rng)
                optimizer.step()
            runs.append(params)
        for a, b in zip(*runs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
