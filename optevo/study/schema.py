"""The JSON shapes of what optevo writes to a storage, attribute by attribute."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, InstanceOf, TypeAdapter
from typing_extensions import TypedDict

from optevo import keys

if TYPE_CHECKING:
    from optevo.spaces import Space

# Any text: pydantic's own has no halves of surrogate pairs, which a file's name may have.
Text = InstanceOf[str]
Table = InstanceOf[dict[Any, Any]]
Count = Annotated[int, Field(ge=0, lt=2**63)]  # a database's integer
Number = Annotated[float, Field(allow_inf_nan=False)]


def _check_run(run: Run) -> Run:
    if run["diverged_at"] is None and run["metric"] is None:
        raise ValueError("a run that did not diverge has a metric")
    return run


def _check_row(row: Row) -> Row:
    seeds: dict[str, list[int]] = {}
    for run in row["runs"]:
        seeds.setdefault(run["task"], []).append(run["seed"])
    kinds = {tuple(each) for each in seeds.values()}
    if not (len(kinds) == 1 and all(len(set(kind)) == len(kind) >= 2 for kind in kinds)):
        raise ValueError("every task has the same two or more seeds")
    return row


def _check_zone(time: str) -> str:
    read = datetime.datetime.fromisoformat(time)
    if read.tzinfo is None:
        raise ValueError("a time has its zone")
    if not 1970 <= read.year < 9000:  # another zone's would be beyond the calendar
        raise ValueError("a time has a year of ours")
    return time


Time = Annotated[Text, AfterValidator(_check_zone)]


class Run(TypedDict):
    """The fields of `optevo.training.run.Run`."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    task: Text
    seed: Count
    fitness: Number
    metric: Number | None
    loss: Number | None
    losses: list[Number | None]
    steps: Count
    seconds: Number
    diverged_at: Count | None
    lr: NotRequired[Number | None]
    failure: NotRequired[Text | None]


CheckedRun = Annotated[Run, AfterValidator(_check_run)]


def _check_unfinished(run: Run) -> Run:
    if any(run.get(field) is not None for field in ("metric", "diverged_at", "failure")) or not run["losses"]:
        raise ValueError("a run that was ended has losses, no metric, and nothing was wrong with it")
    return run


class Row(TypedDict):
    """A candidate on fresh seeds."""

    name: Text
    search: Number | None
    runs: list[CheckedRun]


class Result(TypedDict):
    """Of `optevo.measurement.fresh_seeds`."""

    winner: Count
    settings: Table
    rows: Annotated[list[Annotated[Row, AfterValidator(_check_row)]], Field(min_length=1)]


class Worker(TypedDict):
    """A process, see `optevo.liveness.lost.worker_identity`."""

    host: Text
    pid: Annotated[int, Field(ge=0, lt=2**31)]  # the largest that a system call takes
    started: Number
    device: NotRequired[Text]
    since: NotRequired[Time]


class StoredOperations(TypedDict):
    """Of a training step, see `optevo.training.base.Operations`."""

    model: Count
    update: Count
    adamw: Count


class StoredEvaluation(TypedDict):
    """Of the test split, as `optevo.measurement.test_split` begins it; later versions write all of it."""

    trial: Count
    steps: Count
    seeds: Annotated[list[Count], Field(min_length=1)]
    environment: Table
    form: NotRequired[Text]
    worker: NotRequired[Worker | None]
    operations: NotRequired[list[StoredOperations]]


class Audit(TypedDict):
    """What a refused candidate earned, see `optevo.evaluation.audit`."""

    fitness: Number | None
    steps: Count
    seconds: Number
    error: NotRequired[Text]


class Environment(TypedDict):
    """One that was accepted."""

    fingerprint: Text


_Pair = BeforeValidator(lambda value: tuple(value) if type(value) is list else value)  # JSON has lists only
Slot = Annotated[tuple[Count, Count] | tuple[Count, Count, Count], _Pair]
Beat = Annotated[tuple[Count, Time], _Pair]

RUNS: TypeAdapter[Any] = TypeAdapter(list[CheckedRun])
MEASURED: TypeAdapter[Any] = TypeAdapter(CheckedRun)
UNFINISHED: TypeAdapter[Any] = TypeAdapter(Annotated[Run, AfterValidator(_check_unfinished)])
VALUES: TypeAdapter[Any] = TypeAdapter(Annotated[list[Number], Field(max_length=1)])  # of one objective
REPORTED: TypeAdapter[Any] = TypeAdapter(dict[int, float])  # by step; they need not be finite
FINAL: TypeAdapter[Any] = TypeAdapter(StoredEvaluation)
_TABLE: TypeAdapter[Any] = TypeAdapter(Table)
_TEXT: TypeAdapter[Any] = TypeAdapter(Text)
_FLAG: TypeAdapter[Any] = TypeAdapter(bool)
_COUNT: TypeAdapter[Any] = TypeAdapter(Count)
_COUNTS: TypeAdapter[Any] = TypeAdapter(list[Count])
_NUMBER: TypeAdapter[Any] = TypeAdapter(Number)

STUDY: dict[str, TypeAdapter[Any]] = {
    keys.CONFIG: _TABLE,
    keys.ENVIRONMENT: _TABLE,
    keys.FINGERPRINT: _TEXT,
    keys.COPY_OF: _TEXT,
    keys.COSTS: TypeAdapter(dict[Text, Number]),
    keys.RERUN: TypeAdapter(Result),
    keys.STAGES: _TABLE,
}
# By the beginning of their name.
STUDY_MANY: dict[str, TypeAdapter[Any]] = {
    keys.ACCEPTED: TypeAdapter(Environment),
    f"{keys.RERUN}:": TypeAdapter(Annotated[list[CheckedRun], Field(min_length=1)]),
    keys.EXTENT: TypeAdapter(Annotated[int, Field(ge=1, le=100_000)]),
}
SYSTEM: dict[str, TypeAdapter[Any]] = {
    keys.CLAIM: TypeAdapter(Slot | None),
    keys.STAGE_CLAIM: TypeAdapter(Slot | None),
    keys.DORMANT: _TABLE,
    keys.LATE: _FLAG,
    keys.BEAT: TypeAdapter(Beat),
    keys.LOST: _TEXT,
    keys.PARENTS: _COUNTS,
    keys.ORIGIN: _TEXT,
}
TRIAL: dict[str, TypeAdapter[Any]] = {
    keys.GENERATION: _COUNT,
    keys.SLOT: _COUNT,
    keys.PARENTS: _COUNTS,
    keys.ORIGIN: _TEXT,
    keys.FORMULA: _TEXT,
    keys.HYPERPARAMETERS: _TEXT,
    keys.CANONICAL: _TEXT,
    keys.RUNS: RUNS,
    keys.UNFINISHED: UNFINISHED,
    keys.SECONDS: _NUMBER,
    keys.SCREENED: _FLAG,
    keys.TRAINED_STEPS: _COUNT,
    keys.COPIED_FROM: _COUNT,
    keys.COPIED_RUNS: _COUNT,
    keys.DIVERGED_AT: _COUNT,
    keys.PRUNED_BY: _TEXT,
    keys.AUDIT: TypeAdapter(Audit),
    keys.GATE_SECONDS: _NUMBER,
    keys.ERROR: _TEXT,
    keys.ATTEMPTS: _COUNTS,
    keys.INTERRUPTED: _FLAG,
    keys.SURPLUS: _FLAG,
    keys.WORKER: TypeAdapter(Worker),
    keys.STAGE: _COUNT,
    keys.PROMOTED_FROM: _COUNT,
}
TRIAL_MANY: dict[str, TypeAdapter[Any]] = {keys.FITNESS_PREFIX: _NUMBER}


def domains_of(space: Space) -> dict[str, TypeAdapter[Any]]:
    """What each parameter of a space may be."""
    return {name: _domain(d) for name, d in space.distributions().items()}


def _domain(distribution: Any) -> TypeAdapter[Any]:
    if not hasattr(distribution, "choices"):
        within = Field(ge=distribution.low, le=distribution.high)
        return TypeAdapter(Annotated[type(distribution.low), within])  # type: ignore[arg-type]
    choices = distribution.choices

    def check(value: object) -> object:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(f"expected one of {', '.join(map(repr, choices))}")
        return value

    return TypeAdapter(Annotated[Any, AfterValidator(check)])
