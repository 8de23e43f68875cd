"""A new term of update rules: the gradient's cube root, g^(1/3).

A term is one `Basis`: how a formula writes it, its value for one tensor, the same for lists of tensors, and
the line of an exported file. Formula, compiled update, gate and export follow. A search uses it where its
study file names it, so that other studies stay as they were. The study::

    name = "new_term"
    space = { terms = ["new_term:CUBE_ROOT"], presets = ["sgd", "adam"] }
    sampler = { kind = "genetic", population_size = 8, n_generations = 2, n_elites = 1 }
    evaluation = { tasks = ["digits"], steps = 60, seeds = [0] }
    rerun = { candidates = 1, seeds = 2 }
"""

import torch

from optevo.optim.terms.table import Basis

CUBE_ROOT = Basis(
    name="cube_root",
    symbol="∛g",
    value=lambda x: x.g.sign() * x.g.abs().pow(1 / 3),
    foreach=lambda t, rate: t.subtract_quotient(
        t.sign, torch._foreach_pow(torch._foreach_abs(t.grads), -1 / 3), rate
    ),
    source="torch._foreach_add_(params, [g.sign() * g.abs().pow(1 / 3) for g in grads], alpha=-({rate}))",
)
