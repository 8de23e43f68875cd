"""A search that follows individuals through mutations: what came of these, and how the individuals moved."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

import pandas as pd

from optevo import keys
from optevo.reporting.frames import INTEGER, NUMBER, frame_of
from optevo.samplers.base import positions
from optevo.samplers.slots import claimed, earned
from optevo.study.studies import COUNTED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig

PARTICLES = {
    "generation": INTEGER,
    "particles": INTEGER,
    "mutations": INTEGER,
    "alive": INTEGER,
    "compared": INTEGER,
    "better": INTEGER,
    "moved": INTEGER,
    "improved": INTEGER,
    "standing": NUMBER,
    "longest_standing": INTEGER,
    "forms": INTEGER,
    "part_sets": INTEGER,
}


def particles(study: optuna.Study, config: StudyConfig) -> pd.DataFrame:
    """A row a finished step of a particle search; empty for samplers that follow nobody.

    Returns:
        The columns of `PARTICLES`. Of a step's `mutations`, further attempts included, `alive` are those that
        came to a value. `compared` of these have a parent with a value on the same scale, and `better` are
        those above it. `moved` counts particles that left their place, `improved` those of them that came to
        a better one; a particle moves to the best of its children, even where that is worse. `standing` is
        the mean number of steps, up to this one, for which a particle has not moved, `longest_standing` the
        most so far. How different particles are after the step tell `forms`, the distinct canonical forms,
        and `part_sets`, the distinct sets of building blocks.
    """
    followed = positions(study)
    stored, space = study.get_trials(deepcopy=False), config.make_space()
    tried = defaultdict[int, list["FrozenTrial"]](list)
    for trial in stored:
        slot = claimed(trial)
        if slot is not None and trial.state in COUNTED and keys.LATE not in trial.system_attrs:
            tried[slot.generation].append(trial)
    rows, still, longest = [], [0] * len(followed[0] if followed else ()), 0
    for generation, (before, after) in enumerate(itertools.pairwise(followed[1:]), start=2):
        places = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        still = [0 if a != b else n + 1 for a, b, n in zip(before, after, still, strict=True)]
        longest = max([longest, *still])
        moves = [(stored[a], stored[b]) for a, b in places if a != b]
        alive = [trial for trial in tried[generation] if earned(trial) is not None]
        compared = [
            (parent, child)
            for child in alive
            for parent in (stored[number] for number in keys.ours(child)[keys.PARENTS])
            if _comparable(parent, child)
        ]
        here = [stored[b] for _, b in places]
        rows.append(
            {
                "generation": generation,
                "particles": len(places),
                "mutations": len(tried[generation]),
                "alive": len(alive),
                "compared": len(compared),
                "better": sum(_better(*pair) for pair in compared),
                "moved": len(moves),
                "improved": sum(_comparable(*pair) and _better(*pair) for pair in moves),
                "standing": sum(still) / max(1, len(still)),
                "longest_standing": longest,
                "forms": len({keys.ours(trial).get(keys.CANONICAL) for trial in here}),
                "part_sets": len({frozenset(space.parts(trial.params)) for trial in here}),
            }
        )
    return frame_of(rows, PARTICLES)


def told(frame: pd.DataFrame) -> str:
    """A whole search in words, of a frame of `particles` with a row at least."""
    n = frame[["mutations", "alive", "compared", "better", "moved", "improved", "particles"]].sum()
    return (
        f"Of {n['mutations']:,} mutations {n['alive']:,} came to a value; of {n['compared']:,} whose parent "
        f"had one, {n['better']:,} were better than it. In {n['moved']:,} of {n['particles']:,} steps of a "
        f"particle it moved, in {n['improved']:,} of these to a better place; it stood still for "
        f"{frame['longest_standing'].max()} steps in a row at most."
    )


def _comparable(parent: FrozenTrial, child: FrozenTrial) -> bool:
    """Whether both have a value on one scale."""
    scales = {bool(keys.ours(trial).get(keys.SCREENED)) for trial in (parent, child)}
    return len(scales) == 1 and earned(parent) is not None and earned(child) is not None


def _better(parent: FrozenTrial, child: FrozenTrial) -> bool:
    before, after = earned(parent), earned(child)
    return before is not None and after is not None and after > before
