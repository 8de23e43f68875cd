"""What may vary: search spaces by name."""

from __future__ import annotations

from optevo.spaces.base import Candidate, Params, Space
from optevo.spaces.terms import TermSpace

SPACES: dict[str, type[Space]] = {TermSpace.name: TermSpace}

__all__ = ["SPACES", "Candidate", "Params", "Space", "TermSpace"]
