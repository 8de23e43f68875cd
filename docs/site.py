"""What mkdocs does with these pages beyond its own: hooks of mkdocs.yml, and docstrings' examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import griffe
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_NAMED = re.compile(r"\[(\w+)\.md\](?=\()")
_LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)\s#]+(?=[)#])")


def outside(target: str, page: Path) -> Path | None:
    """The file of the repository that a link of a page leads to, where that lies outside of docs/."""
    file = (page.parent / urlsplit(target).path).resolve()
    if file.is_relative_to(_ROOT / "docs") or not file.is_relative_to(_ROOT):
        return None
    return file


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Links to files outside of docs/ lead to copies of them in the site, which has no other address.

    And pages that go by their file's name in the repository go by its words.
    """
    source = Path(str(page.file.abs_src_path))

    def copied(match: re.Match[str]) -> str:
        file = outside(match[0], source)
        if file is None or not file.is_file():
            return match[0]  # mkdocs says so
        name = f"repository/{file.relative_to(_ROOT).as_posix()}" + ".txt" * (file.suffix == ".md")
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(file)))
        return "../" * str(page.file.src_uri).count("/") + name

    return _LINK.sub(copied, _NAMED.sub(lambda match: f"[{match[1].replace('_', ' ')}]", markdown))


def on_page_content(html: str, **_: Any) -> str:
    """In tables GitHub reads an escaped bar in code as a bar, and Python's Markdown does not."""
    return re.sub(r"<td.*?</td>", lambda cell: cell[0].replace("\\|", "|"), html, flags=re.DOTALL)


class Examples(griffe.Extension):
    """Sessions of Python in docstrings are code, under the heading that ours have too."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """See griffe; a base that nobody may use is not named."""
        cls.bases = [base for base in cls.bases if not str(base).startswith("_")]

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """See griffe."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            session = r"(?<=\n\n)>>>.*?(?=\n\n|\Z)"
            text = re.sub(session, lambda found: f"```pycon\n{found[0]}\n```", text, flags=re.DOTALL)
            obj.docstring.value = text
