"""A tuned baseline as one Python file: its class with the tuned numbers as defaults, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping

from optevo.optim.baselines.registry import WARMUP_SHARE, TunedBaseline
from optevo.optim.source import check_class_name, provenance_entries

_TEMPLATE = '''"""@NAME@: @FACTORY@ as tuned by optevo. This file needs @PACKAGE@.

    @FORMULA@

Found with @DESCRIPTION@.

    optimizer = @NAME@(model.parameters())
    schedule = scheduler(optimizer, total_steps)  # schedule.step() after every optimizer.step()
"""

from __future__ import annotations

import math

import @MODULE@
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

PROVENANCE = {@PROVENANCE@}
OPTIONS = @OPTIONS@


class @NAME@(@FACTORY@):
    """@FACTORY@ with tuned defaults; `options` are its other arguments."""

    def __init__(self, params, lr=@LR@, weight_decay=@WEIGHT_DECAY@, **options):
        super().__init__(params, lr=lr, weight_decay=weight_decay, **{**OPTIONS, **options})


def scheduler(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """@SCHEDULE@; step it once a training step."""
    return LambdaLR(optimizer, lambda step: @FACTOR@)
'''
_CONSTANT = "1.0"
_WARMUP_COSINE = (
    "min(1.0, (step + 1) / max(1, round(@SHARE@ * total_steps))) "
    "* 0.5 * (1 + math.cos(math.pi * min(step, total_steps) / total_steps))"
)


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
    check_class_name(class_name, _TEMPLATE)
    baseline = tuned.baseline
    if baseline.wants is not None:
        raise ValueError(
            f"{tuned.name} cannot be written as a class: it wants {baseline.wants}; use {baseline.factory} "
            f"itself, with {tuned.describe()}"
        )
    package = baseline.factory.partition(".")[0]
    constant = tuned.schedule_name == "none"
    words = {
        "NAME": class_name,
        "FACTORY": baseline.factory,
        "PACKAGE": "torch alone" if baseline.factory.startswith("torch.") else f"{package} and torch",
        "MODULE": baseline.factory.rpartition(".")[0],
        "FORMULA": tuned.formula(),
        "DESCRIPTION": tuned.describe(),
        # Not every device has torch's fused kernels.
        "OPTIONS": repr({name: value for name, value in tuned.arguments.items() if name != "fused"}),
        "LR": repr(tuned.lr),
        "WEIGHT_DECAY": repr(tuned.weight_decay),
        "SCHEDULE": "A constant rate"
        if constant
        else "Linear warmup over a tenth of the run, times half a cosine",
        "FACTOR": _CONSTANT if constant else _WARMUP_COSINE.replace("@SHARE@", repr(WARMUP_SHARE)),
    }
    text = _TEMPLATE
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text.replace("@PROVENANCE@", provenance_entries(provenance or {}))
