"""What optevo's optimizers do besides their update; exported files hold the class as it stands here.

So the class needs torch and the standard library alone, and of this module no more than `IMPORTS` brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from types import NoneType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

#: The imports of a file that holds the class.
IMPORTS = """\
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from numbers import Real
from types import NoneType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
"""

_INF = math.inf
_BELOW_ONE = math.nextafter(1.0, 0.0)
# Least and greatest of hyperparameters by name, all of them finite numbers.
_BOUNDS = {
    "lr": (0.0, _INF),
    "weight_decay": (0.0, _INF),
    "betas": (0.0, _BELOW_ONE),
    "eps": (0.0, _INF),
    "momentum": (0.0, _INF),
    "dampening": (-_INF, _INF),
    "momentum_decay": (0.0, _INF),
    "alpha": (0.0, _BELOW_ONE),
    "beta2_decay": (-_INF, 0.0),
    "d": (1.0, _INF),
}


def ranges(defaults: Mapping[str, Any]) -> dict[str, tuple[float, float, int]]:
    """`CheckedOptimizer.RANGES` of an optimizer with these defaults."""
    known = {name: _BOUNDS[name] for name in defaults if name in _BOUNDS}
    return {
        name: (*bounds, len(value) if isinstance(value := defaults[name], (tuple, list)) else 1)
        for name, bounds in known.items()
    }


def step_count(state: dict[str, Any]) -> Tensor:
    """The steps that a parameter has had, by its state: "step", a float32 scalar as torch has it.

    On the CPU and a constant, so that reading it is no wait for a device, nor an error with fake tensors.
    """
    if "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=torch.float32, device="cpu")
    count: Tensor = state["step"]
    return count


class CheckedOptimizer(Optimizer):
    """Checks what it is given, and keeps the state of float16 and bfloat16 parameters in float32.

    A moment kept in float16 is 0 where a gradient is below 2e-4. Kept in float32 it costs 4 bytes a number
    instead of 2, so that Adam's state is 8 bytes a parameter, as for a float32 parameter.

    A subclass has `_step`, the update with the gradients that are there.
    """

    # By name: the least and the greatest that a hyperparameter may be, and how many numbers it is.
    RANGES: ClassVar[Mapping[str, tuple[float, float, int]]] = {}
    TAKES_COMPLEX: ClassVar[bool] = False
    TAKES_SPARSE: ClassVar[bool] = False
    NARROW: ClassVar[tuple[torch.dtype, ...]] = (torch.float16, torch.bfloat16)
    COUNTERS: ClassVar[frozenset[str]] = frozenset({"step", "mu_product"})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimization step.

        Args:
            closure: Re-evaluates the model and returns the loss. Default: None.

        Returns:
            The closure's loss, None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        if not self.TAKES_SPARSE and any(g is not None and g.layout is not torch.strided for g in grads):
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
        self._step()
        return loss

    def _step(self) -> None:
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after steps were taken; one with bad values is refused and not kept."""
        if isinstance(param_group, dict) and "params" not in param_group:
            raise ValueError(f"Invalid parameter group: no 'params' among its keys {list(param_group)}")
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            group.update({name: self._plain(group[name]) for name in self.RANGES if name in group})
            self._check(group)
        except BaseException:
            self.param_groups.pop()
            raise

    def _check(self, group: Mapping[str, Any]) -> None:
        """Refuse, with a ValueError, what is out of range, and complex parameters without an update."""
        for name, (least, greatest, count) in self.RANGES.items():
            if name not in group:
                continue
            value, usual = group[name], getattr(self, "defaults", {}).get(name, 0.0)
            if isinstance(value, (tuple, list)) != (count > 1) or (count > 1 and len(value) != count):
                expected = f"{count} numbers" if count > 1 else "a number"
                raise ValueError(f"Invalid {name} value: {value}, expected {expected}")
            for index, number in enumerate(value if count > 1 else (value,)):
                if isinstance(number, Tensor) and number.numel() != 1:
                    raise ValueError(f"Tensor {name} must be 1-element, got {number.numel()}")
                optional = count > 1 and isinstance(usual, tuple) and usual[index] is None
                if self._within(number, least, greatest) or (number is None and optional):
                    continue
                said = {
                    "lr": f"learning rate: {number}",
                    "eps": f"epsilon value: {number}",
                    "betas": f"beta parameter at index {index}: {number}",
                }
                raise ValueError("Invalid " + said.get(name, f"{name} value: {number}"))
            if count == 2 and isinstance(value[0], Tensor) != isinstance(value[1], Tensor):
                raise ValueError(f"{name} must be either both floats or both Tensors")
        if not self.TAKES_COMPLEX and any(p.is_complex() for p in group.get("params", ())):
            raise ValueError(f"{type(self).__name__} has no update for complex parameters")

    @classmethod
    def _plain(cls, value: Any) -> Any:
        """NumPy's scalars as Python's own, which checkpoints can hold."""
        if isinstance(value, (tuple, list)):
            return type(value)(map(cls._plain, value))
        return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value

    @staticmethod
    def _within(number: Any, least: float, greatest: float) -> bool:
        """Whether it is a finite number of this range; of a wrong type it is not."""
        if not isinstance(number, (Real, Tensor)):
            return False
        try:
            return least <= float(number) <= greatest and math.isfinite(number)
        except OverflowError:
            return False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but hyperparameters are checked first, and float32 state stays float32."""
        loaded: dict[str, Any] = {}

        def check(_: Optimizer, given: dict[str, Any]) -> None:
            for group in given["param_groups"]:
                self._check({name: value for name, value in group.items() if name != "params"})
            loaded.update(given)

        def keep(_: Optimizer) -> None:
            """torch has cast all state to the parameters' dtypes, so that small moments are 0 by now."""
            numbers = [number for group in loaded["param_groups"] for number in group["params"]]
            params = [p for group in self.param_groups for p in group["params"]]
            for number, p in zip(numbers, params, strict=True):
                if p.dtype not in self.NARROW:
                    continue
                for name, value in loaded["state"].get(number, {}).items():
                    if isinstance(value, Tensor) and name not in self.COUNTERS:
                        wide = torch.float32 if value.is_floating_point() else value.dtype
                        self.state[p][name] = value.to(device=p.device, dtype=wide)

        hooks = (
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(keep, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def __getstate__(self) -> dict[str, Any]:
        """As torch's, with the plain values that a class keeps on itself."""
        plain = {
            name: value for name, value in vars(self).items() if isinstance(value, (Real, str, NoneType))
        }
        return {**super().__getstate__(), **plain}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take state of older versions too: keys that are missing, counters that are plain numbers."""
        groups = state["param_groups"]
        defaults = state.get("defaults") or self.defaults
        # Of a checkpoint; what it lacks stays as it is.
        present = vars(self).get("param_groups") or [{} for _ in groups]
        for group, now in zip(groups, present, strict=False):
            for name, value in defaults.items():
                if name != "differentiable":  # torch's, which not every optimizer knows
                    group.setdefault(name, now.get(name, value))
            on_device = group.get("fused") or group.get("capturable")
            for p in group["params"]:
                held = state["state"].get(p, {})
                for name in self.COUNTERS & held.keys():
                    # Read at every step: on another device, that would be a wait for it.
                    where = p.device if on_device else "cpu"
                    held[name] = torch.as_tensor(held[name], dtype=torch.float32, device=where)
                for name, value in held.items():
                    if isinstance(value, Tensor) and value.dtype in self.NARROW:
                        held[name] = value.float()
        super().__setstate__(state)

    @contextmanager
    def _widened(self) -> Iterator[None]:
        """Float32 copies in the place of narrow parameters that have gradients; rounded back once."""
        lists = [group["params"] for group in self.param_groups]
        copies: dict[Tensor, Tensor] = {}
        for p in (p for params in lists for p in params if p.dtype in self.NARROW and p.grad is not None):
            copies[p] = p.detach().float()
            copies[p].grad = p.grad.float()
            self.state[copies[p]] = self.state[p]  # one dict, under both
        try:
            if copies:
                for group in self.param_groups:
                    group["params"] = [copies.get(p, p) for p in group["params"]]
            yield
            for p, copy in copies.items():
                p.copy_(copy)
        finally:
            for group, params in zip(self.param_groups, lists, strict=True):
                group["params"] = params
            for copy in copies.values():
                del self.state[copy]
