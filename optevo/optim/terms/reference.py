"""The formula, readable: the slow twin that the fast optimizer is tested against.

It reads the terms as they are worded, one tensor at a time, and knows nothing of coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optevo.optim.terms.table import TABLE, Inputs

if TYPE_CHECKING:
    from optevo.optim.terms.genome import TermGenome


class ReferenceOptimizer(Optimizer):
    """A genome's update, term by term.

    Args:
        params: Parameters or groups, as for any torch optimizer.
        genome: The update rule with its hyperparameters.
        maximize: Ascend instead of descend. Default: False.
    """

    def __init__(self, params: Iterable[Any], genome: TermGenome, *, maximize: bool = False) -> None:
        self.genome = genome
        super().__init__(params, {"lr": genome.lr, "weight_decay": genome.weight_decay, "maximize": maximize})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        genome = self.genome
        for group in self.param_groups:
            lr = float(group["lr"])
            for w in group["params"]:
                if w.grad is None:
                    continue
                g = -w.grad if group["maximize"] else w.grad
                if genome.gradient_clipping:
                    g = g.clamp(-genome.clip_value, genome.clip_value)
                w.mul_(1 - lr * group["weight_decay"])
                m, v = self._moments(w, g)
                for term, alpha in zip(genome.terms, genome.alphas, strict=True):
                    inputs = Inputs(g, m, v.sqrt(), genome.eps, genome.beta1)
                    w.sub_(lr * alpha * TABLE[term].value(inputs))
        return loss

    def _moments(self, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        genome, state = self.genome, self.state[w]
        if not state:
            state.update(step=0, m=torch.zeros_like(w), v=torch.zeros_like(w))
        state["step"] += 1
        m, v = g, g.square()
        if genome.use_momentum:
            m = state["m"] = genome.beta1 * state["m"] + (1 - genome.beta1) * g
            if genome.bias_correction:
                m = m / (1 - genome.beta1 ** state["step"])
        if genome.use_second_moment:
            v = state["v"] = genome.beta2 * state["v"] + (1 - genome.beta2) * g.square()
            if genome.bias_correction:
                v = v / (1 - genome.beta2 ** state["step"])
        return m, v
