"""A new search space: `torch.optim.SGD` with its learning rate, momentum and Nesterov's variant.

A candidate says how it is built and written down, a space what may vary and how. The study::

    name = "new_space"
    space = { kind = "new_space:HEAVY_BALL", fastest = 1.0 }
    sampler = { kind = "genetic", population_size = 8, n_generations = 2, n_elites = 1 }
    evaluation = { tasks = ["digits"], steps = 60, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

import math
from dataclasses import dataclass

from optuna.distributions import CategoricalDistribution, FloatDistribution

from optevo.optim.candidate import Candidate
from optevo.spaces import Space, SpaceKind, SpaceSection

FILE = '''"""SGD as a search found it: {provenance!r}"""

import torch


class {name}(torch.optim.SGD):
    def __init__(self, params, lr={lr!r}, momentum={momentum!r}, nesterov={nesterov!r}, **options):
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov, **options)


def scheduler(optimizer, total_steps):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
'''


@dataclass(frozen=True)
class HeavyBall(Candidate):
    lr: float
    momentum: float
    nesterov: bool

    def build(self, params, total_steps):
        import torch  # noqa: PLC0415  a candidate needs it only here, so that samplers run without

        options = {"momentum": self.momentum, "nesterov": self.nesterov}
        optimizer = torch.optim.SGD(params, lr=self.lr, **options)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule(total_steps))

    def schedule(self, total_steps):
        return lambda step: 1.0

    def formula(self):
        return "Δ = g + μ·m, m ← μ·m + g" if self.nesterov else "Δ = m, m ← μ·m + g"

    def describe(self):
        return f"lr {self.lr:.3g}, μ {self.momentum:.3g}"

    def canonical(self):  # results are stored under it
        return f"heavy ball {self.lr!r} {self.momentum!r} {self.nesterov}"

    def source(self, class_name, provenance):
        values = {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov}
        return FILE.format(name=class_name, provenance=dict(provenance), **values)

    def step_size(self):
        return self.lr / (1 - self.momentum)


class HeavyBallSection(SpaceSection):
    """What a study file may say besides `kind`; the keys are the arguments of the space."""

    fastest: float = 1.0


class HeavyBallSpace(Space):
    name, title, evolves = "heavy_ball", "SGD with momentum", True

    def __init__(self, fastest=1.0):
        self.fastest = fastest

    def distributions(self):
        return {
            "lr": FloatDistribution(1e-4, self.fastest, log=True),
            "momentum": FloatDistribution(0.01, 0.99),
            "nesterov": CategoricalDistribution([False, True]),
        }

    def candidate(self, params):
        return HeavyBall(params["lr"], params["momentum"], params["nesterov"])

    def presets(self):
        return {"torch's usual": {"lr": 0.01, "momentum": 0.9, "nesterov": False}}

    def sample(self, rng):  # draws from this generator and from nothing else
        lr = math.exp(rng.uniform(math.log(1e-4), math.log(self.fastest)))
        return {"lr": lr, "momentum": float(rng.uniform(0.01, 0.99)), "nesterov": bool(rng.random() < 0.5)}

    def vary(self, parents, rng, decay):
        child = {name: parents[int(rng.integers(len(parents)))][name] for name in parents[0]}
        lr = child["lr"] * math.exp(decay * rng.normal())
        return {**child, "lr": float(min(max(lr, 1e-4), self.fastest))}


HEAVY_BALL = SpaceKind(HeavyBallSection, HeavyBallSpace)
