"""A modern genome as one self-contained file: a torch.optim class, its schedule and a self-check.

Each kind of parameter has a method with its update alone, in the order of operations of `direction`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

import torch

from optevo.optim import kinds, orthogonal
from optevo.optim.kinds import KINDS
from optevo.optim.source import fill, range_entries
from optevo.optim.terms.modern import ModernGenome
from optevo.optim.terms.modern_rule import ENTRIES, ModernRule, reads
from optevo.optim.terms.table import FUSED

# See `optevo.optim.source.fill`.
_TEMPLATE = '''"""@NAME@: an optimizer discovered by optevo. This file needs torch alone.

    w ← (1 − η·λ)·w − η·Δ
@RULES@
@DESCRIPTION@

    optimizer = @NAME@(model.parameters())
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()

`python THIS_FILE` checks the update against numbers recorded when it was written.
"""

from __future__ import annotations

@IMPORTS@
from collections.abc import Iterable, Sequence

PROVENANCE = {@PROVENANCE@}


@CHECKED@


@KINDS_CODE@@ORTHOGONAL@

class @NAME@(CheckedOptimizer):
    """The update above, by the kind of each parameter.

    Kinds of parameters are "convolution" (three or more dimensions), "hidden" (two), "head" (embeddings and
    the last layer) and "vector" (fewer than two). An optimizer sees parameters without their layers: the head
    is the last two-dimensional parameter that it is made with. Where that is not so, and for embeddings, say
    it with a group: ``{"params": model.embedding.parameters(), "kind": "head"}``. What such a group holds is
    of that kind, vectors excepted.

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        lr: Learning rate η of kinds whose rate is 1. Default: @LR@.
        betas: Decays (β₁, β₂) of the moments; 0 where one is not kept. Default: @BETAS@.
|eps|        eps: ε, added to the root. Default: @EPS@.
        weight_decay: Decoupled weight decay λ. Default: @WEIGHT_DECAY@.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, a kind is unknown, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.
    """

    RANGES = {@RANGES@}
    RATES = @RATES@
    RULES = @CHOICE@

    def __init__(
        self,
        params,
        lr=@LR@,
        betas=@BETAS@,
|eps|        eps=@EPS@,
        weight_decay=@WEIGHT_DECAY@,
        *,
        maximize=False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
|eps|            "eps": eps,
            "weight_decay": weight_decay,
            "kind": None,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)
        mark_head(self.param_groups)

    def _check(self, group):
        super()._check(group)
        for kind in (group.get("kind"), *group.get("kinds", ())):
            if kind is not None and kind not in KINDS:
                raise ValueError(f"Invalid kind: {kind!r}, expected one of {', '.join(KINDS)}")

    def __setstate__(self, state):
        for group, now in zip(state["param_groups"], vars(self).get("param_groups", ())):
            group.setdefault("kinds", now["kinds"])
        super().__setstate__(state)

    def add_param_group(self, param_group):
        """Add a group, also after steps were taken; of a later one no matrix is taken for the head."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        shapes, kind = kinds_by_shape(group["params"]), group["kind"]
        group["kinds"] = [s if kind is None or s == "vector" else kind for s in shapes]

    def _step(self):
        with self._widened():
            for group in self.param_groups:
                buckets = {}
                for p, kind in zip(group["params"], group["kinds"]):
                    if p.grad is not None:
                        state, rule = self.state[p], self.RULES[kind]
                        if "step" not in state:
                            state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
                        k = int(state["step"].item()) + 1
                        key = (p.device, p.dtype, k, self.RATES[kind], rule)
                        buckets.setdefault(key, []).append((p, state))
                for (_, _, k, rate, rule), members in buckets.items():
                    params, states = zip(*members)
                    for state in states:
                        state["step"].add_(1)
                    lr = float(group["lr"]) * rate
                    grads = [-p.grad if group["maximize"] else p.grad for p in params]
|clip|                    grads = torch._foreach_clamp_max(grads, @CLIP@)
|clip|                    torch._foreach_clamp_min_(grads, -@CLIP@)
                    delta = [torch.zeros_like(p) for p in params]
                    getattr(self, rule)(params, states, grads, delta, group, k)
|cautious|                    for d, g in zip(delta, grads):
|cautious|                        mask = (d * g > 0).to(d.dtype)
|cautious|                        d.mul_(mask.div_(mask.mean().clamp_(min=1e-3)))
                    torch._foreach_mul_(params, 1 - lr * float(group["weight_decay"]))
                    torch._foreach_add_(params, delta, alpha=-lr)

@METHODS@
    @staticmethod
    def _moments(states, name, params):
        for state, p in zip(states, params):
            if name not in state:
                state[name] = torch.zeros_like(p)
        return [state[name] for state in states]


@SHARE_SCHEDULE@


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """What @NAME@ was found with, @SCHEDULE@; step it once a training step."""
    return LambdaLR(optimizer, ShareSchedule(total_steps, @SHARES@))


def self_check() -> None:
    """Three steps on fixed gradients against the numbers recorded when this file was written."""
    shapes = ((2, 1, 2, 2), (3, 2), (2, 3), (2,))
    lines = [torch.linspace(-1, 1, math.prod(s), dtype=torch.float64).view(s) for s in shapes]
    ws = [torch.nn.Parameter(line) for line in lines]
    optimizer = @NAME@(ws)
    for t in range(3):
        for w in ws:
            w.grad = torch.sin(torch.arange(w.numel(), dtype=torch.float64) * 0.7 + 1.3 * t).view_as(w)
        optimizer.step()
    recorded = [
@RECORDED@    ]
    weights = torch.cat([w.detach().flatten() for w in ws])
    torch.testing.assert_close(weights, weights.new_tensor(recorded), rtol=1e-9, atol=1e-12)


if __name__ == "__main__":
    self_check()
    print("@NAME@: the update equals the recorded one")
'''


def export_modern(
    genome: ModernGenome, *, class_name: str = "Evolved", provenance: Mapping[str, str] | None = None
) -> str:
    """The text of a Python file that holds `genome` as a torch optimizer.

    Args and errors are those of `optevo.optim.export_source`.
    """
    rule, second = genome.rule(), genome.second_rule()
    rules = [one for one in (rule, second) if one is not None]
    beta2 = max(one.beta2 or 0.0 for one in rules)
    eps = max(one.eps or 0.0 for one in rules)
    variants: dict[str, tuple[ModernRule, dict[str, float]]] = {
        "_matrices": (rule, dict(rule.coefficients)),
        "_vectors": (rule, rule.of_vectors()),
    }
    if second is not None:
        variants["_second_matrices"] = (second, dict(second.coefficients))
        variants["_second_vectors"] = (second, second.of_vectors())
    used = _used(genome)
    methods = {name: variants[name] for name in variants if name in used.values()}
    facts = {
        "eps": any(one.eps is not None for one in rules),
        "clip": genome.gradient_clipping,
        "cautious": genome.cautious,
    }
    defaults: dict[str, Any] = {
        "lr": genome.lr,
        "betas": (rule.beta1 or 0.0, beta2),
        **({"eps": eps} if facts["eps"] else {}),
        "weight_decay": genome.weight_decay,
    }
    by_method: dict[str, list[str]] = {}
    for kind, name in used.items():
        by_method.setdefault(name, []).append(kind)
    told = {
        name: f"    {', '.join(by_method[name])}: Δ = {one.formula(of_vectors='vectors' in name)}\n"
        for name, (one, _) in methods.items()
    }
    slow = any("slow" in coefficients for _, coefficients in methods.values())
    rules_text = "".join(told.values())
    if slow:
        decay = max(one.beta_slow or 0.0 for one in rules)
        rules_text += f"\ns is an average of g whose decay is {decay}.\n"
    ortho = any("ortho" in coefficients for _, coefficients in methods.values())
    shares = f"warmup={genome.warmup!r}, hold={genome.hold!r}, decay={genome.decay!r}, final={genome.final!r}"
    words = {
        "RULES": rules_text,
        "DESCRIPTION": textwrap.fill(
            f"η is lr times the rate of the kind of parameter. Found with {genome.describe()}.", 105
        ),
        "SCHEDULE": genome.describe_schedule(),
        "LR": repr(genome.lr),
        "BETAS": repr(defaults["betas"]),
        "EPS": repr(eps),
        "WEIGHT_DECAY": repr(genome.weight_decay),
        "CLIP": repr(genome.clip_value),
        "RATES": _literal(genome.rates()),
        "RANGES": range_entries(defaults),
        "KINDS_CODE": f"KINDS = {KINDS!r}\n\n\n".replace("'", '"')
        + "\n\n".join(inspect.getsource(f) for f in (kinds.kinds_by_shape, kinds.mark_head)),
        "ORTHOGONAL": _orthogonal() if ortho else "",
        "CHOICE": _literal(used),
        "METHODS": "\n".join(
            _method(name, one, coefficients, constant_beta1=one is not rule)
            for name, (one, coefficients) in methods.items()
        ),
        "SHARES": shares,
        "RECORDED": "".join(f"        {value!r},\n" for value in _recorded(genome)),
    }
    return fill(_TEMPLATE, facts, words, class_name, provenance or {})


def _used(genome: ModernGenome) -> dict[str, str]:
    """The method of each kind, one for all kinds of equal rules."""
    seconds = () if genome.second is None else genome.second.kinds
    rules = {kind: genome.rule_of(kind) for kind in KINDS}
    same = {kind: next(other for other in KINDS if rules[other] == rules[kind]) for kind in KINDS}
    return {
        kind: ("_second" if one in seconds else "") + ("_vectors" if one == "vector" else "_matrices")
        for kind, one in same.items()
    }


def _literal(words: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}": {value!r}' for key, value in words.items()).replace("'", '"') + "}"


def _orthogonal() -> str:
    steps = "".join(f"    {step!r},\n" for step in orthogonal.POLAR_EXPRESS)
    functions = (orthogonal.orthogonalise, orthogonal._tall, orthogonal._iterate)
    code = "\n\n".join(inspect.getsource(function) for function in functions)
    return f"\n\nPOLAR_EXPRESS = (\n{steps})\n\n\n{code}"


def _method(name: str, rule: ModernRule, coefficients: Mapping[str, float], *, constant_beta1: bool) -> str:
    """A method that fills `delta` for parameters of one rule."""
    needs = reads(coefficients)
    m, v = rule.beta1 is not None and "m" in needs, rule.beta2 is not None and "root" in needs
    beta1 = repr(rule.beta1) if constant_beta1 else 'float(group["betas"][0])'
    lines = [f'"""Δ = {rule.formula(of_vectors="vectors" in name)}"""']
    if m:
        lines += [f"beta1 = {beta1}", 'm = self._moments(states, "exp_avg", params)']
    if "lion" in coefficients:
        lines += [
            f"lion = torch._foreach_lerp({'m' if m else 'grads'}, grads, {1 - (rule.beta_lion or 0.0)!r})",
            "torch._foreach_sign_(lion)",
        ]
    if m:
        lines += ["torch._foreach_lerp_(m, grads, 1 - beta1)"]
    if v:
        lines += [
            'beta2 = float(group["betas"][1])',
            'v = self._moments(states, "exp_avg_sq", params)',
            "torch._foreach_mul_(v, beta2)",
            "torch._foreach_addcmul_(v, grads, grads, 1 - beta2)",
        ]
    if "slow" in needs:
        lines += [
            'slow = self._moments(states, "exp_avg_slow", params)',
            f"torch._foreach_lerp_(slow, grads, {1 - (rule.beta_slow or 0.0)!r})",
        ]
    if "root" in needs:
        lines += ["root = torch._foreach_sqrt(v)" if v else "root = torch._foreach_abs(grads)"]
        lines += ["torch._foreach_div_(root, (1 - beta2**k) ** 0.5)"] if v and rule.bias_correction else []
        lines += ['torch._foreach_add_(root, float(group["eps"]))']
    if "magnitude" in needs:
        lines += [
            "magnitude = torch._foreach_abs(grads)",
            'torch._foreach_add_(magnitude, float(group["eps"]))',
        ]
    if "ortho" in coefficients:
        lines += [
            f"nesterov = {'torch._foreach_lerp(grads, m, beta1)' if m else 'grads'}",
            "matrices = [n.flatten(1) for n in nesterov]",
            "factors = orthogonalise(matrices)",
            "# The root mean square of AdamW's update.",
            "torch._foreach_mul_(factors, [0.2 * math.sqrt(max(n.shape)) for n in matrices])",
            "ortho = [factor.reshape(n.shape) for factor, n in zip(factors, nesterov)]",
        ]
    for entry, coefficient in coefficients.items():
        corrected = m and "m" in ENTRIES[entry].reads and entry in FUSED and rule.bias_correction
        rate = repr(coefficient) + " / (1 - beta1**k)" * corrected
        source = ENTRIES[entry].source.replace("(params,", "(delta,").replace("-({rate})", "{rate}")
        lines += [source.format(rate=rate)]
    body = "".join(f"        {line}\n" for line in lines)
    return f"    def {name}(self, params, states, grads, delta, group, k):\n{body}"


def _recorded(genome: ModernGenome) -> list[float]:
    """The weights after the three steps of the template's `self_check`."""
    shapes = ((2, 1, 2, 2), (3, 2), (2, 3), (2,))
    ws = [
        torch.nn.Parameter(torch.linspace(-1, 1, torch.Size(s).numel(), dtype=torch.float64).view(s))
        for s in shapes
    ]
    optimizer = genome.optimizer(ws, compiled=False)
    for t in range(3):
        for w in ws:
            w.grad = torch.sin(torch.arange(w.numel(), dtype=torch.float64) * 0.7 + 1.3 * t).view_as(w)
        optimizer.step()
    weights: list[float] = torch.cat([w.detach().flatten() for w in ws]).tolist()
    return weights
