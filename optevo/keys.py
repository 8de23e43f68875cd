"""Every attribute name that optevo writes to a storage. Renaming a class or a module orphans no study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

SCHEMA_VERSION = 4
READABLE = (3, 4)  # `ours` knows the attribute names of both

PREFIX = "optevo:"  # of all names: others are the user's

# Study user attributes.
SCHEMA = "optevo:schema"
CONFIG = "optevo:config"
FINGERPRINT = "optevo:fingerprint"
ENVIRONMENT = "optevo:environment"
ACCEPTED = "optevo:environment:"  # and a digest: another environment, with its fingerprint, that was accepted
EXTENT = "optevo:extent:"  # and a number: the search goes so far, see `optevo.study.continuing`
COSTS = "optevo:costs"  # of a forward pass of each task, in floating-point operations
RERUN = "optevo:rerun"  # the result; with a colon and a candidate, all runs of that one, in older studies
FRESH = "optevo:fresh:"  # and candidate, task and seed: a run that the result is made of
FINAL = "optevo:final:"  # and a test evaluation's number: what it is; with more behind it, a run of it
STAGES = "optevo:stages"  # the pipeline that its best have gone into, see `optevo.study.stages.Pipeline`
ABLATION = "optevo:ablation:"  # and budget, candidate, task and seed: a run of a variant of the winner
LINES = "optevo:lines"  # of a saved file alone: a digest of its lines
COPY_OF = "optevo:copy_of"  # the storage that a copied study comes from; without a fingerprint it was cut off

# Study system attribute, optuna-dashboard's: what it calls the objectives. Optuna's own `set_metric_names`
# would rename the column `value` of `study.trials_dataframe()` too: it is `value_fitness` in older studies.
OBJECTIVE_NAMES = "dashboard:objective_names"

# Trial system attribute: the slot that a trial claims, [generation, index], with the attempt behind it where
# that is not the first, or None once given up.
CLAIM = "optevo:slot"
# Trial system attribute of a stage's trials, in the place of CLAIM, which they lack: [stage from 0, place] or
# None. By having it they are known from the search's.
STAGE_CLAIM = "optevo:stage_slot"
# Trial system attribute: what its individual has besides the parameters that it suggests, by name.
DORMANT = "optevo:dormant"
# Trial system attribute: the trial finished after its slot was decided by another, and doesn't count.
LATE = "optevo:late"
# Trial system attribute: its worker's heartbeat, [how many so far, when the last was, in UTC].
BEAT = "optevo:beat"
# Trial system attribute: why its worker was taken for dead.
LOST = "optevo:lost"

# Trial user attributes, for people and other tools to read. In a study without a study file, the sampler
# writes PARENTS and ORIGIN alone, as system attributes: there, user attributes are the user's.
GENERATION = "optevo:generation"
SLOT = "optevo:slot"
PARENTS = "optevo:parents"
ORIGIN = "optevo:origin"
FORMULA = "optevo:formula"
HYPERPARAMETERS = "optevo:hyperparameters"
CANONICAL = "optevo:canonical"
RUNS = "optevo:runs"
UNFINISHED = "optevo:unfinished_run"  # the run within which a trial lost the race
FITNESS_PREFIX = "optevo:fitness:"
SECONDS = "optevo:seconds"
SCREENED = "optevo:screened"  # it was evaluated by the cheap evaluation: its fitness is on another scale
TRAINED_STEPS = "optevo:trained_steps"  # training steps that this trial took itself
COPIED_FROM = "optevo:copied_from"  # the trial of the same canonical form whose runs were taken over
COPIED_RUNS = "optevo:copied_runs"  # how many
DIVERGED_AT = "optevo:diverged_at"
PRUNED_BY = "optevo:pruned_by"
ERROR = "optevo:error"
AUDIT = "optevo:gate_audit"  # what a refused candidate earned that was trained all the same
GATE_SECONDS = "optevo:gate_seconds"
ATTEMPTS = "optevo:attempts"  # the failed trials because of which a slot was given up
INTERRUPTED = "optevo:interrupted"
SURPLUS = "optevo:surplus"
WORKER = "optevo:worker"
STAGE = "optevo:stage"  # in which a promoted candidate was trained, from 1
PROMOTED_FROM = "optevo:promoted_from"  # the search's trial that found it


_LINEAGE = (GENERATION, SLOT, PARENTS, ORIGIN)


def ours(trial: FrozenTrial | Trial) -> Mapping[str, Any]:
    """What optevo has written of a trial, under the names above, wherever and by whichever version.

    Up to schema 3, user attributes had no prefix; a trial of then is known by having a slot and all of a
    lineage without one.
    """
    if not hasattr(trial, "system_attrs"):  # an objective's own, which hides them
        trial = trial.study.get_trials(deepcopy=False)[trial.number]
    user, system = trial.user_attrs, trial.system_attrs
    found = {key: system[key] for key in (PARENTS, ORIGIN) if key in system}
    found |= {key: value for key, value in user.items() if isinstance(key, str) and key.startswith(PREFIX)}
    claim = system.get(CLAIM)
    if not found and claim is not None and all(key.removeprefix(PREFIX) in user for key in _LINEAGE):
        return {f"{PREFIX}{key}": value for key, value in user.items()}
    if isinstance(claim, (list, tuple)) and len(claim) in (2, 3):
        found = {GENERATION: claim[0], SLOT: claim[1], **found}
    return found
