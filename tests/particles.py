"""An oracle of particle searches: what must hold of one, read from its stored trials alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.samplers import ParticleSampler
from optevo.samplers.individuals import params_of

FINISHED = ("COMPLETE", "PRUNED")
Claims = dict[tuple[int, ...], FrozenTrial]


def claims(study: Study) -> Claims:
    """The finished trials by what they claimed; what was evaluated twice fails here."""
    done = [t for t in study.trials if t.state.name in FINISHED and keys.LATE not in t.system_attrs]
    found = {tuple(trial.system_attrs[keys.CLAIM]): trial for trial in done}
    assert len(found) == len(done), "a slot was evaluated twice"
    return dict(sorted(found.items()))


def individuals(study: Study, generations: int) -> dict[tuple[int, ...], Any]:
    """All that must not depend on who evaluated what and when; parents are named by their claims."""
    found = claims(study)
    name = {trial.number: claim for claim, trial in found.items()}
    return {
        claim: (
            params_of(trial),
            trial.state,
            trial.value,
            [name[number] for number in keys.ours(trial)[keys.PARENTS]],
            keys.ours(trial)[keys.ORIGIN],
        )
        for claim, trial in found.items()
        if claim[0] < generations
    }


def check(
    study: Study,
    identity: Callable[[Mapping[str, Any]], object] = lambda params: tuple(sorted(params.items())),
) -> list[dict[int, int]]:
    """Whether a search followed the rules, but for its last generation, which need not have ended.

    Returns:
        The trial number at which each particle was, generation by generation from 1 on.
    """
    sampler = study.sampler
    assert isinstance(sampler, ParticleSampler)
    m = sampler.n_mutations
    found = claims(study)
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1

    def rank(claim: tuple[int, ...]) -> tuple[Any, ...]:
        trial = found[claim]
        value = float("inf") if trial.value is None else sign * trial.value
        return trial.state.name != "COMPLETE", value, claim

    n_generations = 1 + max(claim[0] for claim in found)
    first = sorted((claim for claim in found if claim[0] == 0), key=rank)
    positions = {p: found[claim].number for p, claim in enumerate(first[: sampler.n_particles])}
    been = {p: [identity(params_of(study.trials[number]))] for p, number in positions.items()}
    assert all(not keys.ours(found[claim])[keys.PARENTS] for claim in first)
    path = [positions]
    for g in range(1, n_generations):
        moved = dict(positions)
        for p, at in positions.items():
            places = [p] if g == 1 else range(p * m, p * m + m)
            best = []
            for place in places:
                tried = [claim for claim in found if claim[:2] == (g, place)]
                if not tried:
                    assert g == n_generations - 1
                    continue
                n_attempts = sampler.n_attempts if g > 1 else 1
                expected = [(g, place), *((g, place, a) for a in range(1, n_attempts))]
                assert tried == expected[: len(tried)]
                *before, last = tried
                assert all(found[claim].value is None for claim in before)
                if found[last].value is not None:
                    best.append(last)
                elif g < n_generations - 1:
                    assert len(tried) == n_attempts
                for claim in tried:
                    assert keys.ours(found[claim])[keys.PARENTS] == [at]
                    origin = "re-evaluation" if g == 1 else "mutation"
                    assert keys.ours(found[claim])[keys.ORIGIN] == origin
                    one = identity(params_of(found[claim]))
                    assert (one in been[p]) == (g == 1)
                    been[p].append(one)
            if best:
                moved[p] = found[min(best, key=rank)].number
        positions = moved
        path.append(positions)
    return path
