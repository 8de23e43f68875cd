"""float16 and bfloat16 parameters: small gradients take them as far as float32 ones (pytorch#147437)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from contract import exported
from modern_optimizers import MODERN_LIBRARYS
from term_optimizers import PATHS
from torch import Tensor, nn

from optevo.optim import GenomeOptimizer
from optevo.optim.adam_variants import MARS, CautiousAdamW
from optevo.optim.averaged import QHM, AddSign, PowerSign
from optevo.optim.baselines.registry import TunedBaseline
from optevo.optim.muon import MuonAdamW, MuonConvAdamW
from optevo.optim.schedule_free import ScheduleFreeAdamW
from optevo.optim.soap import SOAP
from optevo.optim.terms.kernels import foreach_update
from optevo.optim.terms.optimizer import rule_scalars
from optevo.optim.terms.presets import PRESETS

ADAMW = PRESETS["adamw"]


def _linear(make: Callable[..., torch.optim.Optimizer], params: list[nn.Parameter], lr: float, **more: float):
    """One whose steps are as small as the gradients, about as far as the others go at this rate."""
    return make(params, lr=1e4 * lr, **more)


MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    **{path: functools.partial(PATHS[path], genome=ADAMW) for path in ("eager", "compiled")},
    "exported genome": exported("narrow", ADAMW).make,
    "exported baseline": exported("narrow_baseline", TunedBaseline("adamw", 1e-3, 1e-2)).make,
    "modern": MODERN_LIBRARYS["all"].make,
    "muon": MuonAdamW,
    "muon_conv": MuonConvAdamW,
    **{one.__name__: one for one in (CautiousAdamW, MARS, SOAP, ScheduleFreeAdamW)},
    **{one.__name__: functools.partial(_linear, one) for one in (QHM, PowerSign, AddSign)},
}


def path(make: Callable[..., torch.optim.Optimizer], dtype: torch.dtype, steps: int = 200) -> Tensor:
    """The weights after gradients of about 1e-4, which are the same numbers in every dtype."""
    rng = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.zeros(64, dtype=dtype))
    optimizer = make([w], lr=1e-3, weight_decay=0.0)
    for _ in range(steps):
        w.grad = (torch.randn(64, generator=rng) * 1e-4).bfloat16().half().to(dtype)
        optimizer.step()
    return w.detach().float()


@pytest.mark.parametrize(
    "dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_small_gradients_take_narrow_weights_where_they_take_wide_ones(make, dtype):
    wide, narrow = path(make, torch.float32), path(make, dtype)
    off = ((wide - narrow).norm() / wide.norm()).item()
    # bfloat16 has eight bits for a weight of 0.03, in which a step of 1e-4 is lost.
    assert off < {torch.float16: 0.01, torch.bfloat16: 0.15}[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_compiled_kernel_keeps_float32_state_as_the_eager_one_does(dtype):
    held = []
    for make in (PATHS["eager"], PATHS["compiled"]):
        p = nn.Parameter(torch.ones(4, 3, dtype=dtype))
        optimizer = make([p], ADAMW)
        for k in range(3):
            p.grad = torch.full_like(p, 1e-4 * (k + 1))
            optimizer.step()
        held.append(optimizer.state[p])
    for name in ("exp_avg", "exp_avg_sq"):
        assert held[0][name].dtype == held[1][name].dtype == torch.float32
        torch.testing.assert_close(held[1][name], held[0][name])
        assert held[0][name].all()


def test_a_float32_checkpoint_goes_on_in_float16_with_its_moments():
    wide, narrow = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5).half())
    optimizer, other = (GenomeOptimizer([p], ADAMW, compiled=False) for p in (wide, narrow))
    wide.grad = torch.full((5,), 1e-4)
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[narrow]["exp_avg_sq"], optimizer.state[wide]["exp_avg_sq"])


def test_the_eager_update_of_narrow_lists_changes_their_moments_in_place():
    p, g = torch.ones(3, dtype=torch.float16), torch.full((3,), 1e-4, dtype=torch.float16)
    m, v = torch.zeros(3), torch.zeros(3)
    foreach_update([p], [g], [m], [v], rule_scalars(ADAMW.rule(), lr=1e-3, weight_decay=0.0, step=1))
    torch.testing.assert_close(m, g.float() * 0.1)
    torch.testing.assert_close(v, g.float().square() * 1e-3)
    torch.testing.assert_close(p.float(), torch.full((3,), 1 - 1e-3), atol=5e-4, rtol=0)
