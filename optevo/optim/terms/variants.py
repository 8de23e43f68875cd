"""Variants of a winner: what remains of it without each of its parts. Pure Python."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optevo.optim.candidate import WINNER, Candidate, Variants
from optevo.optim.terms.genome import TermGenome

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

TUNED, SCHEDULED = "tuned AdamW", "tuned AdamW, the winner's schedule"
SCALED = "AdamW's rule, the winner's hyperparameters, lr × its weights"
HYPER = "AdamW's rule, the winner's hyperparameters"
_FLAGS = {  # gene, as it is called when it is off
    "use_momentum": "without momentum",
    "use_second_moment": "without second moment",
    "bias_correction": "without bias correction",
    "gradient_clipping": "without gradient clipping",
    "warmup": "without warmup",
    "cosine_decay": "without cosine decay",
}


@dataclass(frozen=True)
class Rescheduled(Candidate):
    """An optimizer under another's learning-rate schedule.

    Attributes:
        optimizer: Whose update and numbers.
        schedule_of: Whose schedule.
    """

    optimizer: Candidate
    schedule_of: Candidate

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        built, _ = self.optimizer.build(params, total_steps)
        for group in built.param_groups:  # that of its own schedule's first step
            group["lr"] = group.pop("initial_lr", group["lr"])
        return built, LambdaLR(built, self.schedule(total_steps))

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The other's factor."""
        return self.schedule_of.schedule(total_steps)

    def formula(self) -> str:
        """The optimizer's."""
        return self.optimizer.formula()

    def describe(self) -> str:
        """Both in a line."""
        return f"{self.optimizer.describe()}; under the schedule of: {self.schedule_of.describe()}"

    def canonical(self) -> str:
        """Both."""
        return f"{self.optimizer.canonical()} under {self.schedule_of.canonical()}"

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """Refused: it is made to be measured.

        Raises:
            ValueError: Always.
        """
        raise ValueError("an optimizer under another's schedule is not exported")


def variants(winner: TermGenome, adamw: Candidate | None = None) -> Variants:
    """The winner, and what remains of it without each of its parts; by name, no two the same optimizer.

    Args:
        winner: The genome.
        adamw: AdamW as a sweep tuned it. Default: None, without the variants that need it.
    """
    made: dict[str, Candidate] = {WINNER: winner}
    kinds = list(dict.fromkeys(winner.terms))
    for kind in kinds if len(kinds) > 1 else []:
        kept = [(t, a) for t, a in zip(winner.terms, winner.alphas, strict=True) if t != kind]
        terms, alphas = zip(*kept, strict=True)
        made[f"without {kind}"] = dataclasses.replace(winner, terms=terms, alphas=alphas)
    for flag, words in _FLAGS.items():
        if getattr(winner, flag):
            made[words] = TermGenome.from_dict({**winner.to_dict(), flag: False})
    if winner.warmup and winner.cosine_decay:
        made["without schedule"] = dataclasses.replace(winner, warmup=False, cosine_decay=False)
    made["without weight decay"] = dataclasses.replace(winner, weight_decay=0.0)
    rule = winner.rule()
    plain_adamw = dataclasses.replace(
        winner,
        terms=("ADAM_TERM",),
        alphas=(1.0,),
        beta1=0.9 if rule.beta1 is None else rule.beta1,
        beta2=0.999 if rule.beta2 is None else rule.beta2,
        use_momentum=True,
        use_second_moment=True,
        bias_correction=True,
        gradient_clipping=False,
    )
    # What the winner's terms come to, which may cancel; in as many terms as it has: one weight is bounded.
    n = len(winner.alphas)
    weight = math.fsum(map(abs, rule.coefficients)) / n
    made[SCALED] = dataclasses.replace(plain_adamw, terms=("ADAM_TERM",) * n, alphas=(weight,) * n)
    made[HYPER] = plain_adamw
    if adamw is not None:
        made[TUNED] = adamw  # with the schedule that it was tuned under
        made[SCHEDULED] = Rescheduled(adamw, winner)
    seen: dict[str, str] = {}
    for name, candidate in made.items():
        seen.setdefault(candidate.canonical(), name)
    account: tuple[tuple[str, str, str], ...] = ()
    if adamw is not None:  # one thing changed at a time; another order would split the gain otherwise
        account = (
            ("the winner − tuned AdamW", WINNER, TUNED),
            ("of it the schedule", SCHEDULED, TUNED),
            ("of it the hyperparameters", SCALED, SCHEDULED),
            ("of it the rule", WINNER, SCALED),
        )
    # Some of AdamW's stay although they may be the winner itself: the account of its gain needs them.
    needed = (SCALED, HYPER, TUNED, SCHEDULED)
    left = {n: c for n, c in made.items() if seen[c.canonical()] == n or n in needed}
    return Variants(left, account)
