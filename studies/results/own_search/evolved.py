"""Evolved: an optimizer discovered by optevo. This file needs torch alone.

    w ← (1 − η·λ)·w − η·Δ
    Δ = 1·g/(√v̂ + 9.93e-09) + 1.23·sign(g)

v ← β₂·v + (1 − β₂)·g²
Moments with a hat are bias-corrected: m̂ = m/(1 − β₁ᵏ), v̂ = v/(1 − β₂ᵏ) at step k = 1, 2, …
Found with lr 0.000939, β₂ 0.8983, weight decay 1.3e-05, cosine decay.

    optimizer = Evolved(model.parameters())
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()

`python THIS_FILE` checks the update against numbers recorded when it was written.
"""

from __future__ import annotations

import math

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

PROVENANCE = {
    'study': 'own_search',
    'trial': '36',
    'fitness in search': '0.8028264435380698',
    'tasks': 'fashion_mnist, cifar10, mnist',
    'split': 'validation',
    'steps': '200',
    'seeds': '0',
    'environment': "{'optevo': '0.1.0', 'python': '3.11.7', 'torch': '2.14.1', 'torchvision': '0.29.1', 'optuna': '5.0.0', 'numpy': '2.4.6', 'machine': 'Linux x86_64, 2 CPUs', 'device': 'cpu', 'git_commit': 'b355108fbfbd'}",
    'written by': 'optevo 0.1.0',
    'fitness on fresh seeds': '0.7991 \xb1 0.0034, n = 2',
}


class Evolved(Optimizer):
    """Δ = 1·g/(√v̂ + 9.93e-09) + 1.23·sign(g)

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate η. Default: 0.0009390300137315218.
        betas: Decays (β₁, β₂) of the moments; 0 where one is not kept.
            Default: (0.0, 0.8983315241042485).
        eps: ε, added to the root. Default: 9.930564456547031e-09.
        weight_decay: Decoupled weight decay λ. Default: 1.3035308770590496e-05.
        maximize: Ascend instead of descend. Default: False.
    """

    def __init__(
        self,
        params,
        lr=0.0009390300137315218,
        betas=(0.0, 0.8983315241042485),
        eps=9.930564456547031e-09,
        weight_decay=1.3035308770590496e-05,
        *,
        maximize=False,
    ):
        if not 0 <= lr < math.inf:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        defaults = {"lr": lr, "weight_decay": weight_decay, "maximize": maximize}
        defaults["betas"] = betas
        defaults["eps"] = eps
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        """One optimization step; returns the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            buckets = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("Evolved does not support sparse gradients")
                state, k = self.state[p], 0
                if "exp_avg_sq" not in state:
                    state["exp_avg_sq"] = torch.zeros_like(p)
                if "step" not in state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                state["step"] += 1
                k = int(state["step"])
                buckets.setdefault((p.device, p.dtype, k), []).append((p, state))
            for (_, _, k), members in buckets.items():
                self._update(*zip(*members), group, k)
        return loss

    def _update(self, params, states, group, k):
        grads = [p.grad for p in params]
        v = [state["exp_avg_sq"] for state in states]
        if params[0].dtype in (torch.float16, torch.bfloat16):  # update in float32, round once
            narrow = [params, v]
            params, grads = [p.float() for p in params], [g.float() for g in grads]
            v = [x.float() for x in v]
            self._change(params, grads, group, k, v)
            for tensors, values in zip(narrow, [params, v]):
                torch._foreach_copy_(tensors, values)
        else:
            self._change(params, grads, group, k, v)

    def _change(self, params, grads, group, k, v):
        lr = float(group["lr"])
        beta2 = group["betas"][1]
        if group["maximize"]:
            grads = torch._foreach_neg(grads)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, (1 - beta2**k) ** 0.5)
        torch._foreach_add_(root, group["eps"])
        torch._foreach_addcdiv_(params, grads, root, -(lr * 1.0))
        torch._foreach_add_(params, torch._foreach_sign(grads), alpha=-(lr * 1.2340744878490293))


class Schedule:
    """The factor on the learning rate at step t = 0, 1, …: cosine decay."""

    def __init__(self, total_steps):
        if total_steps < 1:
            raise ValueError(f"Invalid total_steps: {total_steps}, expected at least 1")
        self.total_steps = total_steps

    def __call__(self, step):
        factor = 1.0
        position = min(step, self.total_steps) / self.total_steps
        factor *= 0.5 * (1 + math.cos(math.pi * position))
        return factor


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """The schedule that Evolved was found with; step it once a training step."""
    return LambdaLR(optimizer, Schedule(total_steps))


def self_check() -> None:
    """Three steps on fixed gradients against the numbers recorded when this file was written."""
    w = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
    optimizer = Evolved([w])
    for t in range(3):
        w.grad = torch.sin(torch.arange(4, dtype=torch.float64) * 0.7 + 1.3 * t)
        optimizer.step()
    recorded = [
        -1.0043706381486388,
        -0.33627325445382045,
        0.3316450606427316,
        1.001804231188814,
    ]
    torch.testing.assert_close(w.detach(), w.new_tensor(recorded), rtol=1e-12, atol=0)


if __name__ == "__main__":
    self_check()
    print("Evolved: the update equals the recorded one")
