"""Search spaces by the `kind` of a study file's ``[space]``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from optevo.lazy import Extensible
from optevo.optim.baselines.registry import BASELINES
from optevo.spaces.base import Space
from optevo.spaces.baselines import BaselineSpace
from optevo.spaces.graph_section import GraphSection
from optevo.spaces.graphs import GraphSpace
from optevo.spaces.known import KnownSection, KnownSpace
from optevo.spaces.modern import ModernSpace
from optevo.spaces.sections import BaselineSection, SpaceSection, TermsSection, WarmStart
from optevo.spaces.terms import TermSpace


class SpaceKind(NamedTuple):
    """A kind of search space.

    Attributes:
        section: What a study file may say of it.
        make: Makes the space, of the section's keys but `kind`.

    Example:
        >>> from optevo.spaces import SPACES
        >>> section = SPACES["terms"].section(kind="terms", presets=["sgd", "adam"])
        >>> list(SPACES["terms"].make(**section.model_dump(exclude={"kind"})).presets())
        ['sgd', 'adam']
    """

    section: type[SpaceSection]
    make: Callable[..., Space]


def make_terms(catalogue: str = "published", terms: tuple[str, ...] = (), **keys: Any) -> Space:
    """The space of the term genomes of a catalogue, "published" with more terms or "modern"."""
    return ModernSpace(**keys) if catalogue == "modern" else TermSpace(terms=terms, **keys)


#: By the `kind` of a study file's ``[space]``; a new kind of space is one entry, or another package's.
SPACES = Extensible(
    "space",
    "an optevo.spaces.SpaceKind",
    lambda one: isinstance(one, SpaceKind),
    {
        TermSpace.name: SpaceKind(TermsSection, make_terms),
        GraphSpace.name: SpaceKind(GraphSection, GraphSpace),
        KnownSpace.name: SpaceKind(KnownSection, KnownSpace),
        **{name: SpaceKind(BaselineSection, functools.partial(BaselineSpace, name)) for name in BASELINES},
    },
)

#: The kind of a study file that names none.
DEFAULT = TermSpace.name


def make_space(section: SpaceSection) -> Space:
    """The space of a section, with its presets and warm starts; one that is awaited has no parameters."""
    values = section.model_dump(exclude={"kind"})
    presets = getattr(section, "presets", ())
    warm = [start for start in presets if isinstance(start, WarmStart)]
    if warm:
        values["presets"] = tuple(one for one in presets if not isinstance(one, WarmStart))
    space = SPACES[section.kind].make(**values)
    space.warm_starts = {f"study {start.study}": start.params or {} for start in warm}
    return space
