"""What candidates train on: tasks by name, and the door for a user's own.

Importing this package does not import torch, so that a study file can be checked in milliseconds: the
names below resolve on first use.

>>> from optevo.tasks import OWN_DATA, TASKS
>>> "mnist" in TASKS, sorted(OWN_DATA)
(True, ['images', 'table', 'text'])
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from optevo import lazy
from optevo.errors import UserError
from optevo.naming import hint
from optevo.tasks.faults import users_code
from optevo.tasks.scored import ScoredTask

if TYPE_CHECKING:
    from optevo.tasks.base import Split, Task
    from optevo.tasks.layers import Dropout, build, initialise

__all__ = [
    "OWN_DATA",
    "TASKS",
    "Dropout",
    "ScoredTask",
    "Split",
    "Task",
    "build",
    "get_task",
    "initialise",
    "own_data",
]

# Each to "module:class", or to something callable that makes one.
_BUILT_IN: dict[str, str | Callable[..., Task | ScoredTask]] = {
    "digits": "optevo.tasks.vision:Digits",
    "mnist": "optevo.tasks.vision:MNIST",
    "fashion_mnist": "optevo.tasks.vision:FashionMNIST",
    "cifar10": "optevo.tasks.vision:CIFAR10",
    "cifar100": "optevo.tasks.known_images:CIFAR100",
    "tiny_imagenet": "optevo.tasks.known_images:TinyImageNet",
    "flowers102": "optevo.tasks.known_images:Flowers102",
    "stanford_cars": "optevo.tasks.known_images:StanfordCars",
    "caltech101": "optevo.tasks.known_images:Caltech101",
    "char_lm": "optevo.tasks.text:CharLM",
    "shakespeare": "optevo.tasks.text:Shakespeare",
    "ptb": "optevo.tasks.text:PennTreebank",
}
#: Every task by name: the built-in ones, and those of other packages.
TASKS = lazy.Extensible("task", "a function or class that makes a task", callable, _BUILT_IN)

#: Kinds of a user's own data to what makes a task of them, given a name, a path and options.
OWN_DATA: dict[str, str] = {
    "images": "optevo.tasks.own.images:Images",
    "table": "optevo.tasks.own.tables:Table",
    "text": "optevo.tasks.own.texts:Text",
}

#: The name of every task that a Python program gives as a model and data; it lives in that process alone.
GIVEN = "optevo.tasks.own.given:given"

__getattr__, __dir__ = lazy.attributes(
    __name__,
    {
        "Split": "optevo.tasks.base",
        "Task": "optevo.tasks.base",
        "Dropout": "optevo.tasks.layers",
        "build": "optevo.tasks.layers",
        "initialise": "optevo.tasks.layers",
    },
)


def get_task(name: str, **options: Any) -> Task | ScoredTask:
    """Make a task.

    Args:
        name: A key of `TASKS`, the name of an entry point in the group ``optevo.tasks`` of another package,
            or ``"module:function"`` for a user's own: anything in an importable module (the current directory
            counts) which returns a `Task` or a `ScoredTask` when called, a subclass of either included.
        **options: Keyword arguments for it, such as ``train_examples=5_000``.

    Returns:
        The task. Nothing is read from disk yet; `Task.load` does that.

    Raises:
        UserError: The name is unknown, the module or function doesn't exist, it doesn't take these options,
            what it returns is no task, or a user's module raises; the message says where.

    Example:
        >>> from optevo.tasks import get_task
        >>> task = get_task("mnist", train_examples=5_000)
        >>> task.name, task.metric
        ('mnist', 'accuracy')
    """
    target = TASKS[name]
    return _made(name, _built_in(target) if isinstance(target, str) else target, options)


def own_data(kind: str, name: str, path: str, options: Mapping[str, Any]) -> Task | ScoredTask:
    """Make a task of a user's own data.

    Args:
        kind: A key of `OWN_DATA`.
        name: Of the task.
        path: Of the data, see `optevo.tasks.roots.find`.
        options: Keyword arguments for it, such as ``resolution=64``.

    Returns:
        The task. Nothing is read from disk yet.

    Raises:
        UserError: It doesn't take these options.

    Example:
        >>> from optevo.tasks import own_data
        >>> task = own_data("images", "flowers", "data/flowers", {"resolution": 64})
        >>> task.name
        'flowers'
    """
    return _made(name, functools.partial(_built_in(OWN_DATA[kind]), name, path), options)


def _built_in(reference: str) -> Callable[..., Any]:
    made: Callable[..., Any] = lazy.imported(reference, f"task {reference!r}")
    return made


def _made(name: str, target: Callable[..., Any], options: Mapping[str, Any]) -> Task | ScoredTask:
    """What a callable makes of options, which must be a task."""
    signature = inspect.signature(target)
    try:
        signature.bind(**options)
    except TypeError as error:
        taken = signature.parameters
        near = [f"{one!r}: {said}" for one in options if one not in taken and (said := hint(one, taken, ""))]
        said = "; ".join(near) or f"it takes {', '.join(taken) or 'none'}"
        raise UserError(f"task {name!r} doesn't take these options ({error}): {said}") from None
    with users_code(
        f"task {name!r}: {getattr(target, '__name__', 'it')}()", getattr(target, "__module__", "")
    ):
        task = target(**options)
    if isinstance(task, ScoredTask):
        return task
    from optevo.tasks.base import Task  # noqa: PLC0415 - torch is imported only for a task that trains

    if not isinstance(task, Task):
        raise UserError(f"task {name!r} returned a {type(task).__name__}, not an optevo.tasks.Task")
    return task
