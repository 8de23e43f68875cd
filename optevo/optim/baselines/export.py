"""A tuned baseline as one Python file: its class with the tuned numbers as defaults, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from optevo.optim.baselines.registry import WARMUP_SHARE, TunedBaseline
from optevo.optim.checked import CheckedOptimizer
from optevo.optim.learned import LEARNED, learned_source
from optevo.optim.source import fill, range_entries

_TEMPLATE = '''"""@NAME@: @FACTORY@ as tuned by optevo. This file needs @PACKAGE@.

    @FORMULA@

Found with @DESCRIPTION@.

    optimizer = @NAME@(model.parameters())
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()
"""

from __future__ import annotations

|unchecked|@IMPORTS@
|checked|import math
|checked|
|checked|from torch.optim import Optimizer
|checked|from torch.optim.lr_scheduler import LambdaLR
|checked|
|foreign|import @MODULE@

PROVENANCE = {@PROVENANCE@}
OPTIONS = @OPTIONS@


|unchecked|@CHECKED@
|unchecked|
|unchecked|
|unchecked|class @NAME@(CheckedOptimizer, @FACTORY@):
|checked|class @NAME@(@FACTORY@):
    """@FACTORY@ with tuned defaults; `options` are its other arguments.

|used|    @USE@
|used|
    float16 and bfloat16 parameters are updated in float32 and rounded once; their state is float32.

    Raises:
        ValueError: A hyperparameter is out of range.
    """

|unchecked|    RANGES = {@RANGES@}
|unchecked|    TAKES_COMPLEX = True  # as far as @FACTORY@ does
|native|    TAKES_SPARSE = True
|unchecked|
    def __init__(self, params, lr=@LR@, weight_decay=@WEIGHT_DECAY@, **options):
        tuned = {**OPTIONS, **options}
|unchecked|        pair = {"betas": tuned["betas"]} if "betas" in tuned else {}
|unchecked|        self._check({"lr": lr, "weight_decay": weight_decay, **pair})
|unchecked|        try:
|unchecked|            super().__init__(params, lr=lr, weight_decay=weight_decay, **tuned)
|unchecked|        except IndexError:  # of torch, where another pair is none
|unchecked|            self._check(tuned)
|unchecked|            raise
|checked|        super().__init__(params, lr=lr, weight_decay=weight_decay, **tuned)
|unchecked|
|unchecked|    def _step(self):
|unchecked|        step = @FACTORY@.step
|unchecked|        if getattr(step, "hooked", False):  # by torch, for optimizers of that class itself
|unchecked|            step = step.__wrapped__
|unchecked|        # Counters are made where the default device is, and read at every step.
|unchecked|        on_cpu = torch.get_default_device().type == "cpu"
|unchecked|        with self._widened(), nullcontext() if on_cpu else torch.device("cpu"):
|unchecked|            step(self)


|usual|@WARMUP_COSINE@
|linear|@SHARE_SCHEDULE@
|learned|@LEARNED@


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """@SCHEDULE@; step it once a training step."""
|usual|    schedule = WarmupCosine(total_steps, cosine=@COSINE@)
|usual|    schedule.warmup_steps = @WARMUP@
|usual|    return LambdaLR(optimizer, schedule)
|linear|    return LambdaLR(optimizer, ShareSchedule(total_steps, warmup=@WARMUP_SHARE@, decay="linear"))
|learned|    WarmupHoldCosine(total_steps)  # refuses what is no number of steps
|learned|    peaks = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
|learned|    name, warmup = @LEARNED_NAME@, @WARMUP@
|learned|    schedules = [LearnedSchedule(name, total_steps, lr=lr, warmup_steps=warmup) for lr in peaks]
|learned|    return LambdaLR(optimizer, schedules)
'''


def export_baseline(
    tuned: TunedBaseline, *, class_name: str = "Evolved", provenance: Mapping[str, str] | None = None
) -> str:
    """The text of a Python file with `tuned` as a torch optimizer; it needs torch and the baseline's package.

    Args:
        tuned: What to write.
        class_name: Name of the class, a Python identifier. Default: "Evolved".
        provenance: See `optevo.optim.export_source`. Default: nothing.

    Raises:
        ValueError: `class_name` is useless, or the optimizer wants to know more than a class alone can.
    """
    baseline = tuned.baseline
    if tuned.wants is not None:
        raise ValueError(
            f"{tuned.name} cannot be written as a class: it wants {tuned.wants}; use {baseline.factory} "
            f"itself, with {tuned.describe()}"
        )
    package = baseline.factory.partition(".")[0]
    constant, learned = tuned.schedule_name == "none", tuned.schedule_name in LEARNED
    linear = tuned.schedule_name == "warmup_linear"
    optimizer = tuned.optimizer([torch.nn.Parameter(torch.ones(1))], 1)
    checked = isinstance(optimizer, CheckedOptimizer)
    facts = {
        "checked": checked,
        "unchecked": not checked,
        "foreign": package != "torch",
        "native": package == "torch",
        "used": bool(baseline.use),
        "learned": learned,
        "linear": linear,
        "usual": not learned and not linear,
    }
    words = {
        "FACTORY": baseline.factory,
        "PACKAGE": "torch alone" if baseline.factory.startswith("torch.") else f"{package} and torch",
        "MODULE": baseline.factory.rpartition(".")[0],
        "USE": baseline.use,
        "FORMULA": tuned.formula(),
        "DESCRIPTION": tuned.describe(),
        # Not every device has torch's fused kernels.
        "OPTIONS": repr({name: value for name, value in tuned.arguments.items() if name != "fused"}),
        "LR": repr(tuned.lr),
        "WEIGHT_DECAY": repr(tuned.weight_decay),
        "SCHEDULE": _said(tuned.schedule_name),
        "WARMUP_SHARE": repr(WARMUP_SHARE),
        "LEARNED": learned_source(tuned.schedule_name) if learned else "",
        "LEARNED_NAME": repr(tuned.schedule_name).replace("'", '"'),
        "COSINE": repr(not constant),
        "WARMUP": "0" if constant else f"round({WARMUP_SHARE!r} * total_steps)",
        "RANGES": range_entries(optimizer.defaults),
    }
    return fill(_TEMPLATE, facts, words, class_name, provenance or {})


def _said(schedule_name: str) -> str:
    """A schedule in words."""
    if schedule_name == "none":
        return "A constant rate"
    warmup = "Linear warmup over a tenth of the run, "
    if schedule_name == "warmup_linear":
        return f"{warmup}then a line down to 0"
    return f"{warmup}times half a cosine" + (f", times {schedule_name}" if schedule_name in LEARNED else "")
