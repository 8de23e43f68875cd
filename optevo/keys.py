"""Every attribute name that optevo writes to a storage. Renaming a class or a module orphans no study."""

from __future__ import annotations

SCHEMA_VERSION = 1

# Study user attributes.
SCHEMA = "optevo:schema"
CONFIG = "optevo:config"
FINGERPRINT = "optevo:fingerprint"
ENVIRONMENT = "optevo:environment"
RERUN = "optevo:rerun"

# Trial system attribute: the slot that a trial claims, [generation, index], or None once given up.
CLAIM = "optevo:slot"
# Trial system attribute: the trial finished after its slot was decided by another, and doesn't count.
LATE = "optevo:late"

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
DIVERGED_AT = "diverged_at"
PRUNED_BY = "pruned_by"
ERROR = "error"
INTERRUPTED = "interrupted"
SURPLUS = "surplus"
WORKER = "worker"
