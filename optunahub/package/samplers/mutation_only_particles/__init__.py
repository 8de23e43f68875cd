"""The particle sampler of optevo as an OptunaHub package."""

from optevo.samplers import ParticleSampler

__all__ = ["ParticleSampler"]
