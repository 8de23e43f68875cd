"""`SlotSampler`: generations of slots behind Optuna's sampler interface; a subclass says what is in them."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from optevo import keys
from optevo.optuna_private import (
    all_trials,
    in_optimize_loop,
    set_trial_system_attr,
    set_trial_user_attr,
    store_constraints,
    stored_trial,
    trial_id,
    written_together,
)
from optevo.samplers.claiming import claim
from optevo.samplers.individuals import params_of
from optevo.samplers.memory import SamplerCache, StudyCaches
from optevo.samplers.slots import Member, Slot, SlotTable, bred_size, claimed
from optevo.scalars import plain

if TYPE_CHECKING:
    from optuna.study import Study

    from optevo.optuna_private import AnyTrial

T = TypeVar("T", int, int | None)


class SlotSampler(BaseSampler):
    """Exact generations for any number of workers; what a slot's individual is, is a subclass's.

    A trial claims a slot of its generation in the storage, and the slot names its individual. Pruned trials
    are members that rank by the value they earned; fixed and enqueued parameters hold a slot like any other;
    elites are carried over without another evaluation.

    A subclass implements Optuna's `infer_relative_search_space`, `sample_relative` and `sample_independent`,
    and `lineage` where individuals have parents. One that breeds is a `BreedingSampler`.

    Where a trial comes from is in its system attributes, whose names begin with ``optevo:``; its user
    attributes stay the user's. `optevo.keys.ours` reads generation, slot, parents (trial numbers) and origin.

    Args:
        population_size: Members of a generation.
        n_generations: How many there are; with `endless`, over how many something may anneal. Default: None.
        n_elites: Members carried over unchanged. Default: 0.
        seed: Seed of the search. Default: None, derived from the study's name and first moment.
        presets: Parameters that hold the first slots of generation 0.
        group_size: So many neighbouring slots belong to one trial at a time, see `group`. Default: 1.
        max_failures: Failed trials after which a slot is given up and leaves the population. None: never.
            Default: 3.
        patience: Seconds without any change after which a worker in `study.optimize` takes over a slot from
            the longest-running trial, which is presumed dead. Default: 600.
        endless: False makes `ask` raise `NoSlot` instead of waiting or starting a generation beyond
            `n_generations`; the surplus trial is marked FAIL. Default: True.
        asynchronous: The next generation begins as soon as a generation's slots are all taken, and its
            children are bred from whoever has finished. Such a search cannot be repeated. Default: False.
        constraints_func: As in Optuna's samplers: the values of a trial's constraints, each kept where it is
            at most 0. Those that `trial.set_constraint` names count alike. Default: None.

    Attributes:
        has_generations: Whether later generations are bred from earlier ones, so that racing and copies can
            look back. Default: True.
        races: Whether those that fall behind the generation before are of no use, so that racing may stop
            them. Default: True.
        ranks_fronts: Whether it ranks by several objectives, where a study has them. Default: False.
        origin: What a trial's attribute `origin` says that is no preset.
        claim_key: The system attribute in which trials claim slots. Default: `keys.CLAIM`.
        lineage_in_user_attrs: Whether to write where trials come from to user attributes instead, which
            dashboards show. Default: False.
        on_trial: Called with study and trial before anything else happens to a trial. Default: None.

    Raises:
        TypeError: A size is no whole number.
        ValueError: A size or a preset's value is out of range, or the study has several objectives. Without a
            space, a preset's fault shows when its trial suggests another value or name.

    Example:
        >>> import optuna
        >>> from optevo import keys
        >>> from optevo.samplers import GeneticSampler  # one of them
        >>> study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=7)
        >>> [keys.ours(trial)[keys.GENERATION] for trial in study.trials]
        [0, 0, 0, 0, 1, 1, 1]
    """

    has_generations = True
    races = True
    ranks_fronts = False
    origin = "sampled"
    claim_key = keys.CLAIM

    def __init__(
        self,
        *,
        population_size: int,
        n_generations: int | None = None,
        n_elites: int = 0,
        seed: int | None = None,
        presets: Sequence[Mapping[str, Any]] = (),
        group_size: int = 1,
        max_failures: int | None = 3,
        patience: float = 600.0,
        endless: bool = True,
        asynchronous: bool = False,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
    ) -> None:
        self.population_size = whole_number("population_size", population_size, 1)
        self.n_elites = whole_number("n_elites", n_elites, 0)
        self.n_generations = whole_number("n_generations", n_generations, 1)
        self.seed = whole_number("seed", seed, 0)
        self.group_size = whole_number("group_size", group_size, 1)
        self.max_failures = whole_number("max_failures", max_failures, 1)
        if n_elites >= population_size:
            raise ValueError(f"Invalid n_elites: {n_elites}, expected 0 to {population_size - 1}")
        if len(presets) > population_size:
            raise ValueError(f"Invalid presets: {len(presets)} of them in a population of {population_size}")
        if asynchronous and group_size > 1:
            raise ValueError("Invalid group_size: an asynchronous search has no groups, set it to 1")
        if not patience >= 0:
            raise ValueError(f"Invalid patience: {patience}, expected at least 0 seconds")
        self.presets = [{name: plain(value) for name, value in preset.items()} for preset in presets]
        self.patience = patience
        self.endless = endless
        self.asynchronous = asynchronous
        self.constraints_func = constraints_func
        self.lineage_in_user_attrs = False
        self.on_trial: Callable[[Study, FrozenTrial], None] | None = None
        self._reset()

    # Optuna's interface

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial its slot; writes the claim and the lineage."""
        self._check(study)
        if self.on_trial is not None:
            self.on_trial(study, trial)
        slot = claim(
            study,
            trial,
            lambda: self.slot_table(study),
            self._lock,
            key=self.claim_key,
            patience=self.patience if in_optimize_loop(study) else 0.0,
            endless=self.endless,
        )
        self._cache(study).slots[trial_id(trial)] = slot
        lineage = self.lineage(study, slot)
        if trial.system_attrs.get("fixed_params"):
            lineage |= {keys.PARENTS: [], keys.ORIGIN: "enqueued"}
        user, system = self.attributes(slot, lineage)
        with written_together(study):
            for key, value in user.items():
                set_trial_user_attr(study, trial, key, value)
            for key in system.keys() - {self.claim_key}:
                set_trial_system_attr(study, trial, key, system[key])
        trial.user_attrs = {**trial.user_attrs, **user}  # Optuna read the trial before
        trial.system_attrs = {**trial.system_attrs, **system}

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Store its constraints, and mark a trial late whose slot another has decided meanwhile."""
        if self.constraints_func is not None:
            store_constraints(self.constraints_func, study, trial, state)
        slot = self.slot(study, trial)
        self._cache(study).slots.pop(trial_id(trial), None)
        if slot is not None and self.is_preset(slot) and state == TrialState.COMPLETE:
            self._check_used(study, trial, self.presets[slot.index])
        if not self.endless:  # then slots are only taken over from trials that have been failed
            return
        if slot is not None and self.slot_table(study).decided(slot):
            set_trial_system_attr(study, trial, keys.LATE, True)

    def reseed_rng(self) -> None:
        """Nothing to do: randomness follows from the slot, so parallel workers never repeat each other."""

    # For whoever runs the study

    def slot_table(self, study: Study) -> SlotTable:
        """The study's slots as the storage has them now."""
        with self._lock:
            trials = all_trials(study)
            table = self._cache(study, trials).table
            table.update(trials, *study.directions)
            return table

    def slot(self, study: Study, trial: AnyTrial) -> Slot | None:
        """A trial's slot, None where it has none."""
        known = self._cache(study).slots.get(trial_id(trial))
        # `trial` was read before `before_trial` wrote the claim.
        return claimed(stored_trial(study, trial), self.claim_key) if known is None else known

    def failed_before(self, study: Study, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that had failed in a slot when its present trial was given it, but for interrupted ones."""
        return self._cache(study).table.failed(slot)

    def interrupted_before(self, study: Study, slot: Slot) -> Sequence[FrozenTrial]:
        """Trials that had been interrupted in a slot when its present trial was given it."""
        return self._cache(study).table.interrupted(slot)

    def lineage(self, study: Study, slot: Slot) -> dict[str, Any]:
        """Attributes that say where a slot's individual comes from. Default: from nobody."""
        origin = "preset" if self.is_preset(slot) else self.origin
        return {
            keys.GENERATION: slot.generation,
            keys.SLOT: slot.index,
            keys.PARENTS: [],
            keys.ORIGIN: origin,
        }

    def attributes(self, slot: Slot, lineage: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """User and system attributes of a trial that has claimed `slot`, for a `lineage`."""
        claim = {self.claim_key: slot.claim}
        if self.lineage_in_user_attrs:
            return dict(lineage), claim
        return {}, {**claim, keys.PARENTS: lineage[keys.PARENTS], keys.ORIGIN: lineage[keys.ORIGIN]}

    def size(self, generation: int, populations: Mapping[int, Sequence[Member]]) -> int:
        """Places of a generation.

        Args:
            generation: Which.
            populations: Those that have finished; without any, the answer is the most that there can be.
        """
        return bred_size(generation, self.population_size, self.n_elites)

    def attempts(self, generation: int) -> int:
        """Attempts at each place of a generation: the next where one ended without a value. Default: 1."""
        return 1

    def screens(self, generation: int) -> bool:
        """Whether a generation is only screened, by the cheap evaluation where the study has one.

        Default: False.
        """
        return False

    def positions(self, study: Study) -> list[list[int | None]]:
        """The trials at which individuals are that a sampler follows, generation by generation from 1 on.

        Each as the generation begins, as far as those before have finished; None where one is nowhere.
        Default: nobody is followed.
        """
        return []

    def is_preset(self, slot: Slot) -> bool:
        """Whether a preset holds the slot."""
        return slot.generation == 0 and slot.index < len(self.presets)

    def group(self, study: Study, slot: Slot) -> dict[Slot, dict[str, Any]]:
        """The individuals that train together with the one in `slot`, in order of their slots.

        They are the same whatever is decided already: those who stack them get the same stack again.

        Raises:
            ValueError: The sampler doesn't know them beforehand, which is the default.
        """
        raise ValueError(f"a {type(self).__name__} does not know its individuals beforehand")

    # What is remembered of a study; all of it can be read again from the storage

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._caches = StudyCaches(self._lock)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_caches", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _cache(self, study: Study, trials: Sequence[FrozenTrial] | None = None) -> SamplerCache:
        return self._caches.get(study, self._make_table, trials)

    def _check(self, study: Study) -> None:
        if len(study.directions) > 1 and not self.ranks_fronts:
            raise ValueError(f"{type(self).__name__} has one objective, the study has several")

    def _check_used(self, study: Study, trial: FrozenTrial, preset: Mapping[str, Any]) -> None:
        """Refuse a preset with a name that its trial never suggested: what it meant was drawn."""
        unused = [name for name in preset if name not in params_of(trial)]
        if unused and not trial.system_attrs.get("fixed_params"):
            set_trial_system_attr(study, trial, keys.ORIGIN, "random")
            known = ", ".join(map(repr, trial.params)) or "none"
            raise ValueError(
                f"Invalid preset: trial {trial.number} suggested no {unused[0]!r}, but {known}; "
                "what it suggested instead was drawn, so it counts as random"
            )

    def _make_table(self) -> SlotTable:
        return SlotTable(
            self.population_size,
            self.n_elites,
            self.max_failures,
            self.group_size,
            n_generations=None if self.endless else self.n_generations,
            asynchronous=self.asynchronous,
            sizes=self.size,
            attempts=self.attempts,
            claim_key=self.claim_key,
        )


def whole_number(name: str, value: T, least: int) -> T:
    """`value` as Python's integer, or None as it is.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is below `least`.
    """
    if value is None:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"Invalid {name}: {value!r}, expected a whole number") from None
    if number < least:
        raise ValueError(f"Invalid {name}: {value}, expected at least {least}")
    return number


def sampler_of(study: Study) -> SlotSampler:
    """The sampler of a study of ours; every kind in `optevo.samplers.SAMPLERS` is a `SlotSampler`.

    Example:
        >>> import optuna
        >>> from optevo.samplers import GeneticSampler, sampler_of
        >>> study = optuna.create_study(sampler=GeneticSampler(population_size=20, seed=0))
        >>> sampler_of(study).population_size
        20
    """
    return cast(SlotSampler, study.sampler)


def populations(study: Study) -> dict[int, list[Member]]:
    """Finished generations, best member first; none where the study's sampler is not one of ours.

    Example:
        >>> import optuna
        >>> from optevo.samplers import GeneticSampler, populations
        >>> study = optuna.create_study(sampler=GeneticSampler(population_size=4, n_elites=1, seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=7)
        >>> populations(study)[1][0].trial.number == study.best_trial.number
        True
    """
    return study.sampler.slot_table(study).populations if isinstance(study.sampler, SlotSampler) else {}


def positions(study: Study) -> list[list[int | None]]:
    """See `SlotSampler.positions`; nobody is followed where the study's sampler is not one of ours."""
    return study.sampler.positions(study) if isinstance(study.sampler, SlotSampler) else []
