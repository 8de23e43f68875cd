"""One usual optimizer over learning rate × weight decay: what sweeps search."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution

from optevo.errors import UserError
from optevo.optim.baselines.registry import BASELINES, Option, TunedBaseline
from optevo.spaces.base import Params, Space


class BaselineSpace(Space):
    """Learning rate and weight decay of one baseline; samplers draw between the least and greatest values.

    Args:
        name: A key of `optevo.optim.baselines.registry.BASELINES`.
        schedule: One of `optevo.optim.baselines.registry.SCHEDULES`, for every point. Default: "none".
        lr: Learning rates, > 0. Default: the baseline's.
        weight_decay: Weight decays, ≥ 0. Default: the baseline's.
        options: The baseline's other hyperparameters. Default: its own.

    Raises:
        KeyError: There is no such baseline.

    Example:
        >>> from optevo.spaces import BaselineSpace
        >>> space = BaselineSpace("adamw", schedule="warmup_cosine", lr=[1e-3, 1e-2])
        >>> space.distributions()["lr"]
        FloatDistribution(high=0.01, log=True, low=0.001, step=None)
    """

    TUNED = ("lr", "weight_decay")

    def __init__(
        self,
        name: str,
        schedule: str = "none",
        lr: Sequence[float] | None = None,
        weight_decay: Sequence[float] | None = None,
        options: Mapping[str, Option] | None = None,
    ) -> None:
        baseline = BASELINES[name]
        self.title = f"learning rate and weight decay of {name}"
        package = baseline.factory.partition(".")[0]
        self.package = package if package == "pytorch_optimizer" else None
        self.name, self.schedule, self.options = name, schedule, dict(options or {})
        count = len(set(lr or baseline.lr))
        self.own_rate = (
            None if count == 1 else f"lr names {count} rates; name exactly one, which trials then replace"
        )
        self.values = {
            "lr": tuple(lr or baseline.lr),
            "weight_decay": tuple(weight_decay or baseline.weight_decay),
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """`lr` and `weight_decay`, on a log scale where the least is above 0."""
        return {
            name: FloatDistribution(min(values), max(values), log=min(values) > 0)
            for name, values in self.values.items()
        }

    def candidate(self, params: Mapping[str, Any]) -> TunedBaseline:
        """The optimizer with a trial's parameters.

        Raises:
            ValueError: One is missing or out of range.
        """
        for name in self.TUNED:
            if name not in params:
                raise ValueError(f"Invalid parameters: {name!r} is missing")
            value = params[name]
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < float("inf")
            ):
                raise ValueError(f"Invalid {name}: {value!r}, expected a finite number ≥ 0")
        return TunedBaseline(
            self.name, float(params["lr"]), float(params["weight_decay"]), self.schedule, self.options
        )

    def sample(self, rng: np.random.Generator) -> Params:
        """A draw between the least and the greatest values, log-uniform where the least is above 0."""
        params: Params = {}
        for name, values in self.values.items():
            low, high = min(values), max(values)
            if low > 0:
                drawn = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            else:
                drawn = float(rng.uniform(low, high))
            params[name] = min(max(drawn, low), high)
        return params

    def rehearse(self) -> None:
        """Take one step, so that what is wrong with the options is found before a study begins.

        Raises:
            UserError: It refuses them, or its package is missing.
        """
        import torch  # noqa: PLC0415  torch only where an optimizer is built

        lowest = {name: min(values) for name, values in self.values.items()}
        weights = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
        try:
            optimizer = self.candidate(lowest).optimizer(weights, total_steps=10)
            loss = torch.stack([w.square().sum() for w in weights]).sum()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that weights and gradients now refer to one another
                loss.backward(create_graph=bool(BASELINES[self.name].graph_every))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        except ImportError as error:
            raise UserError(f"space.kind = {self.name!r}: {error}; pip install pytorch-optimizer") from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"space.options: {self.name} refuses them: {error}") from None

    def not_exportable(self) -> str | None:
        """What the optimizer wants to know besides parameters and gradients, if anything."""
        baseline = BASELINES[self.name]
        wants = baseline.wants(self.options)
        if wants is None:
            return None
        return (
            f"{self.name} cannot be written as a class, it wants {wants}; leave the option out and "
            f"use {baseline.factory} with what the study finds"
        )

    def grid(self) -> dict[str, list[float]]:
        """The values themselves, for Optuna's `GridSampler`."""
        return {name: list(values) for name, values in self.values.items()}
