"""The statements of docs/names.md about genomes and torch's optimizers of the same names."""

from __future__ import annotations

import torch
from torch import Tensor

from optevo.optim import TermGenome
from optevo.optim.terms.presets import PRESETS


def gradients(steps: int, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(32, generator=generator, dtype=torch.float64) for _ in range(steps)]


def run(make, grads: list[Tensor], clip: float | None = None) -> Tensor:
    w = torch.nn.Parameter(torch.linspace(-1, 1, 32, dtype=torch.float64))
    optimizer = make([w])
    for g in grads:
        w.grad = g.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_value_([w], clip)
        optimizer.step()
    return w.detach()


def genome(*terms: str, **genes) -> TermGenome:
    return TermGenome(terms=terms, alphas=(1.0,) * len(terms), **{"lr": 1e-2, "weight_decay": 0.0, **genes})


def test_grad_alone_is_sgd():
    ours = run(genome("GRAD").optimizer, gradients(20))
    torch.testing.assert_close(ours, run(lambda p: torch.optim.SGD(p, lr=1e-2), gradients(20)))


def test_rms_norm_without_weight_decay_is_torchs_rmsprop():
    ours = run(genome("RMS_NORM", beta2=0.99).optimizer, gradients(20))
    theirs = run(lambda p: torch.optim.RMSprop(p, lr=1e-2, alpha=0.99, eps=1e-8), gradients(20))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_momentum_is_an_average_whose_steady_step_is_a_tenth_of_torchs():
    constant = [torch.ones(32, dtype=torch.float64)] * 200
    before, after = constant[:199], constant
    ours = run(genome("MOMENTUM").optimizer, before) - run(genome("MOMENTUM").optimizer, after)
    sgd = lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9)  # noqa: E731
    torch.testing.assert_close(ours, (run(sgd, before) - run(sgd, after)) / 10, rtol=1e-6, atol=0)


def test_dampened_sgd_is_the_same_average_but_starts_from_the_first_gradient():
    sgd = lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, dampening=0.1)  # noqa: E731
    first = gradients(1)
    step = lambda make: run(make, []) - run(make, first)  # noqa: E731
    torch.testing.assert_close(step(sgd), 10 * step(genome("MOMENTUM").optimizer))


def test_decoupled_weight_decay_is_adamws_and_not_adams():
    ours = run(genome("ADAM_TERM", bias_correction=True, weight_decay=1e-2).optimizer, gradients(20))
    kwargs = {"lr": 1e-2, "weight_decay": 1e-2}
    torch.testing.assert_close(
        ours, run(lambda p: torch.optim.AdamW(p, **kwargs), gradients(20)), rtol=1e-12, atol=0
    )
    assert not torch.allclose(ours, run(lambda p: torch.optim.Adam(p, **kwargs), gradients(20)), rtol=1e-6)


def test_nesterov_shares_weight_one_between_gradient_and_average():
    rule = genome("NESTEROV", beta1=0.9).rule()
    assert rule.grad == 0.9
    assert abs(rule.grad + rule.momentum - 1) < 1e-15


def test_unit_grad_is_within_a_thousandth_of_sign_grad_on_99_percent_of_small_gradients():
    g = 1e-3 * torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = [torch.nn.Parameter(torch.zeros_like(g)) for _ in range(2)]
    for p, term in zip(w, ("UNIT_GRAD", "SIGN_GRAD"), strict=True):
        p.grad = g
        genome(term, lr=1e-2).optimizer([p]).step()
    gap = (w[0] - w[1]).detach().abs() / 1e-2
    assert (gap < 1e-3).double().mean() >= 0.99


def test_gradient_clipping_is_clip_grad_value():
    clipped = genome("GRAD", gradient_clipping=True, clip_value=0.5)
    theirs = run(lambda p: torch.optim.SGD(p, lr=1e-2), gradients(20), clip=0.5)
    torch.testing.assert_close(run(clipped.optimizer, gradients(20)), theirs)


def test_the_published_winner_needs_no_step_count():
    w = torch.nn.Parameter(torch.zeros(3))
    optimizer = PRESETS["evolved"].optimizer([w])
    w.grad = torch.ones(3)
    optimizer.step()
    assert set(optimizer.state[w]) == {"exp_avg", "exp_avg_sq"}
