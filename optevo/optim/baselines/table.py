"""The table of baselines: which there are, with their ranges. A new one is one entry; pure Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optevo.naming import Registry

Option = bool | int | float | str | list[float]

_LRS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_L2 = (1e-5, 1e-4, 1e-3)
_DECOUPLED = (1e-4, 1e-2, 1e-1)  # shrinks weights by lr · weight_decay a step: below 1e-4 nothing is seen


@dataclass(frozen=True)
class Baseline:
    """An optimizer as people use it; all but lr and weight decay is fixed for a study.

    Attributes:
        factory: What makes it, as a dotted name.
        formula: The update for people; g is the gradient, m and v its moments, with hats bias-corrected.
        decay: "L2", added to the gradient, or "decoupled", λ·lr off the weights.
        options: Its other hyperparameters, which a study file may set.
        lr: Learning rates to try, where a study file names none.
        weight_decay: Weight decays to try, likewise.
        fixed: Arguments that no study file sets.
        horizon: The argument that takes the run's number of steps, if any.
        without_horizon: Options with which it does without that. Default: none, it never does.
        graph_every: The gradient's own graph is needed every so many steps, for second derivatives. Default:
            0, never.
        by_kind: Whether it takes groups with a `kind`, see `optevo.optim.kinds`. Default: False.
        use: What its users have to do besides stepping it, as sentences. Default: nothing.
    """

    factory: str
    formula: str
    decay: str
    options: Mapping[str, Option] = field(default_factory=dict)
    lr: tuple[float, ...] = _LRS
    weight_decay: tuple[float, ...] = _L2
    fixed: Mapping[str, Any] = field(default_factory=dict)
    horizon: str | None = None
    without_horizon: Mapping[str, Option] | None = None
    graph_every: int = 0
    by_kind: bool = False
    use: str = ""

    def wants(self, options: Mapping[str, Option]) -> str | None:
        """What it must be told besides parameters and gradients, so that a class alone can't be it.

        Args:
            options: Hyperparameters other than its own.
        """
        settings = {**self.options, **options}
        if self.horizon is not None and (
            self.without_horizon is None or not self.without_horizon.items() <= settings.items()
        ):
            return f"the run's length as {self.horizon}"
        return "gradients with their graph" if self.graph_every else None


_ADAM: dict[str, Option] = {"betas": [0.9, 0.999], "eps": 1e-8}
_FUSED = {"fused": True}  # on CPU and CUDA: torch's fastest
_HESSIAN_EVERY = 10
_SIGNED: dict[str, Any] = {
    "options": {"momentum": 0.9, "decay": "none"},
    "lr": (3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "horizon": "total_steps",
    "without_horizon": {"decay": "none"},
}

BASELINES: Registry[Baseline] = Registry("baseline")
BASELINES |= {
    "sgd": Baseline(
        "torch.optim.SGD",
        "m ← μ·m + g; Δ = g + μ·m with nesterov, else m",
        "L2",
        {"momentum": 0.9, "nesterov": True},
        lr=(1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        fixed=_FUSED,
    ),
    "momentum": Baseline(
        "torch.optim.SGD",
        "m ← μ·m + g; Δ = m",
        "L2",
        {"momentum": 0.9},
        lr=(1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        fixed=_FUSED,
    ),
    "nesterov": Baseline(
        "torch.optim.SGD",
        "m ← μ·m + g; Δ = g + μ·m",
        "L2",
        {"momentum": 0.9},
        lr=(1e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        fixed={"nesterov": True, **_FUSED},
    ),
    "qhm": Baseline(
        "optevo.optim.averaged.QHM",
        "m ← β·m + (1 − β)·g; Δ = (1 − ν)·g + ν·m",
        "L2",
        {"momentum": 0.999, "nu": 0.7},
        # m is an average, no sum: a steady step is a tenth of momentum's at the same lr.
        lr=(1e-2, 1e-1, 3e-1, 1.0, 3.0),
    ),
    "powersign": Baseline(
        "optevo.optim.averaged.PowerSign",
        "m ← β·m + (1 − β)·g; Δ = exp(f·sign(g)·sign(m))·g, f as decay says",
        "L2",
        **_SIGNED,
    ),
    "addsign": Baseline(
        "optevo.optim.averaged.AddSign",
        "m ← β·m + (1 − β)·g; Δ = (1 + f·sign(g)·sign(m))·g, f as decay says",
        "L2",
        **_SIGNED,
    ),
    "adam": Baseline("torch.optim.Adam", "Δ = m̂/(√v̂ + ε)", "L2", _ADAM, fixed=_FUSED),
    "adamw": Baseline(
        "torch.optim.AdamW", "Δ = m̂/(√v̂ + ε)", "decoupled", _ADAM, weight_decay=_DECOUPLED, fixed=_FUSED
    ),
    "rmsprop": Baseline(
        "torch.optim.RMSprop",
        "Δ = g/(√v + ε)",
        "L2",
        {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0},
    ),
    "nadam": Baseline(
        "torch.optim.NAdam",
        "Adam with Nesterov's momentum",
        "decoupled",
        {**_ADAM, "momentum_decay": 4e-3},
        weight_decay=_DECOUPLED,
        fixed={"decoupled_weight_decay": True},
    ),
    "radam": Baseline(
        "torch.optim.RAdam",
        "Adam, rectified while v is uncertain",
        "decoupled",
        _ADAM,
        weight_decay=_DECOUPLED,
        fixed={"decoupled_weight_decay": True},
    ),
    "adafactor": Baseline(
        "torch.optim.Adafactor",
        "Δ = g/√v by rows and columns, scaled to the weights, at most d; lr at most 1/√t",
        "decoupled",
        {"beta2_decay": -0.8, "d": 1.0},
        lr=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        weight_decay=_DECOUPLED,
    ),
    "muon": Baseline(
        "optevo.optim.muon.MuonAdamW",
        "Δ = the orthogonal factor of Nesterov's momentum for 2-D weights; AdamW for the rest",
        "decoupled",
        {"momentum": 0.95, "nesterov": True, **_ADAM},
        weight_decay=_DECOUPLED,
    ),
    "muon_conv": Baseline(
        "optevo.optim.muon.MuonConvAdamW",
        "as muon, with convolutions as matrices and the last layer left to AdamW",
        "decoupled",
        {"momentum": 0.95, "nesterov": True, **_ADAM},
        weight_decay=_DECOUPLED,
    ),
    "ortho_conv": Baseline(
        "optevo.optim.hybrids.OrthoConvAdamW",
        "Δ = the orthogonal factor of Nesterov's momentum for convolutions; AdamW for the rest",
        "decoupled",
        {"momentum": 0.95, **_ADAM},
        lr=(1e-3, 2e-3, 5e-3, 1e-2),
        weight_decay=_DECOUPLED,
        by_kind=True,
    ),
    "cautious_ortho_conv": Baseline(
        "optevo.optim.hybrids.CautiousOrthoConvAdamW",
        "as ortho_conv, without what points along the gradient",
        "decoupled",
        {"momentum": 0.95, **_ADAM},
        lr=(1e-3, 2e-3, 5e-3, 1e-2),
        weight_decay=_DECOUPLED,
        by_kind=True,
    ),
    "evolved_modern": Baseline(  # a rule that a search found; its sweep is tuned as a baseline's
        "optevo.optim.hybrids.EvolvedModern",
        "what a search of the modern catalogue found: ortho_conv with other numbers, swept like it",
        "decoupled",
        {},
        lr=(7e-4, 1e-3, 1.5e-3, 2.2e-3),
        weight_decay=_DECOUPLED,
        by_kind=True,
    ),
    "lion": Baseline(
        "pytorch_optimizer.Lion",
        "Δ = sign(β₁·m + (1 − β₁)·g); m ← β₂·m + (1 − β₂)·g",
        "decoupled",
        {"betas": [0.9, 0.99]},
        lr=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        weight_decay=(1e-3, 1e-1, 1.0),
    ),
    "sophia": Baseline(
        "pytorch_optimizer.SophiaH",
        "Δ = clip(m/max(h, ε), p), h a running mean of Hutchinson's estimate of the Hessian's diagonal",
        "decoupled",
        {"betas": [0.96, 0.99], "p": 0.01},
        # p bounds a step at lr · p, so that lr = 0.1 moves weights like Adam's 1e-3.
        lr=(1e-2, 3e-2, 1e-1, 3e-1, 1.0),
        weight_decay=(1e-4, 1e-3, 1e-2),
        fixed={"update_period": _HESSIAN_EVERY},
        graph_every=_HESSIAN_EVERY,
    ),
    "ademamix": Baseline(
        "pytorch_optimizer.AdEMAMix",
        "Δ = (m̂₁ + α·m₂)/(√v̂ + ε), m₂ a moment of β₃; α and β₃ grow over the run",
        "decoupled",
        {"betas": [0.9, 0.999, 0.9999], "alpha": 5.0, "eps": 1e-8},
        weight_decay=_DECOUPLED,
        fixed={"weight_decouple": True},
        horizon="t_alpha_beta3",
    ),
    "cautious_adamw": Baseline(
        "optevo.optim.adam_variants.CautiousAdamW",
        "Δ = m̂/(√v̂ + ε) where that has the gradient's sign, divided by the share that has it; else 0",
        "decoupled",
        _ADAM,
        weight_decay=_DECOUPLED,
    ),
    "mars": Baseline(
        "optevo.optim.adam_variants.MARS",
        "AdamW of c = g + γ·β₁/(1 − β₁)·(g − the last g), of norm at most 1; plain AdamW for vectors",
        "decoupled",
        {"betas": [0.95, 0.99], "gamma": 0.025, "betas_1d": [0.9, 0.95], "eps": 1e-8},
        weight_decay=_DECOUPLED,
    ),
    "soap": Baseline(
        "optevo.optim.soap.SOAP",
        "Adam in the eigenbases of g·gᵀ and gᵀ·g, turned back",
        "decoupled",
        {"betas": [0.95, 0.95], "eps": 1e-8, "precondition_frequency": 10, "max_precondition_dim": 1024},
        weight_decay=_DECOUPLED,
    ),
    "schedule_free": Baseline(
        "optevo.optim.schedule_free.ScheduleFreeAdamW",
        "z ← z − lr·g/(√v̂ + ε), g at (1 − β₁)·z + β₁·x; x, the mean of z, is scored",
        "decoupled",
        {**_ADAM, "warmup_steps": 0},
        lr=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2),  # the authors advise up to ten times AdamW's
        weight_decay=_DECOUPLED,
        use="Call eval() on it before the model is scored or saved, and train() before it is trained on.",
    ),
}

#: What canonical forms call these, for good: results are stored under the forms. The names were those of
#: the classes once; classes may move, and what is not listed is called by its own name.
STORED_NAMES = {
    "sgd": "torch.optim.SGD",
    "adam": "torch.optim.Adam",
    "adamw": "torch.optim.AdamW",
    "rmsprop": "torch.optim.RMSprop",
    "nadam": "torch.optim.NAdam",
    "radam": "torch.optim.RAdam",
    "adafactor": "torch.optim.Adafactor",
    "muon": "optevo.optim.muon.MuonAdamW",
    "lion": "pytorch_optimizer.Lion",
    "sophia": "pytorch_optimizer.SophiaH",
    "ademamix": "pytorch_optimizer.AdEMAMix",
}
