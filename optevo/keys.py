"""Every attribute name that optevo writes to a storage. Renaming a class or a module orphans no study."""

from __future__ import annotations

SCHEMA_VERSION = 3

# Study user attributes.
SCHEMA = "optevo:schema"
CONFIG = "optevo:config"
FINGERPRINT = "optevo:fingerprint"
ENVIRONMENT = "optevo:environment"
ACCEPTED = "optevo:environment:"  # and a digest: another environment, with its fingerprint, that was accepted
COSTS = "optevo:costs"  # of a forward pass of each task, in floating-point operations
RERUN = "optevo:rerun"  # the result; with a colon and a candidate, all runs of that one, in older studies
FRESH = "optevo:fresh:"  # and candidate, task and seed: a run that the result is made of
FINAL = "optevo:final:"  # and a test evaluation's number: what it is; with more behind it, a run of it
ABLATION = "optevo:ablation:"  # and budget, candidate, task and seed: a run of a variant of the winner
LINES = "optevo:lines"  # of a saved file alone: a digest of its lines
COPY_OF = "optevo:copy_of"  # the storage that a copied study comes from; without a fingerprint it was cut off

# Trial system attribute: the slot that a trial claims, [generation, index], or None once given up.
CLAIM = "optevo:slot"
# Trial system attribute: the trial finished after its slot was decided by another, and doesn't count.
LATE = "optevo:late"
# Trial system attribute: its worker's heartbeat, [how many so far, when the last was, in UTC].
BEAT = "optevo:beat"
# Trial system attribute: why its worker was taken for dead.
LOST = "optevo:lost"

# Trial user attributes, for people and other tools to read.
GENERATION = "generation"
SLOT = "slot"
PARENTS = "parents"
ORIGIN = "origin"
FORMULA = "formula"
HYPERPARAMETERS = "hyperparameters"
CANONICAL = "canonical"
RUNS = "runs"
FITNESS_PREFIX = "fitness:"
SECONDS = "seconds"
TRAINED_STEPS = "trained_steps"  # training steps that this trial took itself
COPIED_FROM = "copied_from"  # the trial of the same canonical form whose runs were taken over
COPIED_RUNS = "copied_runs"  # how many
DIVERGED_AT = "diverged_at"
PRUNED_BY = "pruned_by"
ERROR = "error"
ATTEMPTS = "attempts"  # the failed trials because of which a slot was given up
INTERRUPTED = "interrupted"
SURPLUS = "surplus"
WORKER = "worker"
