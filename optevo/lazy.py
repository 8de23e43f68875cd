"""What is imported on first use: names of a package, and what other packages add to optevo."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from optevo.errors import UserError, told
from optevo.naming import hint

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)
V = TypeVar("V")


def attributes(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`; with the latter, a notebook completes the names.

    Args:
        package: Its ``__name__``.
        homes: The module of each name.
    """

    def get(name: str) -> Any:
        if name in homes:
            with warnings.catch_warnings():
                # In a notebook without ipywidgets Optuna's import says this; optevo does without them.
                warnings.filterwarnings("ignore", "IProgress not found")
                return getattr(importlib.import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names


class Extensible(dict[str, V]):
    """Things by name, to which others add theirs; what they add is imported when it is asked for.

    A package adds one by an entry point, a user by a module that they can import, which stands in the name
    itself: ``module:NAME``. What optevo has itself comes first, and costs no look at what is installed.

    Args:
        what: What they are, for messages, such as "task"; the group of the entry points is "optevo.tasks".
        expected: What others' have to be, for messages, such as "an optevo.spaces.SpaceKind".
        fits: Whether something is that.
        own: What optevo has itself.
    """

    def __init__(
        self, what: str, expected: str, fits: Callable[[Any], bool], own: Mapping[str, V] | None = None
    ) -> None:
        super().__init__(own or {})
        self.what, self.expected, self.fits = what, expected, fits
        self.group = f"optevo.{what}s"

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return super().__contains__(name) or is_reference(name) or name in self._others()

    def __missing__(self, name: str) -> V:
        """Another's, imported.

        Raises:
            UserError: Nobody has it, several packages do, or it cannot be imported or is something else; the
                message names the package and its entry point.
        """
        if is_reference(name):
            thing, where = imported(name, f"{self.what} {name!r}"), f"{self.what} {name!r}"
        else:
            entry = self._entry(name)
            where = f"{self.what} {name!r}: {_told_of(entry)}"
            try:
                thing = entry.load()
            except (Exception, SystemExit) as error:
                logger.debug("%s raised", where, exc_info=True)
                raise UserError(f"{where} cannot be loaded: {told(error)}") from error
        if not self.fits(thing):
            raise UserError(f"{where} is of type {type(thing).__name__}, not {self.expected}")
        added: V = thing
        return added

    def names(self) -> list[str]:
        """Optevo's own, then those of other packages."""
        return [*self, *sorted(set(self._others()) - {*self})]

    def package(self, name: str) -> str | None:
        """The package that adds it; None for one of optevo's own, or of a module that it names."""
        if dict.__contains__(self, name) or is_reference(name):
            return None
        return _package_of(self._entry(name))

    def _others(self) -> Mapping[str, list[EntryPoint]]:
        return _entry_points(self.group, tuple(sys.path))

    def _entry(self, name: str) -> EntryPoint:
        found = self._others().get(name, [])
        if not found:
            said = hint(name, self.names())
            raise UserError(f"unknown {self.what} {name!r}: {said}; {self.installable}")
        if len(found) > 1:
            packages = " and ".join(sorted(map(_package_of, found)))
            raise UserError(
                f"{self.what} {name!r}: the packages {packages} both have an entry point of this name in the "
                f"group {self.group!r}: uninstall all but one, or name it as {found[0].value}"
            )
        (entry,) = found
        for taken in (one for entries in self._others().values() for one in entries):
            if _package_of(taken) == _package_of(entry) and dict.__contains__(self, taken.name):
                raise UserError(
                    f"{_told_of(taken)} has the name of a {self.what} of optevo's, and would never be used: "
                    "the package has to name it otherwise"
                )
        return entry

    @property
    def installable(self) -> str:
        """Where one comes from that isn't here."""
        return (
            f"one of another package is found by its entry point in the group {self.group!r}: install the "
            "package that has it; one in a file of yours is written module:NAME"
        )


def is_reference(name: str) -> bool:
    """Whether a name is written ``module:NAME``."""
    return re.fullmatch(r"\w+(\.\w+)*:\w+", name) is not None


@functools.lru_cache(maxsize=16)
def _entry_points(group: str, path: tuple[str, ...]) -> Mapping[str, list[EntryPoint]]:
    """The entry points of a group by name, of all packages on a path: 0.1 s, so only where one is needed."""
    from importlib.metadata import entry_points  # noqa: PLC0415  takes as long as all of optevo

    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=group):
        found.setdefault(entry.name, []).append(entry)
    return found


def _package_of(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "of no name"


def _told_of(entry: EntryPoint) -> str:
    version = f" {entry.dist.version}" if entry.dist is not None else ""
    return (
        f"the entry point {entry.name} = {entry.value} of the group {entry.group!r}, in the package "
        f"{_package_of(entry)}{version},"
    )


def imported(reference: str, what: str) -> Any:
    """What ``module:NAME`` names; the current folder counts.

    Args:
        reference: The module and the name.
        what: Who asks, for messages, such as "task 'rings:Rings'".

    Raises:
        UserError: There is no such module or name, or the module raises; the message says where.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise UserError(f"{what} is incomplete: write it as module:function")
    # As `python -m` does: a user's module lies where they stand, not where the command is installed.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise UserError(
                f"{what}: there is no module {missing!r} in {os.getcwd()} or among the installed "
                "packages; run from the folder that holds it"
            ) from None
        if module_name.partition(".")[0] == "optevo":  # a fault of ours
            raise
        logger.debug("importing %s raised", module_name, exc_info=True)
        said = f": {error}" if isinstance(error, UserError) else f" raised {told(error)}"
        raise UserError(f"{what}: importing {module_name}{said}") from error
    found = getattr(module, attribute, None)
    if found is None:
        said = hint(attribute, dir(module), "write one of this name there")
        raise UserError(f"{what}: module {module_name!r} ({module.__file__}) has no {attribute!r}: {said}")
    return found
