"""Optuna's own tests of `Study`, with `GeneticSampler` in the place of its default sampler.

They are not in its wheel. Unpack its source distribution, and name the folder in ``OPTUNA_SOURCE``::

    pip download --no-deps --no-binary :all: optuna==5.0.0 && tar xzf optuna-5.0.0.tar.gz
    pip install fakeredis lupa
    OPTUNA_SOURCE=optuna-5.0.0 python -m pytest -m slow tests/conformance/test_optuna_study_suite.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("OPTUNA_SOURCE")
# A pytest plugin. Studies with several objectives keep Optuna's default, since ours has one.
PLUGIN = """
import optuna.study.study as study
from optevo.samplers import GeneticSampler
init = study.Study.__init__
def patched(self, study_name, storage, sampler=None, pruner=None):
    several = len(storage.get_study_directions(storage.get_study_id_from_name(study_name))) > 1
    init(self, study_name, storage, sampler or (None if several else GeneticSampler()), pruner)
study.Study.__init__ = patched
"""


@pytest.mark.slow
@pytest.mark.skipif(SOURCE is None, reason="OPTUNA_SOURCE names no unpacked source distribution of Optuna")
def test_optunas_studies_work_with_our_sampler(tmp_path: Path):
    assert SOURCE is not None
    shutil.copytree(Path(SOURCE) / "tests", tmp_path / "tests")  # beside the installed optuna, not its source
    (tmp_path / "genetic_by_default.py").write_text(PLUGIN, "utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "genetic_by_default", "-W", "ignore"),
            *("--color=no", "tests/study_tests/test_study.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE))
    # They say which class the default is.
    assert failed == {"test_create_study_default_sampler", "test_load_study_default_sampler"}, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 500
