"""The exported file: the same optimizer to the last bit, torch alone, and no string in it becomes code."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from strategies import genome, random_genome
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from optevo.optim import TermGenome, export_source
from optevo.optim.terms.presets import PRESETS

GENOMES: dict[str, TermGenome] = {
    **PRESETS,
    "clipped": genome("GRAD", "RMS_NORM", gradient_clipping=True, clip_value=0.3),
    "unit": genome("UNIT_GRAD", lr=1e-3),
    "nesterov": genome("NESTEROV", bias_correction=True, warmup=True, warmup_steps=5),
    "adam without v": genome("ADAM_TERM", use_second_moment=False, bias_correction=True, eps=1e-4),
    "rms corrected": genome("RMS_NORM", use_momentum=False, bias_correction=True, cosine_decay=True),
    "all six": genome("GRAD", "ADAM_TERM", "SIGN_GRAD", "UNIT_GRAD", alphas=(0.1, -0.2, 0.3, -0.4)),
    "nothing": genome("GRAD", "GRAD", alphas=(1.0, -1.0)),
    "no moment": random_genome(7, use_momentum=False, use_second_moment=False),
    **{f"random {seed}": random_genome(seed) for seed in range(15)},
}
every_genome = pytest.mark.parametrize("g", GENOMES.values(), ids=GENOMES)
STEPS = 12
_count = itertools.count()


def load(source: str, folder: Path) -> ModuleType:
    """Imports the source as a user would: from a file of its own."""
    path = folder / f"exported_{next(_count)}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in ((3, 5), (7,), ())
    ]


def feed(params: list[nn.Parameter], step: int) -> None:
    """Gradients over five magnitudes with zeros in them; the second parameter misses every third step."""
    rng = torch.Generator().manual_seed(step)
    for i, p in enumerate(params):
        magnitude = 10 ** (4 * torch.rand(p.shape, generator=rng, dtype=torch.float64) - 3)
        sign = torch.randint(-1, 2, p.shape, generator=rng)
        p.grad = None if i == 1 and step % 3 == 1 else (magnitude * sign).to(p)


def trajectory(
    make: tuple[torch.optim.Optimizer, LRScheduler], params: list[nn.Parameter]
) -> list[list[torch.Tensor]]:
    optimizer, scheduler = make
    seen = []
    for step in range(STEPS):
        feed(params, step)
        optimizer.step()
        scheduler.step()
        seen.append([p.detach().clone() for p in params])
    return seen


def built(module: ModuleType, params: list[nn.Parameter], **kwargs):
    optimizer = module.Evolved(params, **kwargs)
    return optimizer, module.scheduler(optimizer, STEPS)


# --- the same optimizer ---------------------------------------------------------------------------


@every_genome
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_exported_optimizer_equals_the_genomes_to_the_last_bit(g, dtype, maximize, tmp_path):
    module = load(export_source(g), tmp_path)
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = g.optimizer(ours, compiled=False, maximize=maximize)
    mine = trajectory((optimizer, g.scheduler(optimizer, STEPS)), ours)
    exported = trajectory(built(module, theirs, maximize=maximize), theirs)
    for step, (a, b) in enumerate(zip(mine, exported, strict=True)):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)), f"step {step}"


@pytest.mark.parametrize("name", ["evolved", "adamw", "clipped", "nesterov"])
def test_an_exported_optimizer_obeys_its_groups_as_the_genomes_does(name, tmp_path):
    g = GENOMES[name]
    module = load(export_source(g), tmp_path)
    seen = []
    for make in (module.Evolved, lambda groups: g.optimizer(groups, compiled=False)):
        params = parameters(torch.float64)
        optimizer = make([{"params": params[:1], "lr": 0.02}, {"params": params[1:], "weight_decay": 0.3}])
        seen.append(trajectory((optimizer, g.scheduler(optimizer, STEPS)), params)[-1])
    assert all(torch.equal(x, y) for x, y in zip(*seen, strict=True))


def test_an_exported_adamw_is_torchs(tmp_path):
    module = load(export_source(PRESETS["adamw"]), tmp_path)
    ours, theirs = parameters(torch.float64), parameters(torch.float64)
    mine = trajectory(built(module, ours), ours)[-1]
    adamw = torch.optim.AdamW(theirs, lr=1e-3, weight_decay=1e-2)
    torchs = trajectory((adamw, torch.optim.lr_scheduler.LambdaLR(adamw, lambda t: 1.0)), theirs)[-1]
    for a, b in zip(mine, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


@every_genome
def test_the_exported_defaults_are_the_genomes(g, tmp_path):
    signature = inspect.signature(load(export_source(g), tmp_path).Evolved)
    names = list(signature.parameters)
    assert names[:2] == ["params", "lr"]
    assert signature.parameters["lr"].default == g.lr
    assert signature.parameters["weight_decay"].default == g.weight_decay
    assert signature.parameters["maximize"].default is False
    assert signature.parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY


def test_an_export_is_the_same_text_every_time():
    g = PRESETS["evolved"]
    assert export_source(g, provenance={"study": "a"}) == export_source(g, provenance={"study": "a"})


# --- a torch optimizer of its own -----------------------------------------------------------------


@every_genome
def test_an_exported_optimizer_keeps_only_what_the_rule_reads(g, tmp_path):
    params = parameters(torch.float32)
    optimizer, _ = built(load(export_source(g), tmp_path), params)
    for step in (0, 2, 3):
        feed(params, step)
        optimizer.step()
    rule = g.rule()
    tensors = sum(t.numel() == params[0].numel() for t in optimizer.state[params[0]].values())
    assert tensors == rule.reads_m + rule.reads_v


# --- a file of its own ----------------------------------------------------------------------------


@every_genome
def test_an_exported_file_imports_torch_and_the_standard_library_alone(g):
    imported = set()
    for node in ast.walk(ast.parse(export_source(g, provenance={"study": "s"}))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    assert "torch" in imported
    assert imported - {"torch"} <= set(sys.stdlib_module_names)


def run_main(source: str) -> None:
    """Runs the source as a script would, without a new process."""
    exec(compile(source, "evolved.py", "exec"), {"__name__": "__main__"})


@every_genome
def test_an_exported_file_checks_itself_and_says_so(g, capsys):
    run_main(export_source(g, provenance={"study": "s"}))
    assert capsys.readouterr().out.strip()


def test_an_exported_file_is_a_script_that_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evolved.py"
    path.write_text(export_source(PRESETS["evolved"], provenance={HOSTILE[0]: HOSTILE[0]}), encoding="utf-8")
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert {path.name for path in tmp_path.iterdir()} == {"evolved.py"}


@pytest.mark.parametrize("gene", ["lr", "weight_decay", "beta1", "beta2"])
def test_a_spoilt_file_fails_its_own_check(gene):
    g = PRESETS["evolved"]
    source = export_source(g)
    right = repr(getattr(g, gene))
    assert right in source
    with pytest.raises(AssertionError):
        run_main(source.replace(right, repr(getattr(g, gene) * 0.99)))


def test_importing_an_exported_file_prints_nothing(tmp_path, capsys):
    load(export_source(PRESETS["evolved"]), tmp_path)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@every_genome
def test_the_class_is_documented_by_its_formula(g, tmp_path):
    module = load(export_source(g), tmp_path)
    assert g.formula() in module.Evolved.__doc__
    assert g.formula() in module.__doc__


def test_an_exported_file_is_readable():
    source = export_source(PRESETS["evolved"], provenance={"study": "s"})
    assert source.endswith("\n")
    assert not source.endswith("\n\n")
    assert max(map(len, source.splitlines())) <= 110
    assert "\t" not in source
    assert not any(line != line.rstrip() for line in source.splitlines())


def test_no_mark_of_the_template_is_left_in_the_file():
    for g in GENOMES.values():
        source = export_source(g, provenance={"study": "s"})
        assert not re.search(r"@[A-Z_]+@|^\|", source.replace("|g|", ""), re.MULTILINE)


# --- provenance and names -------------------------------------------------------------------------

HOSTILE = [
    '"""\nimport os; os.system("touch pwned")\n"""',
    "'''\nimport os; os.system('touch pwned')\n'''",
    'x"""; open("pwned", "w"); """',
    "\\",
    'ends in a quote"',
    "ends in a backslash\\",
    "\\N{DOUBLE}\\x41\\u0041",
    "{__import__('os').system('touch pwned')}",
    "%s %(x)s {0} {x!r} $x",
    "@NAME@ @FORMULA@ @PROVENANCE@",
    "a\rimport os\rb",
    "a\x0cb\x0bc",
    "line\u2028separator\u2029\x85",
    "nul\x00byte",
    "\ud800 lone surrogate",
    "# coding: utf-7\n+AG8-",
    "\u202e right to left",
    "",
]


def skeleton(source: str) -> str:
    """The file's syntax with every string constant emptied."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_provenance_never_becomes_code(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    g = PRESETS["evolved"]
    plain = skeleton(export_source(g, provenance={"study": "s", "trial": "t"}))
    for provenance in ({"study": text, "trial": "t"}, {"study": "s", text: "t"}):
        source = export_source(g, provenance=provenance)
        assert skeleton(source) == plain
        module = load(source, tmp_path)
        assert module.Evolved.__doc__
        assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_provenance_comes_back_as_it_went_in(text, tmp_path):
    provenance = {"study": text, text: "trial 117"}
    assert provenance == load(export_source(PRESETS["adamw"], provenance=provenance), tmp_path).PROVENANCE


def test_the_class_takes_the_name_it_is_given(tmp_path):
    module = load(export_source(PRESETS["evolved"], class_name="Darwin"), tmp_path)
    assert issubclass(module.Darwin, torch.optim.Optimizer)
    assert not hasattr(module, "Evolved")


@pytest.mark.parametrize("name", ["", "1st", "a b", "class", "None", "A(object): pass\nimport os\nclass B"])
def test_a_class_name_that_is_no_identifier_is_refused(name):
    with pytest.raises(ValueError, match="class_name"):
        export_source(PRESETS["evolved"], class_name=name)


@pytest.mark.parametrize(
    "name",
    [
        *["torch", "math", "Optimizer", "LambdaLR", "Schedule", "scheduler", "annotations", "__name__"],
        *["float", "int", "min", "print", "super", "zip", "RuntimeError", "ValueError"],
        *["match", "Évolué", "_Evolved"],
    ],
)
def test_a_class_name_is_refused_or_gives_a_working_file(name, tmp_path):
    g = genome("ADAM_TERM", bias_correction=True, cosine_decay=True)
    try:
        source = export_source(g, class_name=name)
    except ValueError as error:
        assert "class_name" in str(error)  # noqa: PT017  either outcome is right
        return
    module = load(source, tmp_path)
    params = parameters(torch.float64)
    optimizer = getattr(module, name)(params)
    trajectory((optimizer, module.scheduler(optimizer, STEPS)), params)
    # As __main__, for the self-check's own names.
    run_main(source)
    with pytest.raises(ValueError, match="Invalid learning rate"):
        getattr(module, name)(params, lr=-1.0)
    params[0].grad = torch.ones(3, 5).double().to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
