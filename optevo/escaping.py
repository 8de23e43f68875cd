"""Other people's text, made safe to show: on a terminal, in markdown.

Text out of a database or a study file is not ours to believe. For HTML, see `html.escape`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST = 2000  # characters that are shown of a text
_MARKS = re.compile(r"[^\w\s.,()±−+-]|_")  # whatever HTML or markdown may read as its own
_ASCII_MARKS = re.compile(r"[\\`*_\[\]<>|#&~$]")  # the same, of ASCII, in the middle of a line


def printable(text: str) -> str:
    """`text` for a terminal: one line, without anything that could steer it.

    What isn't printable (control characters, ANSI escapes, lone surrogates, marks that turn the direction of
    writing) is written as in a Python string, and what is very long is cut.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} … ({len(text)} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def markdown_table(table: Sequence[Sequence[str]], *, entities: bool = True) -> str:
    """A header and rows; what other people named is text there, neither markup nor markdown.

    Args:
        table: Cells, each `printable`.
        entities: Escape by HTML's entities, which no renderer takes for anything else; else by backslashes,
            which people can read in a file. Default: True.
    """
    marks, escape = (_MARKS, _entity) if entities else (_ASCII_MARKS, _backslash)
    header, *rows = [[marks.sub(escape, cell) for cell in cells] for cells in table]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """`text` in the middle of a line of markdown, as text."""
    return _ASCII_MARKS.sub(_backslash, printable(text))


def fenced(lines: Sequence[str]) -> str:
    """`lines` as a block of code for a note, in a fence longer than any row of backticks in them."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _backslash(mark: re.Match[str]) -> str:
    return f"\\{mark[0]}"


def _entity(mark: re.Match[str]) -> str:
    return f"&#{ord(mark[0])};"
