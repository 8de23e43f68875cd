"""What optevo uses of Optuna's private members, in one place: a new Optuna that breaks one breaks it here.

The gRPC proxy's are in `optevo.storage.proxy`, which needs an extra; the relational storage's, which needs
SQLAlchemy, in `optevo.storage.optuna_rdb`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from optuna.distributions import BaseDistribution
from optuna.samplers._base import _process_constraints_after_trial
from optuna.storages import BaseStorage, InMemoryStorage, _CachedStorage
from optuna.study import Study, StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState

from optevo import keys

if TYPE_CHECKING:
    AnyTrial = Trial | FrozenTrial

#: Raises where what a storage holds is nothing to go on with: given a trial, and the parts of it to look at.
Gate = Callable[[FrozenTrial, Container[str]], None]

__all__ = [
    "FrozenStudy",
    "Gate",
    "Memory",
    "add_together",
    "all_trials",
    "check_trial",
    "contains",
    "database_of",
    "fail_trial",
    "gate_later",
    "in_optimize_loop",
    "is_whole",
    "reads_parts",
    "set_study_system_attr",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "storage_of",
    "store_constraints",
    "stored_trial",
    "study_id",
    "trial_id",
    "trials_in",
    "user_attr_of",
    "written_together",
]


def storage_of(study: Study) -> BaseStorage:
    """Where a study lies."""
    return study._storage


def database_of(study: Study) -> BaseStorage:
    """The same without the cache that Optuna puts before a database."""
    storage = study._storage
    database: BaseStorage = getattr(storage, "_backend", storage)
    return database


def gate_later(study: Study, gate: Gate) -> bool:
    """Whether the storage will pass by `gate` what it reads of the study's old trials when asked for it."""
    if reads_parts(study):
        database_of(study).gates[study_id(study)] = gate  # type: ignore[attr-defined]
    return reads_parts(study)


def reads_parts(study: Study) -> bool:
    """Whether the storage is one of ours that reads less than whole trials."""
    return hasattr(database_of(study), "gates")


class Memory(InMemoryStorage):
    """A storage in memory for studies that lie elsewhere already: that one is made is no news."""

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As Optuna's, without its line in the log."""
        logger = logging.getLogger(InMemoryStorage.__module__)
        before = logger.level
        logger.setLevel(logging.WARNING)
        try:
            return super().create_new_study(directions, study_name)
        finally:
            logger.setLevel(before)


def study_id(study: Study | FrozenStudy) -> int:
    """A study's number in its storage."""
    return study._study_id


def trial_id(trial: AnyTrial) -> int:
    """A trial's number in its storage, which is not its number in the study."""
    return trial._trial_id


def all_trials(study: Study) -> Sequence[FrozenTrial]:
    """Every trial of a study, in order, whatever a sampler or an objective has cached; not to be changed.

    Optuna's own call copies and sorts the list. This is what it would copy, and may grow meanwhile.
    """
    storage, number = study._storage, study._study_id
    if type(storage) is InMemoryStorage and number in storage._studies:
        return storage._studies[number].trials
    if type(storage) is _CachedStorage:
        storage._read_trials_from_remote_storage(number)
        trials = storage._studies[number].trials
        if not trials or len(trials) - 1 in trials:  # else some are lost, and the last has a higher number
            return _ByNumber(trials)
    return storage.get_all_trials(number, deepcopy=False)


class _ByNumber(Sequence[FrozenTrial]):
    """Trials that a dictionary has by their number, as a list."""

    def __init__(self, trials: dict[int, FrozenTrial]) -> None:
        self._trials = trials

    def __len__(self) -> int:
        return len(self._trials)

    @overload
    def __getitem__(self, place: int) -> FrozenTrial: ...

    @overload
    def __getitem__(self, place: slice) -> list[FrozenTrial]: ...

    def __getitem__(self, place: int | slice) -> FrozenTrial | list[FrozenTrial]:
        if isinstance(place, slice):
            return [self._trials[number] for number in range(len(self))[place]]
        return self._trials[range(len(self))[place]]


def stored_trial(study: Study, trial: AnyTrial) -> FrozenTrial:
    """A trial as its storage has it now."""
    return study._storage.get_trial(trial._trial_id)


def set_trial_user_attr(study: Study, trial: AnyTrial, key: str, value: Any) -> None:
    """Write a user attribute of a trial that need not be this process's."""
    study._storage.set_trial_user_attr(trial._trial_id, key, value)


def set_trial_system_attr(study: Study, trial: AnyTrial, key: str, value: Any) -> None:
    """Write a system attribute of a trial that need not be this process's."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def set_study_system_attr(study: Study, key: str, value: Any) -> None:
    """Write a system attribute of a study."""
    study._storage.set_study_system_attr(study._study_id, key, value)


def store_constraints(
    constraints: Callable[[FrozenTrial], Sequence[float]], study: Study, trial: FrozenTrial, state: TrialState
) -> None:
    """Store a trial's constraints as Optuna's own samplers do, before its state."""
    _process_constraints_after_trial(constraints, study, trial, state)


def fail_trial(study: Study, trial: AnyTrial) -> None:
    """Fail a trial past the sampler and the callbacks."""
    study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def is_whole(trial: FrozenTrial) -> bool:
    """Whether parameters and user attributes of a trial have been read."""
    return vars(trial).keys() >= {"_params", "_user_attrs"}


def in_optimize_loop(study: Study) -> bool:
    """Whether `study.optimize` asks, where a sampler may wait, or `study.ask`, where it must not."""
    return bool(study._thread_local.in_optimize_loop)


def contains(distribution: BaseDistribution, value: float) -> bool:
    """Whether a number is one that a distribution could give."""
    return distribution._contains(value)


def check_trial(trial: FrozenTrial) -> None:
    """Raise a ValueError unless a finished trial is whole."""
    trial._validate()


def add_together(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Add finished trials to a study of one objective, in one transaction where the storage can."""
    add = getattr(database_of(study), "create_new_trials", None)
    if add is None:
        study.add_trials(trials)
        return
    for trial in trials:
        check_trial(trial)
    add(study_id(study), trials)


def trials_in(study: Study, *states: TrialState) -> list[FrozenTrial]:
    """The trials that are in one of some states, read anew; not to be changed."""
    return database_of(study).get_all_trials(study_id(study), deepcopy=False, states=states)


def user_attr_of(study: Study, key: str, trials: Sequence[FrozenTrial]) -> list[Any]:
    """One of our user attributes of each of some trials of a study, None where there is none.

    Nothing else is read of old trials that the storage has left unread, and the value is not looked at.
    """
    read = getattr(database_of(study), "user_attr_of_all", None)
    found: dict[int, Any] = {}
    if read is not None and any(not is_whole(trial) for trial in trials):
        names = (key.removeprefix(keys.PREFIX), key)  # the older one first, so that the newer one counts
        found = dict(itertools.chain.from_iterable(read(study_id(study), name).items() for name in names))
    return [keys.ours(trial).get(key) if is_whole(trial) else found.get(trial_id(trial)) for trial in trials]


@contextlib.contextmanager
def written_together(study: Study, *, with_state: bool = False) -> Iterator[None]:
    """Write what is set of trials within the block in one transaction at its end, where the storage can.

    Args:
        study: Whose trials they are.
        with_state: Later still: when the trial's state is set, so that it has all of it or is still running.
    """
    together = getattr(database_of(study), "together", None)
    with contextlib.nullcontext() if together is None else together(with_state=with_state):
        yield
