"""A new sampler: every child is a mutant of one of the best few. It suits any space that evolves.

`BreedingSampler` holds the slots, so that any number of workers get the same individuals. The study::

    name = "new_sampler"
    sampler = { kind = "new_sampler:BEST_FEW", size = 8, rounds = 2, few = 3 }
    evaluation = { tasks = ["digits"], steps = 60, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

from optevo.samplers import BreedingSampler, SamplerKind, SamplerSection


class BestFewSection(SamplerSection):
    """What a study file may say besides `kind`."""

    size: int
    rounds: int
    extent = "rounds"  # a finished study goes on with more of these
    few: int = 3

    def trials(self, space):
        return self.size * self.rounds

    def places(self, space):
        return self.size


class BestFew(BreedingSampler):
    origin = "mutated"  # how a trial tells where it came from

    def __init__(self, few, **options):
        super().__init__(**options)
        self.few = few

    def choose_parents(self, population, rng, slot):  # the population is ranked, the best first
        return [population[int(rng.integers(min(self.few, len(population))))]]

    def breed(self, variation, parents, rng, *, slot, seen):
        return variation.vary(parents, rng, 1.0) if parents else variation.sample(rng)


def make(section, space, seed, group_size):
    return BestFew(
        section.few,
        population_size=section.size,
        n_generations=section.rounds,
        seed=seed,
        space=space,
        presets=list(space.presets().values()),
        max_failures=None,
        endless=False,
    )


BEST_FEW = SamplerKind(BestFewSection, make)
