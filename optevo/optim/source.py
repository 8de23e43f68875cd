"""What exported files share, whatever optimizer is in them. Pure Python."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from collections.abc import Mapping


def check_class_name(class_name: str, template: str) -> None:
    """Refuse, with a ValueError, what cannot name a class in a file that `template` makes."""
    taken = {*dir(builtins), *keyword.kwlist, *re.findall(r"\w+", template)} - {"Evolved"}
    # Python reads identifiers in NFKC, where a fullwidth "ｍath" is math.
    if not class_name.isidentifier() or unicodedata.normalize("NFKC", class_name) in taken:
        raise ValueError(f"Invalid class_name: {class_name!r} cannot name a class in the exported file")


def provenance_entries(provenance: Mapping[str, str]) -> str:
    """The inside of a dict's literal, a line an entry, escaped whatever the strings hold."""
    entries = "".join(f"\n    {key!a}: {str(value)!a}," for key, value in provenance.items())
    return f"{entries}\n" if entries else ""
