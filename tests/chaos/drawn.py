"""Hypothesis strategies for what stands where something else was expected."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.sampled_from(["genetic", "digits", "terms", "adam", "ADAM_TERM", "racing", "a:b", 10**400, -(10**30)]),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_SECTIONS = {
    "space": ("kind", "presets"),
    "sampler": ("kind", "population_size", "n_generations", "n_elites", "tournament_size", "n_trials"),
    "evaluation": ("tasks", "steps", "seeds", "batch_size", "split", "precision", "gate", "pruner"),
    "rerun": ("candidates", "seeds"),
}


@st.composite
def config_tables(draw: st.DrawFn) -> dict[str, Any]:
    """Tables that look like study files, with anything in them."""
    table: dict[str, Any] = {
        "name": draw(st.one_of(st.just("x"), JUNK)),
        "sampler": {"kind": draw(st.sampled_from(["random", "tpe"])), "n_trials": 10},
        "evaluation": {"tasks": ["digits"]},
    }
    for section in draw(st.lists(st.sampled_from([*_SECTIONS]), max_size=3, unique=True)):
        names = st.one_of(st.sampled_from(_SECTIONS[section]), st.text(max_size=5))
        inner = draw(st.dictionaries(names, JUNK, max_size=4))
        table[section] = draw(st.one_of(st.just({**table.get(section, {}), **inner}), JUNK))
    options = st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)
    if draw(st.booleans()):
        table["evaluation"] = {"tasks": [{"name": "digits", "options": draw(options)}]}
    table.update(draw(st.dictionaries(st.text(max_size=6), JUNK, max_size=1)))
    return table


def term_params(valid: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A term space's parameters, `valid` but for a few that are missing or anything at all."""
    changes = st.dictionaries(st.sampled_from([*valid]), JUNK, max_size=4)
    missing = st.sets(st.sampled_from([*valid]), max_size=2)
    return st.builds(
        lambda new, without: {k: v for k, v in {**valid, **new}.items() if k not in without}, changes, missing
    )
