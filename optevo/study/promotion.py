"""A study's stages as they are stored: begun, checked, and read back by whoever works on them."""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.pruners import NopPruner
from optuna.trial import FrozenTrial

from optevo import keys
from optevo.errors import UserError
from optevo.optuna_private import all_trials, storage_of
from optevo.samplers.slots import claimed
from optevo.samplers.stages import StageSampler
from optevo.study.config import StudyConfig, differences, parse_stages
from optevo.study.stages import Pipeline
from optevo.study.studies import best_trials, naming


def stored_pipeline(study: optuna.Study, config: StudyConfig) -> Pipeline | None:
    """The stages that a study's best have gone into, None before any.

    Raises:
        UserError: What is stored is not what optevo writes.
    """
    stored = study.user_attrs.get(keys.STAGES)
    return None if stored is None else parse_stages(stored, f"study {study.study_name!r}", config)


def begun_pipeline(study: optuna.Study, config: StudyConfig) -> Pipeline:
    """The stages of a study that has some.

    Raises:
        UserError: It has none, or see `stored_pipeline`.
    """
    pipeline = stored_pipeline(study, config)
    if pipeline is None:
        raise UserError(f"study {study.study_name!r} has no stages; `optevo promote` begins some")
    return pipeline


def begun_stages(trials: Iterable[FrozenTrial]) -> int:
    """In how many stages somebody has claimed a candidate."""
    slots = (claimed(trial, keys.STAGE_CLAIM) for trial in trials)
    return max((slot.generation + 1 for slot in slots if slot is not None), default=0)


def check_stages(study: optuna.Study, config: StudyConfig, pipeline: Pipeline) -> None:
    """Refuse stages that a study's best cannot go on with.

    Stages that nobody has begun may be changed, left out or added, and how many the last one that has begun
    passes on; all that decided what has been trained must be as it was.

    Raises:
        UserError: It isn't; the message lists what differs.
    """
    before = stored_pipeline(study, config)
    if before is not None:
        begun = begun_stages(all_trials(study))
        old, new = before.fixed(begun), pipeline.fixed(begun)
        if old != new:
            changed = "\n".join(f"  {line}" for line in differences(_by_place(old), _by_place(new)))
            raise UserError(
                f"the best of study {study.study_name!r} have gone into other stages:\n{changed}\n"
                "Undo the change to go on with them: only stages that nobody has begun may be others. "
                "For others promote a copy of the study, see `optevo storage copy`."
            )


def begin_stages(study: optuna.Study, config: StudyConfig, pipeline: Pipeline) -> None:
    """Store stages with a study whose search is complete.

    Raises:
        UserError: See `check_stages`.
    """
    check_stages(study, config, pipeline)
    if stored_pipeline(study, config) != pipeline:
        study.set_user_attr(keys.STAGES, pipeline.model_dump(mode="json"))


def staged_study(
    study: optuna.Study, config: StudyConfig, pipeline: Pipeline, device: str = ""
) -> optuna.Study:
    """The same study for who works on its stages: what its sampler hands out, and tells of, are theirs.

    Args:
        study: Its search is complete.
        config: Its configuration.
        pipeline: Its stages.
        device: As in `optevo.study.studies.load_study`.

    Raises:
        UserError: No trial of the search is complete.
    """
    sampler = StageSampler(best_trials(study, pipeline.promote), [stage.keep for stage in pipeline.stages])
    sampler.on_trial = naming(device)
    return optuna.load_study(
        study_name=study.study_name, storage=storage_of(study), sampler=sampler, pruner=NopPruner()
    )


def _by_place(fixed: dict[str, object]) -> dict[str, object]:
    """Stages as tables by their place, so that single keys can be told of."""
    stages = fixed.get("stages", [])
    assert isinstance(stages, list)
    return {**fixed, "stages": {str(i): stage for i, stage in enumerate(stages)}}
