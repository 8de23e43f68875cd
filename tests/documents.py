"""README and docs as the tests read them: their lines, headings, blocks of code and typed commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: Its file.
        line: Of its opening fence, from 1.
        language: As the fence names it; "text" where it names none.
        text: What stands in it.
        file: As what the paragraph before tells to save it, "" where it tells nothing.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line} {self.language}"


def parts(page: Path) -> Iterator[tuple[str, str]]:
    """Every line with the language of the block of code that it stands in, "" outside of one."""
    language = ""
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            assert not (language and line != "```"), f"{page.name}: a block in a block: {line}"
            language = "" if language else line[3:] or "text"
        else:
            yield language, line
    assert not language, f"{page.name}: a block of code is not closed"


def prose(page: Path) -> list[str]:
    return [line for language, line in parts(page) if not language]


def fenced(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        before = text[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        saved = re.search(r"\b(?:[Ss]ave|and) this\s+as\s+`([\w.]+)`", before)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1] or "text", match[2], saved[1] if saved else ""))
    return found


def blocks(page: Path, language: str) -> list[str]:
    return [block.text for block in fenced(page) if block.language == language]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    titles = [line.lstrip("#").strip() for line in prose(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def typed(block: Block) -> list[str]:
    """The lines of a console block that are typed, without prompt and comment, continued ones as one."""
    whole = block.text.replace("\\\n>", " ")
    return re.findall(r"^(?:\w*\$|>) +(.*?)(?: +# .*)?$", whole, flags=re.MULTILINE)


def calls(block: Block) -> Iterator[list[str]]:
    """Each call of optevo that is typed in a console block, in words."""
    for line in typed(block):
        call = re.search(r"(?:^| |bin/)optevo +(.*?)(?= *(?:&&|\||> |;|$))", line)
        if call:  # an odd quote belongs to a command around it, as in ssh host 'optevo …'
            yield shlex.split(call[1].rstrip("'") if call[1].count("'") % 2 else call[1])


def mentions(page: Path) -> Iterator[list[str]]:
    """Each call of optevo that the text of a page names, often without its arguments."""
    for call in re.findall(r"`optevo ([a-z-][^`]*)`", "\n".join(prose(page))):
        yield call.split()
