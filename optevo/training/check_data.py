"""Whether a task's splits are what they should be: the same every time, disjoint, alike, with every class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optevo.tasks.base import Split

_MOST_BYTES = 2**30  # of a split that are compared: a second's work
_NATURAL = 0.9  # a smaller share of distinct inputs in "train", and inputs are such as repeat by themselves
_FEW = 0.01  # of a split's examples: real sets have some twice


@dataclass(frozen=True)
class Finding:
    """What came of one check of a task.

    Attributes:
        check: What was looked at, such as "splits".
        verdict: "wrong" must be mended; "look" may be meant so.
        found: What was found.
        remedy: What to do. Default: nothing.
    """

    check: str
    verdict: Literal["ok", "look", "wrong"]
    found: str
    remedy: str = ""


Digests = dict[str, tuple[list[int], list[int]]]


def digests(splits: Mapping[str, Split]) -> Digests:
    """A number for each example's input and each one's target, by split; equal ones share theirs.

    Of a split of more than 1 GiB, those of its beginning.
    """
    return {name: (_of_rows(split.inputs), _of_rows(split.targets)) for name, split in splits.items()}


def _of_rows(tensor: Tensor) -> list[int]:
    size = max(1, tensor[:1].numel() * tensor.element_size())
    found: list[int] = []
    for part in tensor[: max(1, _MOST_BYTES // size)].split(max(1, 2**24 // size)):
        rows = part.cpu().reshape(len(part), -1).contiguous()
        found += [hash(row.tobytes()) for row in rows.view(torch.uint8).numpy()]
    return found


def check_splits(splits: Mapping[str, Split], known: Digests, *, classes: bool) -> Iterator[Finding]:
    """What there is to say of a task's splits.

    Args:
        splits: By name.
        known: Their `digests`.
        classes: Whether targets are class numbers that every split should have.
    """
    yield _shapes(splits)
    yield _numbers(splits)
    yield _overlap(known)
    if classes:
        yield _classes(splits)


def _shapes(splits: Mapping[str, Split]) -> Finding:
    kinds = {name: _shape(split) for name, split in splits.items()}
    if len(set(kinds.values())) > 1:
        told = "; ".join(f"{name}: {kind}" for name, kind in kinds.items())
        return Finding("shapes", "wrong", told, "give all splits one shape and dtype in load()")
    sizes = " + ".join(f"{len(split):,}" for split in splits.values())
    return Finding("shapes", "ok", f"{sizes} examples in {', '.join(splits)}; {next(iter(kinds.values()))}")


def _shape(split: Split) -> str:
    return ", ".join(
        f"{what} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape[1:])}"
        for what, tensor in (("inputs", split.inputs), ("targets", split.targets))
    )


def _numbers(splits: Mapping[str, Split]) -> Finding:
    for name, split in splits.items():
        for what, tensor in (("inputs", split.inputs), ("targets", split.targets)):
            bad = 0
            if tensor.is_floating_point() and not split.streamed:
                bad = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1).sum())
            if bad:
                found = f"{bad:,} of the {what} of {name!r} have a NaN or an infinity"
                return Finding(
                    "numbers", "wrong", found, "fill them in, or leave these examples out in load()"
                )
    return Finding("numbers", "ok", "all are finite")


def _overlap(known: Digests) -> Finding:
    train = known["train"][0]
    sets = {name: set(inputs) for name, (inputs, _) in known.items()}
    natural = len(sets["train"]) < _NATURAL * len(train)
    shared: list[str] = []
    most = 0.0
    names = list(sets)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            twice = sum(one in sets[first] for one in known[second][0])
            if twice:
                shared.append(f"{twice:,} of the {len(known[second][0]):,} of {second!r} are in {first!r}")
                most = max(most, twice / len(known[second][0]))
    if not shared:
        return Finding("splits", "ok", "no input is in two of them")
    found = f"{'; '.join(shared)}, by their inputs"
    if natural:
        share = len(sets["train"]) / len(train)
        return Finding(
            "splits", "look", f"{found}; but only {share:.0%} of the inputs of 'train' are distinct"
        )
    if most < _FEW:
        return Finding("splits", "look", found, "fine where the set is known for such doubles")
    return Finding("splits", "wrong", found, "split once, in load(), and give each example to one part")


def _classes(splits: Mapping[str, Split]) -> Finding:
    there = {name: set(split.targets.unique().tolist()) for name, split in splits.items()}
    every = sorted(set().union(*there.values()))
    lacking = {name: [one for one in every if one not in found] for name, found in there.items()}
    told = [f"{name!r} lacks {_some(missing)}" for name, missing in lacking.items() if missing]
    if not told:
        return Finding("classes", "ok", f"all {len(every)} are in every split")
    remedy = "shuffle before splitting, or split class by class"
    return Finding("classes", "wrong" if lacking["train"] else "look", "; ".join(told), remedy)


def _some(classes: list[int]) -> str:
    shown = ", ".join(map(str, classes[:5]))
    return f"{'class' if len(classes) == 1 else 'classes'} {shown}{', …' * (len(classes) > 5)}"
