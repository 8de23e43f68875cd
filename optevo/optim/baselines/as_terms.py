"""Baselines that are term genomes, as such."""

from __future__ import annotations

from optevo.optim.baselines.registry import WARMUP_SHARE, TunedBaseline
from optevo.optim.terms.genome import TermGenome

_RULES = {  # the term of each, and whether its averages are corrected
    "adam": ("ADAM_TERM", True),
    "adamw": ("ADAM_TERM", True),
    "rmsprop": ("RMS_NORM", False),
}


def term_genome(tuned: TunedBaseline, steps: int) -> TermGenome:
    """The genome that makes the same steps as a baseline.

    Args:
        tuned: What to express.
        steps: Of a run; a genome's warmup is a number of them.

    Raises:
        ValueError: No genome does, and why; or a number is out of a genome's range.
    """
    if tuned.name not in _RULES:
        raise ValueError(f"{tuned.name} is no sum of terms; expected {', '.join(_RULES)}")
    if tuned.schedule_name not in ("none", "warmup_cosine"):
        raise ValueError(f"no term genome has the schedule {tuned.schedule_name!r}")
    if tuned.baseline.decay == "L2" and tuned.weight_decay:
        raise ValueError(
            f"a term genome's weight decay is decoupled, that of {tuned.name} is added to the gradient: "
            f"{tuned.weight_decay:g}, expected 0"
        )
    settings = tuned.arguments
    if settings.get("momentum"):
        raise ValueError(
            f"no term genome has the momentum of {tuned.name}: {settings['momentum']:g}, expected 0"
        )
    term, corrected = _RULES[tuned.name]
    beta1, beta2 = settings.get("betas", (0.9, settings.get("alpha")))
    scheduled = tuned.schedule_name == "warmup_cosine"
    warmup_steps = round(WARMUP_SHARE * steps)
    return TermGenome(
        terms=(term,),
        alphas=(1.0,),
        lr=tuned.lr,
        beta1=beta1,
        beta2=beta2,
        eps=settings["eps"],
        weight_decay=tuned.weight_decay,
        use_momentum=corrected,
        bias_correction=corrected,
        warmup=scheduled and warmup_steps > 0,
        warmup_steps=max(1, warmup_steps),
        cosine_decay=scheduled,
    )
