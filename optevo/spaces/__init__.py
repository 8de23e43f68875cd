"""What may vary: the term genome, and a space for each baseline. Search spaces by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from optevo.optim.baselines.registry import BASELINES
from optevo.spaces.base import Candidate, Params, Space
from optevo.spaces.baselines import BaselineSpace
from optevo.spaces.terms import TermSpace

#: What makes a space, by its kind; arguments are the keys of a study file's `[space]`.
SPACES: dict[str, Callable[..., Space]] = {
    TermSpace.name: TermSpace,
    **{name: functools.partial(BaselineSpace, name) for name in BASELINES},
}

__all__ = ["SPACES", "BaselineSpace", "Candidate", "Params", "Space", "TermSpace"]
