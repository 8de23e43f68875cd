"""Files of a study's best trials, where optuna-dashboard finds them.

They lie in a folder beside the database; what they are stands in the database. A trial that has finished
takes no attribute any more, so it is an attribute of the study, where optuna-dashboard looks too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from optevo import __version__
from optevo.files import write_text
from optevo.optuna_private import database_of, storage_of, study_id, trial_id
from optevo.reporting import frames
from optevo.reporting.dashboard.curve_picture import curve_picture
from optevo.reporting.rules import as_trained, candidate_of, runs_of

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.trial import FrozenTrial

    from optevo.study.config import StudyConfig

FOLDER = "OPTEVO_ARTIFACTS"  # the environment variable that names another folder


def artifact_folder(url: str | None) -> Path | None:
    """Where the files of studies in a storage lie, a database by its URL; None where there is no such place.

    That is the folder that OPTEVO_ARTIFACTS names, else one beside an SQLite database, named as it is with
    ``.artifacts`` behind. A database server has none of its own.
    """
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER])
    if url is None:
        return None
    parsed = make_url(url)
    name = parsed.database
    if parsed.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(f"{name}.artifacts")


class Artifacts:
    """The files of a study's trials.

    Args:
        study: One of ours.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        engine = getattr(database_of(study), "engine", None)
        self.folder = artifact_folder(None if engine is None else str(engine.url))

    def write(self, config: StudyConfig, trial: FrozenTrial) -> None:
        """Leave a trial's files, those that aren't there already; nothing where there is no folder.

        Raises:
            OSError: The folder can't be made.
            UserError: It can't be written.
        """
        if self.folder is None:
            return
        storage, study = storage_of(self.study), study_id(self.study)
        known = storage.get_study_system_attrs(study)
        for name, mimetype, make in self._files(config, trial):
            # From what it is: a search that goes on, here or elsewhere, leaves no second one.
            whose = f"{self.study.study_name}\n{trial.number}\n{name}"
            artifact = hashlib.sha256(whose.encode(errors="surrogatepass")).hexdigest()[:32]
            if not (self.folder / artifact).exists():
                content = make()
                if content is None:
                    continue
                self.folder.mkdir(parents=True, exist_ok=True)
                write_text(self.folder / artifact, content)  # as Optuna's FileSystemArtifactStore keeps it
            key = f"dashboard:artifacts:{trial_id(trial)}:{artifact}"
            if key not in known:
                about = {"artifact_id": artifact, "filename": name, "mimetype": mimetype, "encoding": None}
                storage.set_study_system_attr(study, key, json.dumps(about))

    def _files(
        self, config: StudyConfig, trial: FrozenTrial
    ) -> Iterator[tuple[str, str, Callable[[], str | None]]]:
        name = f"trial_{trial.number}"

        @functools.cache
        def curves() -> pd.DataFrame:
            found = frames.curves(self.study)
            return found[found["trial"] == trial.number]

        yield f"{name}.py", "text/x-python", lambda: _source(self.study, config, trial)
        yield f"{name}_learning.svg", "image/svg+xml", lambda: curve_picture(curves())
        yield f"{name}_learning.csv", "text/csv", lambda: curves().to_csv(index=False)


def _source(study: optuna.Study, config: StudyConfig, trial: FrozenTrial) -> str | None:
    candidate = candidate_of(config, trial)
    if candidate is None:
        return None
    provenance = {
        "study": study.study_name,
        "trial": str(trial.number),
        "fitness in search": str(trial.value),
        "written by": f"optevo {__version__}",
    }
    try:
        return as_trained(candidate, runs_of(trial)).source("Evolved", provenance)
    except ValueError:  # it is no optimizer of its own, see `Space.not_exportable`
        return None
