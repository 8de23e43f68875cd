"""Optimizers of other kinds as genomes of the modern catalogue. Pure Python."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from optevo.optim.baselines.registry import WARMUP_SHARE, TunedBaseline
from optevo.optim.candidate import Candidate
from optevo.optim.terms.genome import ALPHA_BOUND, MAX_TERMS, TermGenome
from optevo.optim.terms.modern import BOUNDS, ModernGenome, SecondRule

#: What a sweep's schedule is called, as the decay after a tenth of warmup.
_DECAYS = {"warmup_cosine": "cosine", "warmup_linear": "linear"}
#: The kinds of parameters that a baseline orthogonalises; the rest is AdamW's.
_ORTHO_KINDS = {
    "muon": ("hidden", "head"),
    "muon_conv": ("convolution", "hidden"),
    "ortho_conv": ("convolution",),
    "cautious_ortho_conv": ("convolution",),
}


def as_modern(candidate: Candidate, steps: int) -> ModernGenome:
    """The genome that is the same optimizer.

    Three things are not to the last bit as they were. A baseline takes an embedding for a hidden matrix,
    where a genome has the kinds that the task says. A cosine after a warmup begins with the warmup in sweeps
    and in the published catalogue, and after it here, so that the rate is up to a tenth of its peak higher in
    between. And Muon's orthogonal factor is of other coefficients, see `optevo.optim.orthogonal`.

    Args:
        candidate: A genome of either catalogue, or a tuned baseline.
        steps: Training steps of a run, of which a warmup in steps is a share.

    Raises:
        ValueError: There is none; the message says why.
    """
    if isinstance(candidate, ModernGenome):
        return candidate
    if isinstance(candidate, TermGenome):
        return _of_terms(candidate, steps)
    if isinstance(candidate, TunedBaseline):
        return _of_baseline(candidate)
    raise ValueError(f"a {type(candidate).__name__} is no sum of the terms")


def _of_terms(genome: TermGenome, steps: int) -> ModernGenome:
    genes = {field.name: getattr(genome, field.name) for field in dataclasses.fields(genome)}
    decay = "cosine" if genes.pop("cosine_decay") else "none"
    warms, length = genes.pop("warmup"), genes.pop("warmup_steps")
    warmup = length / steps if warms else 0.0
    if warmup > 1:
        raise ValueError(f"it warms up over {genome.warmup_steps} steps of {steps}")
    return ModernGenome(**genes, warmup=warmup, decay=decay)


def _of_baseline(tuned: TunedBaseline) -> ModernGenome:
    name, options = tuned.name, tuned.arguments
    genes: dict[str, Any] = {"lr": tuned.lr, "weight_decay": tuned.weight_decay, **_schedule(tuned)}
    if tuned.baseline.decay == "L2" and tuned.weight_decay != 0:
        raise ValueError(
            f"{name} adds its weight decay to the gradient, and a genome takes it off the weights"
        )
    if "betas" in options and name != "lion":
        genes |= {"beta1": options["betas"][0], "beta2": options["betas"][1]}
    if "eps" in options:
        genes["eps"] = options["eps"]
    genes["cautious"] = name.startswith("cautious_")
    if name in ("adam", "adamw", "cautious_adamw"):
        return _genome(name, {"ADAM_TERM": 1.0}, genes)
    if name == "lion":
        lion, beta1 = options["betas"]
        return _genome(name, {"LION": 1.0}, {**genes, "beta1": beta1, "beta_lion": lion})
    if name in _ORTHO_KINDS:
        if not options.get("nesterov", True):
            raise ValueError(f"{name} without Nesterov's momentum has another orthogonal factor than ORTHO")
        ortho = SecondRule(
            kinds=_ORTHO_KINDS[name], terms=("ORTHO",), alphas=(1.0,), beta1=options["momentum"]
        )
        return _genome(name, {"ADAM_TERM": 1.0}, {**genes, "second": ortho})
    if name == "rmsprop":
        if options["momentum"] != 0:
            raise ValueError("rmsprop with momentum averages after it divides")
        genes |= {"beta2": options["alpha"], "use_momentum": False, "bias_correction": False}
        return _genome(name, {"RMS_NORM": 1.0}, genes)
    if name in ("sgd", "momentum", "nesterov"):
        return _momentum(tuned, options, genes)
    raise ValueError(f"{name} is no sum of the terms")


def _schedule(tuned: TunedBaseline) -> dict[str, Any]:
    if tuned.schedule_name == "none":
        return {}
    if tuned.schedule_name not in _DECAYS:
        raise ValueError(f"the schedule {tuned.schedule_name} is none of warmup, hold and decay")
    return {"warmup": WARMUP_SHARE, "decay": _DECAYS[tuned.schedule_name]}


def _momentum(tuned: TunedBaseline, options: Mapping[str, Any], genes: Mapping[str, Any]) -> ModernGenome:
    """SGD, whose momentum is a sum: 1/(1 − μ) times a genome's, which is an average."""
    momentum = options["momentum"]
    weights = {"GRAD": 1.0}
    if momentum:
        weights = {"MOMENTUM": 1 / (1 - momentum)} if momentum < 1 else {"MOMENTUM": math.inf}
        if options.get("nesterov", False):
            weights = {"GRAD": 1.0, "MOMENTUM": momentum * weights["MOMENTUM"]}
    numbers = {"beta1": momentum, "use_second_moment": False, "bias_correction": False}
    return _genome(tuned.name, weights, {**genes, **numbers})


def _genome(name: str, weights: Mapping[str, float], genes: Mapping[str, Any]) -> ModernGenome:
    """The genome of these weights, each in as many terms as its size takes, at a rate within bounds."""
    lr = min(max(genes["lr"], BOUNDS["lr"][0]), BOUNDS["lr"][1])
    terms, alphas = list[str](), list[float]()
    for term, weight in weights.items():
        weight *= genes["lr"] / lr  # noqa: PLW2901  what the rate can't say
        n = min(math.ceil(weight / ALPHA_BOUND - 1e-9), MAX_TERMS + 1) if weight < math.inf else MAX_TERMS + 1
        terms += [term] * n
        alphas += [min(weight / n, ALPHA_BOUND)] * n
    if len(terms) > MAX_TERMS:
        raise ValueError(
            f"{name} at the rate {genes['lr']:g} takes weights beyond {MAX_TERMS} terms of {ALPHA_BOUND:g}"
        )
    if lr != genes["lr"] and genes.get("weight_decay"):
        raise ValueError(f"the rate {genes['lr']:g} is outside {BOUNDS['lr'][0]:g} to {BOUNDS['lr'][1]:g}")
    return ModernGenome(terms=tuple(terms), alphas=tuple(alphas), **{**genes, "lr": lr})
