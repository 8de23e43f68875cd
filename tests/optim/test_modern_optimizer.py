"""`ModernOptimizer` against the optimizers that its terms come from, and its kinds of parameters."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_optimizer import AdEMAMix, Lion
from torch import Tensor, nn

from optevo.measurement.fresh_seeds import stored_result
from optevo.optim import orthogonal
from optevo.optim.hybrids import CautiousOrthoConvAdamW, EvolvedModern
from optevo.optim.terms import modern_optimizer
from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_optimizer import ModernOptimizer
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.spaces.modern import ModernSpace
from optevo.storage.study_file import read_study
from optevo.study.studies import load_study

STEPS = 12
SHAPES = ((6, 3, 3, 3), (6,), (5, 6), (6, 5), (5,), (3, 5), (3,))


def start(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in SHAPES]


def trained(make: Any, params: list[nn.Parameter] | None = None, steps: int = STEPS) -> list[Tensor]:
    params = start() if params is None else params
    optimizer = make(params)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        optimizer.step()
    return [p.detach() for p in params]


def close(ours: list[Tensor], theirs: list[Tensor], **tolerance: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, **(tolerance or {"rtol": 1e-10, "atol": 1e-12}))


def genome(*terms: str, **genes: Any) -> ModernGenome:
    return ModernGenome(**{"terms": terms, "alphas": (1.0,) * len(terms), "lr": 1e-2, **genes})


def test_adam_term_is_adamw():
    ours = trained(lambda params: genome("ADAM_TERM", weight_decay=0.1).optimizer(params))
    close(ours, trained(lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_lion_is_lion(dtype: torch.dtype):
    rule = genome("LION", beta1=0.99, beta_lion=0.9, weight_decay=0.1)
    ours = trained(rule.optimizer, start(dtype))
    theirs = trained(
        lambda params: Lion(params, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, weight_decouple=True),
        start(dtype),
    )
    # In bfloat16 the library keeps m in bfloat16: a sign near 0 may differ, and each step is rounded.
    close(ours, theirs, **({"rtol": 0.05, "atol": 0.06} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_adam_and_slow_are_ademamix(dtype: torch.dtype):
    rule = genome("ADAM_TERM", "SLOW", alphas=(1.0, 5.0), beta_slow=0.999, weight_decay=0.1)
    ours = trained(rule.optimizer, start(dtype))
    theirs = trained(
        lambda params: AdEMAMix(
            params, lr=1e-2, betas=(0.9, 0.999, 0.999), alpha=5.0, weight_decay=0.1, weight_decouple=True
        ),
        start(dtype),
    )
    close(ours, theirs, **({"rtol": 0.05, "atol": 0.06} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_ortho_with_muons_iterations_is_muon(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        modern_optimizer, "orthogonalise", lambda ms: orthogonal.orthogonalise(ms, orthogonal.MUON)
    )
    matrices = [p for p in start(dtype) if p.ndim == 2]
    rule = genome("ORTHO", beta1=0.95, weight_decay=0.1)
    ours = trained(rule.optimizer, [nn.Parameter(m.detach().clone()) for m in matrices])
    theirs = trained(
        lambda params: torch.optim.Muon(
            params, lr=1e-2, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        [nn.Parameter(m.detach().clone()) for m in matrices],
    )
    # torch iterates in bfloat16, whatever the parameters; a step is 0.01 · 0.2 · √6 in all.
    close(ours, theirs, rtol=2e-2, atol=1e-3 * STEPS)


def test_ortho_of_vectors_is_adam():
    vectors = [p for p in start() if p.ndim == 1]
    ours = trained(genome("ORTHO").optimizer, copy.deepcopy(vectors))
    close(ours, trained(genome("ADAM_TERM").optimizer, copy.deepcopy(vectors)))


def test_ortho_is_the_orthogonal_factor_at_the_scale_of_adamw():
    w = nn.Parameter(torch.zeros(6, 3, 3, 3, dtype=torch.float64))
    g = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = genome("ORTHO", lr=1e-2).optimizer([w])
    w.grad = g
    optimizer.step()
    u, _, vh = torch.linalg.svd(g.flatten(1), full_matrices=False)
    exact = -1e-2 * 0.2 * 27**0.5 * (u @ vh)
    assert (w.detach().flatten(1) - exact).norm() < 0.13 * exact.norm()


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_singular_values_come_out_near_one(shape: tuple[int, int], dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-6, 1.0, 1e6):
        m = torch.randn(shape, generator=generator, dtype=dtype) * scale
        (factor,) = orthogonal.orthogonalise([m])
        u, s, vh = torch.linalg.svd(m, full_matrices=False)
        seen = torch.diagonal(u.mT @ factor @ vh.mT)[s > 1e-3 * m.norm()]
        assert ((seen - 1).abs() < 0.13).all()


def test_matrices_of_one_shape_are_as_alone():
    generator = torch.Generator().manual_seed(0)
    some = [torch.randn(s, generator=generator) for s in ((4, 9), (9, 4), (4, 9), (3, 3))]
    for together, m in zip(orthogonal.orthogonalise(some), some, strict=True):
        torch.testing.assert_close(together, orthogonal.orthogonalise([m])[0], rtol=1e-5, atol=1e-6)
    zero = orthogonal.orthogonalise([torch.zeros(3, 4)])[0]
    assert torch.equal(zero, torch.zeros(3, 4))


def test_cautious_masks_what_points_along_the_gradient_and_scales_the_rest():
    w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    rule = genome("MOMENTUM", beta1=0.5, bias_correction=False, cautious=True)
    optimizer = rule.optimizer([w], lr=1.0)
    w.grad = torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full_like(w, -0.5))
    w.grad = torch.tensor([1.0, -0.2, 1.0, -0.2], dtype=torch.float64)  # m = 0.75, 0.15, 0.75, 0.15
    before = w.detach().clone()
    optimizer.step()
    torch.testing.assert_close(w.detach() - before, torch.tensor([-1.5, 0, -1.5, 0], dtype=torch.float64))


SECOND = SecondRule(kinds=("head",), terms=("SIGN_GRAD",), alphas=(1.0,), rate=10.0)


def test_kinds_follow_shapes_and_the_last_matrix_is_the_head():
    optimizer = genome("ADAM_TERM").optimizer(start())
    kinds = ["convolution", "vector", "hidden", "hidden", "vector", "head", "vector"]
    assert optimizer.param_groups[0]["kinds"] == kinds


def test_groups_say_what_their_parameters_are():
    conv, b, hidden, other, *_ = start()
    groups = [{"params": [hidden, b], "kind": "head"}, {"params": [conv, other], "kind": None}]
    optimizer = genome("ADAM_TERM").optimizer(groups)
    assert [group["kinds"] for group in optimizer.param_groups] == [
        ["head", "vector"],
        ["convolution", "head"],
    ]
    with pytest.raises(ValueError, match="Invalid kind: 'heads'"):
        genome("ADAM_TERM").optimizer([{"params": [conv], "kind": "heads"}])


def test_a_second_rule_is_that_of_its_kinds_with_its_rate():
    ours = trained(genome("ADAM_TERM", second=SECOND).optimizer)
    first = trained(genome("ADAM_TERM").optimizer)
    second = trained(genome("SIGN_GRAD", lr=0.1).optimizer)
    close(ours, [*first[:5], second[5], first[6]])


def test_rates_are_those_of_kinds_weight_decay_included():
    ours = trained(genome("ADAM_TERM", vector_rate=0.5, head_rate=2.0, weight_decay=0.1).optimizer)
    at = {
        rate: trained(genome("ADAM_TERM", lr=rate, weight_decay=0.1).optimizer) for rate in (5e-3, 1e-2, 2e-2)
    }
    expected = [at[rate][i] for i, rate in enumerate((1e-2, 5e-3, 1e-2, 1e-2, 5e-3, 2e-2, 5e-3))]
    close(ours, expected)


@pytest.mark.parametrize(
    ("terms", "read"),
    [
        (("GRAD",), set()),
        (("LION",), {"exp_avg"}),
        (("SLOW",), {"exp_avg_sq", "exp_avg_slow", "step"}),
        (("ADAM_TERM",), {"exp_avg", "exp_avg_sq", "step"}),
    ],
)
def test_state_is_what_the_rule_reads(terms: tuple[str, ...], read: set[str]):
    w = nn.Parameter(torch.ones(3, 4))
    optimizer = genome(*terms).optimizer([w])
    w.grad = torch.ones(3, 4)
    optimizer.step()
    assert set(optimizer.state[w]) == read


def test_ortho_keeps_no_second_moment_of_matrices():
    w, b = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))
    optimizer = genome("ORTHO").optimizer([w, b])
    w.grad, b.grad = torch.ones(3, 4), torch.ones(3)
    optimizer.step()
    assert "exp_avg_sq" not in optimizer.state[w]
    assert "exp_avg_sq" in optimizer.state[b]


def test_a_checkpoint_brings_kinds_and_rules_along():
    params = start()
    optimizer = genome("ORTHO", "LION", second=SECOND, cautious=True).optimizer(params)
    trained(lambda _: optimizer, params, 3)
    again_params = [nn.Parameter(p.detach().clone()) for p in params]
    again = ModernOptimizer(again_params, genome("GRAD"))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    close(trained(lambda _: again, again_params, 3), trained(lambda _: optimizer, params, 3))


def test_the_hand_made_hybrid_is_its_preset():
    ours = trained(lambda params: CautiousOrthoConvAdamW(params, lr=5e-3, weight_decay=0.0))
    preset = dataclasses.replace(MODERN_PRESETS["cautious_ortho_conv"], weight_decay=0.0)
    close(ours, trained(preset.optimizer))


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("shape", [(8, 9), (8, 64), (64, 8)])
def test_long_rows_get_the_polynomials_of_their_singular_values_too(shape: tuple[int, int], rank: int):
    """Where the polynomials are multiplied before the matrix is."""
    generator = torch.Generator().manual_seed(rank)
    m = torch.randn(shape[0], rank, generator=generator) @ torch.randn(rank, shape[1], generator=generator)
    u, s, vh = torch.linalg.svd(m.double(), full_matrices=False)
    s /= s.norm()
    for a, b, c in orthogonal.POLAR_EXPRESS:
        s = a * s + b * s**3 + c * s**5
    expected = u[:, :rank] * s[:rank] @ vh[:rank]
    for matrices in ([m], [m, m]):
        for factor in orthogonal.orthogonalise(matrices):
            assert (factor - expected).norm() < 2e-3 * expected.norm()


def test_a_matrix_that_a_group_calls_a_vector_gets_the_rule_of_vectors():
    matrices = [p for p in start() if p.ndim == 2]
    groups = [{"params": copy.deepcopy(matrices), "kind": "vector"}]
    ours = trained(lambda _: genome("ORTHO").optimizer(groups), groups[0]["params"])
    close(ours, trained(genome("ADAM_TERM").optimizer, copy.deepcopy(matrices)))


def test_equal_rules_are_one_update(monkeypatch: pytest.MonkeyPatch):
    """As many calls as `GenomeOptimizer` makes, where kinds differ in nothing."""
    calls = []
    monkeypatch.setattr(modern_optimizer, "update", lambda params, *_, **__: calls.append(len(params)))
    trained(genome("ADAM_TERM").optimizer, steps=1)
    trained(genome("ADAM_TERM", vector_rate=2.0).optimizer, steps=1)
    assert calls == [7, 4, 3]


def test_the_winner_is_the_study_s_and_a_class():
    """Of the saved study, trial by trial."""
    path = Path(__file__).parents[2] / "studies/results/modern/modern_rates.json.gz"
    storage = read_study(path)
    (study,) = storage.get_all_studies()
    trial = storage.get_all_trials(study._study_id)[50]
    found = ModernSpace().candidate(trial.params)
    assert found.canonical() == MODERN_PRESETS["evolved_modern"].canonical()
    swept = MODERN_PRESETS["evolved_modern_linear"]
    assert swept.second == found.second
    assert swept.rule_of("vector") == found.rule_of("vector")
    close(trained(EvolvedModern), trained(swept.optimizer))


def test_the_winner_has_the_rate_of_its_sweep():
    study, config = load_study(
        read_study(Path(__file__).parents[2] / "studies/results/modern/modern_evolved.json"), "modern_evolved"
    )
    result = stored_result(study, config)
    assert result is not None
    best, swept = study.trials[result.winner].params, MODERN_PRESETS["evolved_modern_linear"]
    assert (swept.lr, swept.weight_decay) == (best["lr"], best["weight_decay"])
    assert config.space.schedule == "warmup_linear"
