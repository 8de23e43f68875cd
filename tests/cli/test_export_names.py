"""`optevo export --output` and `run --export`: a file that Python cannot import is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from command_line import TINY, said, stored, write

# Keywords, names of other modules, names that are none, names that Python reads as others.
REFUSED = [
    *("class.py", "import.py", "None.py", "async.py"),
    *(
        "torch.py",
        "math.py",
        "numpy.py",
        "typing.py",
        "sys.py",
        "site.py",
        "optuna.py",
        "sympy.py",
        "optevo.py",
    ),
    *("my file.py", "2.py", "a-b.py", "a.b.py", "é!.py", "ｍath.py", "__main__.py", "__init__.py"),
]
IMPORTABLE = ["winner.py", "évolué.py", "match.py", "_best.py", "Torch_1.py"]


def test_a_file_that_cannot_be_imported_is_refused_by_name(optevo):
    stored(trials=1)
    for name in REFUSED:
        said(optevo("export", "0", "--output", name), name, "could not be imported", "evolved.py")
        assert not Path(name).exists()


def test_a_search_is_not_begun_for_a_file_that_cannot_be_imported(optevo):
    said(optevo("run", write(TINY), "--export", "torch.py"), "torch.py", "could not be imported")
    assert not Path("torch.py").exists()
    assert not Path("optevo.db").exists()


def test_a_package_beside_the_file_is_not_imported_in_its_place(optevo):
    stored(trials=1)
    Path("winner").mkdir()
    assert optevo("export", "0", "--output", "winner.py").status == 0  # a folder alone hides nothing
    Path("winner", "__init__.py").touch()
    said(optevo("export", "0", "--output", "winner.py"), "winner.py", "folder")


def test_the_line_that_is_printed_imports_the_file(optevo):
    stored(trials=1)
    lines = []
    for name in IMPORTABLE:
        for _ in range(2):  # also over an earlier one
            answer = optevo("export", "0", "--output", name)
            assert answer.status == 0, answer
        line = f"from {name[:-3]} import Evolved, scheduler"
        assert line in answer.out
        lines.append(line)
    code = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_of_another_kind_is_written_without_a_line(optevo):
    stored(trials=1)
    answer = optevo("export", "0", "--output", "torch.txt")
    assert answer.status == 0
    assert "import" not in answer.out
    assert Path("torch.txt").is_file()
