"""Every optimizer of the library and every exported file keeps the contract of torch.optim.Optimizer."""

from __future__ import annotations

import pickle
from typing import ClassVar

import pytest
import torch
from contract import LIBRARYS, Subject, exported_baselines, exported_genomes, parameters, run
from contract_state import State
from contract_updates import Updates
from graph_optimizers import GRAPH_LIBRARYS, exported_graphs
from modern_optimizers import MODERN_LIBRARYS, exported_moderns
from torch.optim.lr_scheduler import LambdaLR

from optevo.optim import CautiousOrthoConvAdamW, Evolved, EvolvedModern
from optevo.optim.terms.presets import PRESETS


class TestGenomes(Updates, State):
    """`GenomeOptimizer`."""

    subjects = LIBRARYS


class TestGraphs(Updates, State):
    """`GraphOptimizer`."""

    subjects = GRAPH_LIBRARYS


class TestModern(Updates, State):
    """`ModernOptimizer`."""

    subjects = MODERN_LIBRARYS


@pytest.mark.slow
class TestClasses(Updates, State):
    """The classes with a schedule of their own; tests/optim/test_classes.py has what is tried by default."""

    subjects: ClassVar = {
        made.__name__: Subject(made, made([torch.nn.Parameter(torch.ones(1))]).defaults["lr"], optional=True)
        for made in (Evolved, EvolvedModern, CautiousOrthoConvAdamW)
    }


class Exported(Updates, State):
    """And what an exported file has besides its class."""

    def test_its_schedule_pickles(self, subject: Subject) -> None:
        """With the optimizer, as spawned workers and whole checkpoints need it (transformers#10880)."""
        params = parameters()
        optimizer = subject.make(params)
        schedule = subject.module.scheduler(optimizer, 20)
        assert isinstance(schedule, LambdaLR)
        run(optimizer, params, 1)
        schedule.step()
        again = pickle.loads(pickle.dumps(schedule))
        assert again.get_last_lr() == schedule.get_last_lr()
        assert [again.lr_lambdas[0](t) for t in range(25)] == [schedule.lr_lambdas[0](t) for t in range(25)]

    @pytest.mark.parametrize("steps", [0, -1, float("nan"), float("inf"), "ten", None])
    def test_a_length_that_is_none_is_refused(self, subject: Subject, steps: object) -> None:
        with pytest.raises((ValueError, TypeError)):
            subject.module.scheduler(subject.make(parameters()), steps)


class TestExportedGenomes(Exported):
    """Files of genomes, each preset among them."""

    subjects = exported_genomes(*PRESETS, "clipped", "adam without v")


class TestExportedGraphs(Exported):
    """Files of equations."""

    subjects = exported_graphs("a5", "remembers")


class TestExportedModern(Exported):
    """The file of a genome of the modern catalogue with two rules."""

    subjects = exported_moderns("all")


class TestExportedBaselines(Exported):
    """Files of tuned baselines."""

    subjects = exported_baselines()
