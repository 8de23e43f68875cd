"""Terms of other packages in tests: gone again after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optevo.optim.terms import table


@pytest.fixture
def published_terms() -> Iterator[None]:
    """The tables of terms are after the test what they were before."""
    tables = (table.BASIS, table.TABLE, table._ADDED)
    before = [dict(one) for one in tables]
    yield
    for one, kept in zip(tables, before, strict=True):
        for name in one.keys() - kept.keys():
            del one[name]
