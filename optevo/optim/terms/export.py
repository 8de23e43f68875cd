"""A genome as one self-contained file: a torch.optim class, its schedule and a self-check.

The file's update is `foreach_update` with the terms that the rule lacks left out, in the same order of
operations, so it equals `GenomeOptimizer(..., compiled=False)` bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from optevo.optim.source import fill, range_entries
from optevo.optim.terms.genome import TermGenome
from optevo.optim.terms.rule import Rule
from optevo.optim.terms.table import BASIS, FUSED, Basis, reads_of

# See `optevo.optim.source.fill`.
_TEMPLATE = '''"""@NAME@: an optimizer discovered by optevo. This file needs torch alone.

    w ← (1 − η·λ)·w − η·Δ
    @FORMULA@

|m|m ← β₁·m + (1 − β₁)·g
|v|v ← β₂·v + (1 − β₂)·g²
|k|Moments with a hat are bias-corrected: m̂ = m/(1 − β₁ᵏ), v̂ = v/(1 − β₂ᵏ) at step k = 1, 2, …
Found with @DESCRIPTION@.

    optimizer = @NAME@(model.parameters())
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()

`python THIS_FILE` checks the update against numbers recorded when it was written.
"""

from __future__ import annotations

@IMPORTS@

PROVENANCE = {@PROVENANCE@}


@CHECKED@


class @NAME@(CheckedOptimizer):
    """@FORMULA@

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate η. Default: @LR@.
|betas|        betas: Decays (β₁, β₂) of the moments; 0 where one is not kept.
|betas|            Default: @BETAS@.
|eps|        eps: ε, added to the root. Default: @EPS@.
        weight_decay: Decoupled weight decay λ. Default: @WEIGHT_DECAY@.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.
    """

    RANGES = {@RANGES@}

    def __init__(
        self,
        params,
        lr=@LR@,
|betas|        betas=@BETAS@,
|eps|        eps=@EPS@,
        weight_decay=@WEIGHT_DECAY@,
        *,
        maximize=False,
    ):
        defaults = {
            "lr": lr,
|betas|            "betas": betas,
|eps|            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)

    def _step(self):
        with self._widened():
            for group in self.param_groups:
                buckets = {}
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state, k = self.state[p], 0
|m|                    if "exp_avg" not in state:
|m|                        state["exp_avg"] = torch.zeros_like(p)
|v|                    if "exp_avg_sq" not in state:
|v|                        state["exp_avg_sq"] = torch.zeros_like(p)
|k|                    if "step" not in state:
|k|                        state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
|k|                    k = int(state["step"].item()) + 1
                    buckets.setdefault((p.device, p.dtype, k), []).append((p, state))
                for (_, _, k), members in buckets.items():
                    self._update(*zip(*members), group, k)

    def _update(self, params, states, group, k):
        lr = float(group["lr"])
        grads = [p.grad for p in params]
|m|        m = [state["exp_avg"] for state in states]
|v|        v = [state["exp_avg_sq"] for state in states]
|m|        beta1 = float(group["betas"][0])
|v|        beta2 = float(group["betas"][1])
|eps|        eps = float(group["eps"])
|k|        for state in states:
|k|            state["step"].add_(1)
        if group["maximize"]:
            grads = torch._foreach_neg(grads)
|clip|        grads = torch._foreach_clamp_max(grads, @CLIP@)
|clip|        torch._foreach_clamp_min_(grads, -@CLIP@)
        torch._foreach_mul_(params, 1 - lr * float(group["weight_decay"]))
|m|        torch._foreach_lerp_(m, grads, 1 - beta1)
|v|        torch._foreach_mul_(v, beta2)
|v|        torch._foreach_addcmul_(v, grads, grads, 1 - beta2)
|root v|        root = torch._foreach_sqrt(v)
|root v k|        torch._foreach_div_(root, (1 - beta2**k) ** 0.5)
|root no-v|        root = torch._foreach_abs(grads)
|root|        torch._foreach_add_(root, eps)
|magnitude|        magnitude = torch._foreach_abs(grads)
|magnitude|        torch._foreach_add_(magnitude, eps)
|m-hat k|        m_hat = torch._foreach_mul(m, 1 / (1 - beta1**k))
|m-hat no-k|        m_hat = m
@UPDATES@

@WARMUP_COSINE@


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """What @NAME@ was found with, @SCHEDULE@; step it once a training step."""
    return LambdaLR(optimizer, WarmupCosine(total_steps, warmup_steps=@WARMUP@, cosine=@COSINE@))


def self_check() -> None:
    """Three steps on fixed gradients against the numbers recorded when this file was written."""
    w = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
    optimizer = @NAME@([w])
    for t in range(3):
        w.grad = torch.sin(torch.arange(4, dtype=torch.float64) * 0.7 + 1.3 * t)
        optimizer.step()
    recorded = [
@RECORDED@    ]
    torch.testing.assert_close(w.detach(), w.new_tensor(recorded), rtol=1e-12, atol=0)


if __name__ == "__main__":
    self_check()
    print("@NAME@: the update equals the recorded one")
'''


def export_source(
    genome: TermGenome, *, class_name: str = "Evolved", provenance: Mapping[str, str] | None = None
) -> str:
    """The text of a Python file that holds `genome` as a torch optimizer.

    Args:
        genome: The optimizer to write.
        class_name: Name of the class, a Python identifier. Default: "Evolved".
        provenance: Where it came from (study, trial, data, seeds, fitness); kept as data in the file's
            `PROVENANCE`, escaped, whatever the strings hold. Default: nothing.

    Returns:
        Source code that imports torch and the standard library only.

    Raises:
        ValueError: `class_name` is not an identifier or is a name that the file itself needs.

    Example:
        >>> from optevo.optim import PRESETS, export_source
        >>> source = export_source(PRESETS["evolved"], class_name="Evolved")
        >>> "class Evolved(" in source
        True
    """
    rule = genome.rule()
    used = [(BASIS[name], c) for name, c in zip(BASIS, rule.coefficients, strict=True) if c]
    reads = reads_of(rule.coefficients)
    facts = {
        "m": rule.reads_m,
        "v": rule.reads_v,
        "no-v": not rule.reads_v,
        "k": rule.bias_correction,
        "no-k": not rule.bias_correction,
        "betas": rule.reads_m or rule.reads_v,
        "eps": rule.eps is not None,
        "clip": rule.clip_value is not None,
        "root": "root" in reads,
        "magnitude": "magnitude" in reads,
        "m-hat": "m-hat" in reads,
    }
    defaults: dict[str, Any] = {"lr": genome.lr, "weight_decay": genome.weight_decay}
    if facts["betas"]:
        defaults["betas"] = (rule.beta1 or 0.0, rule.beta2 or 0.0)
    if facts["eps"]:
        defaults["eps"] = rule.eps
    words = {
        "FORMULA": rule.formula(),
        "DESCRIPTION": genome.describe(),
        "SCHEDULE": genome.describe_schedule(),
        "LR": repr(genome.lr),
        "BETAS": repr(defaults.get("betas")),
        "EPS": repr(rule.eps),
        "WEIGHT_DECAY": repr(genome.weight_decay),
        "CLIP": repr(rule.clip_value),
        "UPDATES": "".join(f"        {_line(entry, c, rule)}\n" for entry, c in used),
        "WARMUP": repr(genome.warmup_steps * genome.warmup),
        "COSINE": repr(genome.cosine_decay),
        "RANGES": range_entries(defaults),
        "RECORDED": "".join(f"        {value!r},\n" for value in _recorded(genome)),
    }
    return fill(_TEMPLATE, facts, words, class_name, provenance or {})


def _line(entry: Basis, coefficient: float, rule: Rule) -> str:
    """The line that subtracts an entry of the basis."""
    corrected = "m" in entry.reads and entry.name in FUSED and rule.bias_correction
    return entry.source.format(rate=f"lr * {coefficient!r}" + " / (1 - beta1**k)" * corrected)


def _recorded(genome: TermGenome) -> list[float]:
    """The weights after the three steps of the template's `self_check`."""
    w = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
    optimizer = genome.optimizer([w], compiled=False)
    for t in range(3):
        w.grad = torch.sin(torch.arange(4, dtype=torch.float64) * 0.7 + 1.3 * t)
        optimizer.step()
    weights: list[float] = w.detach().tolist()
    return weights
