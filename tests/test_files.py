"""A file is written whole, or stays as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import said, stored

from optevo.errors import UserError
from optevo.files import write_text


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path):
    file = tmp_path / "a.py"
    for text in ("first", "zweite\nZeile"):
        write_text(file, text)
        assert file.read_text("utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]


def test_a_link_stays_a_link(tmp_path: Path):
    (tmp_path / "link.py").symlink_to(tmp_path / "file.py")
    write_text(tmp_path / "link.py", "text")
    assert (tmp_path / "link.py").is_symlink()
    assert (tmp_path / "file.py").read_text() == "text"


def test_where_the_disk_is_full_the_file_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.py"
    file.write_text("before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_text(file, "after")
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.py"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["export", "report"])
def test_a_command_that_cannot_write_says_so(optevo, command: str):
    stored(trials=1)
    which = ["0"] if command == "export" else ["tiny"]
    said(optevo(command, *which, "--output", "/dev/full"), "/dev/full")
