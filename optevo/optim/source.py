"""What exported files share, whatever optimizer is in them."""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import unicodedata
from collections.abc import Mapping
from typing import Any

from optevo.optim import checked
from optevo.optim.schedules import ShareSchedule, WarmupCosine

_SHARED = {
    "IMPORTS": checked.IMPORTS + "from torch.optim.lr_scheduler import LambdaLR",
    "CHECKED": inspect.getsource(checked.CheckedOptimizer).rstrip(),
    "SHARE_SCHEDULE": inspect.getsource(ShareSchedule).rstrip(),
    "WARMUP_COSINE": inspect.getsource(WarmupCosine).rstrip(),
}


def fill(
    template: str,
    facts: Mapping[str, bool],
    words: Mapping[str, str],
    class_name: str,
    provenance: Mapping[str, str],
) -> str:
    """A template as a file.

    Args:
        template: Python with ``@WORDS@``. A line that starts with ``|names|`` is written only where all
            these facts hold.
        facts: By name.
        words: What each word becomes, besides ``@NAME@``, ``@PROVENANCE@`` and the shared code.
        class_name: The optimizer's class.
        provenance: Kept as data, escaped.

    Raises:
        ValueError: `class_name` cannot name a class in this file.
    """
    lines = []
    for line in template.splitlines(keepends=True):
        tags, rest = line[1:].split("|", 1) if line.startswith("|") else ("", line)
        if all(facts[tag] for tag in tags.split()):
            lines.append(rest)
    text = "".join(lines)
    for word, value in {**words, **_SHARED}.items():
        text = text.replace(f"@{word}@", value)
    check_class_name(class_name, text.replace("@NAME@", "Evolved").replace("@PROVENANCE@", ""))
    # Last, so that nothing in these strings is taken for a word of the template.
    return text.replace("@NAME@", class_name).replace("@PROVENANCE@", provenance_entries(provenance))


def check_class_name(class_name: str, source: str) -> None:
    """Refuse, with a ValueError, what cannot name the class in the place of Evolved in `source`."""
    taken = {*dir(builtins), *keyword.kwlist}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            taken.add(node.id)
        elif isinstance(node, ast.alias):
            taken.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            taken.add(node.name)
    # Python reads identifiers in NFKC, where a fullwidth "ｍath" is math.
    name = unicodedata.normalize("NFKC", class_name)
    if not class_name.isidentifier() or name in taken - {"Evolved"} or name.startswith("__"):
        raise ValueError(f"Invalid class_name: {class_name!r} cannot name a class in the exported file")


def range_entries(defaults: Mapping[str, Any]) -> str:
    """The inside of the literal of `CheckedOptimizer.RANGES` for these defaults, a line an entry."""
    entries = "".join(
        f"\n        {name!r}: ({least}, {greatest}, {count}),"
        for name, (least, greatest, count) in checked.ranges(defaults).items()
    )
    return f"{entries}\n    ".replace("inf", "math.inf").replace("'", '"')


def provenance_entries(provenance: Mapping[str, str]) -> str:
    """The inside of a dict's literal, a line an entry, escaped whatever the strings hold."""
    entries = "".join(f"\n    {key!a}: {str(value)!a}," for key, value in provenance.items())
    return f"{entries}\n" if entries else ""
