"""Other people's text, made safe to show: on a terminal, in markdown, in whatever letters a stream knows.

Text out of a database or a study file is not ours to believe. For HTML, see `html.escape`.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
from collections.abc import Sequence

_LONGEST = 2000  # characters that are shown of a text
_MARKS = re.compile(r"[^\w\s.,()±−+-]|_")  # whatever HTML or markdown may read as its own
_ASCII_MARKS = re.compile(r"[\\`*_\[\]<>|#&~$]")  # the same, of ASCII, in the middle of a line
_SPELLED = {  # what optevo writes itself, for who has no such letter
    **{"Δ": "Delta", "Σ": "Sum", "α": "alpha", "β": "beta", "ε": "eps", "η": "eta", "λ": "lambda"},
    **{"σ": "sigma", "√": "sqrt ", "∞": "inf", "½": "1/2", "·": "*", "×": "x", "±": "+/-", "−": "-"},
    **{"–": "-", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "…": "...", "’": "'", "\u0302": "^"},
    **{"₁": "1", "₂": "2", "₃": "3", "²": "^2", "³": "^3", "ᵏ": "^k"},
}
SPELLED = "optevo.spelled"  # the name of an error handler, for `str.encode`


def printable(text: str) -> str:
    """`text` for a terminal: one line, without anything that could steer it.

    What isn't printable (control characters, ANSI escapes, lone surrogates, marks that turn the direction of
    writing) is written as in a Python string, and what is very long is cut.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} … ({len(text)} characters)"
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def spelled(text: str, encoding: str) -> str:
    """`text` in letters that `encoding` has, with nothing that could steer a terminal but lines and tabs."""
    text = "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)
    return text.encode(encoding, SPELLED).decode(encoding)


def tolerate_any_text(encoding: str | None = None) -> None:
    """Make this process's output spell or escape letters that it can't write, where it would raise.

    Args:
        encoding: Of the output from now on. Default: None, as it is.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a task has put there
            stream.reconfigure(encoding=encoding, errors=SPELLED)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(_SPELLED.get(letter) or _escape(letter) for letter in unknown), error.end


codecs.register_error(SPELLED, _spell)


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
