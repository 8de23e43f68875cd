"""The best of a search, trained again stage by stage: a sampler whose generations are stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.optuna_private import set_trial_system_attr, trial_id
from optevo.samplers.base import SlotSampler
from optevo.samplers.operators import given
from optevo.samplers.slots import Member, Slot

if TYPE_CHECKING:
    from optuna.study import Study


class StageSampler(SlotSampler):
    """Hands a search's best to the first stage, the best of each stage to the next, by slots as any other.

    A stage is a generation, a place in it a candidate. Places are in the order of the stage before, so that
    members of equal value keep it: ties are broken by the earlier stage, in the end by the search. Who has no
    value in a stage, as where a run of it diverged, goes on to no other. Its trials claim their slots under a
    key of their own, by which whoever reads the search knows them.

    Args:
        entrants: The trials whose candidates enter the first stage, best first.
        keep: How many of each stage go on; of the last, which is followed by none, it says nothing.
    """

    has_generations = False
    races = False
    claim_key = keys.STAGE_CLAIM

    def __init__(self, entrants: Sequence[FrozenTrial], keep: Sequence[int]) -> None:
        super().__init__(
            population_size=len(entrants),
            n_generations=len(keep),
            max_failures=None,
            patience=0.0,
            endless=False,
        )
        self.entrants, self.keep = list(entrants), list(keep)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot; that it is none of the search's is written before.

        Raises:
            NoSlot: All are taken.
        """
        set_trial_system_attr(study, trial, self.claim_key, None)
        super().before_trial(study, trial)

    def size(self, generation: int, populations: Mapping[int, Sequence[Member]]) -> int:
        """As many as the stage before passes on."""
        if generation == 0:
            return len(self.entrants)
        before = populations.get(generation - 1)
        most = min(self.keep[generation - 1], len(self.entrants))
        return most if before is None else min(most, sum(member.complete for member in before))

    def candidate_of(self, study: Study, slot: Slot) -> FrozenTrial:
        """The search's trial whose candidate a slot evaluates; its stage has begun."""
        populations, place = self.slot_table(study).populations, slot.index
        for stage in reversed(range(slot.generation)):
            place = populations[stage][place].slot.index
        return self.entrants[place]

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """Which stage, and whose candidate."""
        source = self.candidate_of(study, slot)
        return {keys.STAGE: slot.generation + 1, keys.PROMOTED_FROM: source.number}

    def attributes(self, slot: Slot, lineage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The lineage, for people to see, and the claim."""
        return dict(lineage), {self.claim_key: slot.claim}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: every parameter is the candidate's."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The candidate's parameter."""
        own = self._cache(study).own
        if trial_id(trial) not in own:
            slot = self.slot(study, trial)
            assert slot is not None
            own[trial_id(trial)] = self.candidate_of(study, slot).params
        return given(param_name, own[trial_id(trial)][param_name], param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Forget the candidate."""
        self._cache(study).own.pop(trial_id(trial), None)
        super().after_trial(study, trial, state, values)


def stage_sampler_of(study: Study) -> StageSampler:
    """The sampler of an `optevo.study.promotion.staged_study`."""
    return cast(StageSampler, study.sampler)
