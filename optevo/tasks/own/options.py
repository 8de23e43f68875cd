"""What options of a user's own data may be, and the split that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from optevo.errors import UserError
from optevo.naming import hint
from optevo.tasks.orders import stratified_order


def refuse(task: str, option: str, value: object, expected: str) -> UserError:
    """The error about an option's value."""
    return UserError(f"task {task!r}: option {option} must be {expected}, not {value!r}")


def whole(task: str, option: str, value: Any, least: int = 1, most: int = 100_000) -> int:
    """A whole number within limits.

    Raises:
        UserError: It is none.
    """
    if type(value) is not int or not least <= value <= most:
        raise refuse(task, option, value, f"a whole number from {least} to {most}")
    return value


def share(task: str, option: str, value: Any) -> float:
    """A number above 0 and below 1.

    Raises:
        UserError: It is none.
    """
    if type(value) is not float or not 0 < value < 1:
        raise refuse(task, option, value, "a number between 0 and 1")
    return value


def chosen(task: str, option: str, value: Any, known: Collection[str]) -> str:
    """One of some names.

    Raises:
        UserError: It is none.
    """
    if value not in known:
        raise UserError(f"task {task!r}: option {option} = {value!r}: {hint(str(value), known)}")
    return str(value)


def names(task: str, option: str, value: Any) -> list[str]:
    """A list of names, or one.

    Raises:
        UserError: Something in it is no text.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise refuse(task, option, value, "a list of names")
    return list(listed)


class Shares:
    """How examples become train, validation and test where nobody has said which are which.

    Args:
        task: Whose, for messages.
        validation: Share of the examples.
        test: Share of the examples.
        seed: Of the shuffle, which is the same everywhere and for ever.

    Raises:
        UserError: A share lies not between 0 and 1, both leave nothing to train on, or the seed is none.
    """

    def __init__(self, task: str, validation: Any, test: Any, seed: Any) -> None:
        self.task = task
        self.validation = share(task, "validation", validation)
        self.test = share(task, "test", test)
        self.seed = whole(task, "seed", seed, 0, 2**31)
        if self.validation + self.test >= 1:
            raise UserError(f"task {task!r}: options validation and test leave nothing to train on")

    def draw(self, labels: Sequence[int], missing: Collection[str]) -> dict[str, list[int]]:
        """The examples of train and of each missing part, each class in proportion to within one example.

        Args:
            labels: Of all examples; the same number throughout where there are no classes.
            missing: "validation", "test", both or none.

        Raises:
            UserError: There are too few examples.
        """
        order = stratified_order(labels, str(self.seed)) if missing else list(range(len(labels)))
        parts, begin = {}, 0
        for name in ("test", "validation"):
            if name in missing:
                count = round(getattr(self, name) * len(labels))
                parts[name] = order[begin : begin + count]
                begin += count
        parts["train"] = order[begin:]
        for name, part in parts.items():
            if not part:
                raise UserError(f"task {self.task!r}: of {len(labels)} examples none is left for {name}")
        return {name: parts[name] for name in ("train", "validation", "test") if name in parts}

    def cut(self, count: int) -> dict[str, slice]:
        """Neighbouring blocks of a sequence: train, then validation, then test."""
        last = count - round(self.test * count)
        first = last - round(self.validation * count)
        return {"train": slice(0, first), "validation": slice(first, last), "test": slice(last, count)}
