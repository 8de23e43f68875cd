"""The exported file of a genome of the modern catalogue: the same optimizer, torch alone, and readable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from contract import assert_close, feed, imported, parameters, through_a_file, values
from modern_optimizers import MODERN, modern
from torch import nn

from optevo.optim.terms.modern import ModernGenome, SecondRule
from optevo.optim.terms.modern_export import export_modern
from optevo.optim.terms.modern_presets import MODERN_PRESETS
from optevo.optim.terms.reference import ModernReference
from optevo.spaces import ModernSpace

SPACE = ModernSpace()
DRAWN = [SPACE.candidate(SPACE.sample(np.random.default_rng(seed))) for seed in range(15)]
VECTORS = SecondRule(kinds=("hidden", "vector"), terms=("ORTHO",), alphas=(-0.5,), beta1=0.5)
GENOMES = {
    **MODERN,
    "vectors of a second rule": modern("LION", "ORTHO", second=VECTORS, use_second_moment=False),
    "no momentum": modern("ORTHO", "LION", "SLOW", use_momentum=False, cautious=True),
    "nothing": modern("ADAM_TERM", "ADAM_TERM", alphas=(1.0, -1.0), cautious=True, weight_decay=0.1),
    **{f"drawn {seed}": genome for seed, genome in enumerate(DRAWN)},
}
every_genome = pytest.mark.parametrize("name", GENOMES)
SHAPES = ((3, 2, 2, 2), (3,), (4, 3), (3, 4), (2, 3, 2), (2, 4), (), (3, 4))


def groups(params: list[nn.Parameter]) -> list[dict[str, object]]:
    """All by shape and position, but for a matrix that is said to be a vector and one that is a head."""
    return [
        {"params": params[:6]},
        {"params": params[6:7], "lr": 0.02, "kind": "head"},
        {"params": params[7:], "kind": "vector", "weight_decay": 0.3},
    ]


def trained(make, steps: int = 6) -> list[torch.Tensor]:
    params = parameters(*SHAPES)
    optimizer, scheduler = make(groups(params))
    for step in range(steps):
        feed(params, step)
        if step == 2:
            params[2].grad = None
        optimizer.step()
        scheduler.step()
    return values(params)


def module_of(name: str, genome: ModernGenome) -> ModuleType:
    return imported(f"modern_{name.replace(' ', '_')}", genome)


@every_genome
def test_library_exported_file_and_reference_are_one_optimizer(name: str):
    genome, module = GENOMES[name], module_of(name, GENOMES[name])
    ours = trained(lambda params: genome.build(params, 10, compiled=False))

    def exported(params):
        optimizer = module.Evolved(params)
        return optimizer, module.scheduler(optimizer, 10)

    def reference(params):
        optimizer = ModernReference(params, genome)
        return optimizer, genome.scheduler(optimizer, 10)

    assert all(value.isfinite().all() for value in ours)
    assert_close(trained(exported), ours, rtol=1e-9, atol=1e-12)
    assert_close(trained(reference), ours, rtol=1e-9, atol=1e-12)


@every_genome
def test_the_file_checks_itself(name: str):
    module_of(name, GENOMES[name]).self_check()


@pytest.mark.slow
def test_the_file_is_a_program_that_finds_a_changed_number(tmp_path: Path):
    source, path = MODERN["all"].source("Evolved", {}), tmp_path / "evolved.py"
    path.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "Evolved: the update equals the recorded one\n"
    names = {"__name__": "changed"}
    exec(source.replace("0.2 * math", "0.3 * math"), names)
    with pytest.raises(AssertionError, match="not close"):
        names["self_check"]()


def test_it_imports_torch_and_the_standard_library_alone_and_at_the_top():
    for genome in MODERN.values():
        tree = ast.parse(genome.source("Evolved", {}))
        nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {getattr(node, "module", None) or node.names[0].name for node in nodes}
        assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "torch"}
        body = [type(node) in (ast.Import, ast.ImportFrom) for node in tree.body[1:]]
        assert len(nodes) == sum(body) == body.index(False)


def test_a_checkpoint_brings_kinds_along():
    module = module_of("all", MODERN["all"])
    params, again = parameters(*SHAPES), parameters(*SHAPES)
    optimizer = module.Evolved(groups(params))
    feed(params, 0)
    optimizer.step()
    other = module.Evolved([{"params": again[:6]}, {"params": again[6:7]}, {"params": again[7:]}])
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    kinds = ["convolution", "vector", "hidden", "hidden", "convolution", "head"]
    assert [group["kinds"] for group in other.param_groups] == [kinds, ["vector"], ["vector"]]
    state = optimizer.state_dict()
    state["param_groups"][0]["kinds"][0] = "conv"
    with pytest.raises(ValueError, match="Invalid kind: 'conv'"):
        other.load_state_dict(state)


def test_an_unknown_kind_is_refused():
    module = module_of("all", MODERN["all"])
    with pytest.raises(ValueError, match="Invalid kind: 'heads'"):
        module.Evolved([{"params": parameters(), "kind": "heads"}])


@pytest.mark.parametrize("name", ["orthogonalise", "ShareSchedule", "KINDS", "class", "a b", "torch"])
def test_names_that_the_file_needs_are_refused(name: str):
    with pytest.raises(ValueError, match="Invalid class_name"):
        export_modern(MODERN["ortho"], class_name=name)


def test_the_text_says_what_each_kind_gets():
    for genome in (*MODERN_PRESETS.values(), *GENOMES.values()):
        text = genome.source("Evolved", {"study": "a study"})
        assert not re.search(r"@[A-Z_]+@|^\|[a-z]+\|", text, re.MULTILINE)
    text = MODERN["all"].source("Evolved", {})
    assert "convolution, hidden: Δ = cautious(1·s/(√v̂ + 1e-08) + 1·orth(0.1·g + 0.9·m))" in text
    assert "head, vector: Δ = cautious(1·sign(0.9·m + 0.1·g))" in text
    assert "orthogonalise" not in MODERN["fused"].source("Evolved", {})
