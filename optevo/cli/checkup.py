"""What `optevo doctor` looks at, a function an area. Whatever breaks in one is told as a finding."""

from __future__ import annotations

# ruff: noqa: PLC0415
import importlib.metadata
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from optevo import __version__
from optevo.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

OK, NOTE, MEND = "ok", "note", "mend"
_LITTLE, _NOTHING = 2**30, 2**26  # bytes left on a disk: to be noted, and too few to work
_EXTRAS = ("postgresql", "grpc", "cluster", "parquet")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: Such as "versions".
        what: Such as "torch".
        found: How it is.
        level: "ok"; "note", with which everything works, if slower; or "mend".
        remedy: What to do. Default: empty, nothing.
    """

    area: str
    what: str
    found: str
    level: str = OK
    remedy: str = ""


def findings(area: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What an area's function yields, up to what breaks it, which is a finding too."""
    found: list[Finding] = []
    try:
        for one in look():
            found.append(one)  # so that what came before a fault stays
    except UserError as error:
        message, _, remedy = str(error).partition("\n")
        found.append(Finding(area, area, message, MEND, remedy))
    except Exception as error:  # a doctor has no other answer to whatever is broken
        said = f"could not be looked at: {type(error).__name__}: {error}"
        found.append(Finding(area, area, said, MEND, "see what the message names"))
    return found


def versions() -> Iterator[Finding]:
    """Python and packages against what optevo asks for."""
    yield Finding("versions", "optevo", __version__)
    yield Finding("versions", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    try:
        required = importlib.metadata.requires("optevo") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "versions", "packages", "optevo runs from a folder, so what it needs is not known", NOTE
        )
        return
    from packaging.requirements import Requirement

    extras: dict[str, list[str]] = {}
    for line in required:
        one = Requirement(line)
        version = _version(one.name)
        extra = re.search(r"extra == ['\"](\w+)", line)
        if extra:
            extras.setdefault(extra[1], []).extend([one.name] * (version is None))
        elif version is None or not one.specifier.contains(version, prereleases=True):
            remedy = f"pip install '{one.name}{one.specifier}'"
            yield Finding(
                "versions", one.name, f"{version or 'missing'}, needs {one.specifier}", MEND, remedy
            )
        else:
            yield Finding("versions", one.name, version)
    for name in _EXTRAS:
        if name in extras:
            lacking = ", ".join(extras[name])
            yield Finding("versions", f"extra {name}", f"without {lacking}" if lacking else "installed")


def devices() -> Iterator[Finding]:
    """The processor, torch on it, and GPUs."""
    import psutil

    cores = len(psutil.Process().cpu_affinity() or [0]) if psutil.LINUX else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    yield Finding("devices", "CPU", f"{platform.machine()}, {cores} of {os.cpu_count()} cores are ours")
    yield Finding("devices", "memory", f"{_gib(memory.available)} of {_gib(memory.total)} free")
    try:
        import torch

        from optevo.training.precision import has_bfloat16
    except (ImportError, OSError) as error:
        yield Finding(
            "devices", "torch", f"can't be imported: {error}", MEND, "install torch anew: https://pytorch.org"
        )
        return
    said = f"{torch.get_num_threads()} here, 1 in each worker"
    yield Finding("devices", "threads", said)
    if has_bfloat16():
        yield Finding("devices", "bfloat16", "the processor has it")
    else:
        yield Finding(
            *("devices", "bfloat16", "the processor lacks it, so it is imitated in float32", NOTE),
            'precision = "float32" is as fast here',
        )
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(i)
            yield Finding("devices", f"cuda:{i}", f"{card.name}, {_gib(card.total_memory)}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            *("devices", "CUDA", f"a driver is here, but torch {torch.__version__} sees no GPU", NOTE),
            "install a torch that is built for this driver's CUDA: https://pytorch.org",
        )
    else:
        yield Finding("devices", "CUDA", "no GPU; everything runs on the CPU")


def compiler() -> Iterator[Finding]:
    """What torch.compile needs for updates on the CPU; without it they run eagerly."""
    from optevo.optim.terms.kernels import has_compiler

    slower = "optimizers of large models are slower without; install one, such as g++"
    there = has_compiler("cpu")
    yield Finding(
        *("compiler", "C++"),
        *(("found, for torch.compile",) if there else ("none for torch.compile", NOTE, slower)),
    )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if there and not header.is_file():
        yield Finding("compiler", "Python.h", f"no {header}", NOTE, "install Python's headers (python3-dev)")


def data(explicit: Path | None) -> Iterator[Finding]:
    """Data sets there and missing, and where decoded images are kept."""
    from optevo.tasks.data import NAMES, check
    from optevo.tasks.roots import NOWHERE, data_root, decoded_root

    root = data_root(explicit, needed=False)
    if root == NOWHERE:
        yield Finding("data", "data root", "no home folder", NOTE, "set OPTEVO_DATA and OPTEVO_CACHE")
    else:
        yield Finding("data", "data root", str(root) + " (not there yet)" * (not root.exists()))
    for name in NAMES if root != NOWHERE else NAMES[:1]:
        try:
            rows = check(name, root)
        except UserError as error:
            yield Finding("data", name, str(error), MEND, f"see `optevo data check {name}`")
            continue
        there = sum(row.found for row in rows)
        changed = any(row.published is False for row in rows)
        if there == len(rows):
            said = "there" + ", not as published" * changed
            yield Finding("data", name, said, *((NOTE, f"see `optevo data check {name}`") if changed else ()))
        elif name == "digits":
            yield Finding("data", name, "missing", MEND, "pip install --force-reinstall scikit-learn")
        else:
            partly = f"{there} of {len(rows)} files" if there else "not here"
            yield Finding("data", name, partly, NOTE if there else OK, f"optevo data get {name}")
    try:
        cache = decoded_root()
    except UserError as error:
        yield Finding("data", "cache", str(error), NOTE, "set OPTEVO_CACHE")
        return
    if os.access(_existing(cache), os.W_OK):
        yield Finding("data", "cache", str(cache))
    else:
        yield Finding(
            *("data", "cache", f"{cache} can't be written: images are decoded at every start", NOTE),
            "set OPTEVO_CACHE to a folder that can",
        )


def storage(url: str) -> Iterator[Finding]:
    """The database: whether it answers, its versions, whether it can be written, and room for more."""
    from optevo.storage.opening import open_storage, shown

    name = shown(url)
    file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
    if file is not None and not file.exists():
        yield Finding("storage", "database", f"{name} is not there yet; `optevo run` makes it")
        yield from _place(file)
        return
    opened = open_storage(url, should_stop=lambda: True)  # an outage is told, not waited for
    yield Finding("storage", "database", f"{name} answers")
    yield from _writable(opened)
    if file is not None:
        yield from _place(file)
    yield from _studies(opened)


def _place(file: Path) -> Iterator[Finding]:
    folder = file.absolute().parent
    if not folder.is_dir():
        remedy = f"make it, or give another place: mkdir -p {folder}"
        yield Finding("storage", "folder", f"there is no {folder}", MEND, remedy)
        return
    if not os.access(folder, os.W_OK):
        remedy = "give --storage, or OPTEVO_STORAGE, a file in a folder of your own"
        yield Finding("storage", "folder", f"{folder} can't be written", MEND, remedy)
    free = shutil.disk_usage(folder).free
    level = MEND if free < _NOTHING else NOTE if free < _LITTLE else OK
    yield Finding("storage", "free disk", _gib(free), level, "make room" * (level != OK))


def _writable(opened: BaseStorage) -> Iterator[Finding]:
    import sqlalchemy

    engine: sqlalchemy.Engine | None = getattr(opened, "engine", None)
    if engine is None:
        yield Finding("storage", "writing", "is up to the machine that serves the database")
        return
    statement = (
        "UPDATE studies SET study_name = study_name WHERE 1 = 0"  # asks for the right, changes nothing
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
            connection.rollback()
    except (sqlalchemy.exc.SQLAlchemyError, UserError) as error:
        said = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        remedy = "it can be looked at; for more, ask for the right, or copy it: optevo storage copy"
        yield Finding("storage", "writing", f"not allowed: {said}", MEND, remedy)
    else:
        yield Finding("storage", "writing", "allowed")


def _studies(opened: BaseStorage) -> Iterator[Finding]:
    from optevo import keys
    from optevo.liveness.status import running_trials
    from optevo.study.studies import load_study, study_names

    names = study_names(opened)
    yield Finding("storage", "studies", f"{len(names)}, read with schema version {keys.SCHEMA_VERSION}")
    for name in names:
        try:
            study, _ = load_study(opened, name, trials="none")
            gone = sum(one.state != "live" for one in running_trials(study))
        except UserError as error:
            theirs = "not made by optevo" in str(error)
            message, _, remedy = str(error).partition("; ")
            yield Finding("storage", f"study {name!r}", message, OK if theirs else MEND, remedy)
            continue
        if gone:
            remedy = f"`optevo run` its file goes on; or optevo repair {name}"
            yield Finding("storage", f"study {name!r}", f"{gone} trials lost their worker", NOTE, remedy)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"
