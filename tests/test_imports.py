"""The walls between the rooms: what each may import, what runs without torch or Optuna, and no circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import optevo
import optevo.optim
import optevo.samplers
import optevo.spaces
import optevo.tasks

PACKAGE = Path(optevo.__file__).parent
STUDY = """
import optuna
from optevo import keys
from optevo.samplers import GeneticSampler
from optevo.spaces import ModernSpace, TermSpace
optuna.logging.disable_default_handler()
for space in TermSpace(), ModernSpace(presets=("adamw", "muon")):
    presets = list(space.presets().values())
    sampler = GeneticSampler(population_size=8, space=space, presets=presets, seed=0)
    study = optuna.create_study(sampler=sampler)
    def objective(trial):
        genome = space.candidate(space.suggest(trial))
        assert genome.formula() and genome.canonical()
        return genome.lr
    study.optimize(objective, n_trials=30)
    assert max(keys.ours(t)[keys.GENERATION] for t in study.trials) == 5
"""
# Of what optevo requires, the optimizers need torch alone.
OPTIMIZER = """
import sys
others = ["optuna", "pandas", "pydantic", "typer", "rich", "sklearn", "scipy", "plotly", "torchvision"]
assert not set(others) & sys.modules.keys()
sys.modules.update(dict.fromkeys(others))
import torch
from optevo.optim import PRESETS, GenomeOptimizer, ReferenceOptimizer, Rule, WarmupCosine, export_source
p = torch.nn.Parameter(torch.ones(3))
optimizer, scheduler = PRESETS["evolved"].build([p], total_steps=10, compiled=False)
p.grad = torch.ones(3)
optimizer.step()
scheduler.step()
export_source(PRESETS["adamw"])
for name in others:
    del sys.modules[name]
"""
SCORED = """
from pathlib import Path
import optuna
from optevo.study.config import parse_config
from optevo import keys
from optevo.training.benches import make_worker_bench
from optevo.evaluation.objective import Objective
from optevo.study.studies import make_sampler
from optevo.tasks import TASKS, ScoredTask
optuna.logging.disable_default_handler()
class Stub(ScoredTask):
    name = "stub"
    def score(self, candidate, seed, steps):
        return candidate.lr
TASKS["stub"] = Stub
sampler = {"kind": "genetic", "population_size": 6, "n_generations": 3, "n_elites": 1}
evaluation = {"tasks": ["stub"], "gate": False}
config = parse_config({"name": "scored", "sampler": sampler, "evaluation": evaluation}, "this test")
study = optuna.create_study(sampler=make_sampler(config), direction="maximize")
study.optimize(Objective(make_worker_bench(config, "auto", Path()), config.make_space()), n_trials=16)
assert {keys.ours(t)[keys.GENERATION] for t in study.trials} == {0, 1, 2}
"""
REPORTING = """
from optevo.reporting import ablation, comparison, frames, statistics
from optevo.reporting.page import report
"""
EVALUATION = """
from optevo.evaluation import archive, candidate_runs, curve, racing
from optevo.measurement import fresh_seeds
"""
TRAINING = """
from pathlib import Path
import optevo.training.bench, optevo.training.stacked
from optevo.optim import PRESETS
from optevo.tasks import get_task
from optevo.training.single import train
task = get_task("digits")
assert train(task, task.load(Path()), PRESETS["adam"], seed=0, steps=2).metric is not None
"""
TASK = """
import torch
import optevo.tasks, optevo.tasks.data
tasks = {name: optevo.tasks.get_task(name) for name in optevo.tasks.TASKS}
tasks["digits"].model(torch.Generator().manual_seed(0))
"""
HELP = """
import sys
from optevo.cli.main import main
sys.argv = ["optevo", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
#: What takes a tenth of a second to import, or more.
HEAVY = (
    *("torch", "torchvision", "optuna", "sqlalchemy", "alembic", "numpy", "pandas", "scipy", "sklearn"),
    *("plotly", "pydantic", "distributed", "grpc", "IPython", "matplotlib"),
)
#: What must run without which modules. Steps of one process: what one may not import, none before it does.
STEPS = {
    "torch without Optuna": [
        ("import optevo", HEAVY),
        (
            "import optevo.optim.terms.genome, optevo.optim.graphs.genome, optevo.optim.graphs.graph\n"
            "from optevo.optim import PRESETS, Equation, GraphGenome, UpdateGraph",
            ("torch", "optuna", "numpy"),
        ),
        ("import optevo.optim.graphs.decays", ("torch", "optuna", "numpy", "scipy")),
        ("import optevo.tasks", ("torch", "optuna")),
        (OPTIMIZER, ("optuna",)),
        (TASK, ("optuna", "torchvision")),
        (TRAINING, ("optuna",)),
        ("import optevo.run", ("pandas", "distributed", "grpc")),
    ],
    "Optuna without torch": [
        (HELP, HEAVY),
        ("import optevo.samplers", ("torch", "pydantic")),
        ("import optevo.spaces", ("torch", "pydantic")),
        ("import optevo.reporting", ("torch", "plotly")),
        (STUDY, ("torch",)),
        (
            "import optevo.cli.main, optevo.storage.opening, optevo.study.studies, optevo.liveness.status",
            ("torch", "distributed", "grpc"),
        ),
        ("import optevo.workers.worker", ("torch",)),
        (EVALUATION, ("torch",)),
        (SCORED, ("torch",)),
        (REPORTING, ("torch",)),
    ],
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
def test_it_runs_without(steps: list[tuple[str, tuple[str, ...]]]):
    check = "; assert not (found := sorted(set({!r}) & sys.modules.keys())), (found, {!r})"
    code = "\n".join(f"exec({code!r}, {{}})" + check.format(without, code) for code, without in steps)
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


#: What each room may import of optevo; `errors`, `keys`, `escaping` and the like stand outside all rooms.
WALLS = {
    "errors": set(),
    "keys": set(),
    "escaping": set(),
    "files": {"errors"},
    "lazy": {"errors", "naming"},
    "naming": set(),
    "scalars": set(),
    "optuna_private": {"keys"},
    "optim": {"errors", "lazy", "naming", "scalars"},
    "tasks": {"errors", "escaping", "lazy", "naming"},
    "spaces": {"errors", "lazy", "naming", "optim"},
    "samplers": {"keys", "lazy", "naming", "optuna_private", "scalars", "spaces"},
    "liveness": {"keys", "optuna_private"},
    "study": {
        *("errors", "keys", "escaping", "files", "lazy", "naming", "optuna_private"),
        *("optim", "tasks", "spaces", "samplers"),
        "liveness",
    },
    "training": {"errors", "optim", "tasks"},
    "evaluation": {
        *("errors", "keys", "optuna_private", "optim", "training", "samplers", "spaces", "liveness")
    },
    "measurement": {"errors", "keys", "escaping", "study", "training", "liveness", "optim"},
    "storage": {"errors", "keys", "escaping", "files", "naming", "optuna_private", "study", "liveness"},
    "workers": {
        "live",
        *("errors", "keys", "optuna_private", "evaluation", "training", "study", "samplers", "storage"),
        "liveness",
    },
    "reporting": {
        "errors",
        "live",
        "optuna_private",
        "keys",
        "lazy",
        "files",
        "escaping",
        "naming",
        "measurement",
        "training",
        "study",
        "samplers",
    },
    "run": {
        "errors",
        "escaping",
        "tasks",
        "study",
        "training",
        "measurement",
        "storage",
        "workers",
        "reporting",
    },
    "api": {
        *("errors", "keys", "escaping", "files", "live", "naming", "tasks", "study", "training"),
        *("measurement", "storage", "workers", "reporting", "run"),
    },
    "live": {"escaping"},
    "cli": {
        *("live", "api"),
        *("errors", "keys", "escaping", "files", "tasks", "samplers", "liveness", "study", "training"),
        *("naming", "measurement", "storage", "workers", "reporting", "run", "optim", "scalars"),
    },
    "__main__": {"cli"},
    "__init__": {"lazy"},
}
#: What they may name for type checkers besides.
FOR_TYPES = {
    "__init__": {"api", "errors", "optim", "samplers", "spaces"},
    "training": {"study"},
    "evaluation": {"study"},
    "api": {"optim"},
    "reporting": {"optim"},
}
NEVER = [("optim", "optuna"), ("tasks", "optuna"), ("training", "optuna"), ("samplers", "torch")]
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: Path) -> str:
    first, *rest = module.relative_to(PACKAGE).parts
    return first if rest else module.stem


def imports(module: Path) -> Iterator[tuple[str, bool, bool]]:
    """What a module imports anywhere: full name, whether only for types, whether as it is imported."""
    tree = ast.parse(module.read_text("utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    for_types = {inner for guard in guards for inner in ast.walk(guard)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node in for_types, node.col_offset == 0) for name in names)


def target(name: str) -> str | None:
    """What a module imports anywhere: full name, if only for types, if as it is imported itself."""
    parts = name.split(".")
    if parts[0] != "optevo" or len(parts) < 2 or parts[1].startswith("__"):
        return None
    return parts[1]


def test_the_table_of_walls_has_every_room():
    assert WALLS.keys() == {room(module) for module in MODULES}


@pytest.mark.parametrize("name", WALLS)
def test_a_room_imports_what_its_walls_let_through(name):
    allowed = {False: WALLS[name] | {name}, True: WALLS[name] | FOR_TYPES.get(name, set()) | {name}}
    for module in MODULES:
        if room(module) != name:
            continue
        for full, for_types, _ in imports(module):
            to = target(full)
            assert to is None or to in allowed[for_types], f"{module.relative_to(PACKAGE)} imports {full}"


@pytest.mark.parametrize(("name", "library"), NEVER)
def test_a_room_never_names_the_library_behind_the_wall(name, library):
    for module in MODULES:
        named = [full for full, *_ in imports(module) if full.split(".")[0] == library]
        assert room(module) != name or not named, f"{module.relative_to(PACKAGE)}: {named}"


def circle(edges: dict[str, set[str]]) -> list[str] | None:
    """A way along edges that comes back to where it began, if there is one."""
    done: set[str] = set()

    def follow(node: str, way: list[str]) -> list[str] | None:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return None
        for other in sorted(edges.get(node, ())):
            if found := follow(other, [*way, node]):
                return found
        done.add(node)
        return None

    return next(filter(None, (follow(node, []) for node in sorted(edges))), None)


def test_no_rooms_import_one_another_in_a_circle():
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        found = {target(name) for name, for_types, _ in imports(module) if not for_types}
        edges.setdefault(room(module), set()).update({to for to in found if to} - {room(module)})
    assert circle(edges) is None


def test_no_modules_import_one_another_in_a_circle():
    named = {".".join(["optevo", *m.relative_to(PACKAGE).with_suffix("").parts]): m for m in MODULES}
    known = {name.removesuffix(".__init__"): name for name in named}
    edges: dict[str, set[str]] = {}
    for name, module in named.items():
        edges[name] = set()
        for full, for_types, at_once in imports(module):
            if at_once and not for_types:
                home = full if full in known else full.rpartition(".")[0]
                edges[name] |= {known[home]} & named.keys() if home in known else set()
    assert circle(edges) is None


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_optunas_private_members_are_used_in_one_module():
    private = re.compile(r"\._(storage|trial_id|study_id|thread_local|contains|validate)\b|optuna\.\S*\._")
    users = [m.relative_to(PACKAGE).as_posix() for m in MODULES if private.search(m.read_text("utf-8"))]
    assert set(users) <= {"optuna_private.py", "storage/optuna_rdb.py", "storage/proxy.py"}


@pytest.mark.parametrize(
    "package",
    [optevo, optevo.optim, optevo.samplers, optevo.spaces, optevo.tasks],
    ids=lambda one: one.__name__,
)
def test_a_package_lists_the_names_that_it_imports_on_first_use(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = package.nothing_of_this_name


def test_the_house_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    long = [m for m in MODULES if m.read_text("utf-8").count("\n") > 400]
    assert long == []


def test_shared_code_asks_no_candidate_space_or_sampler_what_it_is():
    asks = re.compile(r"isinstance\([a-z_.]*(candidate|space|sampler)")
    own = ("optim", "spaces", "samplers")
    found = [m for m in MODULES if room(m) not in own and asks.search(m.read_text("utf-8"))]
    assert found == []
