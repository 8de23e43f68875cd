"""Strings and files of strangers: none is run, none leaves its place, none steers a terminal or a page."""

from __future__ import annotations

import ast
import functools
import gzip
import hashlib
import html
import http.server
import inspect
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial
from PIL import Image

import optevo
from optevo import keys
from optevo.cli import main as cli
from optevo.errors import UserError
from optevo.escaping import fenced
from optevo.measurement.fresh_seeds import Result, Row
from optevo.optim import export_source
from optevo.optim.graphs.operations import OPERANDS, OPERATIONS
from optevo.optim.graphs.program import program
from optevo.optim.terms.presets import PRESETS
from optevo.reporting.progress import SearchProgress
from optevo.reporting.text import result_cells, result_markdown, trial_lines
from optevo.spaces import TermSpace
from optevo.storage.opening import open_storage
from optevo.study.config import parse_config
from optevo.study.studies import create_or_resume
from optevo.tasks import data, folders, idx, sources
from tests.chaos.databases import CONFIG, a_run, evaluate
from tests.chaos.outcomes import command

PACKAGE = Path(optevo.__file__).parent
HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    '"""\nimport os\n"""',
    "```\n# heading\n````",
    "../../etc/passwd",
    "/etc/passwd",
    "nul\0byte",
    "\u202egnp.exe",
    "a\rb\x0cc\u2028d\x85e",
    "[red]x[/red] :smile:",
    "\ud800",
    "x" * 100_000,
    "| a | b |",
]
# Whatever turns data into code.
FORBIDDEN = {"eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "marshal.load", "yaml.load"}
ALLOWED = {"json.loads", "tomllib.loads"}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


# --- code ------------------------------------------------------------------------------------------


def skeleton(source: str) -> str:
    """The file's syntax without the texts in it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


PLAIN = skeleton(export_source(PRESETS["evolved"], provenance={"study": "s"}))


@given(st.text())
def test_no_text_changes_the_code_of_an_exported_file(text):
    assert skeleton(export_source(PRESETS["evolved"], provenance={"study": text})) == PLAIN


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_no_hostile_text_changes_the_code_of_an_exported_file(text):
    source = export_source(PRESETS["evolved"], provenance={"study": text})
    assert skeleton(source) == PLAIN
    assert all(c == "\n" or c.isprintable() for c in source)


@pytest.mark.parametrize("name", ["ｍath", "ｔorch", "Optimizeｒ", "𝐢nt", "ſelf", "__debug__"])
def test_a_class_cannot_take_a_needed_name_in_other_letters(name):
    with pytest.raises(ValueError, match="class_name"):
        export_source(PRESETS["evolved"], class_name=name)


@pytest.mark.parametrize(
    "gene", ["lr", "beta1", "eps", "alpha_0", "term_0", "warmup_steps", "n_terms", "warmup"]
)
@pytest.mark.parametrize(
    "value",
    ["__import__('os')", None, [], float("nan"), 10**400, {"a": 1}, b"1"],
    ids=lambda value: repr(value)[:20],
)
def test_what_a_database_gives_for_a_gene_is_checked_before_it_is_written(gene, value):
    space = TermSpace()
    with pytest.raises(ValueError, match=r"Invalid|not of this|expected"):
        space.candidate({**space.presets()["evolved"], gene: value})


@pytest.mark.parametrize(
    "text",
    [
        "none __import__('os')",
        "none id(__import__)",
        "none [__import__('os').system('x')]*g",
        "none g\n    import os",
        "none id(g);g",
        "__import__ id(g)",
        "none torch.load(g)",
        "none {x}",
        'none """g',
        "none ｇ",
    ],
)
def test_an_equation_becomes_code_only_if_it_is_made_of_the_tables_names(text):
    with pytest.raises(ValueError, match="Invalid equation"):
        program(text)


def test_an_equations_code_has_lines_of_the_tables_and_nothing_of_its_text():
    one, other = (program(f"nesterov tanh([{decay}]*g)").source for decay in ("mul(a13,a2)", "erfc(a4)"))
    assert one == other
    for name in (*OPERANDS, *OPERATIONS):
        arity = OPERATIONS[name].arity if name in OPERATIONS else 0
        source = program(f"momentum {name}" + ("", "(g)", "(g,v_hat)")[arity]).source
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, (ast.Import, ast.ImportFrom))
            assert not isinstance(node, ast.Constant) or isinstance(node.value, (int, float)), source
            if isinstance(node, ast.Call):
                assert isinstance(node.func, ast.Attribute), source


def test_nothing_in_the_package_turns_data_into_code():
    for module in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            where, words = f"{module.name}:{node.lineno}", {k.arg: k.value for k in node.keywords}
            name = ast.unparse(node.func)
            assert name not in FORBIDDEN, where
            if name.endswith(("loads", "Unpickler", "read_pickle")):
                assert name in ALLOWED, where
            if name == "torch.load":
                assert ast.unparse(words["weights_only"]) == "True", where
            assert "shell" not in words, where


# --- terminals and pages ---------------------------------------------------------------------------


@pytest.fixture
def hostile_study(request: pytest.FixtureRequest) -> tuple[optuna.Study, FrozenTrial]:
    text = request.param
    study = create_or_resume(parse_config(CONFIG, "test"), optuna.storages.InMemoryStorage(), "cpu")
    study.optimize(evaluate, n_trials=7)
    texts = (keys.ORIGIN, keys.FORMULA, keys.HYPERPARAMETERS, keys.PRUNED_BY, keys.ERROR)
    trial = study.trials[6]
    trial.user_attrs = {**trial.user_attrs, **dict.fromkeys(texts, text)}
    trial.user_attrs[keys.RUNS] = [{**keys.ours(trial)[keys.RUNS][0], "task": text}]
    return study, trial


@pytest.mark.parametrize("hostile_study", HOSTILE, ids=lambda text: ascii(text[:20]), indirect=True)
def test_a_trial_in_words_is_printable_lines(hostile_study):
    study, trial = hostile_study
    lines = trial_lines(study, parse_config(CONFIG, "test"), trial)
    assert len(lines) >= 7
    assert all(line.isprintable() and len(line) < 2100 for line in lines)


@pytest.mark.parametrize("hostile_study", HOSTILE, ids=lambda text: ascii(text[:20]), indirect=True)
def test_a_running_search_shows_printable_text(hostile_study, monkeypatch):
    study, trial = hostile_study
    trial.state = optuna.trial.TrialState.FAIL
    best = study.trials[0]
    best.user_attrs = {**best.user_attrs, keys.FORMULA: keys.ours(trial)[keys.FORMULA]}
    progress = SearchProgress(study, parse_config(CONFIG, "test"))
    trials = [best, trial]
    monkeypatch.setattr(study, "get_trials", lambda deepcopy, states: trials)
    assert all(line.isprintable() for line in progress.lines())
    for column in progress.table().columns:
        assert all(str(cell).isprintable() for cell in column.cells)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:20]))
def test_a_note_is_text_whatever_the_names(text):
    run = a_run(0).__class__(**{**vars(a_run(0)), "task": text})
    runs = (run, run.__class__(**{**vars(run), "seed": 1}))
    result = Result(0, (Row(text, 0.5, runs), Row("trial 0", None, runs)))
    note = result_markdown(result)
    assert len(note.splitlines()) == 4
    assert len({line.count("|") for line in note.splitlines()}) == 1
    assert not set("<>`*[]_\\\x1b") & set(note)
    assert html.unescape(note).count(result_cells(result)[1][0]) >= 2  # a row's name and a column's


@pytest.mark.parametrize("text", ["```", "`" * 9, "~~~", "a ``` b", "", "````\n```"])
def test_nothing_leaves_its_fence(text):
    lines = fenced([text, "end"]).splitlines()
    fence = lines[0]
    assert set(fence) == {"`"}
    assert lines[-1] == fence
    assert not any(fence in line for line in lines[1:-1])


def test_the_commands_print_a_stored_name_as_text(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    texts = [text[:40] for text in HOSTILE if "\0" not in text and "\ud800" not in text]
    names = ["".join(texts[:7]), "".join(texts[7:])]
    storage = open_storage(url, create=True)
    for name in names:
        study = create_or_resume(parse_config({**CONFIG, "name": name}, "test"), storage, "cpu")
        study.optimize(evaluate, n_trials=1)
    given = ["--storage", url]
    assert command("status", *given)[0] == 0  # and every character of it is plain
    for name in names:
        assert command("show", "best", f"--study={name}", *given)[0] == 0
        command("export", "0", "--output", str(tmp_path / "e.py"), f"--study={name}", *given)
        assert skeleton((tmp_path / "e.py").read_text("utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir() if ".db" not in path.name) == ["e.py"]


def test_the_dashboard_is_seen_by_this_machine_alone():
    assert inspect.signature(cli.dashboard).parameters["host"].default == "127.0.0.1"


# --- data files ------------------------------------------------------------------------------------


def image_folder(root: Path) -> Path:
    for kind in ("a", "b"):
        (root / "train" / kind).mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / "train" / kind / "0.png")
    return root / "train"


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    return folders.read_folder(folder, (1, 8, 8), 2, folder.parent.parent / "cache", "do this")


def test_a_decoded_cache_runs_nothing(tmp_path):
    folder = image_folder(tmp_path / "set")
    read(folder)
    (kept,) = (tmp_path / "cache").iterdir()
    for save in (torch.save, lambda o, path: path.write_bytes(pickle.dumps(o))):
        save({"inputs": Payload(tmp_path / "pwned"), "targets": 1, "sha256": ""}, kept)
        assert read(folder)[0].shape == (2, 1, 8, 8)
        assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "change",
    [lambda x, y: (x.float(), y), lambda x, y: (x, y + 9), lambda x, y: (x, y[:1]), lambda x, y: (x, y - 1)],
)
def test_a_cache_of_another_kind_is_not_believed(change, tmp_path):
    folder = image_folder(tmp_path / "set")
    inputs, targets, _ = read(folder)
    (kept,) = (tmp_path / "cache").iterdir()
    folders._keep(kept, *change(inputs, targets))
    again = read(folder)
    assert again[0].dtype == torch.uint8
    assert again[1].tolist() == [0, 1]


def test_an_image_that_is_another_format_is_not_opened(tmp_path):
    folder = image_folder(tmp_path / "set")
    for name, kind in (("1.png", "EPS"), ("2.png", "TIFF")):
        Image.new("L", (8, 8)).save(folder / "a" / name, format=kind)
        with pytest.raises(UserError, match=r"can't be decoded as an image"):
            read(folder)
        (folder / "a" / name).unlink()


def test_a_decompression_bomb_is_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    folder = image_folder(tmp_path / "set")
    Image.new("L", (40, 40)).save(folder / "a" / "0.png")
    with pytest.raises(UserError, match="decompression bomb"):
        read(folder)


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "nowhere", "0.png"])
def test_a_link_shows_nothing_of_what_is_no_image(target, tmp_path):
    folder = image_folder(tmp_path / "set")
    (folder / "a" / "0.png").unlink()
    (folder / "a" / "0.png").symlink_to(target)
    with pytest.raises(UserError) as error:
        read(folder)
    assert "root:" not in str(error.value)
    assert data.check  # and a broken link is no traceback there either
    (tmp_path / "mnist").symlink_to(tmp_path / "set")
    if target == "nowhere":
        with pytest.raises(UserError, match="can't read the data of mnist"):
            data.check("mnist", tmp_path)


def test_a_small_file_cannot_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_MOST", 10**6)
    (tmp_path / "images.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + bytes(2 * 10**6)))
    with pytest.raises(UserError, match="too long"):
        idx.read_idx(tmp_path / "images", 3, "do this")


def test_cifars_pickles_are_opened_only_with_the_published_checksums(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10  # noqa: PLC0415

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"data": torch.zeros(2, 3072, dtype=torch.uint8).numpy(), "labels": [0, 1]}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]
    md5 = {}
    for name in names:
        content = pickle.dumps(batch if name != "batches.meta" else {"label_names": ["a", "b"]})
        (folder / name).write_bytes(content)
        md5[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5["batches.meta"]})
    assert len(sources.load_images("cifar10", tmp_path, "train")[0]) == 10
    for name in names:
        right = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "pwned")))
        for part in ("train", "test"):
            with pytest.raises(UserError, match="damaged"):
                sources.load_images("cifar10", tmp_path, part)
        assert not (tmp_path / "pwned").exists(), name
        (folder / name).write_bytes(right)


@pytest.fixture
def address() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on this machine."""
    servers = []

    def serve(folder: Path) -> str:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        handler.log_message = lambda *_: None  # type: ignore[attr-defined]
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_downloaded_archive_is_unpacked_only_with_the_published_checksum(tmp_path, monkeypatch, address):
    from torchvision import datasets  # noqa: PLC0415

    evil, root = tmp_path / "evil", tmp_path / "root"
    evil.mkdir()
    (evil / "x").write_text("x")
    with tarfile.open(evil / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(evil / "x", arcname="../pwned")
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address(evil)}/cifar-10-python.tar.gz")
    monkeypatch.setattr(data, "TEXT_URL", f"{address(evil)}/x")
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [f"{address(evil)}/"])
        for file, _ in kind.resources:
            (evil / file).write_bytes(gzip.compress(b"anything"))
    for name in ("mnist", "fashion_mnist", "cifar10", "char_lm"):
        with pytest.raises(UserError, match=r"can't download.*(corrupted|has changed)"):
            data.get(name, root)
    assert not [path for path in root.rglob("*") if path.is_file() and path.suffix != ".gz"]
    assert not list(tmp_path.rglob("pwned"))
