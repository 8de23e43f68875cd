"""What mkdocs does with these pages beyond its own: a hook of mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()(?:\.\./)+[^)\s#]+(?=[)#])")


def outside(target: str, page: Path) -> Path | None:
    """The file of the repository that a link of a page leads to, where that lies outside of docs/."""
    file = (page.parent / urlsplit(target).path).resolve()
    if file.is_relative_to(_ROOT / "docs") or not file.is_relative_to(_ROOT):
        return None
    return file


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Links to files outside of docs/ lead to copies of them in the site, which has no other address."""
    source = Path(str(page.file.abs_src_path))

    def copied(match: re.Match[str]) -> str:
        file = outside(match[0], source)
        if file is None or not file.is_file():
            return match[0]  # mkdocs says so
        name = f"repository/{file.relative_to(_ROOT).as_posix()}" + ".txt" * (file.suffix == ".md")
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(file)))
        return "../" * str(page.file.src_uri).count("/") + name

    return _LINK.sub(copied, markdown)
