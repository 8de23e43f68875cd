"""`GraphOptimizer`: an equation as an ordinary torch optimizer."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optevo.naming import explain_keywords
from optevo.optim.checked import CheckedOptimizer, ranges
from optevo.optim.graphs.equation import Equation
from optevo.optim.graphs.genome import check_shares, shares
from optevo.optim.graphs.program import Program, program
from optevo.optim.schedules import OneCycleMomentum

BLOCK = 65_536  # elements that are worked on at a time on a CPU, whose intermediate values its cache holds
PACKED = 16_384  # parameters below this size are put together, since calls would cost more than sums


@explain_keywords
class GraphOptimizer(CheckedOptimizer):
    r"""The update of an `Equation`.

        w ← (1 − η·λ)·w − η·U,   or with a wrapper   b ← m·b − η·U,  w ← w + b  and the like

    Time is part of the rule: the decays and the wrapper's coefficient m follow each parameter's own count of
    steps against `total_steps`, and a checkpoint brings the count along. Past the end they keep their last
    values, while averages and bias corrections go on. The learning-rate schedule is not in here: take it
    from the candidate, `optevo.optim.graphs.genome.GraphGenome.scheduler`.

    State is kept only for what the equation reads, under short names: ``v``, ``s`` and ``c``, the averages of
    g, g² and g³; ``n1`` and so on of operations that remember; ``b`` of the wrapper; and ``step``.
    An update that is not finite somewhere makes NaN all that is updated in one piece with it, so that the
    loss shows it. Dropouts draw anew each step, from `seed` and the step count, for one parameter after the
    other.
    float16 and bfloat16 parameters are updated in float32 and rounded once, and their state is float32.

    Args:
        params: Parameters, named parameters or groups.
        equation: The update rule, or its text.
        total_steps: Length of the run in steps, ≥ 1.
        lr: Learning rate η. Default: 1e-2.
        warmup: The share of the run over which m falls from 0.95 to 0.85; above 1, a number of steps.
            Default: 0.
        hold: The share after that over which m stays, or likewise steps; then it rises again. Default: 0.
        momentum: A constant in the place of m's schedule. Default: None.
        weight_decay: Decoupled weight decay λ. Default: 0.
        seed: Of the equation's dropouts, if it has any, ≥ 0. Default: 0.
        maximize: Ascend instead of descend. Default: False.

    Raises:
        ValueError: The text is none of an equation, a hyperparameter is out of range, or a parameter is
            complex.
        RuntimeError: In `step`, a gradient is sparse.

    Example:
        >>> from optevo.optim.graphs import GraphOptimizer
        >>> model = torch.nn.Linear(4, 2)
        >>> rule = "nesterov i1e(i1e([mul(a13,a2)]*g))"
        >>> optimizer = GraphOptimizer(model.parameters(), rule, total_steps=1000, lr=1.0)
    """

    RANGES: ClassVar[Mapping[str, tuple[float, float, int]]] = {
        **ranges({"lr": 1e-2, "weight_decay": 0.0}),
        "warmup": (0.0, 1e15, 1),
        "hold": (0.0, 1e15, 1),
        "momentum": (0.0, math.inf, 1),
        "total_steps": (1, 1e15, 1),
        "seed": (0, 2**53, 1),
    }

    def __init__(
        self,
        params: Iterable[Any],
        equation: Equation | str,
        *,
        total_steps: int,
        lr: float | Tensor = 1e-2,
        warmup: float = 0.0,
        hold: float = 0.0,
        momentum: float | None = None,
        weight_decay: float = 0.0,
        seed: int = 0,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "equation": equation.text() if isinstance(equation, Equation) else equation,
            "total_steps": total_steps,
            "warmup": warmup,
            "hold": hold,
            "momentum": momentum,
            "seed": seed,
            "maximize": maximize,
        }
        self._check(defaults)
        super().__init__(params, defaults)

    def _check(self, group: Mapping[str, Any]) -> None:
        # None is no number, but the momentum's schedule.
        super()._check({k: v for k, v in group.items() if (k, v) != ("momentum", None)})
        for name in ("total_steps", "seed", "warmup", "hold", "momentum"):
            value = group.get(name, 0)
            whole = name in ("total_steps", "seed")
            if isinstance(value, bool) or (whole and value != int(value)):
                raise ValueError(f"Invalid {name} value: {value}, expected a{' whole' * whole} number")
        check_shares(float(group.get("warmup", 0.0)), float(group.get("hold", 0.0)))
        text = group.get("equation", "none id(g)")
        if not isinstance(text, str):
            raise ValueError(f"Invalid equation value: {text!r}, expected a text")
        program(text)

    def _step(self) -> None:
        with self._widened():
            for group in self.param_groups:
                rule = program(group["equation"])
                for (device, _, k), params in self._buckets(group, rule.states).items():
                    self._update(rule, group, device, k, params)

    def _buckets(
        self, group: dict[str, Any], states: tuple[str, ...]
    ) -> dict[tuple[torch.device, torch.dtype, int], list[Tensor]]:
        """What has a gradient by (device, dtype, step count); creates the state and counts."""
        buckets: dict[tuple[torch.device, torch.dtype, int], list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if "step" not in state:
                # On the CPU, so that reading it is no wait for another device.
                state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
            for name in states:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
            k = int(state["step"].item()) + 1
            buckets.setdefault((p.device, p.dtype, k), []).append(p)
        for params in buckets.values():
            for p in params:
                self.state[p]["step"].add_(1)
        return buckets

    def _update(
        self, rule: Program, group: Mapping[str, Any], device: torch.device, k: int, params: Sequence[Tensor]
    ) -> None:
        lr, decay, total_steps = float(group["lr"]), float(group["weight_decay"]), int(group["total_steps"])
        t = min(k, total_steps) - 1
        m = group["momentum"]
        if m is None:
            m = _momenta(total_steps, float(group["warmup"]), float(group["hold"]))(t)
        numbers: list[Any] = [lr, float(m), k, *(table[t] for table in rule.tables(total_steps))]
        generator = None
        if rule.draws:  # made anew every step, so that a checkpoint need not hold it
            generator = torch.Generator(device).manual_seed((int(group["seed"]) * 1_000_003 + k) % 2**63)
        if decay:
            torch._foreach_mul_(list(params), 1 - lr * decay)
        rows = [[p, self._gradient(p, group), *(self.state[p][name] for name in rule.states)] for p in params]
        block = None if rule.whole else BLOCK if device.type == "cpu" else 64 * BLOCK  # that bounds memory
        for tensors in _pieces(rows, block, apart=rule.whole):
            rule.update(*tensors, *numbers, generator)

    @staticmethod
    def _gradient(p: Tensor, group: Mapping[str, Any]) -> Tensor:
        assert p.grad is not None
        return -p.grad if group["maximize"] else p.grad


def _pieces(rows: list[list[Tensor]], block: int | None, *, apart: bool) -> Iterator[list[Tensor]]:
    """Flat tensors to update in place, of rows of a parameter, its gradient and its state.

    Large parameters come in blocks, as views of their memory; small ones and those with gaps in memory are
    copied into one, and back afterwards.

    Args:
        rows: A list a parameter.
        block: Elements of a block. None: parameters come whole.
        apart: Whether parameters must not be put together.
    """
    packed = []
    for row in rows:
        p = row[0]
        if (
            (p.numel() >= PACKED or (apart and p.numel()))
            and _dense(p)
            and all(t.stride() == p.stride() for t in row)
        ):
            flat = [t.detach().as_strided((p.numel(),), (1,)) for t in row]
            yield from (
                [flat] if block is None else map(list, zip(*(t.split(block) for t in flat), strict=True))
            )
        elif p.numel():
            packed.append(row)
    for together in [[row] for row in packed] if apart else [packed] * bool(packed):
        columns = list(zip(*together, strict=True))
        flat = [torch.cat([t.detach().reshape(-1) for t in column]) for column in columns]
        yield flat
        sizes = [p.numel() for p in columns[0]]
        for column, new in zip([columns[0], *columns[2:]], [flat[0], *flat[2:]], strict=True):
            parts = [part.view(t.shape) for part, t in zip(new.split(sizes), column, strict=True)]
            torch._foreach_copy_([t.detach() for t in column], parts)


def _dense(t: Tensor) -> bool:
    """Whether its elements fill a stretch of memory without gaps."""
    return 1 + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) == t.numel()


@functools.lru_cache(maxsize=32)
def _momenta(total_steps: int, warmup: float, hold: float) -> OneCycleMomentum:
    return OneCycleMomentum(total_steps, **shares(total_steps, warmup, hold))
