"""The trials that a study holds, checked one by one and together."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from optevo import keys
from optevo.errors import UserError
from optevo.escaping import printable
from optevo.optuna_private import Gate
from optevo.samplers import SAMPLERS, SlotSampler
from optevo.samplers.individuals import params_of
from optevo.study.config import StudyConfig
from optevo.study.damage import REMEDY, check_names, check_shape, check_shapes, need, refuse
from optevo.study.schema import REPORTED, SYSTEM, TRIAL, TRIAL_MANY, VALUES, domains_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from optevo.spaces.base import Space
    from optevo.study.stages import Pipeline

# Parts of a trial. A head is all that is neither of the others.
HEAD = ("head",)
WHOLE = ("head", "user_attrs", "params", "intermediate_values")


def gate_of(where: str, config: StudyConfig, n_trials: int) -> Gate:
    """What each of the first `n_trials` of a study has to pass, given the parts to look at."""
    space = config.make_space()
    domains = domains_of(space)
    make, groups = SAMPLERS[config.sampler.kind].make, config.evaluation.batch_candidates
    sampler = make(config.sampler, space, config.seed, groups)
    last = (sampler.n_generations or config.n_trials) - 1

    def gate(trial: FrozenTrial, parts: Container[str]) -> None:
        if trial.number < n_trials:  # later ones were written since, by workers as good as this
            here = f"{where}, trial {trial.number}"
            _check_trial(here, trial, parts, n_trials)
            if "head" in parts:
                _check_dormant(here, trial, space)
            if "params" in parts and trial.state.name in ("COMPLETE", "PRUNED"):
                check_shapes(here, trial.params, domains)
                if trial.state.name == "COMPLETE" and not space.whole(params_of(trial)):
                    _need_all(here, trial, space, domains)
            _check_place(here, trial, parts, sampler, last)

    return gate


def _check_trial(where: str, trial: FrozenTrial, parts: Container[str], n_trials: int) -> None:
    state = trial.state.name
    if "head" in parts:  # first: what user attributes are ours, system attributes tell
        check_shapes(where, trial.system_attrs, SYSTEM)
        if state in ("COMPLETE", "PRUNED"):
            check_shape(where, "value", trial.values or [], VALUES)
        if state == "COMPLETE" and not trial.values:
            refuse(where, "value", "one finite number", trial.values)
    if "user_attrs" in parts:
        _check_user_attrs(where, trial, n_trials)
    if "intermediate_values" in parts and trial.intermediate_values:
        check_shape(where, "intermediate values", trial.intermediate_values, REPORTED)


def _need_all(where: str, trial: FrozenTrial, space: Space, names: Iterable[str]) -> None:
    """Refuse a lack, that which the candidate misses first: a trial may have only some of these names."""
    said = ""
    try:
        space.candidate(params_of(trial))
    except (KeyError, ValueError) as error:
        said = str(error)
    need(where, trial.params, *sorted(names, key=lambda name: repr(name) not in said))


def _check_dormant(where: str, trial: FrozenTrial, space: Space) -> None:
    fault = space.dormant_fault(trial.system_attrs.get(keys.DORMANT, {}))
    if fault is not None:
        raise UserError(f"{where}: {keys.DORMANT!r} is wrong: {printable(fault[:300])}; {REMEDY}")


def _check_user_attrs(where: str, trial: FrozenTrial, n_trials: int) -> None:
    check_names(where, trial.user_attrs)
    attrs, state = keys.ours(trial), trial.state.name
    check_shapes(where, attrs, TRIAL, TRIAL_MANY)
    if keys.ORIGIN in attrs:  # written last of these
        need(where, attrs, keys.GENERATION, keys.SLOT, keys.PARENTS)
    if keys.COPIED_FROM in attrs:
        need(where, attrs, keys.RUNS, keys.COPIED_RUNS)
    if keys.STAGE in attrs:
        need(where, {**trial.system_attrs, **attrs}, keys.STAGE_CLAIM, keys.PROMOTED_FROM)
    for key in (keys.PARENTS, keys.ATTEMPTS, keys.COPIED_FROM, keys.PROMOTED_FROM):
        # Not "below its own number": a worker that waited for a slot may have a lower one than the parents.
        others = attrs.get(key, ())
        if others and not (max(others) if isinstance(others, list) else others) < n_trials:
            refuse(where, key, f"below {n_trials}, the number of trials", others)
    if state == "COMPLETE":
        staged = keys.STAGE_CLAIM in trial.system_attrs
        place = (keys.STAGE,) if staged else (keys.GENERATION, keys.SLOT)
        need(where, attrs, *place, keys.CANONICAL)


def _check_place(
    where: str, trial: FrozenTrial, parts: Container[str], sampler: SlotSampler, last: int
) -> None:
    """Every slot that is named is one that there is, and the one that was claimed."""
    claim, named = trial.system_attrs.get(keys.CLAIM), []
    if "head" in parts and claim is not None:
        named.append((keys.CLAIM, list(claim)))
    if "user_attrs" in parts:
        attrs = keys.ours(trial)
        place = [attrs.get(keys.GENERATION, 0), attrs.get(keys.SLOT, 0)]
        named.append((keys.SLOT, place))
        if keys.ORIGIN in attrs and claim is not None and _counts(trial) and place != list(claim)[:2]:
            refuse(where, keys.SLOT, f"{list(claim)}, which it claimed", place)
    for key, (generation, *others) in named:
        most = [last, sampler.size(generation, {}) - 1, sampler.attempts(generation) - 1][: 1 + len(others)]
        if any(number > limit for number, limit in zip([generation, *others], most, strict=True)):
            refuse(where, key, f"at most {most}, as the study is configured", [generation, *others])


def check_slots(where: str, trials: Sequence[FrozenTrial]) -> None:
    """What counts in one slot is one genome.

    The same one may count twice: a finished trial whose writing was acknowledged too late is written again.
    """
    deciders: dict[tuple[int, ...], FrozenTrial] = {}
    for trial in filter(_counts, trials):
        slot = tuple(trial.system_attrs[keys.CLAIM])
        first = deciders.setdefault(slot, trial)
        if first is not trial and first.params and trial.params and first.params != trial.params:
            raise UserError(
                f"{where}: trials {first.number} and {trial.number} are two genomes that count in the one "
                f"slot {list(slot)}; {REMEDY}"
            )


def check_stages(where: str, trials: Sequence[FrozenTrial], pipeline: Pipeline | None) -> None:
    """Trials of stages are of those that the study has."""
    for trial in trials:
        stage, place = (trial.system_attrs.get(keys.STAGE_CLAIM) or (0, -1))[:2]
        if place >= 0 and not (pipeline and place < pipeline.entering(stage)):
            expected = "a place in one of the study's stages"
            refuse(f"{where}, trial {trial.number}", keys.STAGE_CLAIM, expected, [stage, place])


def _counts(trial: FrozenTrial) -> bool:
    decided = trial.state.name in ("COMPLETE", "PRUNED") and keys.LATE not in trial.system_attrs
    return decided and trial.system_attrs.get(keys.CLAIM) is not None
