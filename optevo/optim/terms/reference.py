"""The formula, readable: the slow twin that the fast optimizer is tested against.

It reads the terms as they are worded, one tensor at a time, and knows nothing of coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optevo.optim.kinds import kinds_by_shape, mark_head
from optevo.optim.orthogonal import orthogonalise
from optevo.optim.terms.table import MODERN_TABLE, TABLE, Inputs

if TYPE_CHECKING:
    from optevo.optim.terms.genome import TermGenome
    from optevo.optim.terms.modern import ModernGenome


class ReferenceOptimizer(Optimizer):
    """A genome's update, term by term.

    Args:
        params: Parameters or groups, as for any torch optimizer.
        genome: The update rule with its hyperparameters.
        maximize: Ascend instead of descend. Default: False.

    Example:
        >>> import torch
        >>> from optevo.optim import PRESETS, ReferenceOptimizer
        >>> fast, slow = (torch.ones(3, requires_grad=True) for _ in range(2))
        >>> fast.grad = slow.grad = torch.tensor([1.0, -2.0, 3.0])
        >>> PRESETS["evolved"].optimizer([fast]).step()
        >>> ReferenceOptimizer([slow], PRESETS["evolved"]).step()
        >>> torch.allclose(fast, slow)
        True
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


class ModernReference(Optimizer):
    """The same of a genome of the modern catalogue: one tensor at a time, kinds as of `ModernOptimizer`.

    Args:
        params: Parameters or groups, as for `ModernOptimizer`.
        genome: The update rule with its hyperparameters.
    """

    def __init__(self, params: Iterable[Any], genome: ModernGenome) -> None:
        self.genome = genome
        super().__init__(params, {"lr": genome.lr, "weight_decay": genome.weight_decay, "kind": None})
        for group in self.param_groups:
            by_shape = kinds_by_shape(group["params"])
            group["kinds"] = [by if by == "vector" else group["kind"] or by for by in by_shape]
        mark_head(self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w, kind in zip(group["params"], group["kinds"], strict=True):
                if w.grad is not None:
                    lr = float(group["lr"]) * self.genome.rates()[kind]
                    w.mul_(1 - lr * group["weight_decay"])
                    w.sub_(lr * self._update(w, kind))
        return loss

    def _update(self, w: Tensor, kind: str) -> Tensor:
        genome, second, g = self.genome, self.genome.second, w.grad
        assert g is not None
        rule: Any = second if second is not None and kind in second.kinds else genome
        if genome.gradient_clipping:
            g = g.clamp(-genome.clip_value, genome.clip_value)
        inputs = self._inputs(w, g, rule.beta1 if genome.use_momentum else 0.0)
        delta = torch.zeros_like(g)
        for term, alpha in zip(rule.terms, rule.alphas, strict=True):
            if term != "ORTHO":
                delta += alpha * MODERN_TABLE[term].value(inputs)
            elif kind == "vector":
                delta += alpha * MODERN_TABLE["ADAM_TERM"].value(inputs)
            else:
                matrix = MODERN_TABLE["ORTHO"].value(inputs).flatten(1)
                scale = 0.2 * math.sqrt(max(matrix.shape))
                delta += alpha * scale * orthogonalise([matrix])[0].reshape(g.shape)
        if genome.cautious:
            mask = (delta * g > 0).to(g.dtype)
            delta *= mask / mask.mean().clamp(min=1e-3)
        return delta

    def _inputs(self, w: Tensor, g: Tensor, beta1: float) -> Inputs:
        genome, state = self.genome, self.state[w]
        if not state:
            state.update(step=0, m=torch.zeros_like(w), v=torch.zeros_like(w), slow=torch.zeros_like(w))
        state["step"] += 1
        before = state["m"] if beta1 else g
        state["m"] = beta1 * state["m"] + (1 - beta1) * g
        beta2 = genome.beta2 if genome.use_second_moment else 0.0
        state["v"] = beta2 * state["v"] + (1 - beta2) * g.square()
        state["slow"] = genome.beta_slow * state["slow"] + (1 - genome.beta_slow) * g
        k = state["step"] if genome.bias_correction else math.inf
        m, v = state["m"] / (1 - beta1**k), state["v"] / (1 - beta2**k)
        return Inputs(g, m, v.sqrt(), genome.eps, beta1, state["slow"], before, genome.beta_lion)
