"""What of a winner did it: its terms, flags and schedule removed one by one, and AdamW in its place.

The gain over tuned AdamW is split along a path that changes one thing at a time::

    tuned AdamW → the winner's schedule → its hyperparameters → its rule = the winner
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from optevo.analysis.compare import OVERALL, score
from optevo.analysis.statistics import Estimate, holm, paired, verdict
from optevo.evaluation.runs import Run
from optevo.optim.genome import TermGenome
from optevo.spaces import Candidate
from optevo.stored import plain

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

WINNER = "the winner"
TUNED, SCHEDULED = "tuned AdamW", "tuned AdamW, the winner's schedule"
HYPER, SCALED = "AdamW's rule, the winner's hyperparameters", "the same, lr × the winner's weights"
_FLAGS = {  # gene, as it is called when it is off
    "use_momentum": "without momentum",
    "use_second_moment": "without second moment",
    "bias_correction": "without bias correction",
    "gradient_clipping": "without gradient clipping",
    "warmup": "without warmup",
    "cosine_decay": "without cosine decay",
}


@dataclass(frozen=True)
class Rescheduled:
    """An optimizer under another's learning-rate schedule.

    Attributes:
        optimizer: Whose update and numbers.
        scheduler: Whose schedule.
    """

    optimizer: Candidate
    scheduler: Candidate

    def build(self, params: Iterable[Any], total_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimizer and scheduler for a run of `total_steps` steps."""
        from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415  torch only where it is needed

        built, _ = self.optimizer.build(params, total_steps)
        for group in built.param_groups:  # that of its own schedule's first step
            group["lr"] = group.pop("initial_lr", group["lr"])
        return built, LambdaLR(built, self.schedule(total_steps))

    def schedule(self, total_steps: int) -> Callable[[int], float]:
        """The other's factor."""
        return self.scheduler.schedule(total_steps)

    def formula(self) -> str:
        """The optimizer's."""
        return self.optimizer.formula()

    def describe(self) -> str:
        """Both in a line."""
        return f"{self.optimizer.describe()}; under the schedule of: {self.scheduler.describe()}"

    def canonical(self) -> str:
        """Both."""
        return f"{self.optimizer.canonical()} under {self.scheduler.canonical()}"

    def source(self, class_name: str, provenance: Mapping[str, str]) -> str:
        """None: it is made to be measured."""
        raise ValueError("an optimizer under another's schedule is not exported")


def variants(winner: TermGenome, adamw: Candidate | None = None) -> dict[str, Candidate]:
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
    made[HYPER] = plain_adamw
    weight = min(sum(map(abs, winner.alphas)), 5.0)
    made[SCALED] = dataclasses.replace(plain_adamw, alphas=(weight,))
    if adamw is not None:
        made[TUNED] = adamw  # with the schedule that it was tuned under
        made[SCHEDULED] = Rescheduled(adamw, winner)
    seen: dict[str, str] = {}
    for name, candidate in made.items():
        seen.setdefault(candidate.canonical(), name)
    # AdamW's variants stay although they may be the winner itself: the account below needs them all.
    return {n: c for n, c in made.items() if seen[c.canonical()] == n or n in (HYPER, TUNED, SCHEDULED)}


def ablation_frame(runs: Mapping[str, Sequence[Run]], measure: str) -> pd.DataFrame:
    """A row a variant: mean and sd over seeds of the mean over tasks, and its difference to the winner.

    Paired by task and seed, with 95 % intervals; Holm's correction over all variants.
    """
    rows, estimates = [], []
    for name, own in runs.items():
        by_task = _scores(own, measure)
        overall = [float(np.mean(each)) for each in zip(*by_task.values(), strict=True)]
        row = {"variant": name, "mean": float(np.mean(overall)), "n": len(overall)}
        row["sd"] = float(np.std(overall, ddof=1)) if len(overall) > 1 else float("nan")
        row |= {f"{OVERALL if t is None else t}": float(np.mean(v)) for t, v in by_task.items()}
        rows.append(row)
        estimates.append(None if name == WINNER else difference(own, runs[WINNER], measure))
    tested = [e for e in estimates if e is not None]
    adjusted = iter(holm([e.p for e in tested]))
    for row, estimate in zip(rows, estimates, strict=True):
        if estimate is None:
            continue
        p = next(adjusted)
        row |= {"difference": estimate.mean, "low": estimate.low, "high": estimate.high, "p": estimate.p}
        row |= {"p_holm": p, "verdict": verdict(estimate, p), "method": estimate.method}
    return pd.DataFrame(rows)


def difference(ours: Sequence[Run], theirs: Sequence[Run], measure: str) -> Estimate:
    """Ours minus theirs, paired by task and seed, the mean over tasks."""
    a, b = _scores(ours, measure), _scores(theirs, measure)
    pairs = {task: [x - y for x, y in zip(a[task], b[task], strict=True)] for task in a}
    return paired(pairs, rng=np.random.default_rng(0))


def account(runs: Mapping[str, Sequence[Run]], measure: str) -> list[tuple[str, Estimate, str]]:
    """The winner's gain over tuned AdamW, and what schedule, hyperparameters and rule have in it.

    Each is (what, the difference, its verdict after Holm's correction over the four); empty without AdamW's
    variants. The three parts add up to the whole.
    """
    if not {TUNED, SCHEDULED, HYPER} <= runs.keys():
        return []
    steps = [
        ("the winner − tuned AdamW", WINNER, TUNED),
        ("of it the schedule", SCHEDULED, TUNED),
        ("of it the hyperparameters", HYPER, SCHEDULED),
        ("of it the rule", WINNER, HYPER),
    ]
    found = [(what, difference(runs[new], runs[old], measure)) for what, new, old in steps]
    adjusted = holm([estimate.p for _, estimate in found])
    return [(what, e, verdict(e, p)) for (what, e), p in zip(found, adjusted, strict=True)]


def ablation_cells(frame: pd.DataFrame) -> list[list[str]]:
    """A header and a row a variant, for printing."""
    cells = [["variant", "mean ± sd", "n", "− the winner", "95 % interval", "p, Holm", "verdict"]]
    for _, row in frame.iterrows():
        compared = ["", "", "", ""]
        if row["variant"] != WINNER:
            interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
            compared = [f"{row['difference']:+.4f}", interval, f"{row['p_holm']:.3g}", row["verdict"]]
        cells.append(
            [plain(row["variant"]), f"{row['mean']:.4f} ± {row['sd']:.4f}", str(row["n"]), *compared]
        )
    return cells


def account_cells(parts: Sequence[tuple[str, Estimate, str]]) -> list[list[str]]:
    """A header and a row a part of the gain, for printing."""
    return [
        ["what", "difference", "95 % interval", "verdict"],
        *[[what, f"{e.mean:+.4f}", f"{e.low:+.4f} to {e.high:+.4f}", said] for what, e, said in parts],
    ]


def _scores(runs: Sequence[Run], measure: str) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for run in runs:
        values.setdefault(run.task, []).append(score(run, measure))
    return values
