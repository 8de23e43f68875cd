"""The genetic sampler of optevo as an OptunaHub package."""

from optevo.samplers import GeneticSampler

__all__ = ["GeneticSampler"]
