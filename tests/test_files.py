"""A file is written whole, or stays as it was; and it is read as whatever editor left it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import said, stored

from optevo.errors import UserError
from optevo.files import read_text, write_text
from optevo.storage.study_file import read_study
from optevo.study.config import load_config


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


ENCODINGS = {
    "plain": "utf-8",
    "windows": "utf-8-sig",
    "notepad": "utf-16",
    "big-endian": "utf-16-be",
    "wide": "utf-32",
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_is_read_whatever_mark_stands_before_it(tmp_path: Path, encoding: str, end: str):
    text = 'name = "Δ"\nseed = 1\n'
    mark = "\ufeff" if encoding == "utf-16-be" else ""  # Python's other names write one
    (tmp_path / "a").write_bytes((mark + text.replace("\n", end)).encode(encoding))
    assert read_text(tmp_path / "a") == text


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_study_files_and_saved_studies_are_read_with_any_mark(tmp_path: Path, encoding: str, end: str):
    studies = Path(__file__).parents[1] / "studies"
    saved = next((studies / "results" / "fair").glob("fair_adamw_beyond.json"))
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    for read, path in ((load_config, studies / "quickstart.toml"), (read_study, saved)):
        text = (mark + path.read_text("utf-8").replace("\n", end)).encode(encoding)
        (tmp_path / "again").write_bytes(text)
        read(tmp_path / "again")


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xfe\xff\x00", b"\xef\xbb\xbf\xff", b"\xff\xfe\x00\xd8"])
def test_a_mark_before_what_is_no_text_is_a_message(tmp_path: Path, data: bytes):
    (tmp_path / "a").write_bytes(data)
    for read in (load_config, read_study):
        with pytest.raises(UserError, match=r"is no text|cannot read study file"):
            read(tmp_path / "a")


def test_a_name_in_gz_is_compressed_and_read_whatever_its_name(tmp_path: Path):
    text = "η = 0.1\n" * 1000
    for name in ("one.json.gz", "two.json.gz"):
        write_text(tmp_path / name, text)
    one = (tmp_path / "one.json.gz").read_bytes()
    assert len(one) < len(text) / 10
    assert one == (tmp_path / "two.json.gz").read_bytes()
    (tmp_path / "plain").write_bytes(one)
    assert read_text(tmp_path / "plain") == text
    (tmp_path / "plain").write_bytes(one[:-10])
    with pytest.raises(OSError, match="it is damaged"):
        read_text(tmp_path / "plain")
