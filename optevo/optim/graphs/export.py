"""An equation as one self-contained file: a torch.optim class, its schedule and a self-check.

The file's update is `Program.source` on the pieces of memory that `GraphOptimizer` takes, so it equals
`GraphOptimizer` bit for bit, dropout included.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch

from optevo.optim.graphs import optimizer
from optevo.optim.graphs.decays import definitions
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import GraphGenome, shares
from optevo.optim.graphs.operations import MOMENTS
from optevo.optim.graphs.program import Program, program
from optevo.optim.graphs.wrappers import WRAPPERS
from optevo.optim.schedules import OneCycleMomentum, WarmupHoldCosine
from optevo.optim.source import fill

# See `optevo.optim.source.fill`.
_TEMPLATE = '''"""@NAME@: an optimizer discovered by optevo. This file needs torch alone.

    @STEP@
    @FORMULA@

@LEGEND@An update that is not finite makes parameters NaN.

    optimizer = @NAME@(model.parameters()@EXAMPLE@)
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()

For optevo the rule is

    @EQUATION@

with @DESCRIPTION@.
`python THIS_FILE` checks the update against numbers recorded when it was written.
"""

from __future__ import annotations

@IMPORTS@

PROVENANCE = {@PROVENANCE@}
WARMUP, HOLD = @WARMUP@, @HOLD@  # shares of the run, for the schedule@AND_MOMENTUM@
BLOCK, PACKED = @BLOCK@, @PACKED@  # see _pieces
STATES = @STATES@  # what is kept for each parameter


@CHECKED@


@UPDATE@

|decays|@DECAYS@
|decays|
|decays|
class @NAME@(CheckedOptimizer):
    """@FORMULA@

    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Args:
        params: Parameters, named parameters or groups.
|rate|        lr: Learning rate η. Default: @LR@.
|no-rate|        lr: Learning rate η; none was published or tuned.
        weight_decay: Decoupled weight decay λ. Default: 0.
|timed|        total_steps: Length of the run in steps, ≥ 1; @TIMED@ @FOLLOW@ it.
|timed|            Past the end the last values stay.
|draws|        seed: Of the dropouts, ≥ 0. Default: 0.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: A hyperparameter is out of range, or a parameter is complex.
        RuntimeError: In `step`, a gradient is sparse.
    """

    RANGES = {
        "lr": (0.0, math.inf, 1),
        "weight_decay": (0.0, math.inf, 1),
|timed|        "total_steps": (1, 1e15, 1),
|draws|        "seed": (0, 2**53, 1),
    }

    def __init__(
        self,
        params,
|rate|        lr=@LR@,
|no-rate|        lr,
        weight_decay=0.0,
        *,
|timed|        total_steps,
|draws|        seed=0,
        maximize=False,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
|timed|            "total_steps": total_steps,
|draws|            "seed": seed,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)

|timed|    def _check(self, group):
|timed|        super()._check(group)
|timed|        steps = group.get("total_steps", 1)
|timed|        if isinstance(steps, bool) or steps != int(steps):
|timed|            raise ValueError(f"Invalid total_steps value: {steps}, expected a whole number")
|timed|
    def _step(self):
        with self._widened():
            for group in self.param_groups:
                for (device, _, k), params in self._buckets(group, STATES).items():
                    self._update(group, device, k, params)

@BUCKETS@

    def _update(self, group, device, k, params):
        lr, decay, m, generator = float(group["lr"]), float(group["weight_decay"]), None, None
|timed|        total_steps = int(group["total_steps"])
|timed|        t = min(k, total_steps) - 1
|wrapped|        m = OneCycleMomentum(total_steps, **shares(total_steps, WARMUP, HOLD))(t)
|draws|        # Made anew every step, so that a checkpoint need not hold it.
|draws|        generator = torch.Generator(device).manual_seed((int(group["seed"]) * 1_000_003 + k) % 2**63)
        if decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        rows = []
        for p in params:
            grad = -p.grad if group["maximize"] else p.grad
            rows.append([p, grad, *(self.state[p][name] for name in STATES)])
|apart|        for tensors in _pieces(rows, None, apart=True):  # whole: the rule looks at all of a parameter
|blocks|        for tensors in _pieces(rows, BLOCK if device.type == "cpu" else 64 * BLOCK, apart=False):
            update(*tensors, lr, m, k, @NUMBERS@generator)


@PIECES@


@SCHEDULES@


@SHARES@


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Warmup, hold, cosine decay to 0; step it once a training step."""
    return LambdaLR(optimizer, WarmupHoldCosine(total_steps, **shares(total_steps, WARMUP, HOLD)))


def self_check() -> None:
    """Three steps on fixed gradients against the numbers recorded when this file was written."""
|draws|    # Where another build of torch draws other random numbers, the check fails.
    w = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
    optimizer = @NAME@([w], lr=@CHECKED_LR@@CHECKED_STEPS@)
    for t in range(3):
        w.grad = torch.sin(torch.arange(4, dtype=torch.float64) * 0.7 + 1.3 * t)
        optimizer.step()
    recorded = [
@RECORDED@    ]
    torch.testing.assert_close(w.detach(), w.new_tensor(recorded), rtol=1e-12, atol=0, equal_nan=True)


if __name__ == "__main__":
    self_check()
    print("@NAME@: the update equals the recorded one")
'''

_CHECKED_STEPS = 10


def export_graph(
    genome: GraphGenome, *, class_name: str = "Evolved", provenance: Mapping[str, str] | None = None
) -> str:
    """The text of a Python file that holds `genome` as a torch optimizer.

    The class asks for `total_steps` where the rule has decays or a wrapper, and for `lr` where the genome has
    none.

    Args:
        genome: The optimizer to write.
        class_name: Name of the class, a Python identifier. Default: "Evolved".
        provenance: See `optevo.optim.export_source`. Default: nothing.

    Returns:
        Source code that imports torch and the standard library only.

    Raises:
        ValueError: `class_name` is not an identifier or is a name that the file itself needs.
    """
    rule = program(genome.equation.text())
    wrapper = WRAPPERS[rule.equation.wrapper]
    wrapped = wrapper.keeps
    facts = {
        "rate": genome.lr is not None,
        "no-rate": genome.lr is None,
        "decays": bool(rule.decays),
        "wrapped": wrapped,
        "timed": wrapped or bool(rule.decays),
        "draws": rule.draws,
        "apart": rule.whole,
        "blocks": not rule.whole,
    }
    timed = ["the decays"] * bool(rule.decays) + ["the momentum"] * wrapped
    schedules = [WarmupHoldCosine, *[OneCycleMomentum] * wrapped]
    words = {
        "STEP": ",  ".join(["w ← (1 − η·λ)·w", *wrapper.lines]).replace("{}", "−").replace("U", "Δ"),
        "FORMULA": genome.formula(),
        "LEGEND": "".join(f"{line}\n" for line in _legend(rule.equation, rule)),
        "EQUATION": genome.equation.text(),
        "EXAMPLE": ", lr=…" * facts["no-rate"] + ", total_steps=total_steps" * facts["timed"],
        "DESCRIPTION": genome.describe(),
        "WARMUP": repr(genome.warmup),
        "HOLD": repr(genome.hold),
        "AND_MOMENTUM": " and the momentum" * wrapped,
        "BLOCK": f"{optimizer.BLOCK:_}",
        "PACKED": f"{optimizer.PACKED:_}",
        "STATES": repr(rule.states).replace("'", '"'),
        "UPDATE": rule.source,
        "DECAYS": _decays(rule),
        "LR": repr(genome.lr),
        "TIMED": " and ".join(timed),
        "FOLLOW": "follow" if len(timed) > 1 or rule.decays else "follows",
        "NUMBERS": "*decays(t, total_steps), " * facts["decays"],
        "BUCKETS": inspect.getsource(optimizer.GraphOptimizer._buckets).rstrip(),
        "PIECES": "\n\n\n".join(inspect.getsource(f).rstrip() for f in (optimizer._pieces, optimizer._dense)),
        "SCHEDULES": "\n\n\n".join(inspect.getsource(one).rstrip() for one in schedules),
        "SHARES": inspect.getsource(shares).rstrip(),
        "CHECKED_LR": repr(genome.lr or 0.1),
        "CHECKED_STEPS": f", total_steps={_CHECKED_STEPS}" * facts["timed"],
        "RECORDED": "".join(f"        {value},\n" for value in _recorded(genome)),
    }
    return fill(_TEMPLATE, facts, words, class_name, provenance or {})


def _legend(equation: Equation, rule: Program) -> list[str]:
    """What the names in the formula are, a line each."""
    lines = [MOMENTS[name].formula for name in equation.moments]
    if equation.moments:
        lines += [
            "Averages with a hat are bias-corrected: v̂ = v/(1 − βᵏ) and the like at step k = 1, 2, …, where",
            "β is the factor on the average itself.",
        ]
    if WRAPPERS[equation.wrapper].keeps:
        lines += ["m falls from 0.95 to 0.85 over the warmup, stays over the hold, and rises again."]
    legend = {name: said for decay in rule.decays for name, said in decay.legend().items()}
    if legend:
        lines += ["Factors in brackets are decays, with x = t/T and y = (2t mod T)/T at step t of T:"]
        lines += [f"    {name} = {said}" for name, said in legend.items()]
    return [*lines, *[""] * bool(lines)]


def _decays(rule: Program) -> str:
    """The decays as functions."""
    values = "".join(f"        {decay.source()},\n" for decay in rule.decays)
    function = (
        "def decays(t: int, total_steps: int) -> list[float]:\n"
        '    """The factors d1, d2, … at step t = 0 … total_steps − 1."""\n'
        f"    return [\n{values}    ]"
    )
    return "\n\n\n".join(part for part in (definitions(rule.decays), function) if part)


def _recorded(genome: GraphGenome) -> list[str]:
    """The weights after the three steps of the template's `self_check`."""
    w = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
    made = genome.at_rate(genome.lr or 0.1).optimizer([w], _CHECKED_STEPS)
    for t in range(3):
        w.grad = torch.sin(torch.arange(4, dtype=torch.float64) * 0.7 + 1.3 * t)
        made.step()
    return [repr(value).replace("nan", "math.nan").replace("inf", "math.inf") for value in w.tolist()]
