"""The quickstart and the tutorial, followed to the letter in an empty folder: every file, every command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, fenced, typed

pytestmark = pytest.mark.slow
#: What a page types before optevo is there.
SETUP = re.compile(r"mkdir |python3 -m venv |pip install ")
LEFT = {
    "quickstart.md": ["evolved.py", "first.html", "again.py"],
    "tutorial.md": ["evolved.py", "evolved2.py", "arms.html"],
}


@pytest.mark.parametrize("page", LEFT)
def test_a_page_is_followed_to_the_letter(page: str, tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OPTEVO_STORAGE", None)
    for block in fenced(ROOT / "docs" / page):
        if block.language == "console":
            for line in typed(block):
                if SETUP.match(line):
                    continue
                program, *rest = shlex.split(line)
                assert program in ("optevo", "python"), f"{block}: {line}"
                words = [sys.executable, *(["-m", "optevo"] if program == "optevo" else []), *rest]
                done = subprocess.run(
                    words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{block}: {line}\n{done.stdout}\n{done.stderr}"
                assert done.stdout, f"{block}: {line} says nothing"
        elif block.language != "text":
            assert block.file, f"{block}: the paragraph before it says as what to save it"
            (tmp_path / block.file).write_text(block.text, "utf-8")
    for name in LEFT[page]:
        assert (tmp_path / name).stat().st_size > 0
